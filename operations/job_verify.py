"""`slurmstack job verify`: whether a job's results are as they were when it ended."""

from __future__ import annotations

from operations.cluster import Cluster
from operations.pods_program import said
from operations.refused import Refused


def verify(cluster: Cluster, job: str) -> list[str]:
    """What is other, a line each; the controller looks, with the rights of their owner.

    Args:
        cluster: whose.
        job: its number.

    Raises:
        Refused: it has no results, or they cannot be read.
        ContactError: the controller cannot be asked.
    """
    bridge = cluster.settings.kubernetes_bridge
    if bridge is None or bridge.pods is None or bridge.pods.results is None:
        raise Refused(
            f"stack {cluster.stack} keeps no results: set slurmstack:kubernetesBridge.pods.results "
            "and run pulumi up"
        )
    return said(cluster, "verify", job, seconds=600)
