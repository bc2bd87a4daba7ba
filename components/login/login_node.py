"""LoginNode: the client commands, with the controller's configuration kept by sackd."""

from __future__ import annotations

from collections.abc import Sequence

import pulumi

from components.bundle_resource import HostRole
from components.containers import enroot_pyxis
from components.packages.slurm_packages import slurm_packages, trigger, version_keys
from remote.bundle import Bundle, Check, Directory, File, Unit
from remote.host import Host
from settings import Settings
from templates.rendering import render

ROLE = "login"
DEFAULTS = "/etc/default/sackd"
UNIT_CONF = "/etc/systemd/system/sackd.service.d/slurmstack.conf"


class LoginNode(HostRole):
    """A host where users submit jobs. It counts as done when its commands reach slurmctld."""

    def __init__(
        self,
        host: Host,
        settings: Settings,
        depends_on: Sequence[pulumi.Resource],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(host.name, host, login_bundle(host.name, settings), depends_on, opts)


def login_bundle(node: str, settings: Settings) -> Bundle:
    """What a login node gets. It holds no slurm.conf: sackd fetches it, and each change of it."""
    controller = settings.hosts[settings.roles.controller]
    port = settings.slurm.SlurmctldPort
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
                restart_keys=version_keys(settings),
            ),
            Check("commands-reach-the-controller", render("login/reaches-controller.sh")),
            *enroot_pyxis.checks(settings),
        ],
    )
