"""`slurmstack node …`: one node, or a list of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from components import history
from operations import drain as states
from operations import membership
from operations.cluster import Cluster
from operations.console import Json, Project, Stack, errors_on_one_line, length, show_json
from operations.host_keys import NewKey
from operations.hosts import chosen
from operations.operation import Waits, unfinished
from operations.replace import replace as replaced
from operations.up import NotDone
from settings.hostlist import expand, fold

commands = typer.Typer(
    no_args_is_help=True,
    help="Drain, resume, reboot, exclude, return, replace, add, remove nodes.",
)

Hosts = Annotated[
    str, typer.Argument(metavar="HOSTLIST", help="cn[01-16,33], a class, @partition.")
]
Reason = Annotated[str, typer.Option("--reason", "-r", help="Why: one line, for sinfo.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="pulumi up asks nothing.")]
Follow = Annotated[bool, typer.Option("--yes", "-y", help="pulumi up follows, and asks not.")]
Wait = Annotated[str, typer.Option("--wait", help="How long to wait for it, such as 2h.")]
Key = Annotated[
    bool,
    typer.Option(
        "--accept-new-host-key", help="Pin the keys that the hosts show now; compare them first."
    ),
]

#: Exit codes beside 0 and 1 (docs/verbs.md).
WAITS, NOT_DONE = 3, 4


@commands.callback()
def _group() -> None:
    """Keeps the verbs a group."""


def _run(
    verb: str,
    cluster: Cluster,
    names: Sequence[str],
    work: Callable[[], list[str]],
    as_json: bool,
    noted: bool = True,
) -> None:
    """Do it, say what was done, and end with these nodes as sinfo shows them.

    Args:
        noted: the work itself writes no history.
    """
    code, problem, deeds = 0, None, list[str]()
    try:
        deeds = work()
    except Waits as error:
        code, problem, deeds = WAITS, str(error), error.deeds
    except NotDone as error:
        code, problem = NOT_DONE, str(error)
    if noted and deeds:
        history.note(cluster.place, f"node {verb} {fold(names)}", "done", deeds)
    if problem is not None:
        typer.echo(f"slurmstack: {problem}", err=True)
    now = cluster.states(list(names))
    if as_json:
        nodes = {
            name: {
                "state": sorted(state.flags),
                "answers": state.answers,
                "reason": state.reason,
                "by": states.owner(state) or state.by,
            }
            for name, state in now.items()
        }
        show_json({"verb": verb, "hosts": list(names), "did": deeds, "nodes": nodes})
    else:
        for deed in deeds:
            typer.echo(deed)
        if now:
            typer.echo(cluster.sinfo(list(now)))
        gone = [name for name in names if name not in now]
        if gone:
            typer.echo(f"{fold(gone)}: not in slurm.conf")
    raise typer.Exit(code)


def _compare(accepted: bool) -> Callable[[Sequence[NewKey]], bool]:
    """Show new keys, and ask before they are pinned."""

    def ask(keys: Sequence[NewKey]) -> bool:
        for key in keys:
            typer.echo(f"{key}: compare with the machine's console", err=True)
        if not accepted:
            typer.confirm("Pin these keys?", abort=True, err=True)
        return True

    return ask


@commands.command()
def drain(
    hosts: Hosts,
    reason: Reason,
    wait: Wait = "0",
    stack: Stack = None,
    project: Project = Path(),
    as_json: Json = False,
) -> None:
    """Keep new jobs from nodes; running ones go on. Somebody else's drain stays theirs."""
    with errors_on_one_line():
        cluster = Cluster.of(stack, project)
        names = chosen(hosts, cluster.settings, cluster.settings.compute)
        text, patience = states.checked(reason), length(wait, "--wait")

        def work() -> list[str]:
            deeds = states.drain(cluster, names, text)
            left = states.await_jobs(cluster, names, patience)
            if left and patience:
                raise Waits(f"jobs still run: {', '.join(map(str, left))}", deeds)
            return [*deeds, *(f"still runs: job {job}" for job in left)]

        _run("drain", cluster, names, work, as_json)


@commands.command()
def resume(
    hosts: Hosts,
    force: Annotated[
        bool, typer.Option("--force", help="Also where somebody else took them out.")
    ] = False,
    stack: Stack = None,
    project: Project = Path(),
    as_json: Json = False,
) -> None:
    """Give nodes back to jobs. What somebody else took out is refused, with their name."""
    with errors_on_one_line():
        cluster = Cluster.of(stack, project)
        names = chosen(hosts, cluster.settings, cluster.settings.compute)
        _run("resume", cluster, names, lambda: states.resume(cluster, names, force), as_json)


@commands.command()
def reboot(
    hosts: Hosts,
    reason: Reason,
    wait: Wait = "0",
    stack: Stack = None,
    project: Project = Path(),
    as_json: Json = False,
) -> None:
    """Let Slurm reboot each node when its last job has ended, and give it back."""
    with errors_on_one_line():
        cluster = Cluster.of(stack, project)
        names = chosen(hosts, cluster.settings, cluster.settings.compute)
        text, patience = states.checked(reason), length(wait, "--wait")

        def work() -> list[str]:
            deeds = states.reboot(cluster, names, text)
            left = states.await_use(cluster, names, patience) if patience else []
            if left:
                raise Waits(f"{fold(left)}: not back yet", deeds)
            return deeds

        _run("reboot", cluster, names, work, as_json)


@commands.command()
def exclude(
    hosts: Hosts,
    reason: Reason,
    wait: Wait = "0",
    yes: Yes = False,
    stack: Stack = None,
    project: Project = Path(),
    as_json: Json = False,
) -> None:
    """Take nodes out: jobs end, daemons stop, packages go, slurm.conf has them no more.

    Their place in the settings stays; `node return` takes them back. Jobs are never ended: while
    they run, the nodes are drained and the exit code is 3.
    """
    with errors_on_one_line():
        cluster = Cluster.of(stack, project)
        names = _with_excluded(hosts, cluster)
        text, patience = states.checked(reason), length(wait, "--wait")
        _run(
            "exclude",
            cluster,
            names,
            lambda: membership.exclude(cluster, names, text, patience, yes),
            as_json,
            noted=False,
        )


@commands.command("return")
def come_back(
    hosts: Hosts,
    yes: Yes = False,
    stack: Stack = None,
    project: Project = Path(),
    as_json: Json = False,
) -> None:
    """Take excluded nodes back into the cluster."""
    with errors_on_one_line():
        cluster = Cluster.of(stack, project)
        names = _with_excluded(hosts, cluster)
        _run(
            "return",
            cluster,
            names,
            lambda: membership.come_back(cluster, names, yes),
            as_json,
            noted=False,
        )


@commands.command()
def replace(
    hosts: Hosts,
    reason: Reason = "installed anew",
    yes: Yes = False,
    accept_new_host_key: Key = False,
    stack: Stack = None,
    project: Project = Path(),
    as_json: Json = False,
) -> None:
    """Deploy machines that were installed anew or swapped: new host keys, all bundles again.

    Shows new host keys and asks before they are pinned, writes slurmstack:reapply into the stack's
    settings, and runs `pulumi up` for these hosts.
    """
    with errors_on_one_line():
        cluster = Cluster.of(stack, project)
        names = chosen(hosts, cluster.settings)
        text, agreed = states.checked(reason), _compare(accept_new_host_key)
        _run(
            "replace",
            cluster,
            names,
            lambda: replaced(cluster, names, text, agreed, yes),
            as_json,
            noted=False,
        )


@commands.command()
def add(
    hosts: Annotated[str, typer.Argument(metavar="HOSTLIST", help="The new hosts: cn[65-66].")],
    address: Annotated[str, typer.Option(help="Their addresses, in step: 10.10.1.[65-66].")],
    like: Annotated[str, typer.Option(help="A node whose class, partitions, switch are theirs.")],
    yes: Follow = False,
    accept_new_host_key: Key = False,
    stack: Stack = None,
    project: Project = Path(),
    as_json: Json = False,
) -> None:
    """Write new nodes into the stack's file, comments kept, and show the plan."""
    with errors_on_one_line():
        cluster, agreed = Cluster.of(stack, project), _compare(accept_new_host_key)
        _run(
            "add",
            cluster,
            _names(hosts),
            lambda: membership.add(cluster, hosts, address, like, agreed, yes),
            as_json,
            noted=False,
        )


@commands.command()
def remove(
    hosts: Hosts,
    yes: Follow = False,
    stack: Stack = None,
    project: Project = Path(),
    as_json: Json = False,
) -> None:
    """Take nodes out of the stack's file, comments kept, and show the plan."""
    with errors_on_one_line():
        cluster = Cluster.of(stack, project)
        names = _leaving(hosts, cluster)
        _run(
            "remove",
            cluster,
            names,
            lambda: membership.remove(cluster, names, yes),
            as_json,
            noted=False,
        )


def _with_excluded(hosts: str, cluster: Cluster) -> list[str]:
    """Of the compute nodes, and of those that are out for a while."""
    return chosen(
        hosts, cluster.settings, {**cluster.settings.compute, **cluster.settings.excluded}
    )


def _leaving(hosts: str, cluster: Cluster) -> list[str]:
    """The same; or those that a removal which ended early has taken out of the settings already."""
    begun, names = unfinished(cluster.place), _names(hosts)
    if names and begun is not None and begun.what == f"node remove {fold(names)}":
        return names
    return _with_excluded(hosts, cluster)


def _names(hosts: str) -> list[str]:
    try:
        return list(expand(hosts))
    except ValueError:
        return []  # said by the verb itself
