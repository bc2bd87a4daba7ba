"""What is told of a change beforehand, against what the real applier then does."""

import os
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from remote.bundle import (
    Absent,
    Bundle,
    Check,
    Command,
    Directory,
    File,
    Group,
    Guard,
    Link,
    Package,
    Part,
    Unit,
    User,
    Validate,
    Withdrawal,
)
from remote.effects import Deed, Effects, PackageChange, ToUnit, effects, sealed, unknown
from remote.reading import read
from tests.unit.remote.machine import Machine
from tests.unit.remote.test_bundle import WHOLE

pytestmark = pytest.mark.slow

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
PATHS, PACKAGES = ("/etc/a", "/etc/b"), ("pone", "ptwo")
#: Runs before anything is applied; the bundles leave it to itself.
SITES_OWN = "site.service"
UNITS = ("one.service", "two.service", SITES_OWN)
#: Of another role of the machine, which was applied before.
OTHERS_UNIT = "others.service"
OTHER = Bundle("cn01", "other", [Unit(OTHERS_UNIT)])


@st.composite
def bundles(draw: st.DrawFn) -> Bundle:
    """A role of few parts, so that two of them have much in common."""
    parts: list[Part] = [
        File(
            path,
            draw(st.sampled_from(["x\n", "y\n"])),
            mode=draw(st.sampled_from(["0644", "0600"])),
        )
        for path in draw(st.sets(st.sampled_from(PATHS)))
    ]
    parts += [
        Package(name, draw(st.sampled_from([None, "1.0", "2.0"])))
        for name in draw(st.sets(st.sampled_from(PACKAGES)))
    ]
    triggers = [part.key for part in parts]
    on = st.sets(st.sampled_from(triggers) if triggers else st.nothing()).map(
        lambda chosen: tuple(sorted(chosen))
    )
    parts += [
        Command(name, draw(st.sampled_from(["true", "true # another text"])), draw(on))
        for name in draw(st.sets(st.sampled_from(["c1", "c2"])))
    ]
    parts += [
        Unit(
            name,
            running=None if name == SITES_OWN else draw(st.booleans()),
            restart_on=draw(on),
            reload_on=draw(on),
            reload=draw(st.sampled_from([None, "true"])),
            restart_keys=tuple(draw(st.sets(st.sampled_from(["K=1", "K=2", "L=1"])))),
            drain_on=draw(on),
            drain_keys=tuple(draw(st.sets(st.sampled_from(["D=1", "D=2"])))),
        )
        for name in sorted(draw(st.sets(st.sampled_from(UNITS))))
    ]
    if draw(st.booleans()):
        of_others = draw(st.sampled_from([OTHERS_UNIT, "nowhere.service"]))
        chosen = draw(on)
        parts.append(Withdrawal("out", "true", on=chosen, unit=of_others if chosen else None))
    return Bundle("cn01", "demo", parts)


def machine_in(folder: str) -> Machine:
    machine = Machine(Path(folder) / "root", Path(folder) / "standin")
    offers = {name: {"versions": ["2.0", "1.0"]} for name in PACKAGES}
    units = {name: {"active": "inactive", "enabled": "disabled"} for name in (*UNITS, OTHERS_UNIT)}
    units[SITES_OWN]["active"] = "active"
    machine.system({"lists": offers, "units": units, "packages": {}})
    return machine


def done(actions: tuple[str, ...]) -> set[tuple[str, str]]:
    """(unit, what was done to it) of an answer."""
    found = (re.fullmatch(r"(started|reloaded|restarted|stopped) (\S+)", it) for it in actions)
    return {(match[2], match[1]) for match in found if match}


#: The applier on a machine of its own takes a third of a second each time.
EXAMPLES = 15


def demo(*parts: Part) -> Bundle:
    return Bundle("cn01", "demo", parts)


@as_root
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(old=bundles(), new=bundles())
@example(
    demo(),
    demo(
        File("/etc/a", "x\n"),
        Unit(SITES_OWN, running=None, reload_on=("/etc/a",), restart_keys=("K=1",)),
    ),
)
@example(
    demo(File("/etc/a", "x\n"), Unit("one.service", reload_on=("/etc/a",), reload="true")),
    demo(
        File("/etc/a", "y\n"),
        Unit("one.service", reload_on=("/etc/a",), reload="true", restart_keys=("K=1",)),
    ),
)
@example(
    demo(Package("pone", "1.0"), Unit("one.service")),
    demo(
        Package("pone", "2.0"),
        Unit(
            "one.service",
            restart_on=("package:pone",),
            reload_on=("package:pone",),
            reload="true",
        ),
    ),
)
@example(
    demo(Package("pone"), Unit("one.service")),
    demo(Package("pone"), Unit("one.service", restart_on=("package:pone",))),
)
@example(
    demo(Package("pone"), Unit("one.service", restart_on=("package:pone",))),
    demo(Package("pone", "1.0"), Unit("one.service", restart_on=("package:pone",))),
)
def test_what_is_told_is_what_the_applier_does(old: Bundle, new: Bundle) -> None:
    with tempfile.TemporaryDirectory() as folder:
        machine = machine_in(folder)
        assert machine.apply(OTHER.render()).status == 0
        before = machine.apply(old.render()).answer
        told = effects(old, new, before.packages, at_work={OTHERS_UNIT})
        after = machine.apply(new.render()).answer
        sure = {(it.unit, it.deed.value) for it in told.units if it.sure}
        assert sure <= done(after.actions) <= {(it.unit, it.deed.value) for it in told.units}
        out = [it.removeprefix("withdrew for ") for it in after.actions if "withdrew" in it]
        keys = {word.partition("=")[0] for it in out for word in it.split()}
        assert {it.removeprefix("drain-key ") for it in told.withdrawn_for} == keys
        assert sorted(run.command.name for run in told.commands) == sorted(after.commands)
        assert {it.path for it in told.paths} == {
            action.split()[1]
            for action in after.actions
            if action.startswith(("wrote ", "removed ", "restored "))
        }
        installed = [it for it in after.actions if it.startswith("installed ")]
        assert {it.name for it in told.packages} == {
            spec.split("=")[0] for action in installed for spec in action.split()[1:]
        }


@as_root
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(bundle=bundles())
def test_a_role_that_comes_and_goes(bundle: Bundle) -> None:
    with tempfile.TemporaryDirectory() as folder:
        machine = machine_in(folder)
        comes = effects(None, bundle)
        answer = machine.apply(bundle.render()).answer
        # A unit of the site's that runs already may be restarted with its files.
        assert {(it.unit, it.deed.value) for it in comes.units if it.sure} == {
            (unit, deed) for unit, deed in done(answer.actions) if unit != SITES_OWN
        }
        goes = effects(bundle, None, answer.packages)
        gone = machine.remove(bundle.render()).answer
        assert {(it.unit, it.deed.value) for it in goes.units} == {
            (unit, deed) for unit, deed in done(gone.actions) if unit != SITES_OWN
        }


def test_no_change_has_no_effect() -> None:
    bundle = demo(
        Package("pone", "1.0"), File("/etc/a", "x\n"), Unit("one.service"), Check("c", "true")
    )
    assert effects(bundle, bundle) == Effects()


def test_what_a_command_does_to_daemons_of_other_roles() -> None:
    def bundle(text: str) -> Bundle:
        tell = Command("tell", "tell", ("/etc/a",), restarts=("x.service",), reloads=("y.service",))
        return demo(File("/etc/a", text), tell)

    assert effects(bundle("x\n"), bundle("y\n")).units == (
        ToUnit("x.service", Deed.RESTARTED, ("command tell",)),
        ToUnit("y.service", Deed.RELOADED, ("command tell",)),
    )
    assert effects(None, bundle("x\n")).units == ()


def test_a_command_that_has_the_node_rebooted() -> None:
    def bundle(text: str) -> Bundle:
        return demo(File("/etc/a", text), Command("boot", "boot", ("/etc/a",), reboots=True))

    assert effects(None, bundle("x\n")).reboots == ("boot",)
    assert effects(bundle("x\n"), bundle("y\n")).reboots == ("boot",)
    assert effects(bundle("x\n"), bundle("x\n")).reboots == ()


def test_what_another_role_holds_stays() -> None:
    old = demo(File("/etc/a", "x\n"), File("/etc/b", "x\n"), Unit("one.service"))
    gone = effects(old, demo(), held={"one.service", "/etc/a"})
    assert gone.units == ()
    assert [(it.path, it.new) for it in gone.paths] == [("/etc/b", None)]


ONE = "one.service"
BOTH = ("/etc/a", "package:pone")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        # A unit that comes is started, or stopped where it shall not run.
        ([], [Unit(ONE)], [ToUnit(ONE, Deed.STARTED, ())]),
        ([], [Unit(ONE, running=False)], [ToUnit(ONE, Deed.STOPPED, (), sure=False)]),
        ([], [Unit(ONE, running=None)], []),
        ([Unit(ONE, running=False)], [Unit(ONE)], [ToUnit(ONE, Deed.STARTED, ())]),
        ([Unit(ONE, running=False)], [Unit(ONE, running=None)], []),
        ([Unit(ONE, running=False)], [Unit(ONE, running=False)], []),
        ([Unit(ONE)], [Unit(ONE, running=False)], [ToUnit(ONE, Deed.STOPPED, ())]),
        # One that goes is stopped, if this role had it run.
        ([Unit(ONE)], [], [ToUnit(ONE, Deed.STOPPED, ())]),
        ([Unit(ONE, running=None)], [], []),
        ([Unit(ONE, running=False)], [], []),
        # What changed says why; a restart makes a reload by systemctl unnecessary, and no other.
        (
            [File("/etc/a", "x\n"), Unit(ONE, restart_on=("/etc/a",))],
            [File("/etc/a", "y\n"), Unit(ONE, restart_on=("/etc/a",))],
            [ToUnit(ONE, Deed.RESTARTED, ("/etc/a",))],
        ),
        (
            [File("/etc/a", "x\n"), Unit(ONE, reload_on=("/etc/a",))],
            [File("/etc/a", "y\n"), Unit(ONE, reload_on=("/etc/a",))],
            [ToUnit(ONE, Deed.RELOADED, ("/etc/a",))],
        ),
        (
            [File("/etc/a", "x\n"), Unit(ONE, restart_on=("/etc/a",), reload_on=("/etc/a",))],
            [File("/etc/a", "y\n"), Unit(ONE, restart_on=("/etc/a",), reload_on=("/etc/a",))],
            [ToUnit(ONE, Deed.RESTARTED, ("/etc/a",))],
        ),
        (
            [File("/etc/a", "x\n"), Unit(ONE, reload_on=("/etc/a",), reload="true")],
            [
                File("/etc/a", "y\n"),
                Unit(ONE, reload_on=("/etc/a",), reload="true", restart_keys=("K=1",)),
            ],
            [
                ToUnit(ONE, Deed.RESTARTED, ("restart-key K",)),
                ToUnit(ONE, Deed.RELOADED, ("/etc/a",)),
            ],
        ),
        # A key that changes, comes or goes restarts it; the reason is its name alone.
        (
            [Unit(ONE, restart_keys=("Port=1", "Same=1"))],
            [Unit(ONE, restart_keys=("Port=2", "Same=1"))],
            [ToUnit(ONE, Deed.RESTARTED, ("restart-key Port",))],
        ),
        (
            [Unit(ONE, restart_keys=("Port=1", "Same=1"))],
            [Unit(ONE, restart_keys=("Same=1",))],
            [ToUnit(ONE, Deed.RESTARTED, ("restart-key Port",))],
        ),
        # So does another version of a package that it waits for, and only of one that was noted.
        (
            [Package("pone", "1.0"), Unit(ONE, restart_on=("package:pone",))],
            [Package("pone", "2.0"), Unit(ONE, restart_on=("package:pone",))],
            [ToUnit(ONE, Deed.RESTARTED, ("package:pone",))],
        ),
        (
            [Package("pone", "1.0"), Unit(ONE)],
            [Package("pone", "1.0"), Unit(ONE, restart_on=("package:pone",))],
            [],
        ),
        # A unit of the site's own that may run already: only the run can tell.
        (
            [],
            [
                File("/etc/a", "x\n"),
                Unit(ONE, running=None, reload_on=("/etc/a",), restart_keys=("K=1",)),
            ],
            [ToUnit(ONE, Deed.RESTARTED, ("restart-key K",), sure=False)],
        ),
        (
            [],
            [File("/etc/a", "x\n"), Unit(ONE, running=None, restart_on=("/etc/a",))],
            [ToUnit(ONE, Deed.RESTARTED, ("/etc/a",), sure=False)],
        ),
        # Owner and mode are part of a file; that it stays when it is dropped is not.
        (
            [File("/etc/a", "x\n"), Unit(ONE, reload_on=("/etc/a",))],
            [File("/etc/a", "x\n", owner="slurm:slurm"), Unit(ONE, reload_on=("/etc/a",))],
            [ToUnit(ONE, Deed.RELOADED, ("/etc/a",))],
        ),
        (
            [File("/etc/a", "x\n"), Unit(ONE, reload_on=("/etc/a",))],
            [File("/etc/a", "x\n", mode="0600"), Unit(ONE, reload_on=("/etc/a",))],
            [ToUnit(ONE, Deed.RELOADED, ("/etc/a",))],
        ),
        (
            [File("/etc/a", "x\n"), Unit(ONE, reload_on=("/etc/a",))],
            [File("/etc/a", b"x\n", lasting=True), Unit(ONE, reload_on=("/etc/a",))],
            [],
        ),
        (
            [File("/etc/a", "x\n"), Unit(ONE, reload_on=("/etc/a",))],
            [Link("/etc/a", "/x"), Unit(ONE, reload_on=("/etc/a",))],
            [ToUnit(ONE, Deed.RELOADED, ("/etc/a",))],
        ),
        (
            [File("/etc/a", "x\n"), Package("pone", "1.0"), Unit(ONE, reload_on=BOTH)],
            [File("/etc/a", "y\n"), Package("pone", "2.0"), Unit(ONE, reload_on=BOTH)],
            [ToUnit(ONE, Deed.RELOADED, BOTH)],
        ),
        (
            [Unit(ONE, restart_keys=("Info=a=1",))],
            [Unit(ONE, restart_keys=("Info=a=2",))],
            [ToUnit(ONE, Deed.RESTARTED, ("restart-key Info",))],
        ),
        ([], [File("/etc/a", "x\n"), Unit(ONE, running=None, restart_keys=("K=1",))], []),
        (
            [],
            [File("/etc/a", "x\n"), Unit(ONE, running=None, reload_on=("/etc/a",))],
            [ToUnit(ONE, Deed.RELOADED, ("/etc/a",), sure=False)],
        ),
        (
            [Link("/etc/a", "/x"), Unit(ONE, reload_on=("/etc/a",))],
            [Link("/etc/a", "/y"), Unit(ONE, reload_on=("/etc/a",))],
            [ToUnit(ONE, Deed.RELOADED, ("/etc/a",))],
        ),
    ],
)
def test_what_is_done_to_a_unit_and_why(
    old: list[Part], new: list[Part], told: list[ToUnit]
) -> None:
    assert list(effects(demo(*old), demo(*new)).units) == told


def test_paths_that_come_change_and_go() -> None:
    old = demo(File("/etc/a", "x\n"), File("/etc/kept", "x\n", lasting=True), Link("/etc/l", "/x"))
    new = demo(File("/etc/a", "y\n"), Absent("/etc/l"), File("/etc/b", ""))
    a, link = old.parts[0], old.parts[2]
    assert [(it.path, it.old, it.new) for it in effects(old, new).paths] == [
        ("/etc/a", a, new.parts[0]),
        ("/etc/b", None, new.parts[2]),
        ("/etc/l", link, new.parts[1]),
    ]
    # With its role, a lasting file goes, too.
    assert [(it.path, it.old, it.new) for it in effects(old, None).paths] == [
        ("/etc/a", a, None),
        ("/etc/kept", old.parts[1], None),
        ("/etc/l", link, None),
    ]


def test_packages_stay_as_long_as_their_role() -> None:
    old = demo(Package("pone", "1.0"), Package("ptwo"))
    assert effects(old, demo()).packages == ()
    assert effects(demo(), old, {"ptwo": "3.0"}).packages == (PackageChange("pone", None, "1.0"),)
    # An empty version is whichever the node has or finds.
    assert effects(demo(), demo(Package("ptwo"))).packages == (PackageChange("ptwo", None, ""),)
    assert effects(demo(Package("ptwo")), None).packages == (PackageChange("ptwo", "", None),)
    assert effects(old, None, {"ptwo": "3.0"}).packages == (
        PackageChange("pone", "1.0", None),
        PackageChange("ptwo", "3.0", None),
    )


def test_a_version_that_the_node_has_already_restarts_nothing() -> None:
    unit = Unit(ONE, restart_on=("package:pone",))
    old, new = demo(Package("pone"), unit), demo(Package("pone", "1.0"), unit)
    assert effects(old, new, {"pone": "1.0"}).units == ()
    restarted = ToUnit(ONE, Deed.RESTARTED, ("package:pone",))
    assert effects(old, new, {"pone": "0.9"}).units == (restarted,)
    assert effects(new, old, {"pone": "1.0"}).units == ()


def test_when_commands_run_and_why() -> None:
    def run(old: Bundle | None, new: Bundle | None) -> list[tuple[str, tuple[str, ...]]]:
        return [(it.command.name, it.because) for it in effects(old, new).commands]

    made, undo = (
        Command("make", " make X\n", ("/etc/a", "/etc/b")),
        Command("undo", "u", when="remove"),
    )
    a, b = File("/etc/a", "x\n"), File("/etc/b", "x\n")
    there = demo(a, b, undo, made)
    assert run(there, there) == []
    assert run(None, there) == [("make", ("/etc/a", "/etc/b"))]
    assert run(demo(a, b), there) == [("make", ())]
    assert run(there, demo(File("/etc/a", "y\n"), b, made, undo)) == [("make", ("/etc/a",))]
    # Newlines around its text say nothing; all else does.
    assert run(there, demo(a, b, Command("make", "\n make X", made.on))) == []
    assert run(demo(a, b, Command("make", "\n make X", made.on)), there) == []
    assert run(there, demo(a, b, Command("make", " make X ", made.on))) == [("make", ())]
    assert run(there, None) == [("undo", ())]


def test_when_a_node_is_taken_out_of_use_first_and_why() -> None:
    out = Withdrawal("out", "true")

    def why(old: list[Part], new: list[Part]) -> tuple[str, ...]:
        return effects(demo(*old), demo(*new)).withdrawn_for

    def unit(
        *keys: str, drain_on: tuple[str, ...] = (), restart_keys: tuple[str, ...] = ()
    ) -> list[Part]:
        runs = Unit(ONE, restart_keys=restart_keys, drain_on=drain_on, drain_keys=keys)
        return [File("/etc/a", "x\n"), out, runs]

    assert why(unit("D=1"), unit("D=1")) == ()
    assert why(unit("D=1", "E=1"), unit("D=2", "E=1")) == ("drain-key D",)
    assert why(unit("D=1", "E=1"), unit("E=1")) == ("drain-key D",)
    changed = [File("/etc/a", "y\n"), *unit("D=1", drain_on=("/etc/a",))[1:]]
    assert why(unit("D=1", drain_on=("/etc/a",)), changed) == ("/etc/a",)
    other = File("/etc/b", "x\n")
    assert why([*unit("D=1", drain_on=("/etc/a",))], [other, *changed]) == ("/etc/a",)
    # What one unit does not ask for, another may.
    comes = Unit("a.service", drain_keys=("D=1",))
    assert why(unit("D=a=1"), [comes, *unit("D=a=2")]) == ("drain-key D",)
    # Not where it does not run yet, nor without what takes it out.
    assert why([], unit("D=1")) == ()
    assert why(unit("D=1"), [Unit(ONE, drain_keys=("D=2",))]) == ()
    assert why(unit("D=1"), unit()) == ()
    # What restarted it until now it has met already.
    assert why(unit(restart_keys=("D=1",)), unit("D=1")) == ()
    assert why(unit(restart_keys=("D=1", "E=1")), unit("D=2")) == ("drain-key D",)


def test_a_node_is_taken_out_of_use_for_the_unit_of_another_role() -> None:
    """Also the first time that this role comes; not before the other one is at work."""

    def why(old: Bundle | None, version: str, *at_work: str) -> tuple[str, ...]:
        out = Withdrawal("out", "true", on=("package:pone",), unit=ONE)
        new = demo(Package("pone", version), File("/etc/a", "x\n"), out)
        return effects(old, new, {"pone": "1.0"} if old else {}, at_work=at_work).withdrawn_for

    there = demo(Package("pone", "1.0"), File("/etc/a", "x\n"))
    assert why(None, "1.0", ONE) == why(there, "2.0", ONE) == ("package:pone",)
    assert why(there, "1.0", ONE) == why(None, "1.0") == why(there, "2.0", "two.service") == ()


def test_other_parts_that_differ_are_named() -> None:
    old = demo(Group("g"), Directory("/d"), Guard("k", "true"), Check("c", "true"))
    new = demo(
        Group("g", 7), User("u", None, "g"), Directory("/d"), Guard("k", "false"),
        Validate("v", "true", ("/etc/a",)), Withdrawal("out", "true"),
    )  # fmt: skip
    others = effects(old, new).others
    assert set(others) == {"group g", "user u", "guard k", "validate v", "withdraw", "check c"}
    assert len(others) == len(set(others))
    assert effects(old, old).others == ()


def test_versions_are_those_that_the_node_has() -> None:
    old, new = demo(Package("pone")), demo(Package("pone", "2.0"))
    assert effects(old, new, {"pone": "1.0"}).packages == (PackageChange("pone", "1.0", "2.0"),)
    assert effects(old, new, {"pone": "2.0"}).packages == ()


@settings(max_examples=50)
@given(old=bundles(), new=bundles())
def test_sealed_bundles_tell_the_same(old: Bundle, new: Bundle) -> None:
    def told(it: Effects) -> tuple[object, ...]:
        deeds = {(unit.unit, unit.deed) for unit in it.units}
        return deeds, {path.path for path in it.paths}, {run.command.name for run in it.commands}

    assert told(effects(sealed(old), sealed(new))) == told(effects(old, new))


def test_sealed_bundles_hold_nothing_of_what_they_say() -> None:
    secret = "hunter2"
    bundle = demo(
        File("/etc/a", f"{secret}\n"),
        Guard("g", secret),
        Command("c", secret, probe=secret),
        Unit("one.service", reload=secret, restart_keys=(secret,), drain_keys=(secret,)),
        Check("k", secret),
        Withdrawal("w", secret),
        Validate("v", secret, on=("/etc/a",)),
    )
    assert secret not in sealed(bundle).render()


def test_a_sealed_part_keeps_its_timeout_and_says_that_it_has_a_text() -> None:
    given = demo(
        File("/etc/a", "x\n"), Guard("g", "x", timeout=7), Withdrawal("w", "x", 7),
        Validate("v", "x", ("/etc/a",), 7), Command("c", "x", timeout=7, probe="x"),
        Unit("one.service", reload="x", timeout=7), Check("k", "x", 7),
    )  # fmt: skip
    heads = [
        [line for line in it.render().splitlines() if not line.startswith("  ")]
        for it in (given, sealed(given))
    ]
    assert heads[0] == heads[1]
    unit = next(part for part in sealed(given).parts if isinstance(part, Unit))
    assert unit.reload is not None
    assert unit.reload.startswith("sha256:")


def test_a_sealed_bundle_is_the_same_but_for_its_text() -> None:
    """Whatever is no text is in its place: a plan that was saved sealed tells the same names."""
    given = read(WHOLE)
    closed = sealed(given)
    assert [part.key for part in closed.parts] == [part.key for part in given.parts]
    heads = [
        [line for line in it.render().split("\n") if line[:1] != " "] for it in (given, closed)
    ]
    assert heads[1] == [line.replace("file-base64 ", "file ") for line in heads[0] if line] + [""]


def test_what_is_not_known_yet_may_restart_what_waits_for_files() -> None:
    bundle = demo(
        File("/etc/a", "x\n"), Package("pone"),
        Unit("one.service", restart_on=("/etc/a",)),
        Unit("two.service", restart_on=("package:pone",)), Unit("three.service"),
    )  # fmt: skip
    assert unknown(bundle).units == (
        ToUnit("one.service", Deed.RESTARTED, ("/etc/a",), sure=False),
    )
    assert unknown(None) == Effects()
