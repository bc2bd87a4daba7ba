"""SlurmCluster: the components in the order in which they need each other."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pulumi

from components.accounting.accounting_objects import Accounting
from components.accounting.slurmdbd import SlurmDatabase
from components.assembly import Assembly, Component, Deployed
from components.boot.node_boot import NodeBoot, NodeBooted
from components.boot.node_tuning import NodeTuning
from components.compute.compute_node import ComputeNode
from components.compute.node_accepted import NodeAccepted
from components.compute.nodes_fit import NodesFit
from components.configuration.programs import Programs
from components.containers.apptainer import Apptainer
from components.controller.slurm_controller import SlurmController
from components.diagnosis.job_diagnosis import JobDiagnosis
from components.directory.job_access import JobAccess
from components.directory.local_people import LocalPeople
from components.directory.sssd import DirectoryClient
from components.fabric.fabric_drivers import FabricDrivers
from components.failure import recovered
from components.gpu.mig import MigInstances
from components.gpu.mig_in_use import MigInUse
from components.gpu.nvidia import NvidiaStack
from components.guards.destroy_guard import DestroyGuard
from components.guards.guards import Guards
from components.health.node_acceptance import NodeAcceptance
from components.health.node_health import NodeHealth
from components.host.applier import Node
from components.host.drift_check import DriftCheck
from components.host.host_baseline import System
from components.host.storage import Storage
from components.images.container_registry import ContainerRegistry
from components.images.images import Images
from components.inventory import join
from components.keys.jwt_key_pair import JwtKeyPair
from components.keys.munge_key import MungeKey
from components.kubernetes.job_files import JobFiles
from components.kubernetes.job_pods import JobPods
from components.last_outputs import LastOutputs
from components.login.login_node import LoginNode
from components.monitoring.monitoring_tls import MonitoringTls
from components.monitoring.node_exporter import NodeExporter
from components.monitoring.prometheus import Monitoring
from components.monitoring.slurm_exporter import SlurmExporter
from components.packages.package_repository import PackageRepository
from components.report import not_applied
from components.rest.slurmrestd import SlurmRestd
from components.rollout import RolloutTurns
from components.software.software import Software
from remote.answer import Answer
from remote.host import Host
from settings import Settings
from settings.model import Hardware

#: Each stands on those above it only.
COMPONENTS: tuple[type[Component], ...] = (
    Node,
    PackageRepository,
    Storage,
    System,
    LocalPeople,
    DirectoryClient,
    NodeHealth,
    Programs,
    MungeKey,
    Guards,
    JwtKeyPair,
    SlurmDatabase,
    FabricDrivers,
    NvidiaStack,
    MigInstances,
    SlurmController,
    Accounting,
    SlurmRestd,
    NodeAcceptance,
    NodeTuning,
    ComputeNode,
    MigInUse,
    NodeAccepted,
    NodesFit,
    JobAccess,
    LoginNode,
    Software,
    Apptainer,
    Images,
    ContainerRegistry,
    DriftCheck,
    JobDiagnosis,
    JobFiles,
    JobPods,
    MonitoringTls,
    NodeExporter,
    SlurmExporter,
    Monitoring,
    NodeBoot,
    NodeBooted,
    DestroyGuard,
)


class SlurmCluster(pulumi.ComponentResource):
    """A whole cluster: keys before daemons, the controller before compute nodes."""

    #: Node → roles, keys, files, packages, units, each read back from the node.
    inventory: pulumi.Output[dict[str, Any]]
    #: Name, controller, login nodes, and what components say: Slurm's version, the REST URL.
    cluster: pulumi.Output[dict[str, Any]]
    #: The bundles, but those of nodes that are gone.
    deployed: list[Deployed]
    #: Node and role of what a rollout passed over, once all are applied.
    stopped: set[tuple[str, str]]
    #: What each of them answered, in the same order; None where it could not be applied.
    answers: pulumi.Output[list[Answer | None]]

    def __init__(
        self,
        settings: Settings,
        hosts: Mapping[str, Host],
        hardware: Mapping[str, Hardware],
        last: pulumi.Output[LastOutputs] | None = None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("slurmstack:components:SlurmCluster", settings.cluster.name, None, opts)
        # What could not be applied, or told, now is as it was told last.
        known = pulumi.Output.from_input(LastOutputs()) if last is None else last
        turns = RolloutTurns(settings, hosts, known)
        assembly = Assembly(settings, hosts, hardware, self, known, turns)
        assembly.outputs |= {
            "name": settings.cluster.name,
            "controller": settings.roles.controller,
            "login": list(settings.login),
        }
        try:
            for component in COMPONENTS:
                component.assemble(assembly)
        except BaseException as error:
            # Else what waits for its turn would keep the program for ever.
            turns.abandon(error)
            raise
        turns.complete()
        self.stopped = turns.stopped
        self.deployed = [bundle for bundle in assembly.deployed if not hosts[bundle.node].lost]
        self.answers = pulumi.Output.all(
            *(recovered(bundle.answer, None) for bundle in self.deployed)
        )
        self.inventory = pulumi.Output.all(self.answers, known).apply(
            lambda told: join(
                [answer for answer in told[0] if answer is not None],
                list(settings.lost),
                told[1].inventory,
                {bundle.node for bundle in not_applied(self.deployed, told[0])},
            )
        )
        self.cluster = pulumi.Output.all(
            **{
                name: recovered(
                    pulumi.Output.from_input(value), known.apply(partial(_told, name=name))
                )
                for name, value in assembly.outputs.items()
            }
        )
        self.register_outputs({})


def _told(outputs: LastOutputs, name: str) -> Any:
    return outputs.cluster.get(name)
