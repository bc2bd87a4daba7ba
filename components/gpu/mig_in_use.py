"""MigInUse: a node whose MIG instances slurmctld and slurmd know of is given back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from components.assembly import Assembly
from components.bundle_resource import HostRole
from components.compute import compute_node
from components.compute.service import accepted_by, service
from components.controller import slurm_controller
from components.gpu.geometry import ROLE, USED_ROLE, cut
from components.gpu.mig import OURS, values_of
from remote.bundle import Bundle, Command
from settings import Settings
from settings.mig import geometry_text
from settings.model import Hardware, NodeClass
from templates.rendering import render


class MigInUse(HostRole):
    """One node."""

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        settings = assembly.settings
        for name, node_class in cut(settings).items():
            needs = assembly.on(name, ROLE, compute_node.ROLE)
            needs += assembly.on(assembly.controller, slurm_controller.ROLE)
            bundle = used_bundle(name, node_class, settings, assembly.hardware)
            cls(name, assembly, bundle, needs)


def used_bundle(
    node: str, node_class: NodeClass, settings: Settings, hardware: Mapping[str, Hardware]
) -> Bundle:
    """What is seen on it when slurmctld and slurmd have the new slurm.conf; due once for each
    geometry.

    Raises:
        ValueError: its class has no ``mig``.
    """
    if node_class.mig is None:
        raise ValueError(f"no mig in the class of {node}")
    give_back = service(node, settings, OURS, accepted_by(settings))
    # Another geometry is another text, also where the same instances lie on other GPUs.
    geometry = hashlib.sha256(geometry_text(node_class.mig).encode()).hexdigest()
    seen = render("gpu/mig-used.sh", **values_of(node, node_class, settings, hardware))
    text = f"# {geometry}\n{seen}SLURMSTACK_SERVICE=back\n{give_back}"
    return Bundle(
        node, USED_ROLE, [Command("used", text, timeout=1800, restarts=("slurmd.service",))]
    )
