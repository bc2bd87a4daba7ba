"""`slurmstack check`."""

from __future__ import annotations

from pathlib import Path

import typer

from discovery.host_keys import hosts
from operations import check as prechecks
from operations.console import Json, Project, Stack, errors_on_one_line, show, show_json
from operations.stack import settings

commands = typer.Typer()


@commands.command()
def check(stack: Stack = None, project: Project = Path(), as_json: Json = False) -> None:
    """What each host is (OS, driver, ports, clock, disk, cgroups), and what would fail there.

    Asks every host at once and changes nothing. Exit code 1 where something would fail.
    """
    with errors_on_one_line():
        read, folder, _ = settings(stack, project)
        reports = prechecks.check(read, hosts(read, folder))
    if as_json:
        show_json({name: report.as_dict() for name, report in reports.items()})
    else:
        show(prechecks.table(reports))
    if any(report.fails for report in reports.values()):
        raise typer.Exit(1)
