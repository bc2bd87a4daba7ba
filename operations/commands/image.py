"""`slurmstack image …`: container images that jobs run in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from components.images.images import fetching
from operations import hosts, image_text, images
from operations.cluster import Cluster
from operations.console import Json, Project, Stack, errors_on_one_line, show_json

commands = typer.Typer(no_args_is_help=True, help="Container images: build, test, publish, fetch.")

Name = Annotated[str, typer.Argument(metavar="IMAGE", help="Of slurmstack:images, as pytorch.")]


@commands.callback()
def _group() -> None:
    """Keeps the verbs a group."""


@commands.command()
def build(
    name: Name,
    partition: Annotated[
        str, typer.Option("--partition", help="Of the job, where a compute node builds.")
    ] = "",
    stack: Stack = None,
    project: Project = Path(),
    as_json: Json = False,
) -> None:
    """Make an image on the build host; nobody sees it before it is published."""
    with errors_on_one_line():
        cluster = Cluster.of(stack, project)
        typer.echo(f"{name}: is made on {cluster.settings.image_host}", err=True)
        known = images.build(cluster, name, partition)
    if as_json:
        show_json(known)
    else:
        typer.echo("\n".join(image_text.built(known)))


@commands.command("test")
def trial(
    name: Name, stack: Stack = None, project: Project = Path(), as_json: Json = False
) -> None:
    """Run an image's tests in it before it is published. Exit code 1 where one fails."""
    with errors_on_one_line():
        known = images.tried(
            Cluster.of(stack, project), name, lambda line: typer.echo(line, err=True)
        )
    if as_json:
        show_json(known)
    else:
        typer.echo("\n".join(image_text.tested(known)))
    raise typer.Exit(0 if all(it["passed"] for it in known["tests"]) else 1)


@commands.command()
def publish(
    name: Name,
    version: Annotated[
        str, typer.Option("--version", help="One that is published: make it current again.")
    ] = "",
    stack: Stack = None,
    project: Project = Path(),
    as_json: Json = False,
) -> None:
    """Have users get what was built and tested under the image's name."""
    with errors_on_one_line():
        cluster = Cluster.of(stack, project)
        entry = images.publish(cluster, name, version)
    if as_json:
        show_json(entry)
    else:
        typer.echo("\n".join(image_text.published(entry, images.of(cluster).root)))


@commands.command("ls")
def listing(
    quick: Annotated[
        bool, typer.Option("--quick", help="Look at sizes alone, not at each byte.")
    ] = False,
    stack: Stack = None,
    project: Project = Path(),
    as_json: Json = False,
) -> None:
    """All images, and what is wrong with them. Exit code 1 where one is not as published."""
    with errors_on_one_line():
        told = images.listing(Cluster.of(stack, project), quick)
    if as_json:
        show_json(told)
    else:
        typer.echo("\n".join(image_text.listing(told)))
    wrong = any(it["wrong"] for it in told["published"]) or told["strangers"]
    raise typer.Exit(1 if wrong else 0)


@commands.command()
def pull(
    name: Name,
    version: Annotated[str, typer.Option("--version", help="Left out, the current one.")] = "",
    nodes: Annotated[
        str, typer.Option("--nodes", help="Host list, class or @partition; left out, all.")
    ] = "",
    stack: Stack = None,
    project: Project = Path(),
    as_json: Json = False,
) -> None:
    """Have nodes fetch an image before a job needs it. Exit code 1 where one has not got it."""
    with errors_on_one_line():
        cluster = Cluster.of(stack, project)
        images.of(cluster)
        every = fetching(cluster.settings)
        chosen = hosts.chosen(nodes, cluster.settings) if nodes else every
        told = images.pull(cluster, name, version, chosen)
    if as_json:
        show_json([asdict(it) for it in told])
    else:
        typer.echo("\n".join(image_text.on_nodes(told)) or "no node fetches images")
    raise typer.Exit(0 if all(it.there for it in told) else 1)


@commands.command()
def rm(
    name: Name,
    version: Annotated[str, typer.Argument(help="As slurmstack image ls shows it.")],
    stack: Stack = None,
    project: Project = Path(),
    as_json: Json = False,
) -> None:
    """Take a published version away that nobody uses."""
    with errors_on_one_line():
        gone, told = images.remove(Cluster.of(stack, project), name, version)
    if as_json:
        show_json({"gone": [gone], "nodes": [asdict(it) for it in told]})
    else:
        typer.echo(f"{gone['name']} {gone['version']}: taken away")
        _nodes(told)
    raise typer.Exit(0 if all(it.there for it in told) else 1)


@commands.command()
def gc(
    dry: Annotated[bool, typer.Option("--dry-run", help="Say so, and do nothing.")] = False,
    stack: Stack = None,
    project: Project = Path(),
    as_json: Json = False,
) -> None:
    """Take away old versions that the rule lets go and nobody uses."""
    with errors_on_one_line():
        done, told = images.collect(Cluster.of(stack, project), dry)
    if as_json:
        show_json({**done, "nodes": [asdict(it) for it in told]})
    else:
        typer.echo("\n".join(image_text.collected(done, dry)))
        _nodes(told)
    raise typer.Exit(0 if all(it.there for it in told) else 1)


def _nodes(told: Sequence[images.OnNode]) -> None:
    for line in image_text.on_nodes(told):
        typer.echo(line)
