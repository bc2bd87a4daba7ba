"""`slurmstack token`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from operations.console import Project, Stack, errors_on_one_line
from operations.token import issue

commands = typer.Typer()


@commands.command()
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
    with errors_on_one_line():
        typer.echo(issue(stack, project, user, lifetime, privileged))
