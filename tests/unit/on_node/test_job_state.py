"""The partitions of running jobs, from a job_state that slurmctld 24.11 wrote."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from on_node import job_harm, job_state, slurm_state
from settings.hostlist import expand
from tests.unit.on_node.test_job_guard import CONF, WAITING, old, read

#: What scontrol said when slurmctld 24.11 wrote the file job_state beside this one.
SHOWN = "\n".join(
    f"JobId={number} JobName=wrap UserId=root(0) JobState=RUNNING Partition=main NodeList={node} "
    f"Requeue={requeue} "
    for number, node, requeue in ((8, "cn01", 1), (9, "cn02", 0), (10, "cn01", 1))
)
RECORDED = Path(__file__).with_name("job_state").read_bytes()
#: Of a state as 23.11 writes it: nodes, and at once the partitions.
OF_23_11 = b"\0\0\0\4\0\0\0\5cn02\0\0\0\0\x0amain,gpu2\0\0\0\0\5wrap\0"


def test_a_running_job_counts_in_all_partitions_that_it_was_submitted_to() -> None:
    jobs = job_state.partitions_of(read(SHOWN), RECORDED)
    assert {job.id: job.partitions for job in jobs} == {
        "8": ("main", "gpu"), "9": ("main", "gpu"), "10": ("main",),
    }  # fmt: skip
    new = slurm_state.config_of_text(CONF.replace("PartitionName=gpu ", "PartitionName=g "), expand)
    harm = job_harm.all_harm(jobs, old(), new, [], lambda user: frozenset())
    assert {what: [job.id for job in some] for what, some in harm.items()} == {
        "partition gpu goes": ["8", "9"]
    }
    assert [job.partitions for job in job_state.partitions_of(read(SHOWN), OF_23_11)] == [
        ("main",), ("main", "gpu2"), ("main",)
    ]  # fmt: skip
    assert job_state.partitions_of(read(WAITING), RECORDED) == read(WAITING)


class Slurmctld:
    """One whose backfill scheduler has started the jobs: it saves them once it is asked for
    something, some seconds later, and before that what is from before their start."""

    def __init__(self, file: Path, ended: tuple[str, ...] = (), heeds: bool = True) -> None:
        self.file, self.ended, self.heeds = file, ended, heeds
        self.now = 1_795_000_000.4
        self.asked: list[tuple[str, ...]] = []
        self.saves: list[tuple[float, bytes]] = [(self.now + 0.2, b"")]

    def command(self, *words: str) -> str:
        self.asked.append(words)
        if words[1] != "update":
            return "\n".join(
                line for line in SHOWN.splitlines() if line.split()[0] not in self.ended
            )
        if words[2] in self.ended:
            raise RuntimeError("Job/step already completing or completed")
        if self.heeds:
            self.saves.append((self.now + 4, RECORDED))
        return ""

    def time(self) -> float:
        return self.now

    monotonic = time

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        while self.saves and self.now >= self.saves[0][0]:
            at, jobs = self.saves.pop(0)
            head = struct.pack(">I17sHQ", 17, b"PROTOCOL_VERSION\0", 10752, int(at))
            self.file.write_bytes(head + jobs[len(head) :])

    def tells(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
        """The partitions of the jobs, as they are told of it."""
        monkeypatch.setattr(slurm_state, "command", self.command)
        monkeypatch.setattr(slurm_state, "expand", expand)
        monkeypatch.setattr(job_state, "time", self)
        return [job.partitions for job in job_state.with_all_partitions(read(SHOWN), self.file)]


def test_what_was_saved_before_tells_nothing_of_jobs_that_have_started_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurmctld = Slurmctld(tmp_path / "job_state")
    assert slurmctld.tells(monkeypatch) == [("main", "gpu"), ("main", "gpu"), ("main",)]
    assert slurmctld.asked == [("scontrol", "update", "JobId=8", "Requeue=1")]


def test_a_job_that_has_ended_since_is_asked_for_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurmctld = Slurmctld(tmp_path / "job_state", ended=("JobId=8",))
    assert slurmctld.tells(monkeypatch) == [("main", "gpu"), ("main", "gpu"), ("main",)]
    assert slurmctld.asked[-1] == ("scontrol", "update", "JobId=9", "Requeue=0")


def test_jobs_that_are_not_saved_are_not_taken_for_harmless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurmctld = Slurmctld(tmp_path / "job_state", heeds=False)
    with pytest.raises(RuntimeError, match=r"has not saved its jobs in .*job_state within 30 s"):
        slurmctld.tells(monkeypatch)


def test_nothing_is_asked_where_nothing_runs(tmp_path: Path) -> None:
    assert job_state.with_all_partitions(read(WAITING), tmp_path / "none") == read(WAITING)
