"""A run of the checks and a job's prolog at one time: the drain that either makes has its end."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from on_node import slurm_state
from on_node.health import __main__ as health
from on_node.health import jobs, probes
from on_node.health.results import GOOD, Result, fault
from on_node.node_states import RETURNED

CONFIG: Mapping[str, Any] = {"node": "cn01", "deadline": 1, "prolog": True}
BAD = {"mount /a": fault("/a does not answer")}
MENDED = {"mount /a": GOOD}
REASON = "slurmstack: health: /a does not answer"


class Slurmctld:
    """One node's state, as scontrol shows and changes it where there is no accounting: the reason
    stays when a drain ends."""

    def __init__(self) -> None:
        self.state, self.reason = "IDLE", ""

    def command(self, *words: str, seconds: int = 20) -> str:
        if words[1] == "show":
            reason = f"   Reason={self.reason} [root@now]\n" if self.reason else ""
            return f"NodeName=cn01\n   State={self.state}\n{reason}"
        for word in words[3:]:
            name, _, value = word.partition("=")
            if name == "Reason":
                self.reason = value
            elif value == "DRAIN":
                self.state = "IDLE+DRAIN"
            else:
                assert value == "UNDRAIN", shlex.join(words)
                self.state = "IDLE"
        return ""


@pytest.fixture
def slurmctld(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slurmctld:
    ctld = Slurmctld()
    monkeypatch.setattr(slurm_state, "command", ctld.command)
    monkeypatch.setattr(health, "RUN", tmp_path)
    monkeypatch.setattr(health, "KEPT", tmp_path)
    monkeypatch.setattr(health, "DRAINED", tmp_path / "drained.json")
    monkeypatch.setattr(health, "JOBS", tmp_path / "jobs")
    return ctld


def finds(
    monkeypatch: pytest.MonkeyPatch,
    checks: dict[str, Result],
    meanwhile: Callable[[], object] = lambda: None,
) -> None:
    """What the checks find; of a check, not a prolog, only once something else is over."""

    def results(config: object, seconds: float, prolog: bool = False) -> dict[str, Result]:
        if prolog:
            return dict(BAD)
        meanwhile()
        return dict(checks)

    monkeypatch.setattr(health, "results", results)


def test_a_prolog_drains_while_a_check_tells_the_same(
    slurmctld: Slurmctld, monkeypatch: pytest.MonkeyPatch
) -> None:
    finds(monkeypatch, MENDED)
    assert health.check(CONFIG) == 0
    prolog = threading.Thread(target=health.prolog, args=(CONFIG,))

    def meets(*words: str, seconds: int = 20) -> str:
        if prolog.ident is None:
            prolog.start()
            prolog.join(0.5)  # it is over by then, or waits for the check
        return slurmctld.command(*words, seconds=seconds)

    with monkeypatch.context() as patch:
        patch.setattr(slurm_state, "command", meets)
        finds(patch, BAD)
        assert health.check(CONFIG) == 1
        prolog.join(10)
    assert (slurmctld.state, slurmctld.reason) == ("IDLE+DRAIN", REASON)
    assert health.check(CONFIG) == 0
    assert (slurmctld.state, slurmctld.reason) == ("IDLE", RETURNED)
    # slurmctld drains it for a reason of its own, which cannot take the place of the one there.
    slurmctld.state = "IDLE+DRAIN"
    assert health.check(CONFIG) == 0
    assert slurmctld.state == "IDLE+DRAIN"


def test_a_prolog_drains_while_the_checks_find_nothing(
    slurmctld: Slurmctld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a prolog has seen since stands until the next run looks again."""
    for known in ("nothing", "that all is well"):
        finds(monkeypatch, MENDED, lambda: health.prolog(CONFIG))
        assert health.check(CONFIG) == 0
        assert (slurmctld.state, slurmctld.reason) == ("IDLE+DRAIN", REASON), known
        finds(monkeypatch, MENDED)
        assert health.check(CONFIG) == 0
        assert (slurmctld.state, slurmctld.reason) == ("IDLE", RETURNED), known


@pytest.mark.parametrize("by", ["check", "prolog"])
def test_who_drains_is_ended_before_it_can_say_so(
    slurmctld: Slurmctld, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """By its time limit, or with the node's power: the drain ends with its cause all the same."""
    finds(monkeypatch, MENDED)
    assert health.check(CONFIG) == 0

    def ends(*words: str, seconds: int = 20) -> str:
        told = slurmctld.command(*words, seconds=seconds)
        if words[1] == "update":
            raise KeyboardInterrupt
        return told

    with monkeypatch.context() as patch:
        patch.setattr(slurm_state, "command", ends)
        finds(patch, BAD)
        with pytest.raises(KeyboardInterrupt):
            getattr(health, by)(CONFIG)
    assert slurmctld.reason == REASON
    assert health.check(CONFIG) == 0
    assert slurmctld.state == "IDLE"


def test_a_lost_note_is_asked_for(
    slurmctld: Slurmctld, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    finds(monkeypatch, BAD)
    assert health.check(CONFIG) == 1
    (tmp_path / "drained.json").write_text("")
    finds(monkeypatch, MENDED)
    assert health.check(CONFIG) == 0
    assert slurmctld.state == "IDLE"


def test_what_several_jobs_leave_at_one_time_is_told(
    slurmctld: Slurmctld, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Their epilogs run side by side, and neither forgets what the other could not end."""
    monkeypatch.setattr(health, "LEFT", tmp_path / "leftovers")
    monkeypatch.setattr(probes, "PATIENCE", -1.0)
    monkeypatch.setattr(jobs, "steps", set)
    monkeypatch.setattr(jobs, "others", lambda *_: True)
    config = {**CONFIG, "epilog": True, "sweep": []}
    alive = {7: True, 8: True}

    def ends(job: str, uid: int, seconds: float) -> list[tuple[int, str]]:
        if job == "8":  # while that of job 7 is at its work
            return [(8, "of job 8")]
        monkeypatch.setenv("SLURM_JOB_ID", "8")
        assert health.epilog(config) == 0
        return [(7, "of job 7")]

    monkeypatch.setattr(jobs, "ended", ends)
    monkeypatch.setattr(jobs, "runs", lambda pid, start: alive[pid])
    monkeypatch.setenv("SLURM_JOB_UID", "5001")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert health.epilog(config) == 0
    words = "processes that cannot be ended: 7 of job 7, 8 of job 8"
    assert health._leftovers() == fault(words)
    alive[7] = False
    assert health._leftovers() == fault("processes that cannot be ended: 8 of job 8")
    alive[8] = False
    assert health._leftovers() == GOOD
    assert not list((tmp_path / "leftovers").iterdir())
