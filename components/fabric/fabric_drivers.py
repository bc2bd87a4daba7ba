"""FabricDrivers: NVIDIA's drivers of network adapters (DOCA-OFED, MLNX_OFED) on compute nodes.

Its packages change on a drained node alone. The modules of the kernel are exchanged by a boot,
which Slurm makes: restarted in place, the drivers would take the network away that this comes by,
and whatever share a node has over it. So the node stays closed until ``components.boot.node_boot``
has had it booted and has given it back.
"""

from __future__ import annotations

from collections.abc import Mapping

from components.assembly import Assembly
from components.boot import node_boot
from components.bundle_resource import HostRole
from components.compute.service import BOOTING, server, withdrawal
from components.health import with_jobs
from components.host import applier, host_baseline
from components.packages import package_repository
from components.packages.package_repository import apt_reads
from remote.bundle import Bundle, Check, Command, File, Guard, Package, Part
from settings import Settings
from settings.model import Hardware
from templates.rendering import render

ROLE = "fabric"
PINS = "/etc/apt/preferences.d/slurmstack-fabric"
UNATTENDED = "/etc/apt/apt.conf.d/60slurmstack-fabric"
MODULES = "/etc/modules-load.d/slurmstack-fabric.conf"


class FabricDrivers(HostRole):
    """The drivers of one node."""

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        settings = assembly.settings
        if settings.fabric is None:
            return
        if node_boot.reboots(settings):
            assembly.turns.ends(ROLE, node_boot.BOOTED_ROLE)
        for name in filter(settings.gets_fabric, settings.compute_nodes):
            needs = assembly.on(
                name, applier.ROLE, host_baseline.ROLE, *package_repository.ROLES, with_jobs.ROLE
            )
            cls(name, assembly, fabric_bundle(name, settings, assembly.hardware), needs)


def fabric_bundle(node: str, settings: Settings, hardware: Mapping[str, Hardware]) -> Bundle:
    """What a compute node gets.

    Raises:
        ValueError: the settings have no drivers of adapters.
    """
    fabric = settings.fabric
    if fabric is None:
        raise ValueError("no slurmstack:fabric in the settings")
    versions = dict(sorted(fabric.packages.items()))
    names = [*versions]
    changed = [f"package:{name}" for name in names]
    values = {"node": node, "ours": BOOTING, "server": server(settings)}
    first = ""
    if node_boot.reboots(settings):
        first = node_boot.needed(node, settings, hardware) + render("fabric/service.sh")
    out = withdrawal(node, settings, BOOTING, on=changed, unit="slurmd.service", first=first)
    parts: list[Part] = [
        Guard(
            "drivers-can-be-built",
            render(
                "drivers/can-be-built.sh", built=fabric.built, setting="slurmstack:fabric.packages"
            ),
        ),
        Guard(
            "drivers-stay", render("drivers/driver-stays.sh", **values), when="remove", timeout=120
        ),
        out,
        *(Package(name, version) for name, version in versions.items()),
        File(PINS, render("packages/preferences", pins=versions)),
        File(UNATTENDED, render("drivers/unattended.conf", packages=names, patterns=names)),
        File(MODULES, render("drivers/modules.conf", modules=fabric.modules)),
    ]
    return Bundle(
        node,
        ROLE,
        [
            *parts,
            *apt_reads(parts),
            *_peer_memory(node, settings, changed),
            Check(
                "drivers-are-built",
                render("fabric/are-built.sh", version=fabric.version),
                timeout=120,
            ),
        ],
    )


def _peer_memory(node: str, settings: Settings, changed: list[str]) -> list[Part]:
    """nvidia-peermem is built against the symbols of these drivers, and by nobody else again."""
    nvidia = settings.nvidia
    if nvidia is None or not nvidia.peer_memory or not settings.gets_driver(node):
        return []
    script = render("fabric/peer-memory.sh", driver=nvidia.driver.upstream)
    return [Command("peer-memory-rebuilt", script, on=tuple(changed), timeout=1800)]
