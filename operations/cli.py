"""The ``slurmstack`` command: what an operator asks and does after day one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from operations.inventory import table
from operations.stack import NoSuchStack, outputs
from operations.token import NoToken, issue
from settings import SettingsError

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


@main.command()
def token(
    user: Annotated[str, typer.Argument(help="A user that the controller knows.")],
    stack: Stack,
    project: Project = Path(),
    lifetime: Annotated[
        str | None, typer.Option(help="Such as 900, 30m or 8h; at most maxLifetime.")
    ] = None,
    privileged: Annotated[
        bool, typer.Option(help="Also for root and SlurmUser, who may act as any user.")
    ] = False,
) -> None:
    """A token for Slurm's REST API and commands, signed on the controller; it alone is printed."""
    try:
        typer.echo(issue(stack, project, user, lifetime, privileged))
    except (NoSuchStack, NoToken, SettingsError) as error:
        typer.echo(f"slurmstack: {error}", err=True)
        raise typer.Exit(1) from error
