"""LoginNode: the client commands, with the controller's configuration kept by sackd."""

from __future__ import annotations

from components.assembly import Assembly
from components.bundle_resource import HostRole
from components.configuration.slurm_conf import restart_keys
from components.containers import enroot_pyxis
from components.controller import slurm_controller
from components.keys import munge_key
from components.packages import package_repository
from components.packages.slurm_packages import slurm_packages, trigger
from remote.bundle import Bundle, Check, Directory, File, Unit
from settings import Settings
from settings.slurm_conf import SlurmConf
from templates.rendering import render

ROLE = "login"
DEFAULTS = "/etc/default/sackd"
UNIT_CONF = "/etc/systemd/system/sackd.service.d/slurmstack.conf"


class LoginNode(HostRole):
    """A host where users submit jobs. It counts as done when its commands reach slurmctld."""

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        for name in assembly.settings.login:
            cls(
                name,
                assembly,
                login_bundle(name, assembly.settings),
                [
                    *assembly.on(name, munge_key.ROLE, *package_repository.ROLES),
                    *assembly.on(assembly.controller, slurm_controller.ROLE),
                ],
            )


def login_bundle(node: str, settings: Settings) -> Bundle:
    """What a login node gets. It holds no slurm.conf: sackd fetches it, and each change of it."""
    controller = settings.hosts[settings.roles.controller]
    port = settings.slurm.slurmctld_port
    return Bundle(
        node,
        ROLE,
        [
            *slurm_packages(settings, "client", "sackd"),
            *enroot_pyxis.login_parts(settings),
            File(DEFAULTS, render("login/sackd.default", controller=controller, port=port)),
            Directory("/etc/systemd/system/sackd.service.d"),
            File(UNIT_CONF, render("login/sackd.service.conf")),
            Unit(
                "sackd.service",
                restart_on=(DEFAULTS, UNIT_CONF, trigger(settings, "sackd")),
                restart_keys=_restart_keys(settings),
            ),
            Check("commands-reach-the-controller", render("login/reaches-controller.sh")),
            *enroot_pyxis.checks(settings),
        ],
    )


def _restart_keys(settings: Settings) -> tuple[str, ...]:
    """sackd hears of changes at slurmd's port (src/slurmctld/sackd_mgr.c), as it was when it began.
    Slurm's own port is no key: those deployed before had none, and need no restart."""
    own = SlurmConf.model_fields["SlurmdPort"].default
    return () if settings.slurm.SlurmdPort == own else restart_keys(settings, "sackd")
