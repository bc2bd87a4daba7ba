"""NodeAccepted: a node that is new, or comes back, takes jobs once it has shown what it can."""

from __future__ import annotations

from components.assembly import Assembly
from components.bundle_resource import HostRole
from components.compute import compute_node
from components.compute.service import service
from components.health import node_acceptance
from remote.bundle import Bundle, Command
from settings import Settings

ROLE = "accepted"


class NodeAccepted(HostRole):
    """Ends the drain that slurmd's bundle began (``withheld``): measured in a reservation first.

    It is a role of its own, after slurmd's: a node that fails is deployed, and stays drained; the
    next `pulumi up` measures it again.
    """

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        settings = assembly.settings
        if "new" not in node_acceptance.gates(settings):
            return
        for name in settings.compute_nodes:
            needs = assembly.on(name, compute_node.ROLE)
            cls(name, assembly, accepted_bundle(name, settings), needs)


def accepted_bundle(node: str, settings: Settings) -> Bundle:
    """A command that is due until it has once succeeded."""
    script = service(node, settings, compute_node.OURS, node_acceptance.GATE)
    return Bundle(
        node, ROLE, [Command("accepted", f"SLURMSTACK_SERVICE=back\n{script}", timeout=1500)]
    )
