"""The ``slurmstack`` command: what an operator asks and does after day one."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from ruamel.yaml import YAML

from discovery import fabric
from discovery.host_keys import UnknownHostKey, hosts
from operations import check as prechecks
from operations import inventory as holdings
from operations import reapply as again
from operations.stack import NoSuchStack, outputs, settings
from operations.token import NoToken, issue
from settings import SettingsError

main = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Operate a cluster deployed by slurmstack."
)

Stack = Annotated[
    str | None,
    typer.Option(
        "--stack", "-s", envvar="PULUMI_STACK", help="The stack; by default the selected one."
    ),
]
Project = Annotated[
    Path, typer.Option("--cwd", "-C", help="The project's folder.", exists=True, file_okay=False)
]

#: Columns of a table that goes into a pipe or a file.
_PIPE_WIDTH = 100


@contextmanager
def _errors_on_one_line() -> Iterator[None]:
    """What an operator can mend is said without a traceback; exit code 1."""
    try:
        yield
    except (
        NoSuchStack,
        NoToken,
        SettingsError,
        UnknownHostKey,
        fabric.FabricError,
        again.NotReapplied,
    ) as error:
        typer.echo(f"slurmstack: {error}", err=True)
        raise typer.Exit(1) from error


def _print(table: Table) -> None:
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PIPE_WIDTH
    console.print(table)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"slurmstack {version('slurmstack')}")
        raise typer.Exit


@main.callback()
def _root(
    _shown: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """Keeps the verbs as subcommands, however many there are."""


@main.command()
def inventory(
    node: Annotated[
        str | None, typer.Argument(help="A node: all that it holds, instead of a line a node.")
    ] = None,
    stack: Stack = None,
    project: Project = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="All of it, as JSON.")] = False,
) -> None:
    """Who holds what: each node's roles, keys, files, packages and units, as it said itself."""
    with _errors_on_one_line():
        held = holdings.of(outputs(stack, project).get("inventory", {}), node)
    if as_json:
        typer.echo(json.dumps(held, indent=2, sort_keys=True))
    else:
        _print(holdings.summary(held) if node is None else holdings.table(held))


@main.command()
def token(
    user: Annotated[str, typer.Argument(help="A user that the controller knows.")],
    stack: Stack = None,
    project: Project = Path(),
    lifetime: Annotated[
        str | None, typer.Option(help="Such as 900, 30m or 8h; at most maxLifetime.")
    ] = None,
    privileged: Annotated[
        bool, typer.Option(help="Also for root and SlurmUser, who may act as any user.")
    ] = False,
) -> None:
    """A token for Slurm's REST API and commands, signed on the controller; it alone is printed."""
    with _errors_on_one_line():
        typer.echo(issue(stack, project, user, lifetime, privileged))


@main.command()
def check(
    stack: Stack = None,
    project: Project = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """What each host is (OS, driver, ports, clock, disk, cgroups), and what would fail there.

    Asks every host at once and changes nothing. Exit code 1 where something would fail.
    """
    with _errors_on_one_line():
        read, folder, _ = settings(stack, project)
        reports = prechecks.check(read, hosts(read, folder))
    if as_json:
        printed = {name: report.as_dict() for name, report in reports.items()}
        typer.echo(json.dumps(printed, indent=2, sort_keys=True))
    else:
        _print(prechecks.table(reports))
    if any(report.fails for report in reports.values()):
        raise typer.Exit(1)


@main.command()
def topology(
    printed: Annotated[
        Path, typer.Argument(help="What `ibnetdiscover` printed.", exists=True, dir_okay=False)
    ],
    stack: Stack = None,
    project: Project = Path(),
) -> None:
    """The settings `slurmstack:topology` of the fabric that ibnetdiscover saw."""
    with _errors_on_one_line():
        read, _, _ = settings(stack, project)
        switches = fabric.tree(printed.read_text(errors="replace"), read.compute)
    YAML().dump({"slurmstack:topology": {"plugin": "tree", "switches": switches}}, sys.stdout)


@main.command()
def reapply(
    nodes: Annotated[str, typer.Argument(help="Host list, such as cn[01-04].")],
    stack: Stack,
    project: Project = Path(),
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing but for new keys.")] = False,
    accept_new_host_key: Annotated[
        bool, typer.Option(help="Pin the keys that the hosts show now; compare them first.")
    ] = False,
) -> None:
    """Apply all of some hosts' bundles again, for a machine that was installed anew.

    Shows new host keys and asks before they are pinned, writes slurmstack:reapply into the stack's
    settings, and runs `pulumi up` for these hosts.
    """
    with _errors_on_one_line():
        read, folder, name = settings(stack, project)
        names = again.chosen(nodes, read)
        reached = hosts(read, folder)
        changed = again.new_keys(reached[node] for node in names)
        for key in changed:
            typer.echo(f"{key}: compare with the machine's console")
        if changed and not accept_new_host_key:
            typer.confirm("Pin these keys in place of the old ones?", abort=True)
        again.pin(changed, read, folder)
        urns = again.targets(names, outputs(name, folder).get("inventory", {}), name, folder)
        again.wish(names, name, folder)
    raise typer.Exit(again.up(urns, name, folder, yes))
