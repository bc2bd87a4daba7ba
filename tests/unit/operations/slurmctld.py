"""A cluster whose controller answers from texts of Slurm 24.11, and what it was asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from operations.cluster import Cluster
from settings import parse
from tests.unit.operations.test_hosts import RAW

#: As `scontrol show node` prints them, shortened by lines.
NODES = """\
NodeName=cn01 Arch=x86_64 CoresPerSocket=2
   State=IDLE ThreadsPerCore=1 TmpDisk=0
NodeName=cn02 Arch=x86_64 CoresPerSocket=2
   State=MIXED+DRAIN ThreadsPerCore=1 TmpDisk=0
   Reason=fan (by bob@admin) [root@2026-11-25T18:00:27]
NodeName=cn03 Arch=x86_64 CoresPerSocket=2
   State=DOWN*+DRAIN ThreadsPerCore=1 TmpDisk=0
   Reason=Not responding [slurm@2026-11-25T18:00:27]
NodeName=cn04 Arch=x86_64 CoresPerSocket=2
   State=IDLE+DRAIN ThreadsPerCore=1 TmpDisk=0
   Reason=excluded: disk (by anna@admin) [root@2026-11-25T18:00:27]
"""
JOBS = "7|al|main|RUNNING|cn02\nerror: of no job\n8|bo|gpu|COMPLETING|gpu[1-2]\n"


class Controller:
    """What it answers, and the scripts that it was sent."""

    def __init__(self) -> None:
        self.nodes, self.jobs = NODES, JOBS
        self.asked: list[str] = []

    @property
    def changes(self) -> list[str]:
        """Commands that change something."""
        looks = ("scontrol show", "squeue")
        return [script for script in self.asked if not any(word in script for word in looks)]

    def answer(self, _: Cluster, script: str, what: str, seconds: float = 30) -> str:
        self.asked.append(script)
        if "show node" in script:
            return self.nodes
        return self.jobs if "squeue" in script else ""


@pytest.fixture
def controller(monkeypatch: pytest.MonkeyPatch) -> Controller:
    """Whom all clusters of the test ask; the operator is anna@admin."""
    made = Controller()
    monkeypatch.setattr(Cluster, "ask", lambda *words, **more: made.answer(*words, **more))
    monkeypatch.setattr("components.history.operator", lambda: "anna@admin")
    return made


def cluster(folder: Path, **changes: Any) -> Cluster:
    """One whose project lies in a folder."""
    return Cluster(parse({**RAW, **changes}), folder, "x")
