"""JobPods: a compute node makes pods of its jobs, follows them and cleans up. The program is
on_node/pods."""

from __future__ import annotations

import json
from pathlib import PurePosixPath

import pulumi

from components.assembly import Assembly
from components.bundle_resource import deploy
from components.host import host_baseline
from components.host.python_programs import python_programs
from components.kubernetes.with_jobs import LIBRARY, ROLE
from on_node.kubernetes.places import RUNNER
from on_node.pods.places import CONFIGURATION, CREDENTIAL, SOCKET
from remote.bundle import Bundle, Directory, File, Part, Unit
from settings import Settings
from templates.rendering import render

CREDENTIAL_ROLE = "pods-credential"
_CA = "/etc/slurmstack/kubernetes-ca.pem"
_SOCKET = "slurmstack-pods.socket"
_UNITS = "/etc/systemd/system"


class JobPods(pulumi.ComponentResource):
    """The bridge's credential on one host, and what needs it: the agent and the interpreter of job
    files on a compute node, the reconciler on the controller."""

    def __init__(self, name: str, assembly: Assembly) -> None:
        super().__init__("slurmstack:components:JobPods", name, None, assembly.options)
        settings = assembly.settings
        token = settings.kubernetes_token
        assert token is not None
        needs = assembly.on(name, host_baseline.ROLE)
        shut = deploy(
            assembly,
            name,
            credential_bundle(name, token.get_secret_value()),
            CREDENTIAL_ROLE,
            self,
            needs,
            secret=True,
        )
        bundle = pods_bundle(name, settings)
        deploy(assembly, name, bundle, ROLE, self, [*needs, shut.resource])
        self.register_outputs({})

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        bridge = assembly.settings.kubernetes_bridge
        if bridge is None or bridge.pods is None:
            return
        for name in (assembly.controller, *assembly.settings.compute_nodes):
            cls(name, assembly)


def credential_bundle(node: str, token: str) -> Bundle:
    """The bridge's own token, root's alone."""
    file = File(str(CREDENTIAL), f"{token}\n", mode="0600")
    return Bundle(node, CREDENTIAL_ROLE, [Directory("/etc/slurmstack"), file])


def pods_bundle(node: str, settings: Settings) -> Bundle:
    """What a host gets; none of it is secret."""
    bridge = settings.kubernetes_bridge
    assert bridge is not None
    assert bridge.pods is not None
    pods = bridge.pods
    told = {
        "server": pods.server,
        "ca": _CA,
        "registries": [it.name for it in bridge.registries],
        "folders": list(bridge.folders),
        "namespacePrefix": pods.namespace_prefix,
        "nodeNames": pods.node_names,
        "graceSeconds": pods.grace,
        "startSeconds": pods.start_within,
        "priorityClasses": pods.priority_classes,
        "quota": pods.quota,
        "gpuResource": pods.gpu_resource,
        "results": pods.results or "",
        "keepDays": pods.keep_results,
        "resultsMebibytes": pods.results_limit,
        "accounting": settings.accounting is not None,
    }
    parts: list[Part] = [
        *python_programs(LIBRARY, "kubernetes", "pods", "slurm_state", "user_groups"),
        Directory("/etc/slurmstack"),
        File(str(CONFIGURATION), f"{json.dumps(told, indent=2, sort_keys=True)}\n"),
        File(_CA, pods.ca),
    ]
    if node in settings.compute_nodes:
        parts += _agent()
    if node == settings.roles.controller:
        parts += _reconciler()
        if pods.results:
            # As in /tmp: each job has a folder there, its user's.
            parts.append(Directory(pods.results, mode="1777", parents=True))
    return Bundle(node, ROLE, parts)


def _agent() -> list[Part]:
    socket, service = f"{_UNITS}/{_SOCKET}", f"{_UNITS}/slurmstack-pods@.service"
    return [
        File(RUNNER, render("kubernetes/slurmstack-pod.sh", library=LIBRARY), mode="0755"),
        File(socket, render("kubernetes/pods.socket", socket=SOCKET)),
        File(service, render("kubernetes/pods.service", library=LIBRARY, work=_work())),
        Unit(_SOCKET, restart_on=(socket,)),
    ]


def _reconciler() -> list[Part]:
    service, timer = (f"{_UNITS}/slurmstack-pods-end.{kind}" for kind in ("service", "timer"))
    return [
        File(service, render("kubernetes/pods-end.service", library=LIBRARY)),
        File(timer, render("kubernetes/pods-end.timer")),
        Unit("slurmstack-pods-end.timer", restart_on=(timer,)),
    ]


def _work() -> str:
    """The folder of the socket, in which the agent keeps its records."""
    return str(PurePosixPath(SOCKET).parent)
