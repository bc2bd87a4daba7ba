"""SlurmCluster: the components in the order in which they need each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi

from components.accounting.accounting_objects import Accounting
from components.accounting.slurmdbd import SlurmDatabase
from components.assembly import Assembly, Component
from components.compute.compute_node import ComputeNode
from components.containers.apptainer import Apptainer
from components.controller.slurm_controller import SlurmController
from components.host.applier import Node
from components.host.host_baseline import System
from components.host.storage import Storage
from components.inventory import inventory
from components.keys.jwt_key_pair import JwtKeyPair
from components.keys.munge_key import MungeKey
from components.login.login_node import LoginNode
from components.packages.package_repository import PackageRepository
from components.rest.slurmrestd import SlurmRestd
from remote.host import Host
from settings import Settings
from settings.model import Hardware

#: Each stands on those above it only.
COMPONENTS: tuple[type[Component], ...] = (
    Node,
    Storage,
    System,
    MungeKey,
    PackageRepository,
    JwtKeyPair,
    SlurmDatabase,
    SlurmController,
    Accounting,
    SlurmRestd,
    ComputeNode,
    LoginNode,
    Apptainer,
)


class SlurmCluster(pulumi.ComponentResource):
    """A whole cluster: keys before daemons, the controller before compute nodes."""

    #: Node → roles, keys, files, packages, units, each read back from the node.
    inventory: pulumi.Output[dict[str, Any]]
    #: Name, controller, login nodes, and what components say: Slurm's version, the REST URL.
    cluster: pulumi.Output[dict[str, Any]]

    def __init__(
        self,
        settings: Settings,
        hosts: Mapping[str, Host],
        hardware: Mapping[str, Hardware],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("slurmstack:components:SlurmCluster", settings.cluster.name, None, opts)
        assembly = Assembly(settings, hosts, hardware, self)
        assembly.outputs |= {
            "name": settings.cluster.name,
            "controller": settings.roles.controller,
            "login": list(settings.login),
        }
        for component in COMPONENTS:
            component.assemble(assembly)
        self.inventory = inventory(
            [bundle for bundle in assembly.deployed if not hosts[bundle.node].lost],
            list(settings.lost),
        )
        self.cluster = pulumi.Output.all(**assembly.outputs)
        self.register_outputs({"inventory": self.inventory, "cluster": self.cluster})
