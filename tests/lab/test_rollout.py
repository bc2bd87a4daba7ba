"""Nodes are drained before they are changed, and given back as they were found; on real nodes."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.lab.conftest import RunningLab, await_that
from tests.lab.test_guards import cancel, node, state_of, submit

pytestmark = pytest.mark.lab

#: How slurmstack's own drains begin.
OURS = "slurmstack: "


@pytest.fixture
def draining(restored: RunningLab) -> Iterator[RunningLab]:
    """The lab without jobs, where each restart of slurmd is done drained."""
    lab = restored
    cancel(lab)
    lab.set(rollout={"drain": "always", "drainTimeout": 5})
    lab.up()
    yield lab
    cancel(lab)
    for name in ("cn01", "cn02"):
        if "drain" in node(lab, name):
            lab.ssh("ctl", f"scontrol update node={name} state=undrain")


def limit(lab: RunningLab, files: int) -> Callable[[dict[str, Any]], None]:
    """A change by which slurmd is restarted, of the nodes' own files alone."""
    return lambda settings: settings["limits"].update(nofile=files)


def slurmd(lab: RunningLab, name: str) -> str:
    """Which process it is, and with what it was started."""
    show = "systemctl show -p MainPID -p LimitNOFILE slurmd"
    return lab.ssh(name, show).stdout


def in_background(lab: RunningLab, *, check: bool) -> tuple[threading.Thread, list[str]]:
    said: list[str] = []
    thread = threading.Thread(target=lambda: said.append(lab.up(check=check)))
    thread.start()
    return thread, said


def test_jobs_keep_their_node_and_the_others_are_changed(draining: RunningLab) -> None:
    lab = draining
    long = submit(lab, "-w cn01")
    waiting = submit(lab, "-w cn01 --exclusive", "PENDING")
    before = slurmd(lab, "cn01")
    lab.change(limit(lab, 16385))
    said = lab.up(check=False)
    assert "slurmstack: cn01: withdraw node-drained: refused" in said, said
    assert f"(slurmstack:rollout.drainTimeout): {long} (root)" in said, said
    assert slurmd(lab, "cn01") == before
    assert node(lab, "cn01") == "mixed|none|Unknown"
    assert "LimitNOFILE=16385" in slurmd(lab, "cn02")
    assert node(lab, "cn02") == "idle|none|Unknown"
    proven = lab.ssh("ctl", "sacct -nX --name=slurmstack-check -o nodelist,state").stdout.split()
    assert proven[-2:] == ["cn02", "COMPLETED"], proven
    assert "slurmstack" not in lab.ssh("ctl", "scontrol show reservation").stdout
    assert (state_of(lab, long), state_of(lab, waiting)) == ("RUNNING", "PENDING")
    cancel(lab)
    lab.up()
    assert "LimitNOFILE=16385" in slurmd(lab, "cn01")
    assert node(lab, "cn01") == "idle|none|Unknown"


def test_jobs_are_ended_where_the_settings_say_so(draining: RunningLab) -> None:
    lab = draining
    lab.change(lambda it: it["rollout"].update(endJobs=True))
    lab.up()
    job = submit(lab, "-w cn01")
    lab.change(limit(lab, 16386))
    lab.up()
    assert state_of(lab, job) == "CANCELLED"
    assert node(lab, "cn01") == "idle|none|Unknown"


def test_what_somebody_else_has_decided_stays(draining: RunningLab) -> None:
    lab = draining
    lab.ssh("ctl", "scontrol update node=cn02 state=drain reason='of a person'")
    lab.change(lambda it: it["rollout"].update(drainTimeout=300))
    lab.up()
    submit(lab, "-w cn01")
    lab.change(limit(lab, 16387))
    thread, said = in_background(lab, check=True)
    await_that(lambda: OURS in node(lab, "cn01"))
    # Somebody comes in between.
    lab.ssh("ctl", "scontrol update node=cn01 state=drain reason='of another'")
    cancel(lab)
    thread.join()
    assert said
    for name, reason in {"cn01": "of another", "cn02": "of a person"}.items():
        assert "LimitNOFILE=16387" in slurmd(lab, name)
        assert node(lab, name) == f"drained|{reason}|root"


def test_a_drain_of_a_run_that_was_killed_is_ended_by_the_next(draining: RunningLab) -> None:
    lab = draining
    lab.change(lambda it: it["rollout"].update(drainTimeout=300))
    lab.up()
    job = submit(lab, "-w cn01")
    lab.change(limit(lab, 16388))
    thread, _ = in_background(lab, check=False)
    await_that(lambda: OURS in node(lab, "cn01"))
    lab.ssh("cn01", "read -r _ pid _ </run/slurmstack/holder; kill -KILL -- $pid")
    thread.join()
    assert node(lab, "cn01").startswith(f"draining|{OURS}")
    assert state_of(lab, job) == "RUNNING"
    cancel(lab)
    lab.up()
    assert "LimitNOFILE=16388" in slurmd(lab, "cn01")
    assert node(lab, "cn01") == "idle|none|Unknown"


def gpus(count: int) -> Callable[[dict[str, Any]], None]:
    """A change of cn01's line of slurm.conf."""
    return lambda it: it["nodes"][0]["Gres"][0].update(Count=count)


def test_slurm_conf_waits_for_the_jobs_of_the_nodes_that_it_changes(restored: RunningLab) -> None:
    lab = restored
    cancel(lab)
    before = lab.ssh("ctl", "sha256sum /etc/slurm/*.conf").stdout
    long = submit(lab, "-w cn01 --gres=gpu:3 --mem=100")
    others = {submit(lab, "-w cn02 --mem=100"): "RUNNING",
              submit(lab, "-w cn02 --exclusive", "PENDING"): "PENDING"}  # fmt: skip

    def alone() -> bool:
        """Whether cn01 is drained by us, and no other."""
        return OURS in node(lab, "cn01") and node(lab, "cn02") == "mixed|none|Unknown"

    # The time is over: nothing has changed, and the node is as it was.
    lab.set(rollout={"drainTimeout": 1})
    lab.change(gpus(2))
    said = lab.up(check=False)
    assert "slurmstack: ctl: withdraw nodes-drained: refused" in said, said
    assert f"node cn01 has 2 gres/gpu, not 4: job {long} (root, main, running on cn01)" in said
    assert "nothing was changed" in said
    assert node(lab, "cn01") == "mixed|none|Unknown"
    assert lab.ssh("ctl", "sha256sum /etc/slurm/*.conf").stdout == before

    # The run is killed while it waits. The settings go back: the next one gives the node back.
    lab.set(rollout={"drainTimeout": 300})
    thread, _ = in_background(lab, check=False)
    await_that(alone)
    lab.ssh("ctl", "read -r _ pid _ </run/slurmstack/holder; kill -KILL -- $pid")
    thread.join()
    assert alone()
    lab.change(gpus(4))
    lab.up()
    assert node(lab, "cn01") == "mixed|none|Unknown"
    assert state_of(lab, long) == "RUNNING"

    # The job ends in time, and the node does not prove itself: it stays drained.
    lab.change(gpus(2))
    thread, said_then = in_background(lab, check=False)
    await_that(alone)
    late = submit(lab, "-w cn01 --gres=gpu:1 --mem=100", "PENDING")
    lab.ssh("cn01", "chmod a-x /usr/bin/scontrol")
    try:
        lab.ssh("ctl", f"scancel {long}")
        thread.join()
    finally:
        lab.ssh("cn01", "chmod a+x /usr/bin/scontrol")
    assert "cn01 is not given back: a job of one second failed" in said_then[0], said_then
    assert node(lab, "cn01").startswith(f"drained|{OURS}")
    assert state_of(lab, late) == "PENDING"
    assert "slurmstack" not in lab.ssh("ctl", "scontrol show reservation").stdout
    assert "gpu:h100:2" in lab.ssh("ctl", "sinfo -h -n cn01 -o %G").stdout
    lab.up()
    proven = lab.ssh("ctl", "sacct -nX --name=slurmstack-check -o nodelist,state").stdout.split()
    assert proven[-4:] == ["cn01", "FAILED", "cn01", "COMPLETED"], proven
    await_that(lambda: state_of(lab, late) == "RUNNING")
    assert {job: state_of(lab, job) for job in others} == others
    cancel(lab)


def test_what_no_job_survives_waits_for_all_and_ends_them_where_it_may(
    restored: RunningLab,
) -> None:
    lab = restored
    cancel(lab)
    job = submit(lab, "-w cn01 --mem=100")
    lab.ssh("ctl", "scontrol update node=cn02 state=drain reason='of a person'")
    try:
        lab.set(rollout={"drainTimeout": 1, "endJobs": True})
        lab.change(lambda it: it["slurm"].update(ProctrackType="proctrack/pgid"))
        lab.up()
        assert state_of(lab, job) == "CANCELLED"
        shown = lab.ssh("cn01", "scontrol show config | grep ^ProctrackType").stdout
        assert "proctrack/pgid" in shown
        assert node(lab, "cn01") == "idle|none|Unknown"
        assert node(lab, "cn02") == "drained|of a person|root"
    finally:
        lab.ssh("ctl", "scontrol update node=cn02 state=resume")


#: Waits for a job, again and again, ten seconds at most: how long each took in milliseconds, and
#: how it ended; between them what srun had to say of one that failed.
JOBS = (
    "cd /; while [ -e /run/watched ]; do a=$(date +%s%N); "
    "timeout 9 srun -Q -w cn01 -n1 true; r=$?; "
    "echo $((($(date +%s%N) - a) / 1000000)) $r; done"
)


def test_a_slurm_conf_that_nodes_do_not_take_up_goes_back_everywhere(
    restored: RunningLab,
) -> None:
    lab = restored
    cancel(lab)
    before = lab.ssh("ctl", "sha256sum /etc/slurm/slurm.conf").stdout
    # On the other node than the jobs of a moment, which would wait behind the one that waits.
    long = submit(lab, "-w cn02")
    waiting = submit(lab, "-w cn02 --exclusive", "PENDING")
    # Its slurmd runs, and cannot be started anew.
    binary = "$(readlink -f /usr/sbin/slurmd)"
    lab.ssh("cn02", f"chmod a-x {binary}")
    lab.ssh("ctl", f"touch /run/watched; nohup sh -c '{JOBS}' >/run/jobs 2>&1 </dev/null &")
    try:
        lab.set(rollout={"mayFail": 0})
        lab.change(lambda it: it["slurm"].update(MessageTimeout=49))
        said = lab.up(check=False)
    finally:
        lab.ssh("cn02", f"chmod a+x {binary}")
        lab.ssh("ctl", "rm -f /run/watched")
    assert "slurmstack: ctl: unit slurmctld.service: reload exit 3: cn02 did not come back" in said
    assert "put back the last version of /etc/slurm/slurm.conf" in said, said
    assert lab.ssh("ctl", "sha256sum /etc/slurm/slurm.conf").stdout == before
    for name in ("ctl", "cn01", "cn02"):
        shown = lab.ssh(name, "scontrol show config | grep -E '^(MessageTimeout|HASH_VAL)'").stdout
        assert "= 49" not in shown, name
        assert "Match" in shown, name
    assert (state_of(lab, long), state_of(lab, waiting)) == ("RUNNING", "PENDING")
    told = lab.ssh("ctl", "cat /run/jobs").stdout
    ran = re.findall(r"^(\d+) (\d+)$", told, re.MULTILINE)
    assert len(ran) > 10
    # A step whose slurmd is started anew while it is launched there may be lost; the next is not.
    assert [status for _, status in ran].count("0") >= len(ran) - 1, told
    assert max(int(milliseconds) for milliseconds, _ in ran) < 10_000, told
    # What held it up is gone: the same change is taken.
    lab.up()
    assert "= 49 " in lab.ssh("cn02", "scontrol show config | grep ^MessageTimeout").stdout
    cancel(lab)


def test_what_slurmctld_was_started_with_goes_back_where_nodes_do_not_come_back(
    restored: RunningLab,
) -> None:
    """A port that no reconfigure brings there: slurmctld is restarted, and once more to go back."""
    lab = restored
    cancel(lab)
    before = lab.ssh("ctl", "sha256sum /etc/slurm/slurm.conf").stdout
    long = submit(lab, "-w cn02")
    binary = "$(readlink -f /usr/sbin/slurmd)"
    lab.ssh("cn02", f"chmod a-x {binary}")
    try:
        lab.set(rollout={"mayFail": 0})
        lab.change(lambda it: it["slurm"].update(SlurmctldPort=6917))
        said = lab.up(check=False)
    finally:
        lab.ssh("cn02", f"chmod a+x {binary}")
    assert "slurmstack: ctl: unit slurmctld.service: reload exit 3: cn02 did not come back" in said
    assert "put back the last version of /etc/slurm/slurm.conf" in said, said
    assert lab.ssh("ctl", "sha256sum /etc/slurm/slurm.conf").stdout == before
    for name in ("ctl", "cn01", "cn02"):
        shown = lab.ssh(name, "scontrol show config | grep -E '^(SlurmctldPort|HASH_VAL)'").stdout
        assert "= 6817" in shown, name
        assert "Match" in shown, name
    # The one that could take it up holds the last one again, too.
    assert "6917" not in lab.ssh("cn01", "cat /run/slurm/conf/slurm.conf").stdout
    assert state_of(lab, long) == "RUNNING"
    assert lab.ssh("ctl", "cd / && srun -w cn01 hostname").stdout == "cn01\n"
    cancel(lab)


def test_another_port_of_slurmd(restored: RunningLab) -> None:
    lab = restored
    cancel(lab)
    job = submit(lab, "-w cn02")
    begun = lab.ssh("ctl", f"squeue -h -j {job} -o %S").stdout

    def ports(name: str) -> list[tuple[str, str]]:
        """That slurmd, or systemd for it, listens to."""
        return re.findall(r':(6[89]18) .*\(\("(\w+)', lab.ssh(name, "ss -ltnpH").stdout)

    # Somebody on a node has it: nothing is changed, on no node.
    elsewhere = "systemd-run --quiet --unit=elsewhere --socket-property=ListenStream=6918 true"
    lab.ssh("cn02", elsewhere)
    try:
        lab.change(lambda it: it["slurm"].update(SlurmdPort=6918))
        said = lab.up(check=False)
    finally:
        lab.ssh("cn02", "systemctl stop elsewhere.socket")
    assert "cn02: port 6918 cannot be slurmd's: " in said, said
    assert "Address already in use. Nothing was changed" in said, said
    assert "= 6818" in lab.ssh("cn02", "scontrol show config | grep ^SlurmdPort").stdout
    lab.up()
    for name in ("cn01", "cn02"):
        assert ports(name) == [("6918", "slurmd")]
        assert "Match" in lab.ssh(name, "scontrol show config | grep ^HASH_VAL").stdout
    assert node(lab, "cn01") == "idle|none|Unknown"
    assert lab.ssh("ctl", "cd / && srun -w cn01 hostname").stdout == "cn01\n"
    assert state_of(lab, job) == "RUNNING"
    assert lab.ssh("ctl", f"squeue -h -j {job} -o %S").stdout == begun
    # slurmctld tells a login node of changes at that port, too.
    lab.change(lambda it: it["slurm"].update(MessageTimeout=47))
    lab.up()
    has = "scontrol show config | grep ^HASH_VAL"
    await_that(lambda: "Match" in lab.ssh("login01", has).stdout)
    # It is told of its end by slurmctld, over the new port.
    lab.ssh("ctl", f"scancel {job}")
    await_that(lambda: lab.ssh("cn02", "pgrep -f 'sleep [9]00'", check=False).stdout == "")


def test_slurmctld_starts_with_what_was_last_where_it_cannot_start_with_the_new(
    restored: RunningLab,
) -> None:
    """A parameter that a reconfigure does not bring there, and whose value no reader refuses."""
    lab = restored
    cancel(lab)
    before = lab.ssh("ctl", "sha256sum /etc/slurm/slurm.conf").stdout
    job = submit(lab, "-w cn02")
    # Somebody else is there.
    lab.ssh("ctl", "systemd-run --quiet --unit=elsewhere python3 -m http.server 6917")
    try:
        lab.change(lambda it: it["slurm"].update(SlurmctldPort=6917))
        said = lab.up(check=False)
    finally:
        lab.ssh("ctl", "systemctl stop elsewhere")
    assert "slurmstack: ctl: unit slurmctld.service: restart" in said, said
    assert re.search(r"put back the last version of[^;]* /etc/slurm/slurm\.conf", said), said
    assert lab.ssh("ctl", "sha256sum /etc/slurm/slurm.conf").stdout == before
    assert "is UP" in lab.ssh("ctl", "scontrol ping").stdout
    for name in ("ctl", "cn01", "cn02"):
        shown = lab.ssh(name, "scontrol show config | grep -E '^(SlurmctldPort|HASH_VAL)'").stdout
        assert "= 6817" in shown, name
        assert "Match" in shown, name
    assert state_of(lab, job) == "RUNNING"
    cancel(lab)
