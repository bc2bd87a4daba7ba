"""The stack as Pulumi's Automation API gives it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from pulumi import automation


class NoSuchStack(Exception):
    """The stack is not there, or has not been deployed."""


def outputs(stack: str, project: Path) -> dict[str, Any]:
    """The stack's outputs, by name; secrets are left out.

    Raises:
        NoSuchStack: there is no such stack, or it has no outputs yet.
    """
    # The engine that belongs to this installation, not whichever else is on PATH.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    workspace = automation.LocalWorkspace(work_dir=str(project))
    try:
        found = workspace.stack_outputs(stack)
    except automation.CommandError as error:
        raise NoSuchStack(f"stack {stack} cannot be read: {str(error).strip()}") from error
    if not found:
        raise NoSuchStack(f"stack {stack} has no outputs yet; run pulumi up --stack {stack}")
    return {name: output.value for name, output in found.items() if not output.secret}
