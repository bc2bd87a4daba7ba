"""Templates that were compiled before are taken again, and what cannot be kept does no harm."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import pytest
from jinja2 import Environment, FileSystemBytecodeCache, FileSystemLoader

from templates import rendering


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    (tmp_path / "a.j2").write_text("{{ value | upper }}!\n")
    return tmp_path


def rendered(folder: Path) -> str:
    loader, compiled = FileSystemLoader(folder), rendering._compiled(folder)
    return (
        Environment(loader=loader, bytecode_cache=compiled).get_template("a.j2").render(value="x")
    )


def test_a_template_is_compiled_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rendered(folder) == "X!"
    monkeypatch.setattr(Environment, "compile", lambda *_: pytest.fail("it is compiled again"))
    assert rendered(folder) == "X!"


def test_a_template_that_was_changed_is_compiled_anew(folder: Path) -> None:
    assert rendered(folder) == "X!"
    (folder / "a.j2").write_text("{{ value }}?\n")
    assert rendered(folder) == "x?"


def test_a_full_disk_costs_time_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(FileSystemBytecodeCache, "dump_bytecode", full)
    assert rendered(folder) == "X!"


@pytest.mark.slow
def test_nothing_is_written_where_python_writes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert rendered(folder) == "X!"
    assert [it.name for it in folder.iterdir()] == ["a.j2"]
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    (folder / "__pycache__").write_text("no folder")
    assert rendered(folder) == "X!"
