"""The precheck: what a host is, before anything on it is changed.

One script looks and judges. As the guard of a host's first role it stops what would fail later
on; `slurmstack check` shows what it says of all hosts.
"""

from __future__ import annotations

from collections.abc import Sequence

from components.configuration.served_files import cgroup_conf
from remote.bundle import Guard
from settings import Settings
from settings.gres import Gres
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
        gpus=sum(one.count or 0 for one in real_gpus(node, settings)),
    )


def guard(node: str, settings: Settings) -> Guard:
    """Stops a node on which the roles it is to get cannot work."""
    script = render("host/precheck-guard.sh", precheck=precheck(node, settings))
    return Guard("precheck", script, timeout=60)


def _report(settings: Settings, people: Sequence[str]) -> str:
    users = dict.fromkeys([*(name for name, _ in settings.identities), *people])
    numbers = {
        *(("passwd", "user", one.uid) for _, one in settings.identities if one.uid is not None),
        *(("group", "group", one.gid) for _, one in settings.identities if one.gid is not None),
    }
    return render("host/precheck-report.sh", users=list(users), numbers=sorted(numbers))


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
