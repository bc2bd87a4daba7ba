"""`slurmstack report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from operations.cluster import Cluster
from operations.console import Project, Stack, errors_on_one_line
from operations.refused import Refused
from operations.report import page
from operations.report import report as looked_at
from settings.duration import seconds

commands = typer.Typer()


@commands.command()
def report(
    file: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("report.html"),
    since: Annotated[
        str, typer.Option(help="How far back figures are drawn, such as 6h or 7d.")
    ] = "24h",
    stack: Stack = None,
    project: Project = Path(),
) -> None:
    """One page of HTML: nodes, jobs, figures over time, fabric, keys and files, what changed when.

    It is read without a network, and names no secret. Changes nothing on any host. Exit code 1
    where slurmctld does not answer; the page is written all the same.
    """
    with errors_on_one_line():
        try:
            back = seconds(since)
        except ValueError:
            raise Refused(f"--since {since}: expected 30m, 6h or 7d") from None
        found = looked_at(Cluster.of(stack, project), back)
        new = file.with_name(f"{file.name}.new")
        try:
            new.write_text(page(found), encoding="utf-8")
            new.replace(file)
        except OSError as error:
            raise Refused(f"{file}: {error.strerror}; name another place for the page") from error
    typer.echo(f"{file}: {len(found.nodes)} nodes, as of {found.status.time}")
    raise typer.Exit(0 if found.status.nodes else 1)
