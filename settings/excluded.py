"""``slurmstack:excluded``: nodes that are out of the cluster for a while, each with the reason.

Their places in classes, partitions and the fabric stay written in the stack's file. The cluster is
made as if they were not there: their bundles are removed, their services stopped and packages gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from settings.base import matching
from settings.hostlist import left_of
from settings.problems import Problem
from settings.topology import without

#: Why a node is out: one line, as sinfo shows it.
Reason = Annotated[str, matching(r"[^\x00-\x1f]{1,160}", "one line, why the node is out")]


def put_aside(parts: dict[str, Any], path: str) -> Iterator[Problem]:
    """Take excluded nodes out of classes, partitions and topology.

    Args:
        parts: attribute of ``Settings`` → its value, as read; changed in place.
        path: of the key in the stack's file.
    """
    excluded: Mapping[str, str] = parts.get("excluded") or {}
    classes = parts.get("nodes", ())
    known = {name for node_class in classes for name in node_class.names}
    for name in excluded:
        if name not in known:
            yield Problem(f"{path}.{name}", "a compute node of slurmstack:nodes", name)
    out = known & excluded.keys()
    if not out:
        return
    parts["nodes"] = tuple(
        node_class.model_copy(update={"hosts": left})
        for node_class in classes
        if (left := left_of(node_class.hosts, out))
    )
    partitions = {}
    for name, partition in parts.get("partitions", {}).items():
        left = partition.Nodes if partition.Nodes == "ALL" else left_of(partition.Nodes, out)
        if left:
            partitions[name] = partition.model_copy(update={"Nodes": left})
        else:
            yield Problem(f"{path}", f"a node left in partition {name}", partition.Nodes)
    if partitions:
        parts["partitions"] = partitions
    if parts.get("topology") is not None:
        parts["topology"] = without(parts["topology"], out)
