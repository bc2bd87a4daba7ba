"""Pulumi's history and what was noted beside the program, as one list."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from components import history
from operations.past import past
from operations.refused import Refused
from tests.unit.operations.slurmctld import cluster

UPDATES = [
    {
        "kind": "destroy", "startTime": "2026-11-25T20:00:00.000Z",
        "endTime": "2026-11-25T20:05:00.000Z", "result": "failed",
        "environment": {"git.author": "carl"}, "resourceChanges": {"delete": 3},
    },
    {
        "kind": "update", "startTime": "2026-11-25T18:00:00.000Z",
        "endTime": "2026-11-25T18:05:00.000Z", "result": "succeeded",
        "resourceChanges": {"same": 9, "create": 2},
    },
    {
        "kind": "import", "startTime": "2026-11-25T17:00:00.000Z",
        "endTime": "2026-11-25T17:00:01.000Z", "result": "succeeded",
    },
]  # fmt: skip


def note(folder: Path, time: str, what: str, by: str = "anna@admin") -> None:
    place = history.folder(folder, "x")
    place.mkdir(parents=True, exist_ok=True)
    entry = {"time": time, "by": by, "what": what, "result": "done", "deeds": [f"{what}: it"]}
    with (place / "history.jsonl").open("a") as file:
        file.write(f"{json.dumps(entry)}\n")


@pytest.fixture
def pulumi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A command that prints what this file holds."""
    told = tmp_path / "told"
    told.write_text(json.dumps(UPDATES))
    (tmp_path / "pulumi").write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/words\ncat {told}\n')
    (tmp_path / "pulumi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return told


def test_an_update_and_its_note_are_one(tmp_path: Path, pulumi: Path) -> None:
    note(tmp_path, "2026-11-25T18:04:59Z", "pulumi up")
    note(tmp_path, "2026-11-25T18:04:00Z", "node drain cn01", "bob@admin")
    note(tmp_path, "2026-11-25T19:00:00Z", "pulumi up", "dora@elsewhere")
    found = past(cluster(tmp_path), 10)
    assert [(it.time, it.what, it.by, it.result) for it in found] == [
        ("2026-11-25T20:05:00Z", "pulumi destroy", "carl", "failed"),
        ("2026-11-25T19:00:00Z", "pulumi up", "dora@elsewhere", "done"),
        ("2026-11-25T18:05:00Z", "pulumi up", "anna@admin", "done"),
        ("2026-11-25T18:04:00Z", "node drain cn01", "bob@admin", "done"),
        ("2026-11-25T17:00:01Z", "pulumi import", "not noted here", "succeeded"),
    ]
    assert found[2].deeds == ["pulumi up: it"]
    assert [it.changes for it in found] == [{"delete": 3}, {}, {"create": 2}, {}, {}]
    assert [it.time for it in past(cluster(tmp_path), 2)] == [it.time for it in found[:2]]
    words = (tmp_path / "words").read_text()
    assert words == f"stack history --json --page-size 2 --page 1 --stack x --cwd {tmp_path}\n"


def test_a_history_that_cannot_be_read(tmp_path: Path, pulumi: Path) -> None:
    (tmp_path / "pulumi").write_text("#!/bin/sh\necho 'error: no stack named x' >&2\nexit 255\n")
    with pytest.raises(Refused, match="pulumi stack history: error: no stack named x"):
        past(cluster(tmp_path), 1)
    (tmp_path / "pulumi").write_text("#!/bin/sh\n")
    assert past(cluster(tmp_path), 1) == []
