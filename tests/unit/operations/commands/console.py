"""The command line as an operator types it, on a stack behind a stand-in for `pulumi` and a
controller that answers from texts of Slurm."""

from __future__ import annotations

import json
from typing import Any, Protocol

import pytest
from typer.testing import CliRunner, Result

from operations.cli import main
from tests.unit.operations.pulumi_command import Pulumi, pulumi
from tests.unit.operations.slurmctld import Controller, controller

__all__ = [
    "Calls", "Controller", "Pulumi", "Slurmstack", "Standing", "controller", "instead", "pulumi",
    "slurmstack",
]  # fmt: skip


class Slurmstack:
    """The command; what it did is in its result."""

    def __init__(self, pulumi: Pulumi) -> None:
        self.pulumi = pulumi

    def __call__(self, *words: str, code: int = 0, stdin: str = "") -> Result:
        """Run it in the project's folder; it must end with this exit code."""
        done = CliRunner().invoke(main, [*words, "--cwd", str(self.pulumi.project)], input=stdin)
        assert done.exit_code == code, (done.output, done.exception)
        # What an operator can mend comes without a traceback.
        assert done.exception is None or isinstance(done.exception, SystemExit)
        return done

    def json(self, *words: str, code: int = 0) -> Any:
        """What it prints for programs: JSON and nothing else."""
        return json.loads(self(*words, "--json", code=code).stdout)

    def refused(self, *words: str, code: int = 1) -> str:
        """The one line with which it ends; nothing stands on stdout."""
        done = self(*words, code=code)
        assert done.stdout == ""
        return done.stderr.removeprefix("slurmstack: ").rstrip("\n")


@pytest.fixture
def slurmstack(pulumi: Pulumi) -> Slurmstack:
    return Slurmstack(pulumi)


class Calls:
    """Stands in for a function: what it was called with, and what it gives or raises."""

    def __init__(self, result: Any = None) -> None:
        self.result = result
        self.calls: list[tuple[Any, ...]] = []

    def __call__(self, *words: Any, **more: Any) -> Any:
        # The cluster is told by its stack.
        named = [getattr(word, "stack", word) for word in words]
        self.calls.append((*named, *more.values()))
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


class Standing(Protocol):
    """``instead("operations.drift.look", report)``."""

    def __call__(self, name: str, result: Any = None) -> Calls: ...


@pytest.fixture
def instead(monkeypatch: pytest.MonkeyPatch) -> Standing:
    """Have something stand in for a function."""

    def of(name: str, result: Any = None) -> Calls:
        made = Calls(result)
        monkeypatch.setattr(name, made)
        return made

    return of
