"""The stack as Pulumi's Automation API gives it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from pulumi import automation

from settings import Settings, parse
from settings.load import structured


class NoSuchStack(Exception):
    """The stack is not there, or has not been deployed."""


def outputs(stack: str, project: Path) -> dict[str, Any]:
    """The stack's outputs, by name; secrets are left out.

    Raises:
        NoSuchStack: there is no such stack, or it has no outputs yet.
    """
    try:
        found = _workspace(project).stack_outputs(stack)
    except automation.CommandError as error:
        raise NoSuchStack(f"stack {stack} cannot be read: {str(error).strip()}") from error
    if not found:
        raise NoSuchStack(f"stack {stack} has no outputs yet; run pulumi up --stack {stack}")
    return {name: output.value for name, output in found.items() if not output.secret}


def settings(stack: str, project: Path) -> Settings:
    """The stack's settings as they are in its file now.

    Raises:
        NoSuchStack: there is no such stack, or its secrets cannot be opened.
        SettingsError: with all mistakes at once.
    """
    workspace = _workspace(project)
    name = workspace.project_settings().name
    try:
        found = workspace.get_all_config(stack)
    except automation.CommandError as error:
        raise NoSuchStack(f"stack {stack} cannot be read: {str(error).strip()}") from error
    raw = {
        key.removeprefix(f"{name}:"): structured(item.value)
        for key, item in found.items()
        if key.startswith(f"{name}:")
    }
    return parse(raw, project=name, stack=stack)


def _workspace(project: Path) -> automation.LocalWorkspace:
    # The engine that belongs to this installation, not whichever else is on PATH.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return automation.LocalWorkspace(work_dir=str(project))
