"""A project whose `pulumi` is a stand-in: below Pulumi's own Automation API stands an object in the
place of the command, which answers in its words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pulumi.automation._cmd import CommandResult
from pulumi.automation.errors import create_command_error

from tests.unit.operations.test_hosts import RAW

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGbM0S0Qe0nGJm3XTXpXh1XgFzqQ2J1mZb0v2p4M3b6N"


class Pulumi:
    """What the stand-in knows of its stacks, and what it was asked."""

    version = None

    def __init__(self, project: Path) -> None:
        self.project = project
        self.stacks: list[dict[str, Any]] = [
            {"name": "x", "current": True},
            {"name": "organization/x/y"},
        ]
        #: Of each stack alike: name of a setting → its value.
        self.config: dict[str, Any] = {**RAW, "ssh": {"knownHosts": "known_hosts"}}
        self.secrets: dict[str, str] = {}
        self.outputs: dict[str, Any] = {}
        self.resources: list[dict[str, Any]] = []
        #: What the next command prints as its error; none where it is empty.
        self.error = ""
        self.asked: list[str] = []

    def run(
        self, args: list[str], cwd: str, additional_env: Mapping[str, str], *_: Any
    ) -> CommandResult:
        assert Path(cwd) == self.project
        self.asked.append(" ".join(args))
        if self.error:
            raise create_command_error(CommandResult("", self.error, 255))
        return CommandResult(json.dumps(self._answer(args)), "", 0)

    def _answer(self, args: list[str]) -> Any:
        shown = "--show-secrets" in args
        match args:
            case ["stack", "ls", *_]:
                return [{"current": False, **stack} for stack in self.stacks]
            case ["config", *_] if shown:
                values = {key: (json.dumps(it), False) for key, it in self.config.items()}
                values |= {key: (it, True) for key, it in self.secrets.items()}
                return {
                    f"slurmstack:{key}": {"value": value, "secret": secret}
                    for key, (value, secret) in values.items()
                }
            case ["stack", "output", *_]:
                return self.outputs if shown else dict.fromkeys(self.outputs, "[secret]")
            case ["stack", "export", *_] if shown:
                return {"version": 3, "deployment": {"resources": self.resources}}
        raise AssertionError(f"not asked before: {args}")


@pytest.fixture
def pulumi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pulumi:
    """A project in the test's folder, with the stacks x (selected) and y."""
    made = Pulumi(tmp_path)
    (tmp_path / "Pulumi.yaml").write_text("name: slurmstack\nruntime: python\n")
    (tmp_path / "known_hosts").write_text(f"* {KEY}\n")
    monkeypatch.setattr("pulumi.automation._local_workspace.PulumiCommand", lambda **_: made)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return made
