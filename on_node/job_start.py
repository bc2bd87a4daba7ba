"""Whether a waiting job can ever start by a configuration."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from on_node.slurm_state import UNLIMITED, Config, Job, Node, Partition

#: The groups of a user, as the host knows them.
Groups = Callable[[str], "frozenset[str]"]


def can_start(job: Job, partition: Partition, config: Config, groups: Groups) -> bool:
    """Whether a waiting job may and can ever run in a partition."""
    rules = partition.rules
    for what, own in (("Accounts", job.account), ("Qos", job.qos)):
        if own and not partition.takes(what, own):
            return False
    if (
        "AllowGroups" in rules
        and job.user != "root"
        and not groups(job.user) & rules["AllowGroups"]
    ):
        return False
    # An unlimited time limit is the partition's own: the job asked for none.
    if job.time_limit != UNLIMITED and job.time_limit > partition.max_time:
        return False
    if job.node_count > partition.max_nodes:
        return False
    there = [config.nodes[name] for name in sorted(partition.nodes) if name in config.nodes]
    if not set(job.demanded) <= {node.name for node in there}:
        return False
    fit = [node for node in there if _offers(node, job)]
    # A job's nodes have one switch above them all (topology.conf(5)).
    return any(
        _suffice([node for node in fit if node.name in joined], job)
        for joined in config.apart or (frozenset(config.nodes),)
        if set(job.demanded) <= joined
    )


def _suffice(nodes: Sequence[Node], job: Job) -> bool:
    return (
        len(nodes) >= job.node_count
        and has_features(nodes, job.features)
        and all(
            sum(node.count(what, kind) for node in nodes) >= number
            for what, kind, number in job.gres_of_job
        )
    )


def _offers(node: Node, job: Job) -> bool:
    return (
        node.cpus >= job.cpus_per_node
        and node.memory >= job.memory_per_node
        and all(node.count(what, kind) >= count for what, kind, count in job.gres_per_node)
    )


def has_features(nodes: Sequence[Node], wanted: str) -> bool:
    """Whether the nodes have what --constraint of sbatch(1) asks for. In brackets or with counts,
    `&` may be met by several nodes; elsewhere by each."""
    if not wanted:
        return True
    several = "[" in wanted or "*" in wanted
    for alternative in wanted.split("|"):
        names = [re.sub(r"\*\d+$", "", name) for name in re.split(r"[&,\[\]()]", alternative)]
        needed = {name for name in names if name}
        if several and needed <= {name for node in nodes for name in node.features}:
            return True
        if not several and any(needed <= node.features for node in nodes):
            return True
    return False
