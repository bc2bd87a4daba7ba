"""NvidiaStack: NVIDIA's driver on compute nodes with GPUs, and what belongs to it.

The driver changes on a drained node alone: its packages, then the module in the kernel, then its
daemons, and the node is given back when all of it says the same version. A node whose module cannot
be exchanged is rebooted by Slurm (``components.boot.node_boot``), which then gives it back; where
the settings let nobody reboot it, it stays drained until somebody has.
"""

from __future__ import annotations

from collections.abc import Mapping

from components.assembly import Assembly
from components.boot import node_boot
from components.bundle_resource import HostRole
from components.compute.service import BOOTING, server, withdrawal
from components.fabric import fabric_drivers
from components.health import with_jobs
from components.host import applier, host_baseline
from components.packages import package_repository
from components.packages.package_repository import apt_reads
from remote.bundle import Bundle, Check, Command, File, Guard, Package, Part, Unit
from remote.effects import digest
from settings import Settings
from settings.gres import cards, real_gpus
from settings.hostlist import expand
from settings.model import Hardware
from settings.nvidia import Nvidia
from templates.rendering import render

ROLE = "nvidia"
#: The reason of a drain that is ours to end.
OURS = "slurmstack: the GPU driver is being changed"
PINS = "/etc/apt/preferences.d/slurmstack-nvidia"
UNATTENDED = "/etc/apt/apt.conf.d/60slurmstack-nvidia"
MODULES = "/etc/modules-load.d/slurmstack-nvidia.conf"
PERSISTENCED, FABRIC_MANAGER, DCGM = (
    "nvidia-persistenced.service", "nvidia-fabricmanager.service", "nvidia-dcgm.service",
)  # fmt: skip
#: What unattended-upgrades leaves alone: regular expressions that begin with a package's name.
_HELD = ("nvidia-", "libnvidia-", "datacenter-gpu-manager", "gdrdrv-dkms", "libgdrapi")


class NvidiaStack(HostRole):
    """The driver of one node."""

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        settings, hardware = assembly.settings, assembly.hardware
        if settings.nvidia is not None and node_boot.reboots(settings):
            assembly.turns.ends(ROLE, node_boot.BOOTED_ROLE)
        for name in settings.compute_nodes:
            if not is_for(name, settings, hardware):
                continue
            needs = [
                *assembly.on(name, applier.ROLE, host_baseline.ROLE, *package_repository.ROLES),
                *assembly.on(name, with_jobs.ROLE),
                # What it has for network adapters is built for those that are there.
                *assembly.turns.unless_stopped(assembly.bundles(name, fabric_drivers.ROLE)),
            ]
            cls(name, assembly, nvidia_bundle(name, settings, hardware), needs)


def is_for(node: str, settings: Settings, hardware: Mapping[str, Hardware]) -> bool:
    """Whether the node gets the driver: it is named, or has cards of NVIDIA's; one that is lost is
    as its class."""
    if settings.nvidia is None or not settings.gets_driver(node):
        return False
    if settings.nvidia.hosts is not None:
        return True
    node_class = next(it for it in settings.nodes if node in it.names)
    alike = [node] if node in hardware else [it for it in node_class.names if it in hardware]
    found = [gpu for it in alike for gpu in real_gpus(node_class.gres(hardware[it]))]
    return any(gpu.AutoDetect not in ("rsmi", "oneapi", "nrt") for gpu in found)


def nvidia_bundle(node: str, settings: Settings, hardware: Mapping[str, Hardware]) -> Bundle:
    """What a compute node gets.

    Raises:
        ValueError: the settings have no driver.
    """
    stack = settings.nvidia
    if stack is None:
        raise ValueError("no slurmstack:nvidia in the settings")
    driver, versions = stack.driver, _versions(node, stack)
    fabric = _fabric_manager(node, stack)
    values = {"node": node, "ours": OURS, "server": server(settings)}
    needed, boots = _boot(node, settings, hardware)
    # All but DCGM's: a job may just be looking for the others.
    drained = [f"package:{name}" for name in versions if name not in _dcgm(stack)]
    modules = _modules(stack)
    daemons = _daemons(stack, fabric)
    own = {"driver": driver.upstream, "branch": driver.branch}
    parts: list[Part] = [
        Guard(
            "driver-can-be-built",
            render(
                "gpu/can-be-built.sh",
                built=driver.built,
                setting="slurmstack:nvidia.driver.packages (linux-modules-nvidia-…)",
            ),
        ),
        Guard(
            "driver-stays", render("drivers/driver-stays.sh", **values), when="remove", timeout=120
        ),
        withdrawal(node, settings, OURS, on=drained, unit="slurmd.service", first=boots),
        *(Package(name, version) for name, version in versions.items()),
        File(PINS, render("packages/preferences", pins=versions)),
        File(
            UNATTENDED, render("drivers/unattended.conf", packages=sorted(versions), patterns=_HELD)
        ),
        File(MODULES, render("drivers/modules.conf", modules=modules)),
    ]
    return Bundle(
        node,
        ROLE,
        [
            *parts,
            *apt_reads(parts),
            Command(
                "driver-loaded",
                needed
                + render(
                    "gpu/load.sh",
                    **own,
                    **values,
                    modules=modules,
                    units=[*daemons],
                    boots=bool(needed),
                ),
                on=(MODULES, _driver(stack)),
                timeout=300,
                probe=render("gpu/is-loaded.sh", **own),
                reboots=bool(needed),
            ),
            *(Unit(name, restart_on=on) for name, on in daemons.items()),
            Check("driver-is-whole", _is_whole(node, settings, hardware), timeout=120),
            Check(
                "fabric-is-whole",
                render("gpu/fabric-is-whole.sh", manager=fabric is not None),
                timeout=300,
            ),
        ],
    )


def proof(node: str, settings: Settings, hardware: Mapping[str, Hardware]) -> str:
    """Shell text that says what is wrong with the driver of a node that was booted, and exits.

    Raises:
        ValueError: the settings have no driver.
    """
    stack = settings.nvidia
    if stack is None:
        raise ValueError("no slurmstack:nvidia in the settings")
    fabric = _fabric_manager(node, stack)
    return "".join(
        (
            _is_whole(node, settings, hardware),
            render("gpu/fabric-is-whole.sh", manager=fabric is not None),
            render("gpu/daemons-run.sh", units=[*_daemons(stack, fabric)]),
        )
    )


def _is_whole(node: str, settings: Settings, hardware: Mapping[str, Hardware]) -> str:
    stack = settings.nvidia
    assert stack is not None
    number, sliced = (
        cards(settings.compute[node].gres(hardware[node]))
        if node in settings.compute
        else (0, False)
    )
    return render(
        "gpu/is-whole.sh",
        driver=stack.driver.upstream,
        branch=stack.driver.branch,
        cards=number,
        sliced=sliced,
        persistence=stack.persistence,
    )


def _boot(node: str, settings: Settings, hardware: Mapping[str, Hardware]) -> tuple[str, str]:
    """Shell texts: whether the node is to be booted, and who gives it back then. Both are empty
    where nobody may reboot it."""
    driver = node_boot.gpu_driver(node, settings, hardware)
    if driver is None:
        return "", ""
    needed = node_boot.needed(node, settings, hardware)
    values = {
        "driver": driver,
        "booting": BOOTING,
        "wanted": node_boot.WANTED,
        "digest": digest(node_boot.wanted(node, settings, hardware)),
    }
    return needed, needed + render("gpu/service.sh", **values)


def _fabric_manager(node: str, stack: Nvidia) -> str | None:
    """Its package, where the node gets it."""
    manager = stack.fabric_manager
    if manager is None or (manager.hosts is not None and node not in expand(manager.hosts)):
        return None
    return manager.package_name


def _versions(node: str, stack: Nvidia) -> dict[str, str]:
    """Package → version, of this node."""
    left_out = set[str]()
    if stack.fabric_manager is not None and _fabric_manager(node, stack) is None:
        left_out.add(stack.fabric_manager.package_name)
    return {name: it for name, it in sorted(stack.versions.items()) if name not in left_out}


def _dcgm(stack: Nvidia) -> tuple[str, ...]:
    return stack.packages_of("dcgm") if stack.dcgm is not None else ()


def _modules(stack: Nvidia) -> list[str]:
    """Kernel modules, as they are loaded one after the other."""
    further = {"nvidia-peermem": stack.peer_memory, "gdrdrv": stack.gdrcopy is not None}
    return ["nvidia", "nvidia-uvm", *(name for name, wanted in further.items() if wanted)]


def _daemons(stack: Nvidia, fabric: str | None) -> dict[str, tuple[str, ...]]:
    """Unit → what it is restarted for, in the order in which they are started."""
    driver = _driver(stack)
    found: dict[str, tuple[str, ...]] = {}
    if stack.persistence:
        found[PERSISTENCED] = (driver,)
    if fabric is not None:
        found[FABRIC_MANAGER] = (f"package:{fabric}", driver)
    if stack.dcgm is not None:
        found[DCGM] = (*(f"package:{name}" for name in _dcgm(stack)), driver)
    return found


def _driver(stack: Nvidia) -> str:
    """One of its packages stands for all: they have one version."""
    return f"package:{stack.driver.package_names[0]}"
