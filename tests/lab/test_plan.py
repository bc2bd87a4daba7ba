"""What `slurmstack plan` says of daemons, against what systemd then saw: every unit of every node,
those that were left alone included."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.deploy import project
from settings.hostlist import expand
from tests.lab.conftest import CHECKOUT, RunningLab, await_that

pytestmark = pytest.mark.lab

NODES = ("ctl", "login01", "cn01", "cn02")
UNITS = (
    "slurmctld.service", "slurmd.service", "slurmdbd.service", "slurmrestd.service",
    "sackd.service", "munge.service", "mariadb.service", "haproxy.service",
    "slurmdbd-dump.timer",
)  # fmt: skip
Config = dict[str, Any]
#: (node, unit) → what systemd says of it.
Marks = dict[tuple[str, str], dict[str, str]]
Deeds = set[tuple[str, str, str]]


def marks(lab: RunningLab) -> Marks:
    wanted = "-p Id -p InvocationID -p MainPID -p ActiveState -p StateChangeTimestampMonotonic"
    found: Marks = {}
    for node in NODES:
        shown = lab.ssh(node, f"systemctl show {wanted} -- {' '.join(UNITS)}").stdout
        for block in shown.strip().split("\n\n"):
            values = dict(line.split("=", 1) for line in block.splitlines())
            found[node, values["Id"]] = values
    return found


def seen(before: Marks, after: Marks) -> Deeds:
    """What was done to units, as systemd saw it."""
    deeds: Deeds = set()
    for key, was in before.items():
        now = after[key]
        runs = [it["ActiveState"] == "active" for it in (was, now)]
        if runs == [True, False]:
            deeds.add((*key, "stopped"))
        elif runs == [False, True]:
            deeds.add((*key, "started"))
        elif runs == [True, True] and was["InvocationID"] != now["InvocationID"]:
            deeds.add((*key, "restarted"))
        elif runs == [True, True] and was != now:
            deeds.add((*key, "reloaded"))
    return deeds


def told(plan: Config) -> Deeds:
    """What a plan said would be done to them."""
    deeds = {
        (node, it["unit"], it["deed"])
        for it in plan["daemons"]
        for node in expand(it["nodes"])
        if it["unit"] in UNITS
    }
    for node in expand(plan["reconfigured"]) if plan["reconfigured"] else ():
        deeds.add((node, "sackd.service" if node == "login01" else "slurmd.service", "reloaded"))
    return deeds


def slurm(**values: Any) -> Callable[[Config], None]:
    return lambda config: config["slurm"].update(values)


def extra(**values: Any) -> Callable[[Config], None]:
    return lambda config: config["slurm"]["extra"].update(values)


def in_both(*edits: Callable[[Config], None]) -> Callable[[Config], None]:
    def edit(config: Config) -> None:
        for one in edits:
            one(config)

    return edit


def set_in(*path: Any) -> Callable[[Config], None]:
    """`set_in("partitions", "main", "MaxTime", "1:00")`."""

    def edit(config: Config) -> None:
        place: Any = config
        for key in path[:-2]:
            place = place[key]
        place[path[-2]] = path[-1]

    return edit


def without_cn02(config: Config) -> None:
    config["nodes"] = [one for one in config["nodes"] if one["hosts"] != "cn02"]
    config["topology"] = {"plugin": "tree", "switches": {"leaf1": {"Nodes": "cn01"}}}


def with_cn02(config: Config) -> None:
    config["nodes"].append({"hosts": "cn02", "Features": ["plain"]})
    config["topology"]["switches"]["leaf1"]["Nodes"] = "cn[01-02]"


#: Edits, one on top of the other, and a line that the plan is to have for each.
EDITS: dict[str, tuple[Callable[[Config], None], str]] = {
    "reconfigure": (
        slurm(MessageTimeout=40),
        "slurm.conf MessageTimeout 30 → 40: reconfigure, jobs keep running",
    ),
    "limits of a partition": (
        set_in("partitions", "main", "MaxTime", "2-00:00:00"),
        "slurm.conf partition main MaxTime 1-00:00:00 → 2-00:00:00: reconfigure, jobs keep running",
    ),
    "fewer GPUs": (
        set_in("nodes", 0, "Gres", [{"Name": "gpu", "Type": "h100", "Count": 2, "standIn": True}]),
        "slurm.conf Gres gpu:h100:4 → gpu:h100:2: drain first, reconfigure",
    ),
    "restart of several daemons": (
        slurm(AuthInfo="cred_expire=200"),
        "slurm.conf AuthInfo cred_expire=200: restart of slurmctld, slurmd, slurmrestd, "
        "jobs keep running",
    ),
    "restart of one, and a reconfigure of all": (
        in_both(extra(SlurmctldPidFile="/run/slurmctld/other.pid"), slurm(KillWait=40)),
        "slurm.conf SlurmctldPidFile /run/slurmctld/other.pid: restart of slurmctld, "
        "jobs keep running",
    ),
    "user and QOS": (
        in_both(
            set_in("accounting", "users", "worker", {"Accounts": {"physics": {}}}),
            set_in("accounting", "qos", "high", "Priority", 101),
        ),
        "qos high Priority 100 → 101: sacctmgr, no daemon, jobs keep running",
    ),
    "rotation of signing keys": (
        set_in("jwt", "keys", ["second", "main"]),
        "/usr/local/lib/slurmstack/jwt-keys changed: slurmdbd restarted, slurmctld reconfigured",
    ),
    "limits of slurmd": (
        set_in("limits", "nofile", 8192),
        "/etc/systemd/system/slurmd.service.d/slurmstack.conf changed: slurmd restarted",
    ),
    "port of the API": (
        set_in("rest", "port", 6822),
        "/etc/haproxy/haproxy.cfg changed: haproxy reloaded",
    ),
    "database": (
        set_in("accounting", "mariadb", "innodb_buffer_pool_size", "1024M"),
        "/etc/mysql/mariadb.conf.d/90-slurmstack.cnf new content, sha256",
    ),
    "place of private folders": (
        set_in("jobContainer", "BasePath", "/var/lib/job-tmp"),
        "job_container.conf BasePath /var/lib/slurm-tmp → /var/lib/job-tmp: drain first, "
        "restart of slurmd",
    ),
    "timer of dumps": (
        set_in("accounting", "dump", {"onCalendar": "03:30"}),
        "/etc/systemd/system/slurmdbd-dump.timer changed: slurmdbd-dump.timer restarted",
    ),
    "node removed": (without_cn02, "slurm.conf node cn02 → not set: reconfigure"),
    "node added": (with_cn02, "slurm.conf node cn02: reconfigure"),
}


@pytest.fixture(scope="module")
def edited(lab: RunningLab) -> Any:
    """The lab for edits one on top of the other; afterwards it is as it was."""
    before = lab.settings.read_text()
    yield lab
    lab.settings.write_text(before)
    lab.up()


def plan(lab: RunningLab, *options: str) -> tuple[Config, int]:
    done = lab.run("slurmstack", "plan", "--stack", lab.name, "--json", *options, check=False)
    assert done.returncode in (0, 2), done.stderr
    return json.loads(done.stdout), done.returncode


def lines(planned: Config) -> list[str]:
    return [
        (f"{it['what']} {it['old']} → {it['new']}" if it["old"] else f"{it['what']} {it['new']}")
        + f": {it['effect']}"
        for it in planned["changes"]
    ]


@pytest.mark.parametrize("name", EDITS)
def test_what_is_told_is_what_is_done(name: str, edited: RunningLab, tmp_path: Path) -> None:
    edit, line = EDITS[name]
    lab, file = edited, tmp_path / "plan.json"
    lab.change(edit)
    before = marks(lab)
    planned, code = plan(lab, "--save", str(file))
    assert code == 2
    assert planned["refused"] == []
    assert any(it.startswith(line) for it in lines(planned)), lines(planned)
    assert marks(lab) == before, "planning touched a daemon"
    said = lab.run("slurmstack", "apply", str(file), "--yes", "--cwd", str(CHECKOUT)).stdout
    assert seen(before, marks(lab)) == told(planned), said
    assert "PARTITION AVAIL" in said
    planned, code = plan(lab, "--offline")
    assert (planned["changes"], code) == ([], 0)


def test_a_saved_plan_is_refused_when_something_moved(kept: RunningLab, tmp_path: Path) -> None:
    lab, file = kept, tmp_path / "plan.json"
    lab.change(slurm(MessageTimeout=50))
    plan(lab, "--save", str(file), "--offline")
    saved, settings = json.loads(file.read_text()), lab.settings.read_text()
    before = marks(lab)

    def refused(*words: str) -> str:
        done = lab.run("slurmstack", "apply", *words, "--yes", check=False)
        assert (done.returncode, done.stdout) == (1, ""), done.stdout
        (line,) = done.stderr.strip().splitlines()
        assert marks(lab) == before
        return line

    lab.change(slurm(MessageTimeout=51))
    assert "the settings (Pulumi." in refused(str(file))
    lab.settings.write_text(settings)
    for what, words in {"state": "has been deployed to", "steps": "not what was planned"}.items():
        other = {**saved, "digests": {**saved["digests"], what: "0"}}
        file.write_text(json.dumps(other))
        assert words in refused(str(file))
    file.write_text(json.dumps(saved))
    assert f"a plan of stack {lab.name}, not of other" in refused(str(file), "--stack", "other")
    unknown = refused("--only", "cn99", "--stack", lab.name)
    assert "cn99: no host with a role in the settings" in unknown
    assert "an empty host list" in refused("--only", "", "--stack", lab.name)
    file.write_text("{}")
    assert "is no plan" in refused(str(file))


def test_a_locked_stack_is_left_alone(kept: RunningLab) -> None:
    lab = kept
    lab.change(slurm(MessageTimeout=50))
    before = marks(lab)
    locks = lab.lab.state / ".pulumi" / "locks" / "organization" / project(CHECKOUT) / lab.name
    locks.mkdir(parents=True, exist_ok=True)
    lock = locks / f"{uuid.uuid4()}.json"
    lock.write_text(
        json.dumps(
            {"pid": 1, "username": "eve", "hostname": "far", "timestamp": "2026-01-31T12:00:00Z"}
        )
    )
    try:
        words = ("slurmstack", "apply", "--stack", lab.name, "--yes", "--offline")
        done = lab.run(*words, check=False)
    finally:
        lock.unlink()
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert "is locked" in line
    assert "eve@far" in line
    assert marks(lab) == before


def test_jobs_are_named_and_what_guards_would_refuse(kept: RunningLab) -> None:
    lab = kept
    submit = "cd /tmp && sbatch --parsable -w cn01 --gres=gpu:1 --wrap 'sleep 600'"
    job = lab.ssh("ctl", f"runuser -u worker -- sh -c {submit!r}", check=False).stdout.strip()
    job = job or lab.ssh("ctl", submit).stdout.strip()
    try:
        await_that(lambda: f"{job} R" in lab.ssh("ctl", "squeue -h -o '%i %t'").stdout)
        lab.change(set_in("nodes", 0, "Gres", []))
        planned, _ = plan(lab)
        assert {"nodes": "cn01", "because": ["slurm.conf Gres"]} in planned["drained"]
        assert planned["refused"] == []
        lab.set(rollout={"drain": "never"})
        planned, _ = plan(lab)
        assert planned["drained"] == []
        assert job in [it["id"] for it in planned["jobs"]]
        assert any(job in refusal for refusal in planned["refused"])
        done = lab.run("slurmstack", "apply", "--stack", lab.name, "--yes", check=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert job in done.stderr
        assert f"{job} R" in lab.ssh("ctl", "squeue -h -o '%i %t'").stdout
        alone, _ = plan(lab, "--offline")
        assert alone["jobs"] is None
    finally:
        lab.ssh("ctl", f"scancel {job}")


def test_only_some_nodes(restored: RunningLab) -> None:
    lab = restored
    lab.change(set_in("limits", "nofile", 8000))
    before = marks(lab)
    planned, _ = plan(lab, "--only", "cn02")
    assert planned["nodes"] == "cn02"
    lab.run("slurmstack", "apply", "--stack", lab.name, "--only", "cn02", "--yes")
    assert seen(before, marks(lab)) == told(planned) == {("cn02", "slurmd.service", "restarted")}
