"""`slurmstack validate` on a lab: jobs in a reservation of idle nodes that goes with it."""

from __future__ import annotations

import json
from typing import Any

from tests.lab.conftest import RunningLab, await_that


def validate(lab: RunningLab, *words: str, check: bool = True) -> Any:
    done = lab.run("slurmstack", "validate", *words, "--stack", lab.name, "--json", check=check)
    return json.loads(done.stdout) if check else done


def reservations(lab: RunningLab) -> str:
    return lab.ssh("ctl", "scontrol -o show reservation").stdout


def test_nodes_are_proven_and_what_a_killed_run_left_is_removed(lab: RunningLab) -> None:
    lab.ssh(
        "ctl",
        "scontrol create reservation=slurmstack-validate-1 nodes=cn01 users=root starttime=now"
        " duration=10",
    )
    found = validate(lab, "--level", "full")
    said = {(word["test"], word["node"]): word["verdict"] for word in found["words"]}
    assert "failed" not in said.values(), found["words"]
    for node in ("cn01", "cn02"):
        assert (said["srun", node], said["private /tmp", node]) == ("proven", "proven")
        assert said["memory limit", node] == "not here"
        assert said["memory copy (dd, not STREAM)", node] == "stand-in"
    assert (said["GRES binding", "cn01"], said["GRES limit", "cn01"]) == ("proven", "proven")
    for test in ("sinfo", "sacct", "all nodes at once", "array and dependency", "scancel"):
        assert said[test, ""] == "proven", test
    assert found["versions"]["slurm"].startswith("24.11")
    assert "slurmstack-validate" not in reservations(lab)


def test_a_node_that_is_used_is_left_alone(lab: RunningLab) -> None:
    job = lab.ssh(
        "ctl", "cd / && sbatch --parsable -w cn01 --mem=50 -o /dev/null --wrap 'sleep 600'"
    ).stdout.strip()
    try:
        await_that(lambda: "R" in lab.ssh("ctl", f"squeue -h -j {job} -o %t").stdout, 60)
        refused = validate(lab, "cn01", check=False)
        assert refused.returncode == 1
        assert "cn01: mixed: only idle nodes are validated" in refused.stderr.replace("\n", " ")
        assert "slurmstack-validate" not in reservations(lab)
        assert lab.ssh("ctl", f"squeue -h -j {job} -o %T").stdout.strip() == "RUNNING"
    finally:
        lab.ssh("ctl", f"scancel {job}")
    await_that(lambda: not lab.ssh("ctl", f"squeue -h -j {job}").stdout.strip(), 60)
