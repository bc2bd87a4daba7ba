"""`slurmstack validate` on a lab: jobs in a reservation of idle nodes that goes with it, and nodes
that `pulumi up` gives to jobs only when they were measured."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from on_node.acceptance.__main__ import KEPT
from operations import node_power
from operations.validations import standings
from tests.lab.conftest import RunningLab, await_that, lasting_states
from tests.lab.test_verbs import begun, kill, place

pytestmark = pytest.mark.lab

#: How many jobs the array of `--level burnin` has, of a site 20000. It takes minutes, and so does a
#: power cut.
BURNIN = "SLURMSTACK_TEST_BURNIN"
#: HPCC is HPL and STREAM. A lab's figures go up and down with all else on the machine.
ACCEPTANCE = {
    "packages": ["openmpi-bin", "python3-mpi4py", "hpcc"],
    "hpl": "hpcc", "stream": "hpcc", "hplSize": 2000,
    "storage": ["/var/tmp"], "storageSize": 64, "tolerance": 0.05, "gate": ["new", "rollout"],
}  # fmt: skip


def validate(lab: RunningLab, *words: str, check: bool = True) -> Any:
    done = lab.run("slurmstack", "validate", *words, "--stack", lab.name, "--json", check=check)
    return json.loads(done.stdout) if check else done


def verdicts(found: Any) -> dict[tuple[str, str], str]:
    return {(word["test"], word["node"]): word["verdict"] for word in found["words"]}


def reservations(lab: RunningLab) -> str:
    return lab.ssh("ctl", "scontrol -o show reservation").stdout


def stands(lab: RunningLab) -> str:
    """Of reservations, jobs and nodes what a validation could leave."""
    words = "scontrol -o show reservation; squeue -h; sinfo -h -N -o '%n %T'"
    return lasting_states(lab.ssh("ctl", words).stdout)


@pytest.fixture(scope="module")
def accepting(lab: RunningLab) -> Iterator[tuple[RunningLab, str]]:
    """The lab with a node more, that is new, and with acceptance; and what `up` said when more was
    asked of the new node than it can."""
    before = lab.settings.read_text()
    lab.boot("cn03")
    too_much = {**ACCEPTANCE, "least": {"plain": {"hpl": 1_000_000}}}

    def with_cn03(config: dict[str, Any]) -> None:
        config["hosts"]["cn03"] = lab.address("cn03")
        config["nodes"][1]["hosts"] = "cn[02-03]"
        config["topology"]["switches"]["leaf2"]["Nodes"] = "cn[02-03]"
        # What has more than one partition is taken by the higher one.
        config["partitions"]["gpu"]["extra"] = {"PriorityTier": "10"}
        config["acceptance"] = too_much
        extra = {"PreemptType": "preempt/partition_prio", "PreemptMode": "REQUEUE"}
        config["slurm"]["extra"] = {**config["slurm"]["extra"], **extra}
        config["slurm"]["SlurmdTimeout"] = 20

    try:
        lab.change(with_cn03)
        refused = lab.up(check=False)
        yield lab, refused
    finally:
        lab.settings.write_text(before)
        lab.up()
        lab.kill("cn03")


def test_nodes_take_jobs_only_when_they_were_measured(accepting: tuple[RunningLab, str]) -> None:
    """A new one, and one that a rollout had drained: its own best is said to be a hundred times
    what it can, since no processor of a lab becomes slow."""
    lab, refused = accepting
    assert "acceptance failed: HPL, least: " in " ".join(refused.split())
    assert lab.shown("cn03", "%T") == "drained"
    assert "HPL, least" in lab.ssh("ctl", "scontrol show node cn03").stdout
    # Those that worked already were not asked.
    assert [lab.shown(node, "%T") for node in ("cn01", "cn02")] == ["idle", "idle"]
    lab.ssh("cn02", f"""echo '{{"best": {{"HPL": 1000000}}}}' >{KEPT}""")
    rollout = {"drain": "always", "canary": "cn02"}
    lab.set(acceptance=ACCEPTANCE, rollout=rollout, limits={"nofile": 16000})
    said = " ".join(lab.up(check=False).split())
    assert "acceptance failed: HPL, baseline: " in said
    assert lab.shown("cn02", "%T") == "drained"
    # They stay so until they were measured well.
    lab.ssh("cn02", f"rm {KEPT}")
    lab.up()
    assert [lab.shown(node, "%T") for node in ("cn02", "cn03")] == ["idle", "idle"]
    kept = json.loads(lab.ssh("cn03", f"cat {KEPT}").stdout)
    assert kept["last"]["versions"]["slurmd"].startswith("24.11")
    assert {"HPL", "STREAM triad"} <= {*kept["best"]}
    # One that comes back is measured again before it takes jobs.
    for verb in (("exclude", "--reason", "memory"), ("return",)):
        lab.run("slurmstack", "node", verb[0], "cn03", *verb[1:], "--yes", "--stack", lab.name)
    again = json.loads(lab.ssh("cn03", f"cat {KEPT}").stdout)
    assert again["last"]["time"] > kept["last"]["time"]
    assert lab.shown("cn03", "%T") == "idle"
    assert reservations(lab) == "No reservations in the system\n"


def test_nodes_are_proven_and_the_sick_one_is_named(
    accepting: tuple[RunningLab, str], tmp_path: Path
) -> None:
    """What leaves cn03 is slow, and a run that was killed had left a reservation."""
    lab, _ = accepting
    lab.ssh(
        "ctl",
        "scontrol create reservation=slurmstack-validate-1 nodes=cn01 users=root starttime=now"
        " duration=10",
    )
    lab.ssh("cn03", "tc qdisc add dev host0 root tbf rate 40mbit burst 32kbit latency 400ms")
    try:
        done = lab.run("slurmstack", "validate", "--level", "full", "--stack", lab.name, "--json",
                       check=False)  # fmt: skip
    finally:
        lab.ssh("cn03", "tc qdisc del dev host0 root")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    said = verdicts(found)
    sick = ("pair bandwidth (TCP, not InfiniBand), pairing", "cn03")
    assert {key for key, verdict in said.items() if verdict == "failed"} == {sick}, found["words"]
    for node in ("cn01", "cn02", "cn03"):
        for test in ("srun", "private /tmp", "HPL", "STREAM triad", "storage /var/tmp, read"):
            assert said[test, node] == "proven", (test, node)
        assert said["memory limit", node] == "not here"
        assert said["all-reduce within the node (MPI on CPUs, not NCCL)", node] == "stand-in"
        assert said["pair latency (TCP, not InfiniBand)", node] == "stand-in"
    assert (said["GRES binding", "cn01"], said["GRES limit", "cn01"]) == ("stand-in", "stand-in")
    assert said["all-reduce between nodes (MPI on CPUs, not NCCL)", ""] == "stand-in"
    for test in ("sinfo", "sacct", "all nodes at once", "array and dependency", "scancel", "token",
                 "REST: a job", "PMIx", "MPI over all nodes", "preemption"):  # fmt: skip
        assert said[test, ""] == "proven", test
    assert found["versions"]["slurm"].startswith("24.11")
    assert found["of_nodes"]["cn02"]["slurmd"].startswith("24.11")
    assert "slurmstack-validate" not in reservations(lab)
    # Kept, and shown.
    assert standings(place(lab))["cn03"].failed == (sick[0],)
    status = json.loads(lab.run("slurmstack", "status", "--stack", lab.name, "--json").stdout)
    assert status["validated"]["failed"] == ["cn03"]
    assert any(line.startswith("cn03: pair bandwidth") for line in status["waits"])
    page = tmp_path / "report.html"
    lab.run("slurmstack", "report", str(page), "--stack", lab.name)
    assert "hpcc 1.5" in page.read_text()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["killed", "Ctrl-C"])
def test_nothing_is_left_of_a_validation_that_ends_in_the_middle(
    lab: RunningLab, how: signal.Signals
) -> None:
    nodes = stands(lab)
    with begun(lab, "validate") as process:
        await_that(lambda: "slurmstack-validate" in lab.ssh("ctl", "squeue -h -o %j").stdout)
        if how == signal.SIGKILL:
            kill(process)
        else:
            os.killpg(process.pid, how)
            process.wait(60)
            assert "slurmstack-validate" not in reservations(lab)
        await_that(lambda: stands(lab) == nodes)


def test_a_node_that_is_used_is_left_alone(lab: RunningLab) -> None:
    job = lab.ssh(
        "ctl", "cd / && sbatch --parsable -w cn01 --mem=50 -o /dev/null --wrap 'sleep 600'"
    ).stdout.strip()
    try:
        await_that(lambda: "R" in lab.ssh("ctl", f"squeue -h -j {job} -o %t").stdout)
        refused = validate(lab, "cn01", check=False)
        assert refused.returncode == 1
        assert "cn01: mixed: only idle nodes are validated" in refused.stderr.replace("\n", " ")
        assert "slurmstack-validate" not in reservations(lab)
        assert lab.ssh("ctl", f"squeue -h -j {job} -o %T").stdout.strip() == "RUNNING"
    finally:
        lab.ssh("ctl", f"scancel {job}")
    await_that(lambda: not lab.ssh("ctl", f"squeue -h -j {job}").stdout.strip())


def test_many_jobs_and_slurmctld_started_anew_among_them(
    accepting: tuple[RunningLab, str],
) -> None:
    """Small; with SLURMSTACK_TEST_BURNIN set as large as a site's, and a node loses its power."""
    lab, _ = accepting
    large = int(os.environ.get(BURNIN, 0))
    stress = {"jobs": 1000, "array": large} if large else {"jobs": 20, "array": 40}
    bare = {key: it for key, it in ACCEPTANCE.items() if key not in ("hpl", "stream")}

    def stressed(config: dict[str, Any]) -> None:
        config["acceptance"] = {**bare, "stress": stress} | ({"power": power(lab)} if large else {})
        if large:
            config["slurm"].update(MaxArraySize=large + 1, MaxJobCount=10_000 + large)

    lab.change(stressed)
    if large:
        lab.up()
    found = validate(lab, "cn03", "--level", "burnin", "--new-baseline")
    said = verdicts(found)
    assert said[f"{stress['jobs']:,} jobs at once", ""] == "proven", found["words"]
    assert said[f"an array of {stress['array']:,}", ""] == "proven", found["words"]
    assert said["slurmctld restarted in the middle", ""] == "proven", found["words"]
    if large:
        assert said[node_power.TEST, "cn03"] == "proven", found["words"]
    else:
        assert said[node_power.TEST, ""] == "not here"
    assert "slurmstack-validate" not in reservations(lab)


def power(lab: RunningLab) -> dict[str, str]:
    """How a machine of the lab loses its power and gets it back."""
    words = f"cd {lab.lab.checkout} && {sys.executable} -m lab --lab {lab.name}"
    return {"off": f"{words} node-down {{node}}", "on": f"{words} node-up {{node}}"}
