"""`slurmstack reapply`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from discovery.host_keys import hosts
from operations import reapply as again
from operations.console import Project, Stack, errors_on_one_line
from operations.stack import outputs, settings

commands = typer.Typer()


@commands.command()
def reapply(
    nodes: Annotated[str, typer.Argument(help="Host list, such as cn[01-04].")],
    stack: Stack = None,
    project: Project = Path(),
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing but for new keys.")] = False,
    accept_new_host_key: Annotated[
        bool, typer.Option(help="Pin the keys that the hosts show now; compare them first.")
    ] = False,
) -> None:
    """Apply all of some hosts' bundles again, for a machine that was installed anew.

    Shows new host keys and asks before they are pinned, writes slurmstack:reapply into the stack's
    settings, and runs `pulumi up` for these hosts.
    """
    with errors_on_one_line():
        read, folder, name = settings(stack, project)
        names = again.chosen(nodes, read)
        reached = hosts(read, folder)
        changed = again.new_keys(reached[node] for node in names)
        for key in changed:
            typer.echo(f"{key}: compare with the machine's console")
        if changed and not accept_new_host_key:
            typer.confirm("Pin these keys in place of the old ones?", abort=True)
        again.pin(changed, read, folder)
        urns = again.targets(names, outputs(name, folder).get("inventory", {}), name, folder)
        again.wish(names, name, folder)
    raise typer.Exit(again.up(urns, name, folder, yes))
