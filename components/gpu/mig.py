"""MigInstances: what the GPUs of a node are cut into (NVIDIA's Multi-Instance GPU).

slurm.conf changes for a class at once, and slurmd compares its devices with it only when it starts.
So GPUs are cut before slurmctld takes up a slurm.conf that names their instances, each node drained
by a reason of its own, which ``mig-used`` (``components.gpu.mig_in_use``) ends when slurmctld and
slurmd have the instances.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pulumi

from components.assembly import Assembly, Deployed
from components.bundle_resource import HostRole
from components.compute.service import server, withdrawal
from components.failure import if_any
from components.gpu import nvidia
from components.gpu.geometry import GEOMETRY, ROLE, USED_ROLE, cut
from components.host import applier, host_baseline
from remote.bundle import Bundle, Check, Command, Directory, File, Guard, Part, Unit
from settings import Settings
from settings.gres import Gres, node_gres
from settings.mig import geometry_text
from settings.model import Hardware, NodeClass
from templates.rendering import render

#: The reason of a drain that is ours to end.
OURS = "slurmstack: MIG instances are being changed"
PROGRAM = "/usr/local/lib/slurmstack/mig"
UNIT = "slurmstack-mig.service"
#: What looks at GPUs as long as it runs, and is stopped while they are cut: DCGM by its newer and
#: its older name, DGX's monitor, exporters as sites name them.
DAEMONS = (
    "nvidia-dcgm.service", "dcgm.service", "nvsm.service", "dcgm-exporter.service",
    "nvidia-dcgm-exporter.service",
)  # fmt: skip


class MigInstances(HostRole):
    """The GPUs of one node, cut."""

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        settings = assembly.settings
        for name, node_class in cut(settings).items():
            needs = [
                *assembly.on(name, applier.ROLE, host_baseline.ROLE),
                *_of_new_nodes(assembly.bundles(name, nvidia.ROLE), assembly),
            ]
            cls(name, assembly, mig_bundle(name, node_class, settings, assembly.hardware), needs)


def mig_bundle(
    node: str, node_class: NodeClass, settings: Settings, hardware: Mapping[str, Hardware]
) -> Bundle:
    """What a node gets before slurm.conf names its instances.

    Raises:
        ValueError: its class has no ``mig``.
    """
    if node_class.mig is None:
        raise ValueError(f"no mig in the class of {node}")
    text = geometry_text(node_class.mig)
    values = values_of(node, node_class, settings, hardware)
    first = render("gpu/mig-service.sh", **values, geometry=text, used=USED_ROLE)
    unit = f"/etc/systemd/system/{UNIT}"
    waits = render("gpu/mig-jobs-wait.sh", **values, types=_types(settings, hardware))
    parts: list[Part] = [
        Guard("driver-is-there", render("gpu/mig-driver.sh")),
        *([] if settings.guards.allow_job_loss else [Guard("jobs-wait", waits, timeout=150)]),
        Guard(
            "instances-stay",
            render("gpu/mig-whole-again.sh", **values),
            when="remove",
            timeout=300,
        ),
        withdrawal(node, settings, OURS, on=(GEOMETRY,), unit="slurmd.service", first=first),
        Directory("/etc/slurmstack"),
        File(GEOMETRY, text),
        File(PROGRAM, render("gpu/mig", file=GEOMETRY, daemons=DAEMONS), mode="0755"),
        File(unit, render("gpu/mig.service", program=PROGRAM)),
        Command(
            "whole-again",
            f"command -v nvidia-smi >/dev/null || exit 0\nexec {PROGRAM} off\n",
            when="remove",
            timeout=900,
        ),
        Command(
            "instances",
            render("gpu/mig-set.sh", **values),
            on=(GEOMETRY,),
            timeout=900,
            probe=f"exec {PROGRAM} look\n",
        ),
        Unit(UNIT),
        Check("instances-are-there", f"exec {PROGRAM} look\n", timeout=10),
    ]
    return Bundle(node, ROLE, parts)


def _of_new_nodes(
    drivers: Sequence[Deployed], assembly: Assembly
) -> list[pulumi.Input[pulumi.Resource]]:
    """The drivers of nodes that are new. A node that is known has one that stands, and its change
    may wait for nodes before it to be booted, with a slurm.conf that waits for this (decision 78).
    """

    async def wait(driver: Deployed) -> pulumi.Resource | None:
        known = (await assembly.left()).inventory
        return None if driver.node in known else driver.resource

    return [if_any(wait(driver)) for driver in drivers]


def values_of(
    node: str, node_class: NodeClass, settings: Settings, hardware: Mapping[str, Hardware]
) -> dict[str, Any]:
    """What the scripts of both roles are told."""
    resources = node_class.Gres or ()
    if node in hardware:
        resources = node_class.gres(hardware[node])
    return {
        "node": node,
        "ours": OURS,
        "server": server(settings),
        "program": PROGRAM,
        "gres": ",".join(sorted(_gpus(resources))),
    }


def _gpus(resources: Sequence[Gres]) -> list[str]:
    return node_gres([gres for gres in resources if gres.Name == "gpu"])


def _types(settings: Settings, hardware: Mapping[str, Hardware]) -> list[str]:
    """All types of GPUs that nodes are to have."""
    return sorted(
        {
            gres.type
            for name, node_class in settings.compute.items()
            for gres in node_class.gres(hardware[name])
            if gres.Name == "gpu" and gres.type is not None
        }
    )
