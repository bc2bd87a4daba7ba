"""Apptainer: the second container runtime, with the policy by which it gains no privilege.

It is no part of Slurm (there is no plugin for it: jobs call it), so it has a bundle of its own.
"""

from __future__ import annotations

import pulumi

from components.assembly import Assembly
from components.bundle_resource import deploy
from components.host import host_baseline
from components.packages import package_repository
from remote.bundle import Bundle, Check, File, Package, Part
from settings import Settings
from settings.apptainer_conf import POLICY, lines
from templates.rendering import render

ROLE = "apptainer"
CONF = "/etc/apptainer/apptainer.conf"


class Apptainer(pulumi.ComponentResource):
    """Apptainer on the hosts where jobs run, by package files or from the nodes' own sources."""

    def __init__(self, name: str, assembly: Assembly) -> None:
        super().__init__("slurmstack:components:Apptainer", name, None, assembly.options)
        settings = assembly.settings
        if settings.apptainer is not None:
            for node in (node for node_class in settings.nodes for node in node_class.names):
                needs = assembly.on(node, host_baseline.ROLE, *package_repository.ROLES)
                deploy(assembly, node, apptainer_bundle(node, settings), ROLE, self, needs)
        self.register_outputs({})

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        cls("apptainer", assembly)


def apptainer_bundle(node: str, settings: Settings) -> Bundle:
    """Apptainer's packages and apptainer.conf.

    Raises:
        ValueError: the settings have no Apptainer.
    """
    apptainer = settings.apptainer
    if apptainer is None:
        raise ValueError("no slurmstack:apptainer in the settings")
    packages: list[Part] = [Package(file.package, file.version) for file in apptainer.packages]
    setuid = bool((POLICY | apptainer.conf)["allow setuid"])
    return Bundle(
        node,
        ROLE,
        [
            *(packages or [Package("apptainer")]),
            File(CONF, apptainer_conf(settings)),
            Check(
                "apptainer-policy",
                render("containers/apptainer-policy.sh", setuid=setuid),
                timeout=20,
            ),
        ],
    )


def apptainer_conf(settings: Settings) -> str:
    """apptainer.conf: slurmstack's policy, with the stack's own values over it."""
    conf = settings.apptainer.conf if settings.apptainer is not None else {}
    return render("containers/apptainer.conf", lines=lines(conf))
