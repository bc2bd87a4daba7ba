"""The precheck: what a node is, before anything on it is changed.

One script reports; the guard of the first role stops what would fail later on, `slurmstack check`
shows all of it for all nodes.
"""

from __future__ import annotations

from components.configuration.served_files import cgroup_conf
from remote.bundle import Guard
from settings import Settings
from settings.gres import Gres
from templates.rendering import render


def report() -> str:
    """The script: prints one line `key value` for each thing that is looked at."""
    return render("host/precheck-report.sh")


def guard(node: str, settings: Settings) -> Guard:
    """Stops a node on which the roles it is to get cannot work."""
    script = render(
        "host/precheck-guard.sh",
        report=report(),
        node=node,
        free_disk=settings.precheck.free_disk,
        cgroup=needs_cgroup_v2(node, settings),
        gpus=sum(one.count or 0 for one in real_gpus(node, settings)),
    )
    return Guard("precheck", script, timeout=60)


def needs_cgroup_v2(node: str, settings: Settings) -> bool:
    """Whether jobs on this node are confined by cgroup v2."""
    text = cgroup_conf(settings)
    return node in settings.compute and text is not None and "cgroup/v2" in text


def real_gpus(node: str, settings: Settings) -> tuple[Gres, ...]:
    """Declared GPUs of a node that need devices; MIG instances are no device of their own."""
    node_class = settings.compute.get(node)
    return tuple(
        one
        for one in (node_class.Gres or () if node_class else ())
        if one.Name == "gpu" and not one.standIn and not one.profile
    )
