"""What the verbs' command lines have in common: options, errors, and how they print."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType

from discovery.fabric import FabricError
from discovery.host_keys import UnknownHostKey
from operations.refused import Refused
from remote.contact import ContactError
from settings import SettingsError
from settings.duration import seconds

Stack = Annotated[
    str | None,
    typer.Option(
        "--stack", "-s", envvar="PULUMI_STACK", help="The stack; by default the selected one."
    ),
]
Project = Annotated[
    Path, typer.Option("--cwd", "-C", help="The project's folder.", exists=True, file_okay=False)
]
Json = Annotated[bool, typer.Option("--json", help="All of it, as JSON.")]

#: Columns of what goes into a pipe or a file.
_PIPE_WIDTH = 100
#: What an operator can mend, of operations and of what they call.
_MENDABLE = (Refused, SettingsError, UnknownHostKey, FabricError, ContactError)


@contextmanager
def errors_on_one_line() -> Iterator[None]:
    """What an operator can mend is said without a traceback; exit code 1."""
    try:
        yield
    except _MENDABLE as error:
        typer.echo(f"slurmstack: {error}", err=True)
        raise typer.Exit(1) from error


def length(text: str, option: str) -> int:
    """The seconds that an option names.

    Raises:
        typer.BadParameter: it is no length of time; exit code 2.
    """
    try:
        return seconds(text)
    except ValueError as error:
        raise typer.BadParameter(f"expected {error}; found {text}", param_hint=option) from None


def show(shown: RenderableType) -> None:
    """Print a table or a text: in the terminal's width, or in that of a pipe."""
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PIPE_WIDTH
    console.print(shown)


def show_json(value: Any) -> None:
    """Print a value for programs."""
    typer.echo(json.dumps(value, indent=2, sort_keys=True))
