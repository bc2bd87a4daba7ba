"""SlurmCluster: the components in the order in which they need each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi

from components.accounting.accounting_objects import Accounting
from components.accounting.slurmdbd import SlurmDatabase
from components.bundle_resource import Deployed
from components.compute.compute_node import ComputeNode
from components.containers.apptainer import Apptainer
from components.controller.guards import Guards, NodesFit
from components.controller.slurm_controller import SlurmController
from components.host.applier import Node
from components.host.host_baseline import System
from components.host.storage import Storage, servers
from components.inventory import inventory
from components.keys.jwt_key_pair import JwtKeyPair
from components.keys.munge_key import MungeKey
from components.login.login_node import LoginNode
from components.packages.package_repository import PackageRepository
from components.packages.slurm_packages import slurm_package
from components.rest.slurmrestd import SlurmRestd
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
        storage = {
            name: Storage(hosts[name], settings, [nodes[name].resource], child).deployed
            for name in servers(settings)
        }
        exports = [one.resource for one in storage.values()]
        systems = {
            name: System(host, settings, [nodes[name].resource, *exports], child).deployed
            for name, host in hosts.items()
        }
        key = MungeKey("munge-key", hosts, head, systems, settings.munge_key, child)
        packages = PackageRepository("packages", hosts, settings, nodes, child)
        sources = {name: [one.resource] for name, one in packages.deployed.items()}
        guards = Guards(head, hosts[head], settings, [systems[head].resource], child)
        before = [
            key.deployed[head].resource,
            guards.deployed.resource,
            *sources.get(head, ()),
        ]
        tokens = database = accounting = rest = None
        if settings.jwt is not None:
            tokens = JwtKeyPair("jwt-key-pair", hosts[head], settings, before, child)
            before = [tokens.deployed.resource]
        if settings.accounting is not None:
            database = SlurmDatabase(head, hosts[head], settings, before, child).deployed
            before = [database.resource]
        controller = SlurmController(head, hosts[head], settings, hardware, before, child)
        after = [controller.deployed.resource]
        if settings.accounting is not None:
            accounting = Accounting(head, hosts[head], settings, after, child).deployed
        if settings.rest is not None:
            rest = SlurmRestd("slurmrestd", hosts[head], settings, after, child)
        workers = {
            name: ComputeNode(
                hosts[name],
                settings,
                hardware,
                [key.deployed[name].resource, *after, *sources.get(name, ())],
                child,
            )
            for node_class in settings.nodes
            for name in node_class.names
        }
        fit = NodesFit(
            head,
            hosts[head],
            settings,
            hardware,
            [*after, *(worker.deployed.resource for worker in workers.values())],
            child,
        )
        logins = {
            name: LoginNode(
                hosts[name],
                settings,
                [key.deployed[name].resource, *after, *sources.get(name, ())],
                child,
            )
            for name in settings.login
        }
        containers = Apptainer(
            "apptainer",
            {name: hosts[name] for name in workers},
            settings,
            {name: [systems[name].resource, *sources.get(name, ())] for name in workers},
            child,
        )
        deployed: list[Deployed] = [
            *nodes.values(),
            *storage.values(),
            *systems.values(),
            *(login.deployed for login in logins.values()),
            *key.deployed.values(),
            *packages.deployed.values(),
            *([tokens.deployed] if tokens else []),
            *(rest.deployed if rest else []),
            *(one for one in (database, controller.deployed, accounting) if one is not None),
            *(worker.deployed for worker in workers.values()),
            guards.deployed,
            fit.deployed,
            *containers.deployed.values(),
        ]
        self.inventory = inventory(
            [one for one in deployed if not hosts[one.node].lost], list(settings.lost)
        )
        slurm = slurm_package(settings, "slurmctld").name
        self.cluster = pulumi.Output.all(
            answer=controller.deployed.answer, ca=rest.ca if rest else None
        ).apply(
            lambda found: {
                "name": settings.cluster.name,
                "controller": head,
                "login": list(settings.login),
                "slurmVersion": found["answer"].packages.get(slurm),
                "restUrl": rest.url if rest else None,
                "restCa": found["ca"],
            }
        )
        self.register_outputs({"inventory": self.inventory, "cluster": self.cluster})
