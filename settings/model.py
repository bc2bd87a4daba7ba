"""The settings of a cluster, frozen once read. Unknown keys are refused.

The shape follows the stack file: each attribute of :class:`Settings` is one configuration
key (``slurmstack:cluster``, ``slurmstack:hosts``, …), spelled there in camelCase and inside
Slurm's own objects as Slurm spells it.
"""

from __future__ import annotations

import base64
import binascii
import re
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BeforeValidator,
    Field,
    SecretBytes,
    SecretStr,
    ValidationInfo,
    field_validator,
)

from settings.acceptance import Acceptance
from settings.accounting import Accounting
from settings.base import HostList, Model, SlurmObject, matching
from settings.boot import Boot
from settings.containers import Apptainer, EnrootPyxis
from settings.diagnosis import Diagnosis
from settings.directory import Directory
from settings.drift_check import DriftCheck
from settings.excluded import Reason
from settings.fabric import Fabric
from settings.gres import Gpus, discovered, with_instances
from settings.gres import Gres as GresSetting
from settings.guards import Guards
from settings.health import HealthCheck
from settings.hostlist import expand, host_list
from settings.identities import Identities
from settings.images import Images
from settings.jobs import Cgroup, Environment, JobContainer, Limits, Mpi
from settings.jwt import Jwt
from settings.kubernetes import KubernetesBridge
from settings.mig import Mig
from settings.modules import ModuleName, Modules
from settings.monitoring import Monitoring
from settings.nvidia import Nvidia
from settings.packages import Packages
from settings.parameters import NODE, PARTITION
from settings.precheck import Precheck
from settings.registry import Registry
from settings.rest import Rest
from settings.rollout import Rollout
from settings.scratch import Scratch, ScratchName
from settings.scripts import Scripts
from settings.slurm_conf import SlurmConf
from settings.slurm_value import extra_of, setting
from settings.software import Software
from settings.storage import Share
from settings.topology import Topology

#: munge(7), munged(8): a key has 32 to 1,024 bytes.
MUNGE_KEY_BYTES = range(32, 1025)

Name = Annotated[
    str,
    matching(
        r"[A-Za-z0-9][A-Za-z0-9-]{0,62}",
        "a name of letters, digits and hyphens, such as ctl or scratch",
    ),
]
Port = Annotated[int, Field(ge=1, le=65535)]
Positive = Annotated[int, Field(ge=1)]
#: A date, a time, a number: what tells one wish to apply again from the one before.
Reapply = Annotated[
    str, matching(r"[A-Za-z0-9][A-Za-z0-9.:+-]{0,63}", "a word that is new, such as 2026-11-25")
]


#: Whose bundles: a host's, or that of one role of it.
Wished = Annotated[
    str,
    matching(
        r"([a-z0-9][a-z0-9-]*@)?[A-Za-z0-9][A-Za-z0-9-]{0,62}",
        "a host, or role@host, such as slurmd@cn01",
    ),
]


#: What gives the parameters of a NodeName line that are no settings of a class.
_OF_NODES = {
    "nodename": "hosts one level up",
    "nodeaddr": "the address in slurmstack:hosts",
    "feature": "Features one level up",
    **dict.fromkeys(
        (
            "cpus",
            "procs",
            "boards",
            "sockets",
            "socketsperboard",
            "corespersocket",
            "threadspercore",
        ),
        "hardware one level up",
    ),
}


def _features(value: Any) -> Any:
    """Features as a list, or as text with commas."""
    words = value.split(",") if isinstance(value, str) else value
    if not isinstance(words, list | tuple) or not all(
        isinstance(word, str) and re.fullmatch(r"[^\s,&|!*()\[\]\"'#\\]+", word.strip())
        for word in words
    ):
        raise ValueError(
            "features such as [dgx, h100], each a word without blanks, commas, quotes, #, "
            "and what --constraint reads (& | ! * brackets)"
        )
    return tuple(word.strip() for word in words)


class Cluster(Model):
    """``slurmstack:cluster``."""

    #: ClusterName of slurm.conf(5): lower case, since slurmdbd stores it so.
    name: Annotated[
        str,
        matching(
            r"[a-z][a-z0-9_-]{0,39}",
            "a name of lower-case letters, digits, _ and -, a letter first, such as dgx",
        ),
    ]


Login = Annotated[
    str, matching(r"[A-Za-z_][A-Za-z0-9_.@-]*", "the name of a user, such as root or admin")
]


class Bastion(Model):
    """A host through which the nodes are reached (OpenSSH's ProxyJump)."""

    address: str
    user: Login = "root"
    port: Port = 22
    host_key: str | None = None


class Ssh(Model):
    """``slurmstack:ssh``: how nodes are reached. The keys are the SSH agent's."""

    user: Login = "root"
    port: Port = 22
    #: An OpenSSH known_hosts file, relative to the project folder.
    known_hosts: str | None = None
    #: Dials before a node counts as unreachable, and seconds for each.
    dial_error_limit: Annotated[int, Field(ge=0, le=100)] = 2
    per_dial_timeout: Annotated[int, Field(ge=1, le=600)] = 10
    bastion: Bastion | None = None


class Host(Model):
    """One entry of ``slurmstack:hosts``; a bare string is its address."""

    address: str
    user: Login | None = None
    port: Port | None = None
    #: "ssh-ed25519 AAAA…", where it is not in the known_hosts file.
    host_key: str | None = None
    #: The machine is gone for good: nothing is sent to it any more, and it leaves slurm.conf.
    lost: bool = False

    @field_validator("host_key")
    @classmethod
    def _one_key(cls, value: str | None) -> str | None:
        if value is not None and (len(value.split()) < 2 or "\n" in value.strip()):
            raise ValueError('a public host key such as "ssh-ed25519 AAAA…"')
        return value


class Roles(Model):
    """``slurmstack:roles``: who runs what, besides the compute nodes of ``slurmstack:nodes``."""

    controller: Name
    #: Host list: where users log in. May be left out.
    login: HostList | None = None
    #: Where ``slurmstack:monitoring`` has its servers; left out, the controller.
    monitoring: Name | None = None


class Hardware(SlurmObject):
    """What a node has, in slurm.conf(5)'s words; what ``slurmd -C`` prints."""

    CPUs: Positive
    Boards: Positive = 1
    SocketsPerBoard: Positive
    CoresPerSocket: Positive
    ThreadsPerCore: Positive
    #: MiB.
    RealMemory: Positive
    #: Device files, the driver's names, PCI ids and MIG profiles.
    gpus: Gpus = Gpus()


class NodeClass(SlurmObject):
    """One entry of ``slurmstack:nodes``: a group of compute nodes that are alike."""

    file: ClassVar[str] = NODE

    #: What the verbs' host lists call it; nothing that is deployed knows it.
    name: Name | None = None
    hosts: HostList
    #: Left out, each node is asked (``slurmd -C``) before planning.
    hardware: Hardware | None = None
    #: MiB offered to jobs; at most what the node has. Left out: all of it.
    RealMemory: Positive | None = None
    #: MiB kept back for the system.
    MemSpecLimit: Positive | None = None
    Features: Annotated[tuple[str, ...], BeforeValidator(_features)] = ()
    Weight: Annotated[int, Field(ge=0)] | None = None
    #: What GPUs are cut into; {}: MIG is off on all of them. Left out, nobody looks at it.
    mig: Mig | None = None
    #: Left out, it is what the nodes are found to have. MIG instances follow from `mig`.
    Gres: Annotated[tuple[GresSetting, ...] | None, Field(validate_default=True)] = None
    #: Any other node parameter of slurm.conf(5).
    extra: dict[str, str] = Field(default_factory=dict)

    @field_validator("extra", mode="wrap")
    @classmethod
    def _extra(cls, value: Any, handler: Any) -> Any:
        return extra_of(NODE, cls.model_fields, _OF_NODES)(value)

    @field_validator("Gres", mode="after")
    @classmethod
    def _instances(
        cls, value: tuple[GresSetting, ...] | None, info: ValidationInfo
    ) -> tuple[GresSetting, ...] | None:
        return with_instances(value, info.data.get("mig"))

    def gres(self, hardware: Hardware) -> tuple[GresSetting, ...]:
        """Declared GRES, or what a node with this hardware has."""
        return discovered(hardware.gpus) if self.Gres is None else self.Gres

    @property
    def names(self) -> tuple[str, ...]:
        """The hosts of this class."""
        return expand(self.hosts)


class Partition(SlurmObject):
    """One entry of ``slurmstack:partitions``."""

    file: ClassVar[str] = PARTITION

    Nodes: str
    Default: bool = False
    MaxTime: Annotated[str, setting(PARTITION, "MaxTime")] = "UNLIMITED"
    State: Annotated[str, setting(PARTITION, "State")] = "UP"
    #: Any other partition parameter of slurm.conf(5).
    extra: dict[str, str] = Field(default_factory=dict)

    @field_validator("extra", mode="wrap")
    @classmethod
    def _extra(cls, value: Any, handler: Any) -> Any:
        elsewhere = {"partitionname": "the name that slurmstack:partitions gives it"}
        return extra_of(PARTITION, cls.model_fields, elsewhere)(value)

    @field_validator("Nodes")
    @classmethod
    def _nodes(cls, value: str) -> str:
        return value if value == "ALL" else host_list(value)


class MungeKeySetting(Model):
    """``slurmstack:mungeKey``: an existing key, as bytes, and how it was written."""

    value: SecretBytes
    encoding: Literal["raw", "base64"]

    @staticmethod
    def read(text: str) -> MungeKeySetting:
        """Take a key as base64 where it is base64 of a key's length, else as raw bytes.

        Raises:
            ValueError: neither reading has 32 to 1,024 bytes. The text is not quoted.
        """
        try:
            decoded = base64.b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError):
            decoded = b""
        if len(decoded) in MUNGE_KEY_BYTES:
            return MungeKeySetting(value=SecretBytes(decoded), encoding="base64")
        # A key file read with $(cat …) or piped keeps its characters; surrogates carry raw bytes.
        raw = text.encode("utf-8", "surrogateescape")
        if len(raw) in MUNGE_KEY_BYTES:
            return MungeKeySetting(value=SecretBytes(raw), encoding="raw")
        sizes = f"{len(raw)} bytes" + (f" ({len(decoded)} as base64)" if decoded else "")
        raise ValueError(sizes)


class Settings(Model):
    """A whole stack's settings."""

    cluster: Cluster
    ssh: Ssh = Ssh()
    hosts: dict[str, Host]
    roles: Roles
    nodes: tuple[NodeClass, ...] = ()
    partitions: dict[str, Partition] = Field(default_factory=dict)
    slurm: SlurmConf = SlurmConf()
    munge_key: MungeKeySetting | None = None
    cgroup: Cgroup | None = None
    topology: Topology | None = None
    mpi: Mpi | None = None
    job_container: JobContainer | None = None
    limits: Limits | None = None
    job_environment: Environment = Field(default_factory=dict)
    scripts: Scripts = Field(default_factory=dict)
    storage: dict[Name, Share] = Field(default_factory=dict)
    scratch: dict[ScratchName, Scratch] = Field(default_factory=dict)
    health_check: HealthCheck | None = None
    acceptance: Acceptance | None = None
    modules: Modules | None = None
    software: dict[ModuleName, Software] = Field(default_factory=dict)
    precheck: Precheck = Precheck()
    guards: Guards = Guards()
    rollout: Rollout = Rollout()
    identities: Identities = Identities()
    #: Host, or role@host → any word; a new one has the host's bundles, or that one, applied again.
    reapply: dict[Wished, Reapply] = Field(default_factory=dict)
    #: Compute node → why it is out for a while: it is deployed as if it were not there.
    excluded: dict[Name, Reason] = Field(default_factory=dict)
    directory: Directory | None = None
    #: A secret: the password of directory.sssd.bindDn.
    directory_bind_password: SecretStr | None = None
    drift_check: DriftCheck | None = None
    diagnosis: Diagnosis | None = None
    kubernetes_bridge: KubernetesBridge | None = None
    #: A secret: by which the bridge is known to Kubernetes' API.
    kubernetes_token: SecretStr | None = None
    monitoring: Monitoring | None = None
    #: A secret: the password of the pages, in place of the one that is made.
    monitoring_password: SecretStr | None = None
    #: Secrets: name → what receivers and remote writes are let in by.
    monitoring_secrets: dict[str, SecretStr] = Field(default_factory=dict)
    jwt: Jwt | None = None
    rest: Rest | None = None
    rest_tls_key: SecretStr | None = None
    accounting: Accounting | None = None
    #: A secret: the database password, in place of the one that is made.
    accounting_password: SecretStr | None = None
    packages: Packages = Packages()
    nvidia: Nvidia | None = None
    fabric: Fabric | None = None
    boot: Boot | None = None
    enroot_pyxis: EnrootPyxis | None = None
    apptainer: Apptainer | None = None
    images: Images | None = None
    registry: Registry | None = None
    #: A secret: the password of who may push, in place of the one that is made.
    registry_password: SecretStr | None = None
    #: Secrets: name → by what a mirrored registry lets in.
    registry_secrets: dict[str, SecretStr] = Field(default_factory=dict)

    @cached_property
    def login(self) -> tuple[str, ...]:
        """Hosts where users log in, lost ones left out."""
        names = expand(self.roles.login) if self.roles.login else ()
        return tuple(name for name in names if not self.hosts[name].lost)

    @cached_property
    def compute_nodes(self) -> tuple[str, ...]:
        """Compute nodes, lost ones included, in the order of the settings."""
        return tuple(name for node_class in self.nodes for name in node_class.names)

    @cached_property
    def compute(self) -> dict[str, NodeClass]:
        """Compute node → its class, lost ones left out, in the order of the settings."""
        return {
            name: node_class
            for node_class in self.nodes
            for name in node_class.names
            if not self.hosts[name].lost
        }

    def gets_driver(self, node: str) -> bool:
        """Whether a compute node gets NVIDIA's driver by these settings, if it has such GPUs."""
        if self.nvidia is None or node not in self.compute_nodes:
            return False
        return self.nvidia.hosts is None or node in expand(self.nvidia.hosts)

    def gets_fabric(self, node: str) -> bool:
        """Whether a compute node gets the drivers of ``fabric``."""
        if self.fabric is None or node not in self.compute_nodes:
            return False
        return self.fabric.hosts is None or node in expand(self.fabric.hosts)

    def gets_boot(self, node: str) -> bool:
        """Whether ``boot`` is for a compute node."""
        if self.boot is None or node not in self.compute_nodes:
            return False
        return self.boot.hosts is None or node in expand(self.boot.hosts)

    @cached_property
    def confinement(self) -> Cgroup | None:
        """cgroup.conf as it will be; None without the key and without what asks for cgroups."""
        slurm = self.slurm
        plugins = [slurm.ProctrackType, slurm.JobAcctGatherType]
        plugins += (slurm.TaskPlugin or "").split(",")
        asked = any(plugin is not None and plugin.endswith("/cgroup") for plugin in plugins)
        return self.cgroup or (Cgroup() if asked else None)

    @cached_property
    def members(self) -> dict[str, Host]:
        """The hosts that have a role, lost ones included; others may be listed for later."""
        used = {
            self.roles.controller,
            *(expand(self.roles.login) if self.roles.login else ()),
            *(share.server for share in self.storage.values()),
            self.packages.host or self.roles.controller,
            self.monitor,
            self.image_host,
            self.registry_host,
            *(name for node_class in self.nodes for name in node_class.names),
        }
        return {name: host for name, host in self.hosts.items() if name in used}

    @property
    def monitor(self) -> str:
        """The host that watches the others."""
        return self.roles.monitoring or self.roles.controller

    @property
    def image_host(self) -> str:
        """The host that builds and keeps container images."""
        return (self.images.host if self.images else None) or self.roles.controller

    @property
    def registry_host(self) -> str:
        """The host that keeps images for names that begin with docker://."""
        host = self.registry.host if self.registry else None
        return host or self.packages.host or self.roles.controller

    def wish(self, node: str, role: str) -> str | None:
        """The word by which a role's bundle on a node is told from the same one before."""
        words = [self.reapply[key] for key in (node, f"{role}@{node}") if key in self.reapply]
        return "+".join(words) or None

    @property
    def lost(self) -> dict[str, Host]:
        """Members that are gone for good but still listed."""
        return {name: host for name, host in self.members.items() if host.lost}
