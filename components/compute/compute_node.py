"""ComputeNode: slurmd, configless, and slurmctld's word that the node is fit for jobs."""

from __future__ import annotations

from collections.abc import Mapping

from components.assembly import Assembly
from components.boot import node_boot
from components.bundle_resource import HostRole
from components.compute import slurmd_port
from components.compute.service import BOOTING, server, service, withdrawal
from components.configuration.served_files import (
    OWN_FILES,
    STAND_INS,
    restart_lines,
    stand_ins,
)
from components.configuration.slurm_conf import restart_keys
from components.containers import enroot_pyxis
from components.controller import slurm_controller
from components.directory import local_people, sssd
from components.fabric import fabric_drivers
from components.gpu import geometry, nvidia
from components.health import nhc, node_acceptance, with_jobs
from components.keys import munge_key
from components.packages import package_repository
from components.packages.slurm_packages import slurm_packages, started_again, trigger
from remote.bundle import Bundle, Check, Command, Directory, File, Guard, Part, Unit
from settings import Settings
from settings.model import Hardware
from settings.parameters import needs_drain
from templates.rendering import render

ROLE = "slurmd"
#: The reason of a drain that is ours to end.
OURS = "slurmstack: the node is being changed"
DEFAULTS = "/etc/default/slurmd"
UNIT_CONF = "/etc/systemd/system/slurmd.service.d/slurmstack.conf"
#: Both are read when slurmd stops, so that they need no restart.
STOP = f"{OWN_FILES}/stop-slurmd"
STOP_CONF = "/etc/systemd/system/slurmd.service.d/slurmstack-stop.conf"
#: Read at boot.
TMPFILES = "/etc/tmpfiles.d/slurmstack-slurmd.conf"


_STAND_IN = "No device: it stands for a GPU.\n"


class ComputeNode(HostRole):
    """A compute node. It counts as done when slurmctld sees it idle (or at work) with the
    controller's slurm.conf."""

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        settings, hardware = assembly.settings, assembly.hardware
        for controller in assembly.bundles(assembly.controller, slurm_controller.ROLE):
            assembly.turns.together(ROLE, controller)
        for name in settings.compute_nodes:
            cls(
                name,
                assembly,
                compute_bundle(name, settings, hardware),
                [
                    *assembly.on(name, munge_key.ROLE, *package_repository.ROLES, with_jobs.ROLE),
                    *assembly.on(name, node_acceptance.ROLE, local_people.ROLE, sssd.ROLE),
                    *assembly.on(name, geometry.ROLE),
                    # Of a driver whose turn does not come, the one that stands there goes on.
                    *assembly.turns.unless_stopped(
                        assembly.bundles(name, fabric_drivers.ROLE, nvidia.ROLE)
                    ),
                    *assembly.on(assembly.controller, slurm_controller.ROLE),
                ],
            )


def compute_bundle(node: str, settings: Settings, hardware: Mapping[str, Hardware]) -> Bundle:
    """What a compute node gets. It holds no slurm.conf: slurmd fetches the controller's."""
    controller = settings.hosts[settings.roles.controller]
    defaults = render(
        "compute/slurmd.default",
        controller=controller,
        slurmctld_port=settings.slurm.slurmctld_port,
    )
    restart_on = (
        DEFAULTS,
        UNIT_CONF,
        trigger(settings, "slurmd"),
        *enroot_pyxis.restart_on(settings),
    )
    keys = (*restart_keys(settings, "slurmd", node), *restart_lines(settings, "slurmd"))
    drain = settings.rollout.drain
    drained = {
        "never": (),
        "asNeeded": tuple(key for key in keys if needs_drain(key)),
        "always": keys,
    }
    return Bundle(
        node,
        ROLE,
        [
            Guard(
                "jobs-known",
                render("compute/jobs-known.sh", defaults=DEFAULTS, server=server(settings)),
                timeout=120,
            ),
            withdrawal(node, settings, OURS),
            *slurm_packages(settings, "client", "slurmd"),
            *enroot_pyxis.node_parts(settings),
            Directory("/var/log/slurm", owner="slurm:slurm"),
            Directory(settings.slurm.SlurmdSpoolDir, ephemeral=True, parents=True),
            *started_again("slurmd"),
            File(DEFAULTS, defaults),
            File(UNIT_CONF, render("compute/slurmd.service.conf", limits=settings.limits)),
            File(TMPFILES, render("compute/slurmd.tmpfiles.conf", spool=_spool(settings))),
            Directory(OWN_FILES),
            File(STOP, render("compute/stop-slurmd.sh", port_unit=slurmd_port.UNIT), mode="0755"),
            File(STOP_CONF, render("compute/slurmd.stop.conf", script=STOP)),
            *_own_files(node, settings, hardware),
            *nhc.parts(node, settings, hardware),
            *_withheld(node, settings),
            Unit(
                "slurmd.service",
                restart_on=restart_on,
                restart_keys=keys,
                drain_on=restart_on if drain == "always" else (),
                drain_keys=drained[drain],
            ),
            Check(
                "node-is-idle",
                render(
                    "compute/node-is-idle.sh",
                    node=node,
                    booting=BOOTING if settings.gets_boot(node) else None,
                    driver=node_boot.gpu_driver(node, settings, hardware),
                ),
            ),
            *enroot_pyxis.node_checks(settings),
        ],
    )


def _spool(settings: Settings) -> str:
    """As tmpfiles.d(5) wants it, which has specifiers of its own."""
    return settings.slurm.SlurmdSpoolDir.replace("%", "%%")


def _withheld(node: str, settings: Settings) -> list[Part]:
    """A node that is new is closed until ``accepted`` (node_accepted.py) gives it to jobs."""
    if "new" not in node_acceptance.gates(settings):
        return []
    script = service(node, settings, OURS, None)
    return [Command("withheld", f"SLURMSTACK_SERVICE=withhold\n{script}", timeout=120)]


def _own_files(node: str, settings: Settings, hardware: Mapping[str, Hardware]) -> list[Part]:
    """Files that stand for GPUs."""
    if node not in settings.compute:
        return []  # lost: nothing is sent to it
    files = stand_ins(settings.compute[node].gres(hardware[node]))
    if not files:
        return []
    return [Directory(STAND_INS), *(File(path, _STAND_IN) for path in files)]
