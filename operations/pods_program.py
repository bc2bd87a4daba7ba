"""What the controller's programs for pods (``on_node/pods``) say, for verbs that ask them."""

from __future__ import annotations

import shlex

from components.kubernetes.with_jobs import LIBRARY
from operations.cluster import Cluster
from operations.refused import Refused
from remote.contact import ContactError


def said(cluster: Cluster, module: str, *words: str, seconds: float) -> list[str]:
    """The lines that a program prints which ends with 0 or 1.

    Args:
        cluster: whose controller.
        module: of ``on_node.pods``.
        words: its arguments.
        seconds: within which it ends.

    Raises:
        Refused: it ended otherwise; its last words.
        ContactError: the controller cannot be asked.
    """
    script = (
        f"cd /; PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={LIBRARY} "
        f"python3 -m on_node.pods.{module} {shlex.join(words)}\n"
    )
    reply = cluster.run([cluster.controller], script, seconds)[cluster.controller]
    if isinstance(reply, ContactError):
        raise reply
    told = [line for line in reply.stdout.splitlines() if line]
    if reply.status not in (0, 1):
        last = told or reply.stderr.splitlines()[-1:] or [f"exit {reply.status}"]
        raise Refused(f"{cluster.controller}: {last[-1]}")
    return told
