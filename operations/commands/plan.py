"""`slurmstack plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from operations import plan as plans
from operations.console import Json, Project, Stack, errors_on_one_line, show, show_json
from operations.plan_text import markdown, text

commands = typer.Typer()
#: Exit codes besides 0, no change, and 1, an error.
CHANGES = 2


@commands.command()
def plan(
    stack: Stack = None,
    project: Project = Path(),
    only: Annotated[
        str | None, typer.Option(help="A host list: only what is done to these nodes.")
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Do not ask the controller for jobs and guards.")
    ] = False,
    as_json: Json = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="For the comment on a merge request.")
    ] = False,
    save: Annotated[
        Path | None, typer.Option(help="A file for slurmstack apply; it holds no secret.")
    ] = None,
) -> None:
    """What pulumi up would do, in nodes and daemons, and whose jobs are there. Changes nothing.

    Exit code 0: no change; 2: changes; 1: an error.
    """
    with errors_on_one_line():
        made = plans.make(stack, project, only, offline)
        if save is not None:
            plans.save(made, save, only)
    if as_json:
        show_json(made.plan.as_dict())
    elif as_markdown:
        typer.echo(markdown(made.plan), nl=False)
    else:
        show(text(made.plan))
    raise typer.Exit(CHANGES if made.plan.any else 0)
