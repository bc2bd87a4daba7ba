"""The plan of a change out of old and new bundles, in words; the lab holds it against the deed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from components.accounting.slurmdbd import OBJECTS
from operations.plan_text import headline, markdown, text
from operations.planned import Daemon, Plan
from operations.planning import plan
from operations.preview import State, Step, steps_of
from operations.slurm_files import changes
from remote.bundle import Bundle, Command, Directory, File, Guard, Package, Part, Unit, Withdrawal
from remote.effects import Deed, sealed
from settings.parameters import Needs

CONF = "/etc/slurm/slurm.conf"
CLUSTER = "ClusterName=c\n"
NODES = [f"cn{number:02}" for number in range(1, 9)]


def slurmctld(conf: str, *keys: str, drains: bool = True) -> Bundle:
    unit = Unit("slurmctld.service", reload_on=(CONF,), reload="scontrol reconfigure",
                restart_keys=keys, drain_on=(CONF,) if drains else ())  # fmt: skip
    return Bundle("ctl", "slurmctld", [File(CONF, conf), Withdrawal("drain", "true"), unit])


def slurmd(node: str, *keys: str, version: str = "24.11.5-4") -> Bundle:
    unit = Unit("slurmd.service", restart_on=("package:slurmd",), restart_keys=keys)
    return Bundle(node, "slurmd", [Package("slurmd", version), unit])


def name_of(bundle: Bundle) -> str:
    return f"{bundle.node}-{bundle.role}"


def planned(
    old: Sequence[Bundle], new: Sequence[Bundle], only: Sequence[str] | None = None
) -> Plan:
    """The plan of all that differs."""
    before = {name_of(bundle): bundle for bundle in old}
    after = {name_of(bundle): bundle for bundle in new}
    steps = []
    for name in dict.fromkeys([*before, *after]):
        was, now = before.get(name), after.get(name)
        if was is None or now is None or was.render() != now.render():
            op = "create" if was is None else "delete" if now is None else "update"
            steps.append(Step(f"urn::{name}", name, op, old=was, new=now, inputs=("stdin",)))
    return plan("prod", steps, State(before, {}, ""), only)


def said(it: Plan) -> str:
    out = StringIO()
    Console(file=out, width=200).print(text(it))
    return "\n".join(" ".join(line.split()) for line in out.getvalue().splitlines())


def conf(timeout: int = 60, gpus: int = 8, nodes: Sequence[str] = NODES, more: str = "") -> str:
    lines = [f"NodeName={name} Gres=gpu:h100:{gpus if name < 'cn05' else 8}" for name in nodes]
    return "\n".join([f"MessageTimeout={timeout}", *lines, more, ""])


def test_parameters_of_all_and_of_some_nodes() -> None:
    computes = [slurmd(name) for name in NODES]
    it = planned([slurmctld(conf()), *computes], [slurmctld(conf(90, 4)), *computes])
    assert said(it).splitlines()[2:4] == [
        "cn[01-04] slurm.conf Gres gpu:h100:8 → gpu:h100:4: drain first, reconfigure",
        "cn[01-08],ctl slurm.conf MessageTimeout 60 → 90: reconfigure, jobs keep running",
    ]
    assert "ctl slurmctld reconfigured (/etc/slurm/slurm.conf)" in said(it)
    assert it.reconfigured == tuple(NODES)
    assert [change.needs for change in it.changes] == [Needs.DRAIN, Needs.RECONFIGURE]
    assert it.drained == {tuple(NODES[:4]): ("slurm.conf Gres",)}
    assert "cn[01-04] drained first, given back afterwards (slurm.conf Gres)" in said(it)


def test_nodes_that_slurm_conf_is_not_changed_under() -> None:
    computes = [slurmd(name) for name in NODES]

    def change(old: str, new: str, drains: bool = True) -> Plan:
        was, to_be = (slurmctld(f"{CLUSTER}{it}\n", drains=drains) for it in (old, new))
        return planned([was, *computes], [to_be, *computes])

    # All nodes, where it is not a node's own.
    it = change("ProctrackType=proctrack/linuxproc", "ProctrackType=proctrack/cgroup")
    assert it.drained == {tuple(NODES): ("slurm.conf ProctrackType",)}
    # Less of what jobs hold, not more.
    less, more = "NodeName=cn03 RealMemory=900", "NodeName=cn03 RealMemory=1000"
    it = change(more, less)
    assert it.drained == {("cn03",): ("slurm.conf RealMemory",)}
    assert "cn03 slurm.conf RealMemory 1000 → 900: drain first, reconfigure" in said(it)
    assert change(less, more).drained == {}
    kept = "NodeName=cn03 RealMemory=1000 MemSpecLimit="
    assert [*change(f"{kept}5", f"{kept}6").drained] == [("cn03",)]
    assert change(f"{kept}6", f"{kept}5").drained == {}
    # One that nobody waits for is refused, as is where another state lies.
    it = change(more, less, drains=False)
    assert it.drained == {}
    assert "no job may be there, reconfigure" in said(it)
    assert change("StateSaveLocation=/a", "StateSaveLocation=/b").drained == {}


def test_a_parameter_that_a_reconfigure_does_not_bring() -> None:
    def cluster(value: str) -> list[Bundle]:
        key = f"AuthInfo={value}"
        return [slurmctld(conf(more=key), key), *(slurmd(name, key) for name in NODES)]

    it = planned(cluster("a"), cluster("b"))
    assert "slurm.conf AuthInfo a → b: restart of slurmctld, slurmd, jobs keep running" in said(it)
    assert "cn[01-08] slurmd restarted (restart-key AuthInfo)" in said(it)
    assert it.reconfigured == ()


def test_cores_of_gpus_restart_slurmctld() -> None:
    gres = "/etc/slurm/gres.conf"

    def controller(cores: str) -> Bundle:
        unit = Unit("slurmctld.service", reload_on=(gres,), reload="scontrol reconfigure",
                    restart_keys=(f"gres.conf Cores={cores}",))  # fmt: skip
        line = f"NodeName=cn01 Name=gpu File=/dev/nvidia0 Cores={cores}\n"
        return Bundle("ctl", "slurmctld", [File(gres, line), unit])

    it = planned([controller("0"), slurmd("cn01")], [controller("0-1"), slurmd("cn01")])
    assert "cn01 gres.conf Cores 0 → 0-1: restart of slurmctld, jobs keep running" in said(it)
    assert f"ctl slurmctld restarted (restart-key gres.conf Cores, {gres})" in said(it)


def test_what_the_applier_does_not_do_is_not_promised() -> None:
    """The table asks for a restart of slurmd, and no key of the bundle brings one about."""
    it = planned([slurmctld(conf(more="SlurmdPort=1")), slurmd("cn01")],
                 [slurmctld(conf(more="SlurmdPort=2")), slurmd("cn01")])  # fmt: skip
    assert "SlurmdPort 1 → 2: reconfigure, slurmctld, slurmd with the next restart" in said(it)


def test_versions() -> None:
    def database(version: str, *guards: Guard) -> Bundle:
        unit = Unit("slurmdbd.service", restart_on=("package:slurmdbd",))
        return Bundle("ctl", "slurmdbd", [*guards, Package("slurmdbd", version), unit])

    old, new = "24.11.5-4", "25.05.1-1"
    it = planned([database(old), *(slurmd(name, version=old) for name in NODES)],
                 [database(new, Guard("database-dumped", "x")),
                  *(slurmd(name, version=new) for name in NODES)])  # fmt: skip
    assert f"cn[01-08] slurmd {old} → {new}: slurmd restarted" in said(it)
    assert (
        f"ctl slurmdbd {old} → {new}: dump of the database, slurmdbd restarted, conversion of "
        "the database"
    ) in said(it)
    # Another packaging of it.
    unit = Unit("slurmdbd.service", restart_on=("package:slurm-smd-slurmdbd",))
    parts = (Guard("database-dumped", "x"), Package("slurm-smd-slurmdbd", new), unit)
    other = planned([database(old)], [Bundle("ctl", "slurmdbd", parts)])
    assert f"ctl slurm-smd-slurmdbd {old} → {new}: dump of the database, slurmdbd" in said(other)
    without = planned([database(old)], [database(new)])
    assert f"{old} → {new}: slurmdbd restarted, conversion of the database" in said(without)
    patch = planned([database(old)], [database("24.11.6-1")])
    assert "24.11.6-1: slurmdbd restarted\n" in said(patch)


def test_nodes_that_drain_first() -> None:
    def node(name: str, gpus: int) -> Bundle:
        unit = Unit("slurmd.service", drain_keys=(f"Gres=gpu:{gpus}",))
        return Bundle(name, "slurmd", [Withdrawal("drain", "true"), unit])

    def more(text: str) -> list[Bundle]:
        return [Bundle(name, "system", [File("/etc/x", text)]) for name in NODES]

    it = planned([*(node(name, 8) for name in NODES), *more("a")],
                 [*(node(name, 4) for name in NODES), *more("b")])  # fmt: skip
    assert "cn[01-08] drained first, given back afterwards (drain-key Gres)" in said(it)
    assert it.as_dict()["drained"] == [{"nodes": "cn[01-08]", "because": ["drain-key Gres"]}]


def test_nodes_that_slurm_reboots() -> None:
    def boot(name: str, words: str) -> Bundle:
        out = Withdrawal("drain", "true", on=("/etc/words",), unit="slurmd.service")
        reboot = Command("reboot", "true", on=("/etc/words",), reboots=True)
        return Bundle(name, "boot", [File("/etc/words", words), out, reboot])

    computes = [slurmd(name) for name in NODES]
    old = [boot(name, "a\n") for name in NODES]
    new = [boot(name, "b\n" if name < "cn03" else "a\n") for name in NODES]
    it = planned([*computes, *old], [*computes, *new])
    told = "cn[01-02] drained first, rebooted by Slurm where needed, given back afterwards"
    assert told in said(it)
    assert it.as_dict()["rebooted"] == "cn[01-02]"


def test_nodes_that_come_and_go() -> None:
    old, new = NODES[:-1], NODES[1:]
    it = planned([slurmctld(conf(nodes=old)), *map(slurmd, old)],
                 [slurmctld(conf(nodes=new)), *map(slurmd, new)])  # fmt: skip
    assert "cn08 node added: started: slurmd\n" in said(it)
    assert "cn01 node removed: stopped: slurmd\n" in said(it)
    assert "cn08 slurm.conf node cn08: reconfigure" in said(it)
    assert {(d.nodes, d.deed) for d in it.daemons if d.unit == "slurmd.service"} == {
        (("cn01",), "stopped"), (("cn08",), "started"),
    }  # fmt: skip


def test_accounting() -> None:
    def objects(text: str) -> Bundle:
        run = Command("accounting-objects", "reconcile", (OBJECTS,))
        return Bundle("ctl", "accounting", [File(OBJECTS, text), run])

    it = planned([objects("user alice\n  AdminLevel=None\nqos high\n  Priority=1\n")],
                 [objects("qos high\n  Priority=2\nuser bob\n")])  # fmt: skip
    assert [(change.what, change.old, change.new) for change in it.changes] == [
        ("qos high Priority", "1", "2"),
        ("user alice", None, "removed, where it was made here"),
        ("user bob", None, "added"),
    ]
    assert it.daemons == ()


def test_mounts_and_folders() -> None:
    path, unit = "/etc/systemd/system/home.mount", Unit("home.mount", restart_on=())

    def system(*parts: Part) -> Bundle:
        return Bundle("cn01", "system", parts)

    it = planned([system()], [system(File(path, "x\n"), Unit("home.mount", restart_on=(path,)))])
    assert "cn01 home.mount: home.mount started" in said(it)
    again = planned([system(unit)], [system(unit, Directory("/srv"))])
    assert "cn01 role system: /srv: no daemon" in said(again)
    quiet = planned([system(unit, Guard("g", "true"))], [system(unit, Guard("g", "false"))])
    assert "cn01 role system: guard: no daemon" in said(quiet)
    assert quiet.daemons == ()


def test_a_secret_is_told_by_its_hash() -> None:
    path = "/etc/munge/munge.key"

    def key(text: str) -> Bundle:
        unit = Unit("munge.service", restart_on=(path,))
        return sealed(Bundle("cn01", "munge-key", [File(path, text, mode="0400"), unit]))

    it = planned([key("one")], [key("hunter2")])
    (line,) = (line for line in said(it).splitlines() if path in line and "new content" in line)
    assert line == f"cn01 {path} new content, sha256 f52fbd32b2b3…: munge restarted"
    assert "hunter2" not in said(it) + markdown(it) + str(it.as_dict())


def test_what_is_known_only_in_the_run() -> None:
    path = "/etc/munge/munge.key"
    old = Bundle("cn01", "munge-key", [File(path, ""), Unit("munge.service", restart_on=(path,))])
    step = Step("urn", "cn01-munge-key", "update", old=old, known=False, secret=True)
    it = plan("prod", [step], State({"cn01-munge-key": old}, {}, ""))
    assert "cn01 munge may be restarted" in said(it)
    assert not it.daemons[0].sure


def test_steps_as_engines_tell_them() -> None:
    """What both of them print for a bundle, for one that waits for others, and for the applier."""
    unknown = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
    urn = "urn:pulumi:prod::slurmstack::slurmstack:components:X$command:remote:Command::"

    def step(name: str, stdin: str | None) -> dict[str, object]:
        inputs = {} if stdin is None else {"stdin": stdin}
        return {"urn": urn + name, "op": "create", "newState": {"inputs": inputs, "parent": "p"}}

    told: list[dict[str, Any]] = [
        {"urn": "urn:pulumi:prod::slurmstack::pulumi:pulumi:Stack::x", "op": "update"},
        step("cn01-slurmd", "slurmstack-bundle 1\n[secret]\nend\n"),
        step("cn01-munge-key", "[secret]"),
        step("cn01-munge-staged", unknown),
        step("cn01-node", "#!/bin/sh\n"),
        step("munge-credential", None),
    ]
    key = sealed(Bundle("cn01", "munge-key", [File("/k", "x\n")]))
    left = {"cn01-slurmd": slurmd("cn01"), "cn01-munge-key.sealed": key}
    found = {it.name: it for it in steps_of(told, State({}, {}, ""), left)}
    assert {name: (it.known, it.secret) for name, it in found.items()} == {
        "cn01-slurmd": (True, False),
        "cn01-munge-key": (True, True),
        "cn01-munge-staged": (False, True),
        "cn01-node": (True, False),
        "munge-credential": (True, False),
    }
    assert found["cn01-slurmd"].new == slurmd("cn01")
    assert found["cn01-munge-key"].new == key
    assert {it.parent for it in found.values()} == {"p"}


def test_steps_that_take_away() -> None:
    """Of one that is made anew, the half that deletes brings nothing."""
    urn = "urn:pulumi:prod::slurmstack::slurmstack:components:X$command:remote:Command::"
    old, key = slurmd("cn01"), sealed(Bundle("cn01", "munge-key", [File("/k", "x\n")]))
    before = State({"cn01-slurmd": old, "cn01-munge-key": key}, {}, "",
                   frozenset({"cn01-munge-key"}), {urn + "cn01-munge-key": "p"})  # fmt: skip
    told: list[dict[str, Any]] = [
        {"urn": f"{urn}cn01-slurmd", "op": "delete-replaced", "diffReasons": ["connection"]},
        {"urn": f"{urn}cn01-munge-key", "op": "delete"},
    ]
    slurmd_s, key_s = steps_of(told, before, {"cn01-slurmd": slurmd("cn01", "Port=1")})
    assert (slurmd_s.old, slurmd_s.new, slurmd_s.inputs) == (old, None, ("connection",))
    assert (slurmd_s.secret, slurmd_s.parent) == (False, "")
    assert (key_s.old, key_s.new, key_s.secret, key_s.known) == (key, None, True, True)
    assert key_s.parent == "p"


def test_what_waits_for_others_is_the_new_node_s() -> None:
    """Its key is known only in the run; whose it is is known from what else the node gets."""
    steps = [
        Step("urn:a", "cn09-slurmd", "create", new=slurmd("cn09")),
        Step("urn:b", "cn09-munge-key", "create", known=False, secret=True),
    ]
    it = plan("prod", steps, State({"cn01-slurmd": slurmd("cn01")}, {}, ""))
    assert it.targets == {"cn09": ("urn:a", "urn:b")}


def test_what_comes_and_what_changes() -> None:
    def system(*files: File) -> Bundle:
        return Bundle("cn01", "system", files)

    one, other = File("/etc/one", "a\n"), File("/etc/other", "b\n")
    it = planned([system(one)], [system(File("/etc/one", "c\n"), other)])
    assert [(change.what, change.new) for change in it.changes] == [
        ("/etc/one", "changed"), ("/etc/other", "new"),
    ]  # fmt: skip
    gone = planned([system(one, other)], [system(one)])
    assert [(change.what, change.new) for change in gone.changes] == [("/etc/other", "removed")]
    daemon = Bundle("cn01", "b", [Unit("b.service")])
    started = planned([system(one)], [system(one), daemon])
    quiet = planned([system(one)], [system(one), Bundle("cn01", "b", [other])])
    assert [it.changes[0].needs for it in (started, quiet)] == [Needs.RESTART, Needs.NOTHING]


def test_a_role_comes_and_what_another_holds_stays() -> None:
    def role(name: str, *parts: Part) -> Bundle:
        return Bundle("cn01", name, parts)

    unit, path = Unit("munge.service"), "/etc/shared"
    one, other = role("a", unit, File(path, "")), role("b", unit, File(path, ""))
    it = planned([other], [one, other])
    assert [(change.kind, change.what, change.new) for change in it.changes] == [
        ("role", "role a", "added")
    ]
    gone = planned([one, other], [other])
    assert [(change.what, change.new, change.effect) for change in gone.changes] == [
        ("role a", "removed", "no daemon")
    ]
    last = planned([one, slurmd("cn01")], [slurmd("cn01")])
    assert "munge stopped" in said(last)


def test_what_a_change_needs() -> None:
    """The word of `needs`, by which programs choose when to apply it."""
    a, b, c, d = "/etc/a", "/etc/b", "/etc/c", "/etc/d"

    def needs(*new: Part) -> dict[str, tuple[str, str]]:
        units: list[Part] = [
            Unit("x.service", restart_on=(a, "package:pp")),
            Unit("y.service", reload_on=(b,), reload="true"),
            Command("forms", "true", on=(c,)),
            Unit("z.service"),
            Command("tells", "true", on=(d,), restarts=("z.service",)),
        ]
        every: list[Part] = [
            *(File(path, "") for path in (a, b, c, d)),
            Package("pp", "1"),
            Package("qq", "1"),
        ]

        def bundle(parts: Sequence[Part]) -> Bundle:
            changed = {part.key for part in parts}
            kept = [part for part in every if part.key not in changed]
            return Bundle("cn01", "r", [*kept, *units, *parts])

        it = planned([bundle(())], [bundle(new)])
        return {change.what: (change.needs.value, change.effect) for change in it.changes}

    # Of two units of a role, the one that reads the file.
    assert needs(File(a, "2")) == {a: ("restart", "x restarted")}
    assert needs(File(b, "2")) == {b: ("reconfigure", "y reloaded")}
    assert needs(File(c, "2")) == {c: ("nothing", "runs forms, no daemon")}
    # By way of a command that restarts it.
    assert needs(File(d, "2")) == {d: ("restart", "z restarted")}
    assert needs(Package("pp", "2")) == {"pp": ("restart", "x restarted")}
    assert needs(Package("qq", "2")) == {"qq": ("nothing", "no daemon")}


def test_a_node_s_own_line_is_held_against_its_own_slurmd() -> None:
    """One slurmd is started anew; the other goes on by the old value until somebody does that."""

    def cluster(port: int) -> list[Bundle]:
        lines = "".join(f"NodeName={name} Port={port}\n" for name in ("cn01", "cn02"))
        return [slurmctld(CLUSTER + lines), slurmd("cn01", f"Port={port}"), slurmd("cn02")]

    it = planned(cluster(7001), cluster(7002))
    told = {change.nodes: change.effect for change in it.changes if "Port" in change.what}
    assert "restart of slurmd" in told["cn01",]
    assert "slurmd with the next restart" in told["cn02",]


def test_a_file_that_is_no_text_is_told_all_the_same() -> None:
    it = planned([Bundle("ctl", "slurmctld", [File(CONF, b"MailProg=/\xff\n")])],
                 [Bundle("ctl", "slurmctld", [File(CONF, b"MailProg=/a\n")])])  # fmt: skip
    assert "MailProg" in said(it)


def test_confined_to_some_nodes() -> None:
    it = planned([slurmd(name) for name in NODES],
                 [slurmd(name, "Port=1") for name in NODES], ["cn02", "cn07"])  # fmt: skip
    assert it.nodes == ("cn02", "cn07")
    assert it.targets == {"cn02": ("urn::cn02-slurmd",), "cn07": ("urn::cn07-slurmd",)}
    assert [daemon.nodes for daemon in it.daemons] == [("cn02", "cn07")]


def test_the_plan_for_programs() -> None:
    """docs/plan.md has these names."""
    old, new = "24.11.5-4", "24.11.6-1"
    it = planned([slurmctld(conf()), slurmd("cn01", version=old)],
                 [slurmctld(conf(90)), slurmd("cn01", version=new)])  # fmt: skip
    job = {"id": "7", "user": "al", "state": "RUNNING", "nodes": "cn01", "partition": "main"}
    told = replace(it, jobs=(job,), refused=("no",), unasked=None, digests={"state": "ab"})
    assert told.as_dict() == {
        "version": 1, "stack": "prod", "nodes": "cn01,ctl", "reconfigured": "", "drained": [],
        "rebooted": "",
        "jobs": [job], "refused": ["no"], "unasked": None, "digests": {"state": "ab"},
        "changes": [
            {
                "nodes": "cn01", "kind": "package", "what": "slurmd", "old": old, "new": new,
                "needs": "restart", "effect": "slurmd restarted",
            },
            {
                "nodes": "cn01,ctl", "kind": "parameter", "what": "slurm.conf MessageTimeout",
                "old": "60", "new": "90", "needs": "reconfigure",
                "effect": "reconfigure, jobs keep running",
            },
        ],
        "daemons": [
            {"nodes": "ctl", "unit": "slurmctld.service", "deed": "reloaded", "because": [CONF],
             "sure": True},
            {"nodes": "cn01", "unit": "slurmd.service", "deed": "restarted",
             "because": ["package:slurmd"], "sure": True},
        ],
    }  # fmt: skip
    assert it.as_dict()["jobs"] is None


def test_the_plan_for_a_comment_and_for_a_terminal() -> None:
    it = planned([slurmctld(conf()), slurmd("cn01")], [slurmctld(conf(90)), slurmd("cn01")])
    job = {"id": "7", "user": "al", "state": "RUNNING", "nodes": "cn01", "partition": "main"}
    asked = replace(it, jobs=(job,) * 21, refused=("ctl: job 7 runs",))
    assert markdown(asked).splitlines()[:16] == [
        "### stack prod: 1 change on 1 node (ctl)",
        "",
        "| nodes | change | what it needs |",
        "|---|---|---|",
        "| cn01,ctl | slurm.conf MessageTimeout 60 → 90 | reconfigure, jobs keep running |",
        "",
        "| nodes | daemons |",
        "|---|---|",
        "| ctl | slurmctld reconfigured (/etc/slurm/slurm.conf) |",
        "| cn01 | take the configuration anew from slurmctld, no restart |",
        "",
        "**Would be refused:** ctl: job 7 runs",
        "",
        "jobs on these nodes now: 21, 20 of them named",
        "- cn01: 7 al running main",
        "- cn01: 7 al running main",
    ]
    assert markdown(asked).count("- cn01: 7") == said(asked).count("cn01 7 al running main") == 20
    assert "would be refused: ctl: job 7 runs" in said(asked)
    alone = replace(it, jobs=())
    for shown in (markdown(alone), said(alone)):
        assert "no job is on these nodes now" in shown
    unasked = replace(it, jobs=(job,), unasked="ctl: connect: refused")
    for shown in (markdown(unasked), said(unasked)):
        assert "obs not asked for: ctl: connect: refused" in shown
        assert "running" not in shown.replace("jobs keep running", "")
    two = planned(
        [slurmctld(conf()), slurmd("cn01")], [slurmctld(conf(90, 9)), slurmd("cn01", "a")]
    )
    assert headline(two).startswith("stack prod: ")
    assert headline(two).endswith(" changes on 2 nodes (cn01,ctl)")


def test_as_many_jobs_as_are_named_are_all_of_them() -> None:
    it = planned([slurmctld(conf())], [slurmctld(conf(90))])
    job = {"id": "7", "user": "al", "state": "RUNNING", "nodes": "cn01", "partition": "main"}
    for number, told in ((20, "20"), (21, "21, 20 of them named")):
        asked = replace(it, jobs=(job,) * number)
        for shown in (markdown(asked), said(asked)):
            assert f"jobs on these nodes now: {told}\n" in shown


def test_each_thing_that_is_done_to_daemons_is_told_where_nothing_else_is() -> None:
    it = Plan("prod", (), (), any=True)
    restarted = Daemon(("cn01",), "munge.service", Deed.RESTARTED, ())
    for only, row in (
        (replace(it, daemons=(restarted,)), "cn01 munge restarted"),
        (replace(it, reconfigured=("cn01",)), "cn01 take the configuration anew from slurmctld"),
        (replace(it, drained={("cn01",): ("munge",)}), "cn01 drained first, given back after"),
    ):
        _, empty, title, told = said(only).splitlines()[:4]
        assert (empty, title) == ("", "daemons:")
        assert told.startswith(row)
        assert f"| {row.replace(' ', ' | ', 1)}" in markdown(only)


def test_no_change() -> None:
    it = planned([slurmd("cn01")], [slurmd("cn01")])
    assert (said(it), it.any, it.as_dict()["changes"]) == ("stack prod: no change", False, [])


def test_markdown_neither_ends_a_cell_nor_formats_it() -> None:
    it = planned([slurmctld("MailProg=/a\n")], [slurmctld("MailProg=/a|b <c> `d` [e]\n")])
    assert r"/a\|b \<c\> \`d\` \[e\]" in markdown(it)


def test_brackets_are_no_markup_on_a_terminal() -> None:
    it = planned([slurmctld("MailProg=/a\n")], [slurmctld("MailProg=[bold]x[/nonsense]\n")])
    assert "[bold]x[/nonsense]" in said(it)


@pytest.mark.parametrize(
    ("path", "old", "new", "told"),
    [
        (CONF, "A=1\n", "A=1 # more\n", []),
        (CONF, 'Epilog="a b"\n', 'Epilog="a c"\n', ['slurm.conf Epilog "a b" → "a c"']),
        (CONF, "S=a=1,b=2\n", "S=a=1,b=3\n", ["slurm.conf S a=1,b=2 → a=1,b=3"]),
        (
            CONF, "NodeName=cn[1-2] \\\n  CPUs=1\n", "NodeName=cn1 CPUs=1\nNodeName=cn2 CPUs=2\n",
            ["slurm.conf CPUs 1 → 2"],
        ),
        (
            "/etc/slurm/gres.conf", "NodeName=cn[1-2] Name=gpu\n",
            "NodeName=cn1 Name=gpu\nNodeName=cn2 Name=gpu Cores=0\n", ["gres.conf Cores 0"],
        ),
        (
            "/etc/slurm/topology.conf", "SwitchName=a Nodes=cn1\n", "SwitchName=a Nodes=cn2\n",
            ["topology.conf switch a Nodes cn1 → cn2"],
        ),
        ("/etc/slurm/cgroup.conf", "A=yes\n", None, ["cgroup.conf A yes → not set"]),
    ],
)  # fmt: skip
def test_files_parameter_by_parameter(
    path: str, old: str, new: str | None, told: list[str]
) -> None:
    assert [str(change) for change in changes(path, old, new)] == told
