"""`slurmstack inventory`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from operations import inventory as holdings
from operations.console import Json, Project, Stack, errors_on_one_line, show, show_json
from operations.stack import outputs

commands = typer.Typer()


@commands.command()
def inventory(
    node: Annotated[
        str | None, typer.Argument(help="A node: all that it holds, instead of a line a node.")
    ] = None,
    stack: Stack = None,
    project: Project = Path(),
    as_json: Json = False,
) -> None:
    """Who holds what: each node's roles, keys, files, packages and units, as it said itself."""
    with errors_on_one_line():
        held = holdings.of(outputs(stack, project).get("inventory", {}), node)
    if as_json:
        show_json(held)
    else:
        show(holdings.summary(held) if node is None else holdings.table(held))
