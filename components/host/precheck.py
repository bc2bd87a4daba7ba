"""The precheck: what a node is, before anything on it is changed.

One script reports; the guard of the first role stops what would fail later on, `slurmstack check`
shows all of it for all nodes.
"""

from __future__ import annotations

from dataclasses import dataclass

from components.configuration.served_files import cgroup_conf
from remote.bundle import Guard
from settings import Settings
from settings.gres import cards, named_devices
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
        gpus=gpus(node, settings),
    )
    return Guard("precheck", script, timeout=60)


def needs_cgroup_v2(node: str, settings: Settings) -> bool:
    """Whether jobs on this node are confined by cgroup v2."""
    text = cgroup_conf(settings)
    return node in settings.compute and text is not None and "cgroup/v2" in text


@dataclass(frozen=True)
class Devices:
    """What must be there for the GPUs that a node's class declares."""

    #: NVIDIA cards that are given out whole.
    cards: int
    #: More cards may be there, cut into MIG instances.
    sliced: bool
    #: Device files that are named.
    files: tuple[str, ...]


def gpus(node: str, settings: Settings) -> Devices:
    """The GPUs declared for a node; none where it runs no jobs."""
    node_class = settings.compute.get(node)
    declared = node_class.Gres if node_class else ()
    number, sliced = cards(declared)
    files = named_devices(declared)
    # Files that are named are looked for one by one: the node may have more cards than those.
    return Devices(0 if files else number, sliced, files)
