"""The ``slurmstack`` command: what an operator asks and does after day one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from ruamel.yaml import YAML

from discovery import fabric
from discovery.host_keys import UnknownHostKey, hosts
from operations import check as prechecks
from operations import settings as stack_settings
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


@main.command()
def check(
    stack: Stack,
    project: Project = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """What each host is (OS, driver, ports, clock, disk, cgroups), and what would fail there.

    Asks every host at once and changes nothing. Exit code 1 where something would fail.
    """
    try:
        settings = stack_settings.read(stack, project)
        found = prechecks.check(settings, hosts(settings, project))
    except (NoSuchStack, SettingsError, UnknownHostKey) as error:
        typer.echo(f"slurmstack: {error}", err=True)
        raise typer.Exit(1) from error
    if as_json:
        said = {name: one.as_dict() for name, one in found.items()}
        typer.echo(json.dumps(said, indent=2, sort_keys=True))
    else:
        Console().print(prechecks.table(found))
    if any(one.fails for one in found.values()):
        raise typer.Exit(1)


@main.command()
def topology(
    printed: Annotated[
        Path, typer.Argument(help="What `ibnetdiscover` printed.", exists=True, dir_okay=False)
    ],
    stack: Stack,
    project: Project = Path(),
) -> None:
    """The settings `slurmstack:topology` of the fabric that ibnetdiscover saw."""
    try:
        settings = stack_settings.read(stack, project)
        switches = fabric.tree(printed.read_text(errors="replace"), settings.compute)
    except (NoSuchStack, SettingsError, fabric.FabricError) as error:
        typer.echo(f"slurmstack: {error}", err=True)
        raise typer.Exit(1) from error
    YAML().dump({"slurmstack:topology": {"plugin": "tree", "switches": switches}}, sys.stdout)
