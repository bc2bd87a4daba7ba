"""A stack's settings, as the operator's commands read them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pulumi import automation

from operations.stack import NoSuchStack
from settings import Settings
from settings.load import from_config


def read(stack: str, project: Path) -> Settings:
    """The settings of a stack.

    Raises:
        NoSuchStack: its configuration cannot be read.
        SettingsError: with all mistakes at once.
    """
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    workspace = automation.LocalWorkspace(work_dir=str(project))
    try:
        values = workspace.get_all_config(stack)
    except automation.CommandError as error:
        raise NoSuchStack(f"stack {stack} cannot be read: {str(error).strip()}") from error
    name = workspace.project_settings().name
    return from_config({key: value.value for key, value in values.items()}, name, stack)
