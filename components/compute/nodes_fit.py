"""NodesFit: slurmctld's word that the nodes are fit by the figures that slurm.conf has of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from components.assembly import Assembly
from components.bundle_resource import HostRole
from components.compute import compute_node
from components.configuration.served_files import served_files
from components.configuration.slurm_conf import slurm_conf
from components.controller import slurm_controller
from components.guards import guards
from on_node.slurm_state import lines_of
from remote.bundle import Bundle, Command
from settings import Settings
from settings.model import Hardware
from templates.rendering import render

ROLE = "nodes-fit"
#: Seconds that nodes have to register with slurmctld after a change.
_PATIENCE = 60
GRES_CONF = "/etc/slurm/gres.conf"
#: Lines of slurm.conf by which slurmctld judges what a node reports.
_JUDGED_BY = (
    "NodeName=", "GresTypes=", "NodeFeaturesPlugins=", "SlurmctldParameters=", "SlurmdParameters=",
)  # fmt: skip


class NodesFit(HostRole):
    """A change that concerns nodes is done when slurmctld sees them fit again.

    It is asked on the controller, after the nodes' own bundles, since what a node reports may
    follow from these. Nodes that were dead before the change, and those that people have taken
    out, fail nothing.
    """

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        name = assembly.controller
        bundle = nodes_fit_bundle(name, assembly.settings, assembly.hardware)
        nodes = [
            node
            for name in assembly.settings.compute
            for node in assembly.on(name, compute_node.ROLE)
        ]
        cls(name, assembly, bundle, [*assembly.on(name, slurm_controller.ROLE), *nodes])


def nodes_fit_bundle(node: str, settings: Settings, hardware: Mapping[str, Hardware]) -> Bundle:
    """A command that is due when something changes by which slurmctld judges nodes."""
    conf = slurm_conf(settings, hardware)
    lines = [line for line in lines_of(conf) if line.startswith(_JUDGED_BY)]
    # Cores and files of GRES are no word of slurm.conf, and make a node invalid all the same.
    lines += lines_of(served_files(settings, hardware).get(GRES_CONF, ""))
    script = render(
        "compute/nodes-fit.sh",
        judged_by=hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16],
        run=guards.program("node_states", "fit", guards.SLURM_CONF, str(_PATIENCE)),
    )
    return Bundle(node, ROLE, [Command("nodes-fit", script, timeout=_PATIENCE + 60)])
