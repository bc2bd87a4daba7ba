"""Node classes against hosts, hardware and each other; partitions against node classes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from settings import mig
from settings.checks.draft import Draft
from settings.checks.drivers import changed_drained
from settings.gres import beyond_cores, class_problems, contradictions, mig_problems
from settings.hostlist import expand, fold
from settings.model import Hardware, NodeClass
from settings.problems import Problem
from settings.rollout import Rollout


def _named(hosts: Any) -> set[str]:
    """Every host that is named, also where the rest of its entry is wrong."""
    names: set[str] = set()
    for text in hosts if isinstance(hosts, Mapping) else ():
        try:
            names.update(expand(str(text)))
        except ValueError:
            names.add(str(text))
    return names


def classes(draft: Draft) -> Iterator[Problem]:
    """Each compute node is a host, in one class and in no other role, and has what is asked."""
    named, roles = _named(draft.raw.get("hosts")), draft.roles
    owner: dict[str, int] = {}
    called: dict[str, int] = {}
    for index, node_class in draft.classes:
        where = draft.path(f"nodes[{index}]")
        name_of_class = node_class.name
        if name_of_class in named:
            yield Problem(f"{where}.name", "another name than a host's", str(name_of_class))
        if name_of_class is not None and called.setdefault(name_of_class, index) != index:
            other = f"{name_of_class}, already of [{called[name_of_class]}]"
            yield Problem(f"{where}.name", "each name for one class", other)
        for name in node_class.names:
            if draft.hosts is not None and name not in named:
                yield Problem(f"{where}.hosts", "hosts of slurmstack:hosts", name)
            if name in owner:
                yield Problem(
                    f"{where}.hosts",
                    "each node in one class",
                    f"{name}, already in [{owner[name]}]",
                )
            owner.setdefault(name, index)
            if roles is not None and name == roles.controller:
                yield Problem(
                    f"{where}.hosts", "each node in one role", f"{name}, which is the controller"
                )
        if node_class.hardware is not None:
            yield from hardware_problems(node_class, node_class.hardware, where)


def canaries(draft: Draft) -> Iterator[Problem]:
    """Canaries that are named are compute nodes."""
    rollout = draft.part("rollout", Rollout)
    if rollout is None or isinstance(rollout.canary, int) or not draft.nodes:
        return
    named = {name for node_class in draft.nodes for name in node_class.names}
    others = [name for name in expand(rollout.canary) if name not in named]
    if others:
        path = draft.path("rollout.canary")
        yield Problem(path, "compute nodes of slurmstack:nodes", fold(others))


def hardware_problems(
    node_class: NodeClass, hardware: Hardware, where: str, node: str | None = None
) -> Iterator[Problem]:
    """Where a class asks for more than the hardware, declared or discovered, has."""
    of_node = f" of {node}" if node else ""
    if node_class.RealMemory is not None and node_class.RealMemory > hardware.RealMemory:
        yield Problem(
            f"{where}.RealMemory",
            f"at most the {hardware.RealMemory} MiB{of_node}",
            f"{node_class.RealMemory} MiB",
        )
    offered = node_class.RealMemory or hardware.RealMemory
    if node_class.MemSpecLimit is not None and node_class.MemSpecLimit >= offered:
        yield Problem(
            f"{where}.MemSpecLimit",
            f"less than the {offered} MiB offered{of_node}",
            f"{node_class.MemSpecLimit} MiB",
        )
    threads = (
        hardware.Boards
        * hardware.SocketsPerBoard
        * hardware.CoresPerSocket
        * hardware.ThreadsPerCore
    )
    cores = threads // hardware.ThreadsPerCore
    if hardware.CPUs not in (threads, cores):
        yield Problem(
            f"{where}.hardware.CPUs",
            "Boards × SocketsPerBoard × CoresPerSocket × ThreadsPerCore "
            f"= {threads}, or {cores} cores",
            f"{hardware.CPUs}{of_node}",
        )
    yield from beyond_cores(node_class.Gres or (), threads, where)
    yield from contradictions(node_class.Gres or (), hardware.gpus, where, node, node_class.mig)


def instances(draft: Draft) -> Iterator[Problem]:
    """MIG instances that a GPU can be cut into, that go with ``Gres``, and are made drained."""
    for index, node_class in draft.classes:
        path = draft.path(f"nodes[{index}]")
        if node_class.mig is None:
            continue
        yield from mig.problems(node_class.mig, f"{path}.mig")
        yield from mig_problems(node_class.Gres or (), node_class.mig, f"{path}.Gres")
        yield from changed_drained(draft, f"nodes[{index}].mig", "MIG instance")


def resources(draft: Draft) -> Iterator[Problem]:
    """GRES of a class go together, and with those of other classes."""
    # gres.conf(5): a GRES with device files on one node has them on all.
    has_devices: dict[str, bool] = {}
    for index, node_class in draft.classes:
        path = draft.path(f"nodes[{index}].Gres")
        yield from class_problems(node_class.Gres or (), path)
        for position, gres in enumerate(node_class.Gres or ()):
            real = gres.is_real_gpu
            if gres.Name == "gpu" and has_devices.setdefault(gres.Name, real) != real:
                yield Problem(
                    f"{path}[{position}]",
                    "devices behind every gpu of the cluster, or stand-ins for all (gres.conf(5))",
                    "both",
                )


def partitions(draft: Draft) -> Iterator[Problem]:
    """Partitions have names that slurm.conf can have, nodes that there are, and one default."""
    if "nodes" in draft.raw and "nodes" not in draft.parts:
        return
    path, hosts = draft.path("partitions"), draft.hosts or {}
    known = {name for node_class in draft.nodes for name in node_class.names}
    for title, partition in draft.partitions.items():
        where = f"{path}.{title}"
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", title) or title.upper() == "DEFAULT":
            yield Problem(where, "a partition name (letters, digits, _ . -)", repr(title))
        if partition.Nodes == "ALL":
            if not draft.raw.get("nodes"):
                yield Problem(f"{where}.Nodes", "compute nodes", "none in slurmstack:nodes")
            continue
        names = expand(partition.Nodes)
        unknown = [name for name in names if name not in known]
        if unknown:
            yield Problem(f"{where}.Nodes", "compute nodes of slurmstack:nodes", ", ".join(unknown))
        elif names and all(name in hosts and hosts[name].lost for name in names):
            yield Problem(f"{where}.Nodes", "a node that is not lost", partition.Nodes)
    defaults = [title for title, partition in draft.partitions.items() if partition.Default]
    if len(defaults) > 1:
        yield Problem(path, "at most one partition with Default: true", ", ".join(defaults))
