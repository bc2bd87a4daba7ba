"""How a node proves itself before it is given back: what srun and slurmctld may answer, by
stand-ins for their commands. tests/lab/test_rollout.py and test_validate.py have real ones."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from components.compute.compute_node import OURS
from components.compute.service import service
from settings import parse
from tests.unit.components.test_cluster import bare

COMMANDS = {
    "scontrol": """
case $1 in
  show) printf 'NodeName=cn01\\n Partitions=main\\n State=%s\\n Reason=%s\\n' "$STATE" "$REASON" ;;
  update) shift; echo "$*" >>"$TOLD" ;;
esac""",
    "srun": 'echo "$SAID"; exit "$STATUS"',
    "squeue": 'printf "%s" "$JOBS"',
    # Two minutes pass in a moment.
    "date": 'echo $(($(cat "$CLOCK") + 50)) >"$CLOCK.new"; mv "$CLOCK.new" "$CLOCK"; cat "$CLOCK"',
    "sleep": ":",
}
BUSY = "srun: error: Unable to allocate resources: Requested nodes are busy"
FORBIDDEN = "srun: error: Unable to allocate resources: User's group not permitted to use it"

#: What slurmctld keeps as the node's reason where it has no accounting.
LEFT = "Reason=given back by slurmstack"
UNDRAINED = f"State=UNDRAIN {LEFT}"


class Outcome(NamedTuple):
    good: bool
    told: list[str]
    said: str


def given_back(folder: Path, *, gate: bool = False, **answers: str) -> Outcome:
    """What `back` of the node's own script does with such answers."""
    programs = folder / "bin"
    programs.mkdir()
    for name, text in COMMANDS.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    (folder / "clock").write_text("1000\n")
    script = service("cn01", parse(bare()), OURS, "measure" if gate else None)
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "SLURMSTACK_SERVICE": "back",
        "TOLD": str(folder / "told"), "CLOCK": str(folder / "clock"),
        "STATE": "IDLE+DRAIN", "REASON": f"{OURS} [root@2026-11-26T10:00:00]",
        "SAID": "", "STATUS": "0", "JOBS": "", **answers,
    }  # fmt: skip
    done = subprocess.run(
        ["sh"], input=script, env=environment, capture_output=True, text=True, check=False
    )
    told = folder / "told"
    lines = told.read_text().splitlines() if told.exists() else []
    return Outcome(done.returncode == 0, [it.partition(" ")[2] for it in lines], done.stdout)


def test_one_that_ran_its_job_takes_jobs_again(tmp_path: Path) -> None:
    assert given_back(tmp_path) == Outcome(True, [UNDRAINED], "")


def test_one_that_was_down_meanwhile_is_resumed(tmp_path: Path) -> None:
    """slurmctld takes back by itself only what has its own reason."""
    assert given_back(tmp_path, STATE="DOWN+DRAIN").told == [f"State=RESUME {LEFT}"]


@pytest.mark.parametrize("state", ["DOWN+DRAIN+NOT_RESPONDING", "IDLE*+DRAIN", "UNKNOWN+DRAIN"])
def test_one_that_does_not_answer_stays_drained(tmp_path: Path, state: str) -> None:
    outcome = given_back(tmp_path, STATE=state)
    assert (outcome.good, outcome.told) == (False, [])
    assert f"no answer from cn01 for two minutes: it is {state}" in outcome.said


def test_one_that_starts_no_job_stays_drained(tmp_path: Path) -> None:
    outcome = given_back(tmp_path, SAID=BUSY, STATUS="1")
    assert not outcome.good
    assert outcome.told[-1].startswith("State=DRAIN Reason=slurmstack: ")
    assert "Requested nodes are busy" in outcome.said


def test_jobs_that_have_the_whole_node_are_no_fault(tmp_path: Path) -> None:
    outcome = given_back(tmp_path, SAID=BUSY, STATUS="1", JOBS="7 (1000)")
    assert (outcome.good, outcome.told) == (True, [UNDRAINED])
    assert "no job of one second was run, as jobs have the whole node" in outcome.said


def test_where_root_may_run_no_job_that_is_no_fault(tmp_path: Path) -> None:
    outcome = given_back(tmp_path, SAID=FORBIDDEN, STATUS="1")
    assert (outcome.good, outcome.told) == (True, [UNDRAINED])
    assert "root may not run one there" in outcome.said


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ({"SAID": BUSY, "JOBS": "7 (1000)"}, "jobs have the whole node"),
        ({"SAID": FORBIDDEN}, "root may not run one there"),
        ({"SAID": "word HPL|cn01|failed\nHPL: too slow"}, "HPL: too slow"),
    ],
)
def test_what_was_to_be_measured_and_was_not_stays_drained(
    tmp_path: Path, answers: dict[str, str], why: str
) -> None:
    outcome = given_back(tmp_path, gate=True, STATUS="1", **answers)
    assert not outcome.good
    assert outcome.told[0] == UNDRAINED
    assert f": acceptance failed: {why}" in outcome.told[1]
    assert f"acceptance failed: {why}" in outcome.said


def test_what_others_decided_stays(tmp_path: Path) -> None:
    assert given_back(tmp_path, REASON="fan is noisy [anna@x]") == Outcome(True, [], "")
