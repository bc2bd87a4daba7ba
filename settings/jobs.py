"""How jobs run on compute nodes: confinement, MPI, private /tmp, limits, environment."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from settings.base import Model, SlurmObject, matching
from settings.parameters import find
from settings.slurm_value import checked

Percent = Annotated[float, Field(ge=0)]


class SlurmFile(SlurmObject):
    """Parameters of one of Slurm's files, spelled as there."""

    #: Its name in Slurm's parameter table.
    file: ClassVar[str]

    @field_validator("*", mode="before")
    @classmethod
    def _as_slurm_reads_it(cls, value: Any, info: ValidationInfo) -> Any:
        parameter = find(cls.file, info.field_name or "")
        if parameter is None or value is None:
            return value
        text = checked(parameter, value)
        return text if isinstance(value, str) else value

    def parameters(self) -> dict[str, Any]:
        """Those that are set, in the order of the model."""
        return {
            name: value
            for name in type(self).model_fields
            if (value := getattr(self, name)) is not None and value != ()
        }


class Cgroup(SlurmFile):
    """``slurmstack:cgroup``: cgroup.conf(5)."""

    file = "cgroup.conf"

    CgroupPlugin: Literal["cgroup/v2", "autodetect", "disabled"] = "cgroup/v2"
    ConstrainCores: bool = True
    ConstrainDevices: bool = True
    ConstrainRAMSpace: bool = True
    ConstrainSwapSpace: bool | None = None
    AllowedRAMSpace: Percent | None = None
    AllowedSwapSpace: Percent | None = None
    MaxRAMPercent: Percent | None = None
    MaxSwapPercent: Percent | None = None
    #: MiB.
    MinRAMSpace: Annotated[int, Field(ge=0)] | None = None
    EnableControllers: bool | None = None
    #: 25.05 and later.
    EnableExtraControllers: str | None = None
    SignalChildrenProcesses: bool | None = None
    #: Milliseconds.
    SystemdTimeout: Annotated[int, Field(ge=1)] | None = None


class MpiConf(SlurmFile):
    """mpi.conf(5)."""

    file = "mpi.conf"

    PMIxCliTmpDirBase: str | None = None
    PMIxCollFence: Literal["mixed", "tree", "ring"] | None = None
    PMIxDebug: Literal[0, 1] | None = None
    PMIxDirectConn: bool | None = None
    PMIxDirectConnEarly: bool | None = None
    PMIxDirectConnUCX: bool | None = None
    PMIxDirectSameArch: bool | None = None
    PMIxEnv: str | None = None
    PMIxFenceBarrier: bool | None = None
    PMIxNetDevicesUCX: str | None = None
    #: Seconds.
    PMIxTimeout: Annotated[int, Field(ge=1)] | None = None
    PMIxTlsUCX: str | None = None


class Mpi(Model):
    """``slurmstack:mpi``."""

    default: Literal["pmix", "pmi2", "none"] = "pmix"
    #: What ``srun --resv-ports`` takes from.
    ports: str | None = "12000-12999"
    conf: MpiConf = MpiConf()

    @field_validator("ports")
    @classmethod
    def _range(cls, value: str | None) -> str | None:
        if value is not None:
            first, last = port_range(value)
            if not 1024 <= first < last <= 65535:
                raise ValueError("a range of ports from 1024 to 65535, such as 12000-12999")
        return value


def port_range(text: str) -> tuple[int, int]:
    """First and last port of ``12000-12999``.

    Raises:
        ValueError: it is none.
    """
    bounds = re.fullmatch(r"([0-9]{1,5})-([0-9]{1,5})", text)
    if not bounds:
        raise ValueError("a range of ports such as 12000-12999")
    return int(bounds[1]), int(bounds[2])


class JobContainer(SlurmFile):
    """``slurmstack:jobContainer``: job_container.conf(5), a /tmp of each job's own."""

    file = "job_container.conf"

    BasePath: Annotated[
        str,
        matching(
            r"/[A-Za-z0-9._/%-]+",
            "a whole path of letters, digits and . _ - %, such as /var/lib/slurm-tmp",
        ),
    ]
    AutoBasePath: bool = True
    Dirs: tuple[
        Annotated[
            str, matching(r"/[^\s,]*", "a whole path, such as /tmp, without blanks and commas")
        ],
        ...,
    ] = ()
    EntireStepInNS: bool | None = None
    InitScript: str | None = None
    CloneNSScript: str | None = None
    CloneNSEpilog: str | None = None
    Shared: bool | None = None

    @model_validator(mode="after")
    def _apart(self) -> JobContainer:
        if self.BasePath in (self.Dirs or ("/tmp", "/dev/shm")):
            raise ValueError("a BasePath that is none of Dirs (job_container.conf(5))")
        return self


Limit = int | Literal["infinity"]


class Limits(Model):
    """``slurmstack:limits``: what slurmd, and so each job, may take; also at login."""

    #: Bytes that may be locked: RDMA registers its buffers by locking them.
    memlock: Limit = "infinity"
    #: Open files.
    nofile: Limit = 1048576
    #: Bytes of stack.
    stack: Limit | None = "infinity"


#: Environment of jobs: a name as the shell takes it, a value on one line.
Environment = dict[
    Annotated[
        str,
        matching(
            r"[A-Za-z_][A-Za-z0-9_]*",
            "the name of a variable: letters, digits and _, such as UCX_TLS",
        ),
    ],
    int
    | Annotated[
        str,
        matching(r"[^\x00-\x08\x0a-\x1f\x7f]*", "a value on one line, without control characters"),
    ],
]
