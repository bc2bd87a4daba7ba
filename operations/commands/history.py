"""`slurmstack history`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from operations.cluster import Cluster
from operations.console import Json, Project, Stack, errors_on_one_line, show_json
from operations.past import past

commands = typer.Typer()


@commands.command()
def history(
    most: Annotated[int, typer.Option("--last", "-n", min=1, help="How many.")] = 10,
    stack: Stack = None,
    project: Project = Path(),
    as_json: Json = False,
) -> None:
    """Operations, the latest first: when, who, what, and what happened to which daemon."""
    with errors_on_one_line():
        deeds = past(Cluster.of(stack, project), most)
    if as_json:
        show_json([asdict(deed) for deed in deeds])
        return
    for deed in deeds:
        changes = ", ".join(f"{number} {kind}d" for kind, number in deed.changes.items())
        typer.echo(f"{deed.time}  {deed.what}  by {deed.by}: {deed.result}")
        for line in [*deed.deeds, *([f"resources: {changes}"] if changes else [])]:
            typer.echo(f"    {line}")
