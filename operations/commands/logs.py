"""`slurmstack logs`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from operations import logs as written
from operations.cluster import Cluster
from operations.console import Json, Project, Stack, errors_on_one_line, show_json

commands = typer.Typer()


@commands.command()
def logs(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NODE|ROLE",
            help="A host list; or slurmctld, slurmd, slurmdbd, slurmrestd, sackd, munge.",
        ),
    ],
    since: Annotated[str, typer.Option(help="30m, 2h, or a date of the hosts' zone.")] = "1h",
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="Of each host.")] = 200,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Show new lines until Ctrl-C.")
    ] = False,
    stack: Stack = None,
    project: Project = Path(),
    as_json: Json = False,
) -> None:
    """What daemons logged: their units' journal and Slurm's own files, by time."""
    with errors_on_one_line():
        cluster = Cluster.of(stack, project)
        found = list(written.logs(cluster, name, since, lines)) if not follow else []
        if as_json:
            show_json([{"host": host, "line": line} for host, line in found])
        else:
            several = len({host for host, _ in found}) > 1
            for host, line in found:
                typer.echo(f"{host} {line}" if several else line)
        if follow:
            written.follow(cluster, name)
