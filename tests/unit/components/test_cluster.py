"""The cluster's resources, with Pulumi's mocks standing for the engine and the nodes."""

from __future__ import annotations

import asyncio
import base64
import importlib
import json
import os
import pkgutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pulumi
import pytest
from pulumi.runtime.mocks import MockMonitor
from pulumi.runtime.rpc import _special_secret_sig, _special_sig_key

import components.bundle_resource
from components import asked_again
from components.assembly import Assembly, Deployed
from components.boot import node_boot
from components.cluster import COMPONENTS, SlurmCluster
from components.compute import slurmd_port
from components.controller import slurm_controller
from components.gpu import geometry, mig
from components.guards import destroy_guard
from components.keys.munge_key import read_credential
from components.rollout import RolloutTurns
from remote.commands import APPLY, INSTALL, REMOVE, UNINSTALL
from remote.host import Host
from remote.reading import is_bundle, read
from settings import Settings, parse
from settings.model import Hardware
from tests.unit.settings.test_containers import CONTAINERS
from tests.unit.settings.test_rest import GOOD, with_certificate
from tests.unit.settings.test_settings import lab

KEY = bytes(range(256)) * 4
MADE = bytes(33 + number * 7 % 94 for number in range(1024))
MADE_PASSWORD = "made-Z8sWq0xv3Tn5Kc1Lr7Hd"
MADE_BY_NAME = {"munge-key": MADE.decode(), "monitoring-salt": "s" * 21, "registry-salt": "s" * 21}
SHA = "ab" * 32
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGbM0S0Qe0nGJm3XTXpXh1XgFzqQ2J1mZb0v2p4M3b6N"
PACKAGES_KEY = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQENB\n-----END PGP PUBLIC KEY BLOCK-----\n"
HARDWARE = Hardware(CPUs=2, SocketsPerBoard=1, CoresPerSocket=2, ThreadsPerCore=1, RealMemory=2000)


#: What roles say besides.
FACTS = {
    "jwt": {"jwt-kid": "kid-of-a"},
    "package-host": {
        "packages-key": base64.b64encode(PACKAGES_KEY.encode()).decode(),
        "packages-index": "0123",
    },
}

#: What a start-up file of root's shell prints, and the answer of the command after it.
NOISE = "Welcome, MUNGE:noise: to you\n"
CREDENTIAL = """
slurmstack-answer 1
node ctl
role munge-credential
fact credential MUNGE:credential:
slurmstack-answer end
"""


class Node(pulumi.runtime.Mocks):
    """Answers each command as a node would that took the bundle."""

    def __init__(self) -> None:
        self.made: dict[str, pulumi.runtime.MockResourceArgs] = {}

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        self.made[args.name] = args
        outputs = dict(args.inputs)
        if args.typ == "random:index/randomPassword:RandomPassword":
            outputs["result"] = {
                _special_sig_key: _special_secret_sig,
                "value": MADE_BY_NAME.get(args.name, MADE_PASSWORD),
            }
        if args.typ == "command:remote:Command":
            outputs["stdout"] = self.answer(args.name, args.inputs)
        return f"{args.name}-id", outputs

    def answer(self, name: str, inputs: dict[str, Any]) -> str:
        if name == "munge-credential":
            return NOISE + CREDENTIAL
        if name == "munge-switch":
            return ""
        node, _, role = name.partition("-")
        lines = plain(inputs["stdin"]).splitlines()
        paths = [line.split()[1] for line in lines if line.startswith(("file ", "file-base64 "))]
        packages = [line.split()[1] for line in lines if line.startswith("package ")]
        return json.dumps(
            {
                "node": node,
                "role": role,
                "files": {path: {"sha256": SHA} for path in paths},
                "packages": dict.fromkeys(packages, "1.0"),
                "units": {},
                "facts": FACTS.get(role, {}),
            }
        )

    def call(self, args: pulumi.runtime.MockCallArgs) -> NoReturn:
        raise AssertionError(f"no function is to be called: {args.token}")


def bare() -> dict[str, Any]:
    """The lab's settings with the components that every cluster has, and no other."""
    kept = ("cluster", "ssh", "hosts", "roles", "nodes", "partitions", "slurm")
    return {key: value for key, value in lab().items() if key in kept}


def deploy(node: Node | None = None, **changes: Any) -> tuple[Node, dict[str, Any]]:
    """The resources made, and the outputs, of the lab's settings with some keys changed."""
    settings = parse({**bare(), **changes})
    return deploy_all(node or Node(), settings, dict.fromkeys(settings.compute, HARDWARE))


_DEPLOYED: dict[str, tuple[Node, dict[str, Any]]] = {}


def deployed(**changes: Any) -> tuple[Node, dict[str, Any]]:
    """The same, made once of the same settings: for tests that look at it and alter nothing."""
    key = json.dumps(changes)
    if key not in _DEPLOYED:
        _DEPLOYED[key] = deploy(**changes)
    return _DEPLOYED[key]


def deploy_all(
    node: Node, settings: Settings, hardware: Mapping[str, Hardware]
) -> tuple[Node, dict[str, Any]]:
    """The same of any settings."""
    outputs = dict[str, Any]()
    hosts = {
        name: Host(name, one.address, HOST_KEY, lost=one.lost)
        for name, one in settings.hosts.items()
    }
    try:
        asyncio.get_event_loop()
    except RuntimeError:  # a test before ran one to its end, and left none (asyncio.run)
        asyncio.set_event_loop(asyncio.new_event_loop())
    pulumi.runtime.set_mocks(node, project="slurmstack", stack="lab")

    @pulumi.runtime.test  # type: ignore[untyped-decorator]
    def run() -> Any:
        cluster = SlurmCluster(settings, hosts, hardware)

        def keep(values: list[Any]) -> None:
            outputs.update(inventory=values[0], cluster=values[1])

        return pulumi.Output.all(cluster.inventory, cluster.cluster).apply(keep)

    run()
    return node, outputs


def is_secret(value: Any) -> bool:
    return isinstance(value, dict) and value.get(_special_sig_key) == _special_secret_sig


def plain(value: Any) -> Any:
    return value["value"] if is_secret(value) else value


def commands(node: Node) -> dict[str, dict[str, Any]]:
    return {
        name: args.inputs
        for name, args in node.made.items()
        if args.typ == "command:remote:Command"
    }


#: Commands of no bundle.
OTHERS = {"munge-credential", "munge-switch"}


def test_five_commands_a_node_and_two_for_the_munge_key() -> None:
    node, _ = deployed(slurm={})
    assert set(commands(node)) == {
        "ctl-node", "ctl-system", "ctl-munge-staged", "ctl-munge-key", "ctl-slurmctld", *OTHERS,
        "ctl-guards", "ctl-nodes-fit", "ctl-destroy-guard",
        "cn01-node", "cn01-system", "cn01-munge-staged", "cn01-munge-key", "cn01-slurmd",
        "cn02-node", "cn02-system", "cn02-munge-staged", "cn02-munge-key", "cn02-slurmd",
    }  # fmt: skip


def everything() -> dict[str, Any]:
    """The lab's settings with every component on, each on a host of its own where it may be."""
    return {
        "hosts": {**bare()["hosts"], "in": "10.73.0.12"},
        "roles": {"controller": "ctl", "login": "in"},
        "accounting": {}, "apptainer": {}, "enrootPyxis": CONTAINERS, **with_certificate(GOOD),
        "storage": {"home": {"server": "in", "path": "/srv/home"}},
        "jobContainer": {"BasePath": "/srv/tmp", "InitScript": "/usr/local/sbin/init"},
        "monitoring": {"grafana": {}}, "kubernetesBridge": {"registries": [{"name": "hub:5000"}]},
        "healthCheck": {"by": "slurmstack"}, "acceptance": {"gate": ["new"]}, "driftCheck": {},
        "diagnosis": {}, "modules": {}, "software": {"mpi/5": {"description": "Open MPI"}},
        "directory": {"local": {"users": {"anna": {"uid": 6001}}}, "jobAccess": {}},
        "nodes": [{"hosts": "cn[01-02]", "mig": {"0": {"3g.40gb": 2}}}],
        "nvidia": {"hosts": "cn[01-02]", "driver": {"version": "570.172.08-0ubuntu1"}},
        "images": {"images": {"small": {"version": "1", "base": {"suite": "trixie"}}}},
        "boot": {"kernelParameters": ["iommu=pt"], "cpuGovernor": "performance"},
        "fabric": {"version": "24.10-2.1.8", "packages": {"doca-ofed": "2.9.2-1"}},
        "registry": {"mirrors": {"docker.io": {"url": "https://docker.example", "port": 5010}}},
    }  # fmt: skip


def test_every_component_is_assembled() -> None:
    """A component that is in no list is in no cluster, and nothing else would say so."""
    found: set[type] = set()
    for module in pkgutil.walk_packages(components.__path__, "components."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and issubclass(value, pulumi.ComponentResource):
                found.add(value)
    found -= {pulumi.ComponentResource, SlurmCluster, components.bundle_resource.HostRole}
    assert found == set(COMPONENTS)
    assert len(COMPONENTS) == len(found)


def test_every_bundle_is_in_the_inventory() -> None:
    made, outputs = deployed(**everything())
    sent = set(commands(made)) - OTHERS
    assert sent == {
        f"{node}-{role}" for node, has in outputs["inventory"].items() for role in has["roles"]
    }
    assert {"ctl-rest-tls", "ctl-package-host", "cn01-apptainer", "in-storage"} <= sent


def test_each_role_comes_after_what_it_stands_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed build leaves daemons alone because what they stand on comes first, by itself."""
    direct = {"munge-credential": {"ctl-munge-staged"}, "munge-switch": {"ctl-munge-staged"}}
    plain_command = components.bundle_resource._command

    def command(assembly: Assembly, node: str, role: str, *args: Any) -> Deployed:
        depends_on: Sequence[pulumi.Resource] = args[4]
        direct[f"{node}-{role}"] = {one.pulumi_resource_name for one in depends_on}
        return plain_command(assembly, node, role, *args)

    def all_of_them(bundles: Sequence[Deployed], _: object) -> list[pulumi.Resource]:
        return [bundle.resource for bundle in bundles]

    monkeypatch.setattr(components.bundle_resource, "_command", command)
    # Here no node is down; what it waits for is seen in the lab.
    monkeypatch.setattr(slurm_controller, "unless_idle", all_of_them)
    monkeypatch.setattr(destroy_guard, "unless_idle", all_of_them)
    # None is booted, nor does one wait for what else is done to it.
    for name in ("_alone", "_back"):
        monkeypatch.setattr(node_boot, name, lambda *_: [])
    # No driver stands yet, and no GPUs are left as they were cut.
    monkeypatch.setattr(mig, "_of_new_nodes", all_of_them)
    monkeypatch.setattr(geometry, "kept", lambda _: [])
    # And no port changes.
    monkeypatch.setattr(slurmd_port, "heard_before", lambda _: [])
    # Nor has a rollout stopped (tests/engine/test_rollout.py).
    monkeypatch.setattr(
        RolloutTurns, "unless_stopped", lambda _, bundles: all_of_them(bundles, None)
    )
    made, _ = deploy(**everything())

    def before(name: str) -> set[str]:
        return direct[name].union(*(before(one) for one in direct[name]))

    guarded = {
        name
        for name, inputs in commands(made).items()
        if "\nguard precheck " in plain(inputs.get("stdin", ""))
    }
    for name in set(direct) - OTHERS:
        node, _, role = name.partition("-")
        if role == "node":
            continue
        assert f"{node}-node" in before(name), name
        # An unfit node is stopped before anything on it is changed.
        looked_at = {one for one in guarded if one.startswith(f"{node}-")}
        assert looked_at & {name, *before(name)}, name
    assert "in-storage" in before("cn01-system")
    # Nobody switches to a key that is not staged.
    assert {"cn01-munge-staged", "munge-switch"} <= before("cn01-munge-key")
    assert "ctl-package-host" in before("cn01-packages")
    assert {"cn01-packages", "cn01-system"} <= before("cn01-apptainer")
    database = {"ctl-package-host", "ctl-munge-key", "ctl-system", "ctl-jwt"}
    assert database <= before("ctl-slurmdbd")
    assert {*database, "ctl-slurmdbd"} <= before("ctl-slurmctld")
    # Programs that slurm.conf names are on the nodes before it is.
    assert {"cn01-programs", "cn02-programs"} <= before("ctl-slurmctld")
    assert {"cn01-mig", "cn02-mig"} <= before("ctl-slurmctld")
    assert "ctl-slurmctld" in before("ctl-accounting") & before("ctl-slurmrestd")
    assert "ctl-rest-tls" in before("ctl-slurmrestd")
    # Pulumi deletes the other way round: what asks for jobs is asked before anything goes.
    assert direct["ctl-destroy-guard"] == set(direct) - {"ctl-destroy-guard", *OTHERS}
    for node, daemon in (("cn01", "slurmd"), ("in", "login")):
        own = {f"{node}-packages", f"{node}-munge-key", f"{node}-system"}
        assert {*own, "ctl-slurmctld"} <= before(f"{node}-{daemon}")


#: What pulumi-random makes for the pages of monitoring and the registry.
MADE_ONES = {
    "monitoring-salt", "monitoring-password", "grafana-password", "grafana-secret-key",
    "registry-salt", "registry-password",
}  # fmt: skip

#: Resource → the component that it belongs to (its URN names both), and what must stand before it.
STANDS: dict[str, tuple[str, set[str]]] = {
    "ctl-node": ("Node::ctl", set()),
    "ctl-system": ("System::ctl", {"ctl-node", "in-storage"}),
    "ctl-programs": ("Programs::ctl", {"ctl-system"}),
    "munge-key": ("MungeKey::munge-key", set()),
    "ctl-munge-staged": ("MungeKey::munge-key", {"munge-key", "ctl-system"}),
    "munge-credential": ("MungeKey::munge-key", {"ctl-munge-staged"}),
    "munge-switch": ("MungeKey::munge-key", {"munge-key", "ctl-munge-staged"}),
    "ctl-munge-key": (
        "MungeKey::munge-key", {"munge-key", "ctl-munge-staged", "munge-switch", "ctl-system"},
    ),
    "ctl-guards": ("Guards::ctl", {"ctl-system"}),
    "ctl-package-host": ("PackageRepository::packages", {"ctl-node"}),
    "ctl-jwt": ("JwtKeyPair::jwt-key-pair", {"ctl-guards", "ctl-munge-key", "ctl-package-host"}),
    "slurmdbd-password": ("SlurmDatabase::ctl", set()),
    "ctl-slurmdbd": (
        "SlurmDatabase::ctl",
        {"slurmdbd-password", "ctl-guards", "ctl-munge-key", "ctl-package-host", "ctl-jwt"},
    ),
    "ctl-slurmctld": (
        "SlurmController::ctl",
        {
            "ctl-guards", "ctl-jwt", "ctl-munge-key", "ctl-package-host", "ctl-programs",
            "ctl-slurmdbd", "cn01-health", "cn02-health", "cn01-programs", "cn02-programs",
            "cn01-mig", "cn02-mig",
        },
    ),
    "ctl-accounting": ("Accounting::ctl", {"ctl-slurmctld", "ctl-people"}),
    "ctl-rest-tls": ("SlurmRestd::slurmrestd", {"ctl-slurmctld"}),
    "ctl-slurmrestd": ("SlurmRestd::slurmrestd", {"ctl-rest-tls"}),
    "ctl-nodes-fit": ("NodesFit::ctl", {"ctl-slurmctld", "cn01-slurmd", "cn02-slurmd"}),
    "in-node": ("Node::in", set()),
    "in-storage": ("Storage::in", {"in-node"}),
    "in-system": ("System::in", {"in-node", "in-storage"}),
    "in-packages": ("PackageRepository::packages", {"in-node", "ctl-package-host"}),
    "in-munge-staged": ("MungeKey::munge-key", {"munge-key", "munge-credential", "in-system"}),
    "in-munge-key": (
        "MungeKey::munge-key", {"munge-key", "in-munge-staged", "munge-switch", "in-system"},
    ),
    "in-login": ("LoginNode::in", {"in-munge-key", "in-packages", "ctl-slurmctld"}),
    "cn01-node": ("Node::cn01", set()),
    "cn01-system": ("System::cn01", {"cn01-node", "in-storage"}),
    "cn01-programs": ("Programs::cn01", {"cn01-system"}),
    "cn01-packages": ("PackageRepository::packages", {"cn01-node", "ctl-package-host"}),
    "cn01-munge-staged": ("MungeKey::munge-key", {"munge-key", "munge-credential", "cn01-system"}),
    "cn01-munge-key": (
        "MungeKey::munge-key", {"munge-key", "cn01-munge-staged", "munge-switch", "cn01-system"},
    ),
    "cn01-slurmd": (
        "ComputeNode::cn01",
        {
            "cn01-munge-key", "cn01-packages", "ctl-slurmctld", "cn01-health", "cn01-acceptance",
            "cn01-people", "cn01-nvidia", "cn01-fabric", "cn01-mig",
        },
    ),
    "cn01-nvidia": (
        "NvidiaStack::cn01",
        {"cn01-node", "cn01-system", "cn01-packages", "cn01-health", "cn01-fabric"},
    ),
    # The driver of a node that is new; one that is known has one (decision 78).
    "cn01-mig": ("MigInstances::cn01", {"cn01-node", "cn01-system", "cn01-nvidia"}),
    "cn01-mig-used": ("MigInUse::cn01", {"cn01-mig", "cn01-slurmd", "ctl-slurmctld"}),
    "cn01-fabric": (
        "FabricDrivers::cn01", {"cn01-node", "cn01-system", "cn01-packages", "cn01-health"},
    ),
    "cn01-tuning": ("NodeTuning::cn01", {"cn01-node", "cn01-system", "cn01-packages"}),
    "cn01-boot": ("NodeBoot::cn01", {"cn01-node", "cn01-system", "cn01-nvidia", "cn01-slurmd"}),
    "cn01-booted": ("NodeBooted::cn01", {"cn01-boot"}),
    "cn01-apptainer": ("Apptainer::apptainer", {"cn01-packages", "cn01-system"}),
    "cn01-health": ("NodeHealth::cn01", {"cn01-system"}),
    "cn01-acceptance": ("NodeAcceptance::cn01", {"cn01-system", "cn01-packages"}),
    "cn01-accepted": ("NodeAccepted::cn01", {"cn01-slurmd"}),
    "ctl-drift-check": ("DriftCheck::ctl", {"ctl-system", "ctl-guards"}),
    "in-drift-check": ("DriftCheck::in", {"in-system"}),
    "cn01-drift-check": ("DriftCheck::cn01", {"cn01-system"}),
    "ctl-diagnosis": ("JobDiagnosis::ctl", {"ctl-system"}),
    "in-diagnosis": ("JobDiagnosis::in", {"in-system"}),
    "cn01-diagnosis": ("JobDiagnosis::cn01", {"cn01-system"}),
    "ctl-job-files": ("JobFiles::ctl", {"ctl-system", "ctl-slurmctld"}),
    "in-job-files": ("JobFiles::in", {"in-system", "in-storage", "in-login"}),
    # The controller is first: it knows whether one who leaves has jobs.
    "ctl-people": ("LocalPeople::ctl", {"ctl-system"}),
    "in-people": ("LocalPeople::in", {"in-system", "ctl-people"}),
    "cn01-people": ("LocalPeople::cn01", {"cn01-system", "ctl-people"}),
    "cn01-job-access": ("JobAccess::cn01", {"cn01-slurmd", "cn01-people"}),
    "in-software": ("Software::in", {"in-system", "in-packages"}),
    "cn01-software": ("Software::cn01", {"cn01-system", "cn01-packages"}),
    "ctl-images": ("Images::ctl", {"ctl-system", "ctl-package-host"}),
    "cn01-images": ("Images::cn01", {"cn01-system", "cn01-packages"}),
    "in-images": ("Images::in", {"in-system", "in-packages", "in-storage"}),
    "registry-salt": ("ContainerRegistry::ctl", set()),
    "registry-password": ("ContainerRegistry::ctl", set()),
    "ctl-registry-password": (
        "ContainerRegistry::ctl",
        {"ctl-system", "ctl-package-host", "registry-password", "registry-salt"},
    ),
    "ctl-registry": (
        "ContainerRegistry::ctl", {"ctl-system", "ctl-package-host", "ctl-registry-password"},
    ),
    "ctl-registry-ca": ("ContainerRegistry::ctl", {"ctl-system", "ctl-registry"}),
    "in-registry-ca": ("ContainerRegistry::ctl", {"in-system", "ctl-registry"}),
    "cn01-registry-ca": ("ContainerRegistry::ctl", {"cn01-system", "ctl-registry"}),
    "ctl-monitoring-tls": ("MonitoringTls::ctl", {"ctl-system"}),
    "ctl-node-exporter": ("NodeExporter::ctl", {"ctl-system", "ctl-monitoring-tls"}),
    "in-node-exporter": ("NodeExporter::in", {"in-system", "ctl-monitoring-tls"}),
    "cn01-node-exporter": ("NodeExporter::cn01", {"cn01-system", "ctl-monitoring-tls"}),
    "ctl-slurm-exporter": ("SlurmExporter::ctl", {"ctl-slurmctld", "ctl-node-exporter"}),
    "monitoring-salt": ("Monitoring::ctl", set()),
    "monitoring-password": ("Monitoring::ctl", set()),
    "ctl-monitoring-secrets": (
        "Monitoring::ctl",
        {"monitoring-salt", "monitoring-password", "ctl-system", "ctl-monitoring-tls"},
    ),
    # Of exporters, it takes what is there: one that fails keeps no other from being watched.
    "ctl-monitoring": (
        "Monitoring::ctl", {"ctl-system", "ctl-monitoring-tls", "ctl-monitoring-secrets"},
    ),
    "grafana-password": ("Monitoring::ctl", set()),
    "grafana-secret-key": ("Monitoring::ctl", set()),
    "ctl-grafana-secrets": (
        "Monitoring::ctl",
        {
            "grafana-password", "grafana-secret-key", "monitoring-password", "ctl-system",
            "ctl-package-host",
        },
    ),
    "ctl-grafana": (
        "Monitoring::ctl",
        {
            "ctl-system", "ctl-package-host", "ctl-grafana-secrets", "ctl-monitoring-tls",
            "ctl-monitoring",
        },
    ),
}  # fmt: skip


def stands(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> dict[str, tuple[str, set[str]]]:
    """Resource → the end of its parent's URN, and the names of those that it stands on."""
    found: dict[str, tuple[str, set[str]]] = {}
    register = MockMonitor.RegisterResource

    def record(self: MockMonitor, request: Any) -> Any:
        if request.type.startswith(("command:", "random:")):
            before, _, parent = request.parent.rpartition("$slurmstack:components:")
            assert before.endswith("slurmstack:components:SlurmCluster"), request.parent
            found[request.name] = (parent, {urn.split("::")[-1] for urn in request.dependencies})
        return register(self, request)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(MockMonitor, "RegisterResource", record)
    deploy(**settings)
    return found


def test_clients_that_the_site_names_come_after_its_repository(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lustre = {"type": "lustre", "source": "mgs:/fast", "mount": "/fast", "clients": "ctl,cn01",
              "packages": ["lustre-client-utils"]}  # fmt: skip
    found = stands(monkeypatch, **{**everything(), "storage": {"fast": lustre}})
    assert {name: found[f"{name}-system"][1] for name in ("ctl", "cn01", "cn02")} == {
        "ctl": {"ctl-node", "ctl-package-host"},
        "cn01": {"cn01-node", "cn01-packages"},
        "cn02": {"cn02-node"},
    }


def test_resources_keep_their_urns_and_what_they_stand_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another parent is another URN: Pulumi would take a deployed resource away and make it again.
    What a node has of other components must neither delay nor stop a resource."""
    found = stands(monkeypatch, **everything())
    second = {
        name.replace("cn01", "cn02"): (
            parent.replace("cn01", "cn02"),
            {before.replace("cn01", "cn02") for before in needs},
        )
        for name, (parent, needs) in STANDS.items()
        if name.startswith("cn01")
    }
    wanted = STANDS | second
    # What is to be deleted first stands on every bundle there is.
    bundles = set(wanted) - {"munge-key", "slurmdbd-password", *MADE_ONES, *OTHERS}
    wanted["ctl-destroy-guard"] = ("DestroyGuard::ctl", bundles)
    assert found == wanted


@pytest.mark.slow
@pytest.mark.parametrize("guards", [{}, {"allowJobLoss": True}], ids=["guarded", "allowed"])
@pytest.mark.parametrize("whole", [True, False], ids=["everything", "bare"])
def test_every_script_is_read_by_the_shell(whole: bool, guards: dict[str, Any]) -> None:
    """A part that is left out must leave no loop without a body."""
    made, _ = deploy(**(everything() if whole else {}), guards=guards)
    scripts = {
        text
        for inputs in commands(made).values()
        if is_bundle(stdin := plain(inputs.get("stdin", "")))
        for part in read(stdin).parts
        for text in (getattr(part, "script", None), getattr(part, "probe", None))
        if text
    }
    assert len(scripts) > 10
    for text in scripts:
        done = subprocess.run(["sh", "-n"], input=text, capture_output=True, text=True)
        assert done.returncode == 0, f"{done.stderr}\n{text}"


def test_every_connection_is_pinned() -> None:
    node, _ = deployed()
    for name, inputs in commands(node).items():
        assert plain(inputs["connection"])["hostKey"] == HOST_KEY, name


def test_the_controllers_credential_reaches_the_others() -> None:
    node, _ = deployed()
    found = commands(node)
    assert "MUNGE:credential:" in plain(found["cn01-munge-staged"]["stdin"])
    assert "MUNGE:credential:" not in plain(found["ctl-munge-staged"]["stdin"])


def run_credential_script(
    folder: Path, shell: str, munge: str, before: str
) -> tuple[int, str, str]:
    """What the script prints where munged runs until it is ended, and munge is this script."""
    programs = {
        "munge": munge,
        "setpriv": "exec sleep 60",
        "mktemp": f"mkdir {folder}/own; echo {folder}/own",
        "install": "exit 0",
        "chown": "exit 0",
    }
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    script = commands(deployed()[0])["munge-credential"]["create"]
    place = {"PATH": f"{folder}:/usr/bin:/bin"}
    done = subprocess.run(
        [shell, "-c", before + script], env=place, capture_output=True, text=True, timeout=60
    )
    assert not (folder / "own").exists()
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_the_credential_is_told_from_what_the_shell_prints(shell: str, tmp_path: Path) -> None:
    before = "echo MUNGE:noise:; printf 'no end of line'; "
    _, said, _ = run_credential_script(tmp_path, shell, "echo MUNGE:AwQFAAD+/x==:", before)
    assert read_credential(said, "ctl") == "MUNGE:AwQFAAD+/x==:"


@pytest.mark.parametrize(
    "stdout",
    ["", "MUNGE:AwQFAAD:\n", CREDENTIAL.replace("MUNGE:credential:", "MUNGE:credential: noise")],
)
def test_what_is_no_credential_is_asked_for_again(
    stdout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state would keep it, and each later `up` fail."""
    monkeypatch.setattr(asked_again, "_file", lambda: tmp_path / "lab/asked-again.json")
    before = commands(deploy()[0])["munge-credential"]["update"]
    with pytest.raises(pulumi.RunError, match=r"^ctl: munge-credential: .*; .*it asks again$"):
        read_credential(stdout, "ctl")
    found = commands(deploy()[0])
    assert found["munge-credential"]["update"] != before
    assert found["munge-credential"]["create"] == before
    assert found["ctl-munge-key"]["update"] == found["ctl-munge-key"]["create"]


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_a_munged_that_gives_no_credential_is_named(shell: str, tmp_path: Path) -> None:
    # munged has ended when munge finds nobody.
    munge = "kill $(pgrep -P $PPID sleep); sleep 0.2; echo no socket >&2; exit 6"
    code, _, said = run_credential_script(tmp_path, shell, munge, "")
    assert code == 1
    assert f"slurmstack: {os.uname().nodename}: munge-credential: " in said
    assert "munged does not take the key: no socket" in said


@pytest.mark.parametrize(
    ("changes", "key"),
    [({}, MADE), ({"mungeKey": base64.b64encode(KEY).decode()}, KEY)],
    ids=["made", "existing"],
)
def test_the_key_is_in_a_secret_stdin_alone(changes: dict[str, Any], key: bytes) -> None:
    node, outputs = deploy(**changes)
    first_line = base64.b64encode(key).decode()[:60]
    for name, inputs in commands(node).items():
        stdin = inputs.pop("stdin", "")
        assert first_line not in json.dumps(inputs), name
        assert (first_line in plain(stdin)) == ("-munge-" in name), name
        assert is_secret(stdin) == ("-munge-" in name), name
    assert first_line not in json.dumps(outputs)


#: Path → owner and mode, of all that holds a secret, or of the folder that keys are made in.
SHUT = {
    "/etc/munge/munge.key": "munge:munge 0400",
    "/etc/prometheus/slurmstack/secrets": "root:prometheus 0750",
    "/etc/prometheus/slurmstack/secrets/pages": "prometheus:prometheus 0400",
    "/etc/prometheus/slurmstack/web.yml": "prometheus:prometheus 0400",
    "/etc/slurm/jwt": "root:root 0700",
    "/etc/slurm/slurmdbd.conf": "slurm:slurm 0600",
    "/etc/slurm/tls/site.pem": "root:root 0400",
    "/var/backups/slurmdbd": "root:root 0700",
    "/var/lib/slurm-archive": "slurm:slurm 0700",
    "/var/spool/slurmctld": "slurm:slurm 0700",
}


def test_what_holds_a_secret_is_shut_to_others() -> None:
    accounting = {"slurmdbd": {"PurgeJobAfter": 12, "ArchiveJobs": True}}
    node, _ = deploy(accounting=accounting, monitoring={}, **with_certificate(GOOD))
    found = {}
    for inputs in commands(node).values():
        for line in plain(inputs.get("stdin", "")).splitlines():
            words = line.split(" ")
            if words[0] in ("file", "file-base64", "directory") and words[1] in SHUT:
                found[words[1]] = " ".join(words[2:4])
    assert found == SHUT


def test_what_is_asked_again_is_noted_beside_the_program() -> None:
    """Each stack has its own file; `slurmstack` and a later version find it there."""
    deploy()  # of the stack lab
    project = Path(__file__).parents[3]
    assert asked_again._file() == project / ".slurmstack/lab/asked-again.json"


def test_a_new_key_gets_a_new_credential_and_nothing_else_does() -> None:
    assert commands(deployed()[0])["munge-credential"]["triggers"] == [SHA]


def test_an_existing_key_makes_none() -> None:
    node, _ = deploy(mungeKey=base64.b64encode(KEY).decode())
    assert not [args for args in node.made.values() if "random" in args.typ]


def test_the_inventory_is_what_the_nodes_said() -> None:
    _, outputs = deployed()
    roles = ["munge-key", "munge-staged", "node", "slurmd", "system"]
    assert outputs["inventory"]["cn01"]["roles"] == roles
    assert outputs["inventory"]["cn01"]["keys"] == {"munge": SHA}
    assert outputs["inventory"]["ctl"]["files"]["/etc/slurm/slurm.conf"] == SHA
    assert outputs["cluster"] == {
        "name": "lab", "controller": "ctl", "login": [], "slurmVersion": "1.0", "restUrl": None,
        "restCa": None,
    }  # fmt: skip


def test_nothing_is_sent_to_a_lost_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its resources stay as they are, and when they go, nothing is run on it."""
    asked = {}
    register = MockMonitor.RegisterResource

    def record(self: MockMonitor, request: Any) -> Any:
        asked[request.name] = request
        return register(self, request)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(MockMonitor, "RegisterResource", record)
    lost = {"address": "10.73.0.22", "lost": True}
    node, _ = deploy(hosts={"ctl": "10.73.0.10", "cn01": "10.73.0.21", "cn02": lost})
    for name, inputs in commands(node).items():
        is_lost = name.startswith("cn02-")
        assert asked[name].retainOnDelete == is_lost, name
        ignored = set(asked[name].ignoreChanges)
        assert (set(inputs) <= ignored) if is_lost else not ignored, name


def test_a_lost_node_stops_no_component() -> None:
    """What a role would put there needs what nobody knows of it any more."""
    changes = everything()
    changes["hosts"] = {"ctl": "10.73.0.10", "cn01": "10.73.0.21", "in": "10.73.0.12",
                        "cn02": {"address": "10.73.0.22", "lost": True}}  # fmt: skip
    _, outputs = deploy(**changes)
    assert outputs["inventory"]["cn02"] == {"lost": True}
    assert {"health", "acceptance", "slurmd"} <= {*outputs["inventory"]["cn01"]["roles"]}


def test_a_lost_node_is_listed_as_such() -> None:
    hosts = {
        "ctl": "10.73.0.10",
        "cn01": "10.73.0.21",
        "cn02": {"address": "10.73.0.22", "lost": True},
    }
    node, outputs = deploy(hosts=hosts)
    assert outputs["inventory"]["cn02"] == {"lost": True}
    assert "NodeName=cn02" not in commands(node)["ctl-slurmctld"]["stdin"]
    assert "NodeName=cn01" in commands(node)["ctl-slurmctld"]["stdin"]


def test_every_command_is_the_appliers_and_keeps_quiet() -> None:
    """What a command prints may hold what its bundle holds; its text is the same for all nodes."""
    node, _ = deployed(**everything())
    for name, inputs in commands(node).items():
        assert inputs["logging"] == "none", name
        assert inputs["addPreviousOutputInEnv"] is False, name
        if name in OTHERS:
            continue
        applies, removes = (INSTALL, UNINSTALL) if name.endswith("-node") else (APPLY, REMOVE)
        assert (inputs["create"], inputs["update"], inputs["delete"]) == (
            applies, applies, removes,
        ), name  # fmt: skip


def test_bundles_with_secrets_are_secrets_and_no_others() -> None:
    node, _ = deployed(**everything())
    secret = {name for name, inputs in commands(node).items() if is_secret(inputs.get("stdin"))}
    hosts = ("ctl", "in", "cn01", "cn02")
    keys = {f"{host}-munge-{what}" for host in hosts for what in ("staged", "key")}
    made = {
        "ctl-slurmdbd", "ctl-rest-tls", "ctl-monitoring-secrets", "ctl-grafana-secrets",
        "ctl-registry-password",
    }  # fmt: skip
    assert secret == keys | made


def test_the_credential_is_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}
    register = MockMonitor.RegisterResource

    def record(self: MockMonitor, request: Any) -> Any:
        asked[request.name] = request
        return register(self, request)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(MockMonitor, "RegisterResource", record)
    deploy()
    assert "stdout" in asked["munge-credential"].additionalSecretOutputs


def test_the_inventory_names_the_key_that_signs() -> None:
    _, outputs = deployed(**everything())
    assert outputs["inventory"]["ctl"]["keys"] == {"munge": SHA, "jwt": "kid-of-a"}


def test_a_connection_is_the_hosts_and_its_bastions() -> None:
    jump = Host("jump", "10.1.1.1", "ssh-ed25519 JUMP", port=2222, user="hop", dial_error_limit=5)
    host = Host(
        "cn01", "10.73.0.21", HOST_KEY, port=2022, user="admin", bastion=jump,
        dial_error_limit=7, per_dial_timeout=11,
    )  # fmt: skip
    args = components.bundle_resource.connection(host)
    assert (args.host, args.port, args.user) == ("10.73.0.21", 2022, "admin")
    assert args.host_key == HOST_KEY
    assert (args.dial_error_limit, args.per_dial_timeout) == (7, 11)
    proxy: Any = args.proxy
    assert (proxy.host, proxy.host_key, proxy.port, proxy.user, proxy.dial_error_limit) == (
        "10.1.1.1", "ssh-ed25519 JUMP", 2222, "hop", 5,
    )  # fmt: skip


def test_a_program_runs_where_another_loop_has_ended() -> None:
    async def nothing() -> None:
        return None

    asyncio.run(nothing())
    deploy(slurm={})
