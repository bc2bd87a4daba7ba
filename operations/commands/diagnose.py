"""`slurmstack diagnose`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from on_node.diagnosis import report
from operations import diagnose as looking
from operations.cluster import Cluster
from operations.console import Json, Project, Stack, errors_on_one_line, show_json
from operations.refused import Refused

commands = typer.Typer()


@commands.command()
def diagnose(
    job: Annotated[
        str | None, typer.Argument(metavar="[JOBID]", help="Such as 12 or 12_3.")
    ] = None,
    log: Annotated[
        list[str] | None, typer.Option(help="Judge log files that are here, of whatever job.")
    ] = None,
    stack: Stack = None,
    project: Project = Path(),
    as_json: Json = False,
) -> None:
    """Why a job failed: the cause with its evidence, what to do, and which rank failed first.

    Asks the controller and all nodes of the job, changes nothing there, and keeps the report on
    the controller. Exit code 0 whatever it finds, 1 where the controller cannot be asked.
    """
    with errors_on_one_line():
        if (job is None) == (not log):
            raise Refused("a job's number, or --log FILE")
        if log:
            found = looking.of_logs(log)
            show_json(found) if as_json else typer.echo(report.page(found), nl=False)
            return
        assert job is not None
        told = looking.diagnose(Cluster.of(stack, project), job)
        if as_json:
            show_json(told.report)
        else:
            typer.echo(f"{told.page}\nreport: {told.kept}")
