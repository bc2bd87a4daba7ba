"""`slurmstack job …`: jobs, and files of jobs for Kubernetes."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from operations import hosts, job_check, job_pull, job_registries, job_show, job_verify
from operations.cluster import Cluster
from operations.console import Json, Project, Stack, errors_on_one_line, length, show_json

commands = typer.Typer(no_args_is_help=True, help="Jobs, and files of jobs for Kubernetes.")


@commands.callback()
def _group() -> None:
    """Keeps the verbs a group."""


@commands.command()
def check(
    file: Annotated[Path, typer.Argument(help="A batch script with its headers.")],
    user: Annotated[
        str, typer.Option("--user", help="Whose job it is to be; left out, who you are here.")
    ] = "",
    stack: Stack = None,
    project: Project = Path(),
    as_json: Json = False,
) -> None:
    """All that is wrong with a job file, by line. Exit code 1 where something is."""
    with errors_on_one_line():
        told = job_check.check(Cluster.of(stack, project), file, user or getpass.getuser())
    if as_json:
        show_json({"file": str(file), "mistakes": told})
    else:
        typer.echo("\n".join(f"{file}: {line}" for line in told) or f"{file}: nothing is wrong")
    raise typer.Exit(1 if told else 0)


@commands.command()
def show(
    job: Annotated[str, typer.Argument(metavar="JOBID", help="Such as 12 or 12_3.")],
    stack: Stack = None,
    project: Project = Path(),
    as_json: Json = False,
) -> None:
    """A job on one screen: whose, where, why it waits and what to do, the end of its output."""
    with errors_on_one_line():
        shown = job_show.show(Cluster.of(stack, project), job)
    if as_json:
        show_json(asdict(shown))
    else:
        typer.echo("\n".join(job_show.lines(shown)))


@commands.command()
def verify(
    job: Annotated[str, typer.Argument(metavar="JOBID", help="Such as 12.")],
    stack: Stack = None,
    project: Project = Path(),
    as_json: Json = False,
) -> None:
    """Whether a job's results are as they were when it ended. Exit code 1 where they are not."""
    with errors_on_one_line():
        told = job_verify.verify(Cluster.of(stack, project), job)
    if as_json:
        show_json({"job": job, "differences": told})
    else:
        typer.echo("\n".join(told) or f"job {job}: its results are as they were")
    raise typer.Exit(1 if told else 0)


@commands.command()
def pull(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="With tag or digest.")],
    nodes: Annotated[
        str, typer.Option("--nodes", help="Host list, class or @partition; left out, all.")
    ] = "",
    within: Annotated[str, typer.Option("--within", help="Until then they are there.")] = "30m",
    stack: Stack = None,
    project: Project = Path(),
    as_json: Json = False,
) -> None:
    """Have nodes fetch images before a job needs them. Exit code 1 where one has not got all."""
    with errors_on_one_line():
        cluster = Cluster.of(stack, project)
        compute = list(cluster.settings.compute)
        chosen = hosts.chosen(nodes, cluster.settings, compute) if nodes else compute
        told = job_pull.pull(cluster, images, chosen, length(within, "--within"))
    if as_json:
        show_json([asdict(it) for it in told])
    else:
        typer.echo("\n".join(job_pull.lines(told)))
    raise typer.Exit(0 if all(it.there for it in told) else 1)


@commands.command()
def registries(stack: Stack = None, project: Project = Path(), as_json: Json = False) -> None:
    """Whether the registries of images answer. Exit code 1 where one does not."""
    with errors_on_one_line():
        told = job_registries.registries(Cluster.of(stack, project))
    if as_json:
        show_json(told)
    else:
        lines = [f"{name}: {line}" for name, wrong in told.items() for line in wrong]
        typer.echo("\n".join(lines) or f"all registries answer {', '.join(told)}")
    raise typer.Exit(1 if any(told.values()) else 0)
