"""`slurmstack status`."""

from __future__ import annotations

from pathlib import Path

import typer

from operations import status_text
from operations.cluster import Cluster
from operations.console import Json, Project, Stack, errors_on_one_line, show_json
from operations.status import status as looked_at

commands = typer.Typer()


@commands.command()
def status(stack: Stack = None, project: Project = Path(), as_json: Json = False) -> None:
    """One screen: versions, nodes, jobs, keys, the last operation, drift, dumps, what waits.

    Changes nothing. Exit code 1 where the controller or slurmctld does not answer.
    """
    with errors_on_one_line():
        found = looked_at(Cluster.of(stack, project))
    if as_json:
        show_json(found.as_dict())
    else:
        typer.echo("\n".join(status_text.lines(found)))
    raise typer.Exit(0 if found.nodes else 1)
