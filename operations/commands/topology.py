"""`slurmstack topology`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from ruamel.yaml import YAML

from discovery import fabric
from operations.console import Project, Stack, errors_on_one_line
from operations.stack import settings

commands = typer.Typer()


@commands.command()
def topology(
    printed: Annotated[
        Path, typer.Argument(help="What `ibnetdiscover` printed.", exists=True, dir_okay=False)
    ],
    stack: Stack = None,
    project: Project = Path(),
) -> None:
    """The settings `slurmstack:topology` of the fabric that ibnetdiscover saw."""
    with errors_on_one_line():
        read, _, _ = settings(stack, project)
        switches = fabric.tree(printed.read_text(errors="replace"), read.compute)
    YAML().dump({"slurmstack:topology": {"plugin": "tree", "switches": switches}}, sys.stdout)
