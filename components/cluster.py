"""SlurmCluster: the components in the order in which they need each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi

from components.apptainer import Apptainer
from components.compute_node import ComputeNode
from components.deploy import Deployed
from components.inventory import inventory
from components.munge_key import MungeKey
from components.node import Node
from components.package_repository import PackageRepository
from components.slurm_controller import SlurmController
from components.slurm_packages import slurm_package
from remote.host import Host
from settings import Settings
from settings.model import Hardware


class SlurmCluster(pulumi.ComponentResource):
    """A whole cluster: keys before daemons, the controller before compute nodes."""

    #: Node → roles, keys, files, packages, units, each read back from the node.
    inventory: pulumi.Output[dict[str, Any]]
    #: Name, controller, login nodes, Slurm version, REST URL.
    cluster: pulumi.Output[dict[str, Any]]

    def __init__(
        self,
        settings: Settings,
        hosts: Mapping[str, Host],
        hardware: Mapping[str, Hardware],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("slurmstack:components:SlurmCluster", settings.cluster.name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        head = settings.roles.controller
        nodes = {name: Node(host, child).deployed for name, host in hosts.items()}
        key = MungeKey("munge-key", hosts, head, nodes, settings.munge_key, child)
        packages = PackageRepository("packages", hosts, settings, nodes, child)
        sources = {name: [one.resource] for name, one in packages.deployed.items()}
        controller = SlurmController(
            head,
            hosts[head],
            settings,
            hardware,
            [key.deployed[head].resource, *sources.get(head, ())],
            child,
        )
        workers = {
            name: ComputeNode(
                hosts[name],
                settings,
                [
                    key.deployed[name].resource,
                    controller.deployed.resource,
                    *sources.get(name, ()),
                ],
                child,
            )
            for node_class in settings.nodes
            for name in node_class.names
        }
        containers = Apptainer(
            "apptainer",
            {name: hosts[name] for name in workers},
            settings,
            {name: [nodes[name].resource, *sources.get(name, ())] for name in workers},
            child,
        )
        deployed: list[Deployed] = [
            *nodes.values(),
            *key.deployed.values(),
            *packages.deployed.values(),
            controller.deployed,
            *(worker.deployed for worker in workers.values()),
            *containers.deployed.values(),
        ]
        self.inventory = inventory(
            [one for one in deployed if not hosts[one.node].lost], list(settings.lost)
        )
        self.cluster = controller.deployed.answer.apply(
            lambda answer: {
                "name": settings.cluster.name,
                "controller": head,
                "login": [],
                "slurmVersion": answer.packages.get(slurm_package(settings, "slurmctld").name),
                "restUrl": None,
            }
        )
        self.register_outputs({"inventory": self.inventory, "cluster": self.cluster})
