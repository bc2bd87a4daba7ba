"""Confinement by cgroup v2, as production has it, on a node with a kernel of its own."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lab import lifecycle, virtual_machine
from lab.system import SEARCH
from tests.lab.conftest import RunningLab, await_that, lab_command, own_name, why_not

pytestmark = pytest.mark.lab

#: What in the lab's settings is not about a controller and one compute node.
LEFT_OUT = ("accounting", "jwt", "rest", "topology", "modules", "mpi", "jobContainer")
#: Devices for two GPUs to be: slurmd keeps a job from a device by its number, whatever it is.
DEVICES = "mknod -m 0666 /dev/nvidia0 c 1 7; mknod -m 0666 /dev/nvidia1 c 10 183"


@pytest.fixture(scope="module")
def lab() -> Iterator[RunningLab]:
    """A controller, and a compute node that is a virtual machine in software."""
    with booted("v", ["cn01"]) as running:
        running.ssh("cn01", DEVICES)
        gpus = {"Name": "gpu", "Type": "h100", "File": "/dev/nvidia[0-1]"}
        nodes = [{"hosts": "cn01", "Gres": [gpus]}]
        as_production(running, "ctl", "cn01", nodes=nodes, directory={"jobAccess": {}})
        lab_command(running.name, "up", "--nodes", "ctl,cn01")
        yield running


@contextmanager
def booted(suffix: str, *machines: list[str]) -> Iterator[RunningLab]:
    """A controller and virtual machines, on which nothing is deployed, until the end.

    Args:
        suffix: of the lab's name.
        machines: each its name and what `node-up` is told of it.
    """
    reason = why_not() or virtual_machine.why_not()
    if reason is not None:
        pytest.skip(reason)
    name = own_name(suffix)
    try:
        lab_command(name, "up", "--nodes", "ctl", "--machines-only")
        for machine in machines:
            lab_command(name, "node-up", *machine, "--virtual")
        yield RunningLab(lifecycle.require(name))
    finally:
        lab_command(name, "down")
        assert shutil.which(virtual_machine.QEMU, path=SEARCH)


def as_production(lab: RunningLab, *hosts: str, **further: Any) -> None:
    """The lab's settings with production's way to confine: what slurmstack sets by itself."""

    def how(config: dict[str, Any]) -> None:
        for key in LEFT_OUT:
            del config[key]
        config["hosts"] = {name: lab.address(name) for name in hosts}
        config["roles"] = {"controller": "ctl"}
        config["partitions"] = {"main": {"Nodes": "ALL", "Default": True}}
        config["nodes"] = [{"hosts": "cn01"}]
        config["cgroup"] = {"ConstrainSwapSpace": True}  # the others are so by default
        config["slurm"] = {
            "MessageTimeout": 60, "SelectTypeParameters": "CR_Core_Memory",
            "JobAcctGatherType": "jobacct_gather/cgroup", "JobAcctGatherFrequency": "task=1",
        }  # fmt: skip
        config.update(further)

    lab.change(how)


@pytest.fixture(autouse=True)
def quiet(lab: RunningLab) -> Iterator[None]:
    """No job is left of a test: the node has two cores."""
    yield
    lab.ssh("ctl", "squeue -h -o %A | xargs -r scancel --full")
    await_that(lambda: lab.ssh("ctl", "squeue -h").stdout == "")


def srun(lab: RunningLab, options: str, command: str, check: bool = True) -> str:
    """A user's job; its output and errors."""
    words = f"cd / && timeout 240 runuser -u alice -- srun --quiet {options} sh -c '{command}' 2>&1"
    return lab.ssh("ctl", words, check=check).stdout


def test_a_job_has_what_it_asked_for_and_no_more(lab: RunningLab) -> None:
    config = lab.ssh("ctl", "scontrol show config").stdout
    for plugin in ("proctrack/cgroup", "task/cgroup", "jobacct_gather/cgroup"):
        assert plugin in config
    # Cores.
    assert srun(lab, "-n1 -c1 --mem=200", "nproc").split() == ["1"]
    assert srun(lab, "-n1 -c2 --mem=200", "nproc").split() == ["2"]
    # Devices: the one that was given, and not the other.
    opened = "for n in 0 1; do head -c 1 /dev/nvidia$n >/dev/null 2>&1 && echo $n; done; true"
    assert lab.ssh("cn01", opened).stdout.split() == ["0", "1"]
    assert srun(lab, "-n1 --mem=200 --gres=gpu:1", opened).split() == ["0"]
    assert srun(lab, "-n1 --mem=200 --gres=gpu:2", opened).split() == ["0", "1"]
    assert srun(lab, "-n1 --mem=200", opened).split() == []
    # All that a job has started ends with it, whatever it did to get away.
    srun(lab, "-n1 --mem=200", 'setsid sleep 4711 >/dev/null 2>&1 & sleep 1; pgrep -f "sleep 4711"')
    await_that(lambda: lab.ssh("cn01", "pgrep -f '^sleep 4711'", check=False).stdout == "")


def test_what_a_job_uses_is_read_from_its_cgroup(lab: RunningLab) -> None:
    holds = "head -c 150M /dev/zero | tail -c 150M | sleep 600"
    job = lab.ssh(
        "ctl", f"sbatch --parsable -n1 --mem=400 -D / -o /dev/null --wrap '{holds}'"
    ).stdout.strip()
    seen = f"sstat -n -P -a -j {job} --noconvert -o MaxRSS | grep -v '^$'"

    def holds_it() -> bool:
        shown = lab.ssh("ctl", seen, check=False).stdout.split()
        return any(text.isdigit() and int(text) > 140 * 2**20 for text in shown)

    await_that(holds_it)


def test_a_session_lies_in_its_persons_job(lab: RunningLab) -> None:
    """By pam_slurm_adopt: what a login starts is the job's, its memory is, and it ends with it."""

    def session(command: str) -> subprocess.Popen[str]:
        words = ["ssh", "-F", str(lab.lab.ssh_config), "alice@cn01", command]
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    assert "you have no active jobs on this node" in session("true").communicate(timeout=120)[0]
    words = "sbatch --parsable -n1 --mem=400 -D / -o /dev/null --wrap 'sleep 600'"
    job = lab.ssh("ctl", f"cd / && runuser -u alice -- {words}").stdout.strip()
    await_that(lambda: "RUNNING" in lab.ssh("ctl", f"squeue -h -j {job} -o %T").stdout)
    lies = session("cat /proc/self/cgroup").communicate(timeout=120)[0]
    assert re.fullmatch(rf"0::(/.+/job_{job})/step_extern/\S+\n", lies), lies
    folder = lies.removeprefix("0::").partition("/step_extern")[0]
    uses = f"cat /sys/fs/cgroup{folder}/memory.current"
    assert int(lab.ssh("cn01", uses).stdout) < 140 * 2**20
    lasting = session("head -c 150M /dev/zero | tail -c 150M | sleep 600")
    try:
        await_that(lambda: int(lab.ssh("cn01", uses).stdout) > 140 * 2**20)
        assert lasting.poll() is None
        lab.ssh("ctl", f"scancel {job}")
        lasting.communicate(timeout=120)
    finally:
        lasting.kill()
        lasting.communicate()


def test_a_job_that_takes_too_much_memory_is_killed_and_no_other(lab: RunningLab) -> None:
    other = lab.ssh("ctl", "sbatch --parsable -n1 --mem=200 -D / -o /dev/null --wrap 'sleep 600'")
    job = other.stdout.strip()
    await_that(lambda: "RUNNING" in lab.ssh("ctl", f"squeue -h -j {job} -o %T").stdout)
    eats = "head -c 500M /dev/zero | tail -c 500M | wc -c"
    said = srun(lab, "-n1 --mem=100", eats, check=False)
    assert "oom_kill event" in said or "OOM Killed" in said, said
    assert "oom-kill" in lab.ssh("cn01", "dmesg").stdout
    assert "RUNNING" in lab.ssh("ctl", f"squeue -h -j {job} -o %T").stdout
    # It takes jobs still, whether the killed one is cleared away already or not.
    assert lab.shown("cn01", "%T") in ("mixed", "allocated", "completing")
    # With room for it the same job ends well.
    assert str(500 * 2**20) in srun(lab, "-n1 --mem=800", eats)


def test_validate_proves_what_confines_jobs(lab: RunningLab) -> None:
    """Memory, cores, devices, in `slurmstack validate`'s own words."""
    done = lab.run("slurmstack", "validate", "--stack", lab.name, "--json", check=False)
    said = {
        word["test"]: (word["verdict"], word["words"]) for word in json.loads(done.stdout)["words"]
    }
    for test in ("memory limit", "core limit", "device limit", "GRES binding", "GRES limit"):
        assert said[test][0] == "proven", (test, said)
