"""Node: what every host of the cluster has before it has a role."""

from __future__ import annotations

import pulumi

from components.bundle_resource import Deployed, install_applier
from remote.host import Host


class Node(pulumi.ComponentResource):
    """A host that bundles can be applied to."""

    deployed: Deployed

    def __init__(self, host: Host, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("slurmstack:components:Node", host.name, None, opts)
        self.deployed = install_applier(host, self)
        self.register_outputs({"address": host.address})
