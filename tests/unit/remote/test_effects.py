"""What is told of a change beforehand, against what the real applier then does."""

import os
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from remote.bundle import Bundle, Check, Command, File, Guard, Package, Part, Unit, Withdrawal
from remote.effects import Deed, Effects, PackageChange, ToUnit, effects, sealed, unknown
from tests.unit.remote.machine import Machine

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
PATHS, PACKAGES = ("/etc/a", "/etc/b"), ("pone", "ptwo")
#: Runs before anything is applied; the bundles leave it to itself.
SITES_OWN = "site.service"
UNITS = ("one.service", "two.service", SITES_OWN)


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
        parts.append(Withdrawal("out", "true"))
    return Bundle("cn01", "demo", parts)


def machine_in(folder: str) -> Machine:
    machine = Machine(Path(folder) / "root", Path(folder) / "standin")
    offers = {name: {"versions": ["2.0", "1.0"]} for name in PACKAGES}
    units = {name: {"active": "inactive", "enabled": "disabled"} for name in UNITS}
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


@pytest.mark.slow
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
        before = machine.apply(old.render()).answer
        told = effects(old, new, before.packages)
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


def test_units_that_another_role_holds_go_on() -> None:
    assert effects(demo(Unit("one.service")), demo(), held={"one.service"}).units == ()


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
        Unit("one.service", reload=secret, restart_keys=(secret,)),
        Check("k", secret),
    )
    assert secret not in sealed(bundle).render()


def test_what_is_not_known_yet_may_restart_what_waits_for_files() -> None:
    bundle = demo(
        File("/etc/a", "x\n"), Unit("one.service", restart_on=("/etc/a",)), Unit("two.service")
    )
    (may,) = unknown(bundle).units
    assert (may.unit, may.deed, may.sure) == ("one.service", Deed.RESTARTED, False)
