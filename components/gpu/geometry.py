"""Which nodes have their GPUs cut into MIG instances: for what cuts, and for slurmctld."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import pulumi

from components.assembly import Assembly
from components.failure import if_any
from settings import Settings
from settings.hostlist import fold
from settings.mig import geometry_text
from settings.model import NodeClass

#: On a node: ``mig`` cuts, ``mig-used`` gives the node back.
ROLE, USED_ROLE = "mig", "mig-used"
#: What the GPUs of a node are to be cut into.
GEOMETRY = "/etc/slurmstack/mig"


def cut(settings: Settings) -> dict[str, NodeClass]:
    """Node → its class, of those that have ``mig``, lost ones included."""
    return {
        name: node_class
        for node_class in settings.nodes
        if node_class.mig is not None
        for name in node_class.names
    }


def left_cut(settings: Settings, inventory: Mapping[str, Any]) -> list[str]:
    """Nodes without ``mig`` whose GPUs are cut.

    Args:
        settings: the stack's.
        inventory: that of the last run.
    """
    whole = hashlib.sha256(geometry_text({}).encode()).hexdigest()
    return [
        name
        for name in settings.compute
        if name not in cut(settings)
        and inventory.get(name, {}).get("files", {}).get(GEOMETRY, whole) != whole
    ]


def kept(assembly: Assembly) -> list[pulumi.Input[pulumi.Resource]]:
    """Refuses a class whose ``mig`` has gone while its GPUs are cut: slurm.conf would change first,
    since what leaves the settings is taken back last."""

    async def look() -> None:
        known = (await assembly.left()).inventory
        left = left_cut(assembly.settings, known)
        if left:
            raise pulumi.RunError(
                f"slurmstack:nodes: the GPUs of {fold(left)} are cut into MIG instances, and "
                "mig is no longer there. slurm.conf is as it was: write mig: {} and pulumi up, "
                "which makes them whole on drained nodes; then the key can go"
            )

    return [if_any(look())]
