"""The ``slurmstack`` command: what an operator asks and does after day one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from operations.inventory import table
from operations.stack import NoSuchStack, outputs

main = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Operate a cluster deployed by slurmstack."
)

Stack = Annotated[str, typer.Option("--stack", "-s", envvar="PULUMI_STACK", help="The stack.")]
Project = Annotated[
    Path, typer.Option("--cwd", "-C", help="The project's folder.", file_okay=False)
]


@main.callback()
def _root() -> None:
    """Keeps the verbs as subcommands, however many there are."""


@main.command()
def inventory(
    stack: Stack,
    project: Project = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Who holds what: each node's roles, keys, files, packages and units, as it said itself."""
    try:
        found = outputs(stack, project)
    except NoSuchStack as error:
        typer.echo(f"slurmstack: {error}", err=True)
        raise typer.Exit(1) from error
    if as_json:
        typer.echo(json.dumps(found.get("inventory", {}), indent=2, sort_keys=True))
    else:
        Console().print(table(found.get("inventory", {})))
