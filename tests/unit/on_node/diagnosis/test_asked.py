"""What of a node's reason is about a job: the time at which it was given tells."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from on_node.diagnosis import asked
from on_node.diagnosis.asked import reasons
from on_node.diagnosis.job import Job


def at(clock: str) -> float:
    return datetime.fromisoformat(f"2026-11-26T{clock}").timestamp()


@pytest.mark.parametrize(
    ("reason", "start", "end", "about_it"),
    [
        # A prolog fails before the job begins on the node, not after its end.
        ("Prolog error [root@2026-11-26T03:10:00]", at("03:09:58"), 0, True),
        ("Prolog error [root@2026-11-26T03:10:00]", 0, 0, True),
        ("Prolog error [root@2026-11-26T03:10:00]", at("03:00:00"), at("03:09:59"), False),
        ("slurmstack: health: / is full [root@2026-11-26T03:10:00]", at("03:00:00"),
         at("03:09:20"), True),
        ("slurmstack: health: / is full [root@2026-11-26T03:10:00]", at("03:00:00"),
         at("03:02:00"), False),
        ("Not responding [slurm@2026-11-26T03:10:00]", at("03:20:00"), 0, False),
        ("told by nobody", at("03:20:00"), at("03:21:00"), True),
    ],
)  # fmt: skip
def test_a_reason_of_another_time_says_nothing(
    reason: str, start: float, end: float, about_it: bool
) -> None:
    shown = (
        f"NodeName=cn01 State=IDLE+DRAIN AveWatts=0 Reason={reason} \nNodeName=cn02 State=IDLE\n"
    )
    words = reason.partition(" [")[0]
    assert reasons(shown, start, end) == ([("cn01", f"Reason={words}")] if about_it else [])


def ended(**changes: object) -> Job:
    values = {
        "id": 12, "name": "train", "user": "alice", "uid": 5001, "gid": 5001, "partition": "main",
        "state": "FAILED", "exit_code": "1:0", "reason": "NonZeroExitCode",
        "nodes": ["cn01", "cn02"], "start": at("03:00:00"), "end": at("03:20:00"),
        "work_dir": "/", "outputs": [], "steps": [],
    }  # fmt: skip
    return Job.of({**values, **changes})


@pytest.mark.parametrize(
    ("line", "of_it"),
    [
        ("[2026-11-26T03:10:00.001] error: Nodes cn[02,07] not responding, setting DOWN", True),
        ("[2026-11-26T03:10:00.001] error: Nodes cn07 not responding, setting DOWN", False),
        ("[2026-11-26T03:10:00.001] error: Nodes cn[07-08] not responding", False),
        # Its nodes were gone a moment before it got them.
        ("[2026-11-26T02:59:48.001] error: Nodes cn02 not responding, setting DOWN", False),
        # The job ran before, and was put back: that was another end.
        ("[2026-11-26T02:50:00.001] requeue job JobId=12 due to failure of node cn02", False),
        ("[2026-11-26T02:59:55.001] sched: Allocate JobId=12 NodeList=cn[01-02]", True),
        ("[2026-11-26T03:10:00.001] error: something else was wrong", True),
    ],
)
def test_what_slurmctld_says_of_other_nodes_and_times_is_no_cause(
    line: str, of_it: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists = {"cn[02,07]": "cn02 cn07", "cn[07-08]": "cn07 cn08"}

    def expanded(names: str) -> tuple[str, ...]:
        return tuple(lists.get(names, names).split())

    monkeypatch.setattr(asked, "expanded", expanded)
    monkeypatch.setattr(asked, "_said", lambda *_: "")
    log = tmp_path / "slurmctld.log"
    log.write_text(f"{line}\n")
    told = asked.of_job(ended(), str(log))
    found = [text for source, text, *_ in told["lines"] if source == "slurmctld"]
    assert found == ([line] if of_it else [])


def test_of_a_job_that_runs_again_its_first_end_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asked, "_said", lambda *_: "")
    log = tmp_path / "slurmctld.log"
    line = "[2026-11-26T02:50:00.001] requeue job JobId=12 due to failure of node cn02"
    log.write_text(f"{line}\n")
    told = asked.of_job(ended(state="RUNNING", end=0), str(log))
    assert line in [text for _, text, *_ in told["lines"]]
