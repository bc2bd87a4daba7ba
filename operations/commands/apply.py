"""`slurmstack apply`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from operations import apply as applying
from operations.console import Project, Stack, errors_on_one_line, show
from operations.plan import NoPlan
from operations.plan_text import text

commands = typer.Typer()


@commands.command()
def apply(
    file: Annotated[
        Path | None, typer.Argument(help="A saved plan; left out, what would be planned now.")
    ] = None,
    stack: Stack = None,
    project: Project = Path(),
    only: Annotated[
        str | None, typer.Option(help="A host list: do it on these nodes alone.")
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Do not ask the controller for jobs and guards.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")] = False,
) -> None:
    """Do what was planned: refuses when settings, state or steps have moved since.

    Shows the plan, asks, shows the progress, and ends with what was done to which daemon and sinfo.
    """
    with errors_on_one_line():
        what = applying.planned(stack, project, file, only, offline)
        show(text(what.plan))
        if not what.plan.any:
            return
        if not yes:
            if not sys.stdin.isatty():
                raise NoPlan("nobody can be asked here: look at the plan, then say --yes")
            typer.confirm("Do it?", abort=True)
        applying.up(what, typer.echo)
