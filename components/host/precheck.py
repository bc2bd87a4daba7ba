"""The precheck: what a host is, before anything on it is changed.

One script looks and judges. As the guard of a host's first role it stops what would fail later
on; `slurmstack check` shows what it says of all hosts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from components.host.mounts import BUILDERS, bound_folders, kernel_needs, secret_files
from remote.bundle import Guard
from settings import Settings
from settings.gres import cards, named_devices
from templates.rendering import render


def precheck(node: str, settings: Settings, people: Sequence[str] = ()) -> str:
    """The script: prints one line `key value` for each thing that is looked at, and one line
    `fails REASON` for each reason for which the roles of this host cannot work on it.

    Args:
        node: the host.
        settings: the stack's.
        people: users whose numbers are reported besides those of services.
    """
    return render(
        "host/precheck.sh",
        report=_report(settings, people),
        node=node,
        free_disk=settings.precheck.free_disk,
        identities=list(settings.identities),
        cgroup=needs_cgroup_v2(node, settings),
        gpus=gpus(node, settings),
        mounts=_mounts(node, settings),
    )


def guard(node: str, settings: Settings) -> Guard:
    """Stops a node on which the roles it is to get cannot work."""
    script = render("host/precheck-guard.sh", precheck=precheck(node, settings))
    return Guard("precheck", script, timeout=60)


def _mounts(node: str, settings: Settings) -> str:
    """What is asked of a host for what it mounts; nothing where nothing is to be asked."""
    needs = {
        "kernel": kernel_needs(node, settings),
        "secrets": secret_files(node, settings),
        "folders": bound_folders(node, settings),
    }
    if not any(needs.values()):
        return ""
    knows = render("host/kernel-knows.sh")
    return render("host/precheck-mounts.sh", knows=knows, node=node, builders=BUILDERS, **needs)


def _report(settings: Settings, people: Sequence[str]) -> str:
    users = dict.fromkeys([*(name for name, _ in settings.identities), *people])
    numbers = {
        *(
            ("passwd", "user", identity.uid)
            for _, identity in settings.identities
            if identity.uid is not None
        ),
        *(
            ("group", "group", identity.gid)
            for _, identity in settings.identities
            if identity.gid is not None
        ),
    }
    return render("host/precheck-report.sh", users=list(users), numbers=sorted(numbers))


def needs_cgroup_v2(node: str, settings: Settings) -> bool:
    """Whether jobs on this node are confined by cgroup v2."""
    cgroup = settings.confinement
    return node in settings.compute and cgroup is not None and cgroup.CgroupPlugin == "cgroup/v2"


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
    # Where the driver is installed later on, that role looks at them.
    declared = node_class.Gres if node_class and not settings.gets_driver(node) else ()
    number, sliced = cards(declared)
    files = named_devices(declared)
    # Files that are named are looked for one by one: the node may have more cards than those.
    return Devices(0 if files else number, sliced, files)
