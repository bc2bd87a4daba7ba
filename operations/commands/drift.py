"""`slurmstack drift`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from operations import drift as looking
from operations import drift_report
from operations.cluster import Cluster
from operations.console import Json, Project, Stack, errors_on_one_line, show, show_json
from operations.hosts import chosen
from operations.last_drift import keep
from operations.stack import applied

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
        cluster = Cluster.of(stack, project)
        read, reached = cluster.settings, cluster.hosts
        names = None if nodes is None else chosen(nodes, read)
        held = applied(cluster.stack, cluster.project)
        report = looking.look(read, reached, held, names)
        if names is None:
            keep(cluster.place, Counter(one.node for one in report.findings))
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
        looking.fix(wanted, held, cluster, yes)
        report = looking.look(read, reached, applied(cluster.stack, cluster.project), names)
        show(drift_report.table(report))
    raise typer.Exit(report.exit_code)
