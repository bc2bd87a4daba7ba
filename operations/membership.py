"""Nodes that leave the cluster, come back, are added and removed: edits of the stack's file.

What that means on the nodes is the program's: `pulumi up` does it, with its guards. Before a file
is written, the settings that it would make are read as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from operations import drain
from operations.cluster import Cluster
from operations.host_keys import NewKey, new_keys, pin, reached
from operations.operation import Waits, operation, refuse_if_taken
from operations.pulumi_lock import refuse_if_locked
from operations.refused import Refused
from operations.stack import edited
from operations.stack_file import StackFile
from operations.up import show_plan, up
from settings.hostlist import expand, fold, left_of, pair

#: What the reasons of drains begin with that `exclude` makes.
MARK = "excluded: "


def exclude(
    cluster: Cluster, names: Sequence[str], reason: str, seconds: float = 0, yes: bool = False
) -> list[str]:
    """Take nodes out of the cluster for a while: no jobs, then no daemons, no packages.

    Args:
        cluster: whose.
        names: compute nodes; those that are excluded already are gone on with.
        reason: why, for the settings and for the drain before.
        seconds: how long their jobs are waited for.
        yes: `pulumi up` asks nothing.

    Returns:
        What was done.

    Raises:
        Waits: jobs run there; the nodes are drained, and the same call goes on afterwards.
        NotDone: `pulumi up` failed or was declined; the same call goes on from there.
        Refused: nothing was changed.
    """
    listed, file = fold(names), cluster.file()
    what = f"node exclude {listed}"
    _refuse_if_taken(cluster, what)
    place = f"--stack {cluster.stack}"
    finish = f"slurmstack node exclude {listed} --reason {reason!r} {place}"
    undo = f"slurmstack node return {listed} {place}"
    present = [name for name in names if name in cluster.settings.compute]
    for name in present:
        file.set(reason, "excluded", name)
    edited(file, cluster.stack, cluster.project)
    with operation(cluster.place, what, finish, undo) as running:
        known = list(cluster.states(list(names)))
        if known:
            running.did(f"new jobs are kept from {fold(known)}")
            drain.drain(cluster, known, f"{MARK}{reason}")
            left = drain.await_jobs(cluster, known, seconds)
            if left:
                raise Waits(
                    f"{fold(known)}: drained; jobs still run there: {', '.join(map(str, left))}. "
                    f"When they have ended: {finish}",
                    running.stands,
                )
        if present:
            running.did("settings: slurmstack:excluded")
            file.save()
        up(cluster, yes)
        running.did(f"{listed}: daemons stopped, packages gone, no longer in slurm.conf")
        return running.stands


def come_back(cluster: Cluster, names: Sequence[str], yes: bool = False) -> list[str]:
    """Take excluded nodes back into the cluster.

    Raises:
        NotDone: `pulumi up` failed or was declined; the same call goes on from there.
        Refused: nothing was changed.
    """
    listed, file = fold(names), cluster.file()
    what, ends = f"node return {listed}", [f"node exclude {listed}"]
    _refuse_if_taken(cluster, what, ends)
    written = [name for name in names if name in cluster.settings.excluded]
    for name in written:
        file.drop("excluded", name)
    edited(file, cluster.stack, cluster.project)
    finish = f"slurmstack node return {listed} --stack {cluster.stack}"
    with operation(cluster.place, what, finish, ends=ends) as running:
        if written:
            running.did("settings: slurmstack:excluded taken out")
            file.save()
        up(cluster, yes)
        running.did(f"{listed}: deployed")
        for deed in drain.give_back(cluster, names, MARK):
            running.did(deed)
        return running.stands


def add(
    cluster: Cluster,
    names: str,
    addresses: str,
    like: str,
    agreed: Callable[[Sequence[NewKey]], bool],
    yes: bool = False,
) -> list[str]:
    """Write new nodes into the stack's file, wherever a node stands that they are like, and plan.

    Args:
        cluster: whose.
        names, addresses: host lists in step.
        like: a compute node: its class, partitions, switch or block are theirs.
        agreed: whether these host keys are the machines': a person has compared them.
        yes: `pulumi up` follows the plan.

    Returns:
        What was done.

    Raises:
        Refused: the settings that it would make are none, or the hosts cannot be reached; nothing
            was changed.
    """
    try:
        pairs = pair(names, addresses)
    except ValueError as error:
        raise Refused(f"{names} {addresses}: expected {error}") from None
    new = [name for name, _ in pairs]
    listed, place = fold(new), f"--stack {cluster.stack}"
    what = f"node add {listed}"
    _refuse_if_taken(cluster, what)
    if like not in cluster.settings.compute:
        raise Refused(f"--like {like}: no compute node; there are {fold(cluster.settings.compute)}")
    file = cluster.file()
    _write(file, cluster, pairs, names, addresses)
    _place(file, cluster, new, like)
    settings = edited(file, cluster.stack, cluster.project)
    changed = new_keys(reached(new, settings, cluster.project))
    if changed and not agreed(changed):
        return []
    finish = f"slurmstack node add {names} --address {addresses} --like {like} {place}"
    undo = f"slurmstack node remove {listed} {place}"
    with operation(cluster.place, what, finish, undo) as running:
        pin(changed, settings, cluster.project)
        for key in changed:
            running.did(f"pinned the key that {key.host.name} shows")
        running.did(f"settings: {listed} is where {like} is")
        file.save()
        _plan(replace(cluster, settings=settings), yes)
        return running.stands


def _write(
    file: StackFile, cluster: Cluster, pairs: Sequence[tuple[str, str]], names: str, addresses: str
) -> None:
    """The hosts. Those that stand there already, with this address, are gone on with."""
    known = cluster.settings.hosts
    there = [name for name, _ in pairs if name in known]
    for name, address in pairs:
        if name in known and known[name].address != address:
            raise Refused(
                f"{name}: in the settings already, with the address {known[name].address}"
            )
    if not there:
        file.set(addresses, "hosts", names)
    for name, address in pairs:
        if there and name not in there:
            file.set(address, "hosts", name)


def _place(file: StackFile, cluster: Cluster, new: Sequence[str], like: str) -> None:
    """Class, partitions and fabric: wherever a list has the one that they are like."""
    for path in _lists(file):
        written = file.value(*path)
        if written is None or written == "ALL" or like not in expand(written):
            continue
        names = expand(written)
        missing = [name for name in new if name not in names]
        if missing:
            file.set(_joined(written, missing), *path)


def _joined(written: str, more: Sequence[str]) -> str:
    """A host list and more hosts, in this order; folded where that keeps it."""
    wanted = [*expand(written), *more]
    folded = fold(wanted)
    return folded if list(expand(folded)) == wanted else f"{written},{','.join(more)}"


def _lists(file: StackFile) -> list[tuple[str | int, ...]]:
    """Where host lists of compute nodes stand."""
    nodes = file.at("nodes")
    classes = range(len(nodes.value)) if nodes is not None else ()
    return [
        *(("nodes", index, "hosts") for index in classes),
        *(("partitions", name, "Nodes") for name in file.names("partitions")),
        *(
            ("topology", kind, name, "Nodes")
            for kind in ("switches", "blocks")
            for name in file.names("topology", kind)
        ),
    ]


def remove(cluster: Cluster, names: Sequence[str], yes: bool = False) -> list[str]:
    """Take nodes out of the stack's file, and plan.

    Raises:
        Refused: a class, a partition or a switch would have no node left, or the settings that it
            would make are none; nothing was changed.
    """
    file, listed = cluster.file(), fold(names)
    what, ends = f"node remove {listed}", [f"node add {listed}", f"node exclude {listed}"]
    _refuse_if_taken(cluster, what, ends)
    for path in _lists(file):
        written = file.value(*path)
        if written is None or written == "ALL" or not set(expand(written)) & set(names):
            continue
        left = left_of(written, names)
        if not left:
            where = ".".join(map(str, path[:-1]))
            raise Refused(f"{listed}: all of slurmstack:{where}; take that out by hand first")
        file.set(left, *path)
    for key in ("excluded", "reapply"):
        for name in file.names(key):
            if name in names:
                file.drop(key, name)
    kept = _drop_hosts(file, set(names))
    settings = edited(file, cluster.stack, cluster.project)
    finish = f"slurmstack node remove {listed} --stack {cluster.stack}"
    with operation(cluster.place, what, finish, ends=ends) as running:
        running.did(f"settings: {listed} is in no class, partition or switch")
        file.save()
        if kept:
            running.did(f"slurmstack:hosts still lists {kept}: take it out by hand")
        known = list(cluster.states(list(names)))
        left_jobs = drain.jobs(cluster, known) if known else []
        if left_jobs:
            running.did(
                f"pulumi up refuses while jobs run there: {', '.join(map(str, left_jobs))}; "
                f"slurmstack node drain {fold(known)} --reason leaves keeps new ones away"
            )
        _plan(replace(cluster, settings=settings), yes)
        return running.stands


def _refuse_if_taken(cluster: Cluster, what: str, ends: Sequence[str] = ()) -> None:
    """By an operation of ours, or by Pulumi's lock."""
    refuse_if_taken(cluster.place, what, ends)
    refuse_if_locked(cluster.stack, cluster.project)


def _drop_hosts(file: StackFile, gone: set[str]) -> str:
    """Hosts that leave; what cannot be taken out of a list is returned."""
    kept: list[str] = []
    for names in file.names("hosts"):
        if not set(expand(names)) & gone:
            continue
        where = ("hosts", names) if file.value("hosts", names) else ("hosts", names, "address")
        addresses = file.value(*where)
        pairs = pair(names, addresses or "")
        left = [(name, address) for name, address in pairs if name not in gone]
        if not left:
            file.drop("hosts", names)
            continue
        folded = fold(name for name, _ in left), fold(address for _, address in left)
        if list(pair(*folded)) != left:
            kept += [name for name, _ in pairs if name in gone]
            continue
        file.set(folded[1], *where)
        file.rename(folded[0], "hosts", names)
    return fold(kept)


def _plan(cluster: Cluster, yes: bool) -> None:
    if yes:
        up(cluster, yes)
    else:
        show_plan(cluster)
