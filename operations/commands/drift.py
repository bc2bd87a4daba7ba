"""`slurmstack drift`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from discovery.host_keys import hosts
from operations import drift as looking
from operations import drift_report, reapply
from operations.console import Json, Project, Stack, errors_on_one_line, show, show_json
from operations.stack import applied, settings

commands = typer.Typer()


@commands.command()
def drift(
    nodes: Annotated[
        str | None, typer.Argument(help="Host list, such as cn[01-04]; all without.")
    ] = None,
    stack: Stack = None,
    project: Project = Path(),
    as_json: Json = False,
    fix: Annotated[bool, typer.Option("--fix", help="Put right what bundles can.")] = False,
    what: Annotated[
        str | None,
        typer.Option(help=f"Only these kinds, with commas: {', '.join(looking.WHAT)}."),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask before it is fixed.")
    ] = False,
) -> None:
    """What is other on the machines than what was deployed; nothing is changed without --fix.

    Exit code 2 where something differs, 1 where a host could not be asked, 0 where all is as it
    should be. With --fix, what differs still.
    """
    with errors_on_one_line():
        if as_json and fix:
            raise looking.NotFixed("--json tells and --fix changes; first the one, then the other")
        kinds = () if what is None else looking.kinds(what)
        read, folder, name = settings(stack, project)
        names = None if nodes is None else reapply.chosen(nodes, read)
        reached, held = hosts(read, folder), applied(name, folder)
        report = looking.look(read, reached, held, names)
        if fix and names is not None and report.unreachable:
            raise looking.NotFixed(
                "nothing was changed: "
                + "; ".join(f"{node}: {why}" for node, why in report.unreachable.items())
            )
    if as_json:
        show_json(drift_report.as_dict(report))
    else:
        show(drift_report.table(report))
    wanted = looking.chosen(report, kinds) if fix else []
    if not wanted:
        raise typer.Exit(report.exit_code)
    with errors_on_one_line():
        failed = looking.fix(wanted, held, name, folder, yes)
        if not failed:
            report = looking.look(read, reached, applied(name, folder), names)
            show(drift_report.table(report))
    raise typer.Exit(1 if failed else report.exit_code)
