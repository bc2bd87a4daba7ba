"""Node: what every host of the cluster has before it has a role."""

from __future__ import annotations

import pulumi

from components.assembly import Assembly
from components.bundle_resource import install_applier

ROLE = "node"


class Node(pulumi.ComponentResource):
    """A host that bundles can be applied to."""

    def __init__(self, name: str, assembly: Assembly) -> None:
        super().__init__("slurmstack:components:Node", name, None, assembly.options)
        install_applier(assembly, name, ROLE, self)
        self.register_outputs({"address": assembly.hosts[name].address})

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        for name in assembly.hosts:
            cls(name, assembly)
