"""What nodes have besides Slurm: shared file systems, health checks, modules, the precheck."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from settings.base import Model
from settings.hostlist import expand

Path = Annotated[str, Field(pattern=r"^/[A-Za-z0-9._/+-]*[A-Za-z0-9._+-]$")]
Owner = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+:[A-Za-z0-9_.-]+$")]
Mode = Annotated[str, Field(pattern=r"^[0-7]{4}$")]
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:=,/@-]+$")]


class Share(Model):
    """One entry of ``slurmstack:storage``: a directory, its server, and where it is mounted."""

    #: A host of slurmstack:hosts, which then exports it, or the address of a server of the site.
    server: Annotated[str, Field(pattern=r"^[A-Za-z0-9.:\[\]-]+$")]
    path: Path
    #: Where it is mounted; left out, the same path.
    mount: Path | None = None
    type: Literal["nfs", "nfs4"] = "nfs"
    options: tuple[Word, ...] = ("hard", "noatime", "_netdev")
    #: Of the directory, on a server of ours.
    owner: Owner = "root:root"
    mode: Mode = "0755"
    export_options: tuple[Word, ...] = ("rw", "sync", "no_subtree_check", "root_squash")
    #: Host list, or ALL: who mounts it (its server never does).
    clients: str = "ALL"

    @field_validator("clients")
    @classmethod
    def _clients(cls, value: str) -> str:
        if value != "ALL":
            expand(value)
        return value

    @property
    def mounted_at(self) -> str:
        return self.mount or self.path


class HealthCheck(Model):
    """``slurmstack:healthCheck``: LBNL Node Health Check, run by slurmd."""

    #: The package that has it; left out, it is on the nodes already.
    package: str | None = None
    program: Path = "/usr/sbin/nhc"
    #: Seconds.
    interval: Annotated[int, Field(ge=60, le=65533)] = 300
    node_state: tuple[Literal["ALLOC", "ANY", "CYCLE", "IDLE", "NONDRAINED_IDLE", "MIXED"], ...] = (
        "ANY",
        "CYCLE",
    )
    #: Further lines of nhc.conf, after those that follow from the settings.
    rules: tuple[Annotated[str, Field(pattern=r"^[^\n]*\|\|[^\n]*$")], ...] = ()


class Module(Model):
    """One module of the tree: what it changes when it is loaded."""

    description: str
    set_env: dict[str, str | int] = Field(default_factory=dict)
    prepend_path: dict[str, str] = Field(default_factory=dict)
    #: Modules loaded with it.
    depends_on: tuple[str, ...] = ()
    #: It is the version that `module load NAME` takes.
    default: bool = False


class Modules(Model):
    """``slurmstack:modules``: Lmod and a tree of modules on compute and login nodes."""

    path: Path = "/opt/modulefiles"
    #: Further trees, such as one on a shared file system.
    further_paths: tuple[Path, ...] = ()
    tree: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.+-]+/[A-Za-z0-9_.+-]+$")], Module] = (
        Field(default_factory=dict)
    )


class Precheck(Model):
    """``slurmstack:precheck``: what a node must have before it is changed."""

    #: MiB that must be free on / and /var.
    free_disk: Annotated[int, Field(ge=0)] = 2048
    #: Seconds by which `slurmstack check` lets a clock be off.
    clock_skew: Annotated[int, Field(ge=1)] = 60
    #: What is reported and compared in `slurmstack check`, where it is given.
    infiniband_ports: Annotated[int, Field(ge=1)] | None = None
    #: Gb/s.
    infiniband_rate: Annotated[int, Field(ge=1)] | None = None
