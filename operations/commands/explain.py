"""`slurmstack explain`."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from operations.console import Json, Project, Stack, errors_on_one_line, show_json
from operations.explain import Explained
from operations.explain import explain as explained
from operations.stack import NoSuchStack, settings
from settings import SettingsError

commands = typer.Typer()
_LABELS = {
    "file": "file",
    "set_by": "set by",
    "kind": "value",
    "daemons": "daemons",
    "needs": "a change needs",
    "slurm_default": "Slurm's default",
    "our_default": "slurmstack's",
    "now": "this stack",
    "note": "note",
    "example": "example",
}


@commands.command()
def explain(
    setting: Annotated[
        str, typer.Argument(help="MessageTimeout, cgroup.conf:ConstrainCores, rest.port, excluded.")
    ],
    stack: Stack = None,
    project: Project = Path(),
    as_json: Json = False,
) -> None:
    """Which file a setting is in, which daemons heed it, what a change needs, Slurm's default.

    Needs no stack; with one, it tells the value there.
    """
    read = None
    with suppress(NoSuchStack, SettingsError):
        read = settings(stack, project)[0]
    with errors_on_one_line():
        found = explained(setting, read)
    if as_json:
        show_json({"text": found} if isinstance(found, str) else [asdict(it) for it in found])
    elif isinstance(found, str):
        typer.echo(found)
    else:
        typer.echo("\n\n".join(map(_text, found)))


def _text(it: Explained) -> str:
    told = [(label, getattr(it, name)) for name, label in _LABELS.items()]
    return "\n".join([it.name, *(f"  {label:<16} {text}" for label, text in told if text)])
