"""`slurmstack job registries`: whether images can be had, from each host that asks for them."""

from __future__ import annotations

from components.kubernetes.job_files import COMMAND
from operations.cluster import Cluster
from operations.refused import Refused
from remote.contact import ContactError


def registries(cluster: Cluster) -> dict[str, list[str]]:
    """What is wrong with each host's way to the registries; nothing where all answer.

    Raises:
        Refused: there is no bridge.
    """
    settings = cluster.settings
    if settings.kubernetes_bridge is None:
        raise Refused(
            f"stack {cluster.stack} has no registries: set slurmstack:kubernetesBridge and run "
            "pulumi up"
        )
    hosts = [*dict.fromkeys((cluster.controller, *settings.login))]
    seconds = settings.kubernetes_bridge.registry_timeout
    within = seconds * len(settings.kubernetes_bridge.registries) + 30
    replies = cluster.run(hosts, f"exec {COMMAND} registries\n", within)
    wrong = {}
    for name, reply in replies.items():
        if isinstance(reply, ContactError):
            wrong[name] = [str(reply)]
        elif reply.status not in (0, 1):
            wrong[name] = reply.stderr.splitlines()[-1:] or [f"exit {reply.status}"]
        else:
            lines = reply.stdout.splitlines()
            wrong[name] = [line for line in lines if not line.endswith(" answers")]
    return wrong
