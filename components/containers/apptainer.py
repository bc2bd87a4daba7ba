"""Apptainer: the second container runtime, with the policy by which it gains no privilege.

It is no part of Slurm (there is no plugin for it: jobs call it), so it has a bundle of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pulumi

from components.bundle_resource import Deployed, deploy
from remote.bundle import Bundle, Check, File, Package, Part
from remote.host import Host
from settings import Settings
from settings.apptainer_conf import POLICY, lines
from templates.rendering import render

ROLE = "apptainer"
CONF = "/etc/apptainer/apptainer.conf"


class Apptainer(pulumi.ComponentResource):
    """Apptainer on the hosts where jobs run, by package files or from the nodes' own sources."""

    #: Host → its bundle.
    deployed: Mapping[str, Deployed]

    def __init__(
        self,
        name: str,
        hosts: Mapping[str, Host],
        settings: Settings,
        depends_on: Mapping[str, Sequence[pulumi.Resource]],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("slurmstack:components:Apptainer", name, None, opts)
        self.deployed = {
            host: deploy(
                hosts[host],
                apptainer_bundle(host, settings),
                ROLE,
                self,
                depends_on[host],
            )
            for host in (hosts if settings.apptainer is not None else ())
        }
        self.register_outputs({})


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
