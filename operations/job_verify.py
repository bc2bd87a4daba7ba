"""`slurmstack job verify`: whether a job's results are as they were when it ended."""

from __future__ import annotations

import shlex

from components.kubernetes.with_jobs import LIBRARY
from operations.cluster import Cluster
from operations.refused import Refused
from remote.contact import ContactError


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
    script = (
        f"cd /; PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={LIBRARY} "
        f"python3 -m on_node.pods.verify {shlex.quote(job)}\n"
    )
    reply = cluster.run([cluster.controller], script, 600)[cluster.controller]
    if isinstance(reply, ContactError):
        raise reply
    told = [line for line in reply.stdout.splitlines() if line]
    if reply.status not in (0, 1):
        words = told or reply.stderr.splitlines()[-1:] or [f"exit {reply.status}"]
        raise Refused(f"{cluster.controller}: {words[-1]}")
    return told
