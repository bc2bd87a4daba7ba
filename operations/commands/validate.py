"""`slurmstack validate`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from operations import documents, validate_text
from operations.cluster import Cluster
from operations.console import Json, Project, Stack, errors_on_one_line, length, show_json
from operations.hosts import chosen
from operations.refused import Refused
from operations.validate import validate as validated
from operations.validations import LEVELS, Level

commands = typer.Typer()


@commands.command()
def validate(
    hosts: Annotated[
        str, typer.Argument(metavar="[HOSTLIST]", help="cn[01-16,33], a class, @partition.")
    ] = "",
    level: Annotated[str, typer.Option("--level", help="quick, full or burnin.")] = "quick",
    wait: Annotated[str, typer.Option("--wait", help="How long nodes may be busy.")] = "0",
    new_baseline: Annotated[
        bool, typer.Option("--new-baseline", help="What the nodes showed before counts no longer.")
    ] = False,
    of_documents: Annotated[
        bool, typer.Option("--documents", help="What of the tasks' criteria is proven, and where.")
    ] = False,
    stack: Stack = None,
    project: Project = Path(),
    as_json: Json = False,
) -> None:
    """Prove idle nodes by jobs of their own, in a reservation. Exit code 1 where a test fails."""
    if of_documents:
        rows = documents.rows()
        if as_json:
            show_json([asdict(row) for row in rows])
        else:
            typer.echo("\n".join(validate_text.of_documents(rows)))
        return
    with errors_on_one_line():
        if level not in LEVELS:
            raise Refused(f"--level: expected {', '.join(LEVELS)}; found {level!r}")
        cluster = Cluster.of(stack, project)
        compute = cluster.settings.compute
        names = chosen(hosts, cluster.settings, compute) if hosts else list(compute)
        kind: Level = next(one for one in LEVELS if one == level)
        patience = length(wait, "--wait")
        found = validated(
            cluster,
            names,
            kind,
            patience,
            lambda text: typer.echo(text, err=True),
            new_baseline,
        )
    if as_json:
        show_json(asdict(found))
    else:
        typer.echo("\n".join(validate_text.lines(found)))
    raise typer.Exit(1 if found.failed else 0)
