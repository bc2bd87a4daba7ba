"""Node health checks: ``slurmstack:healthCheck``."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from settings.base import Model, Path, matching

#: Our own checks, as slurm.conf names them.
PROGRAM = "/usr/local/lib/slurmstack/health-check"
_NHC = "/usr/sbin/nhc"

Check = Literal[
    "disk", "mount", "memory", "zombies", "clock", "munge", "fork", "links", "leftovers",
    "infiniband", "gpus", "gpu-clocks", "gpu-devices", "gpu-memory", "gpu-versions", "nvlink",
    "fabric-manager", "xid",
]  # fmt: skip
Number = Annotated[int, Field(ge=0)]


class HealthLimits(Model):
    """``slurmstack:healthCheck.limits``: from where on our own checks find a fault."""

    #: Folder → MiB that must be free below it.
    free_disk: dict[Literal["/"] | Path, Number] = Field(
        default_factory=lambda: {"/": 1024, "/var": 1024}
    )
    #: MiB that must be available while no job runs.
    free_memory: Number = 256
    #: Zombie processes, at most.
    zombies: Number = 100
    #: Milliseconds that a process may take to start.
    fork_time: Annotated[int, Field(ge=10)] = 500
    #: Milliseconds by which the kernel believes that its clock may be off.
    clock_error: Annotated[int, Field(ge=1)] = 1000
    #: How often a link may go down within an hour.
    link_flaps: Number = 5
    #: MiB that a GPU may hold while no job runs.
    gpu_memory: Number = 2048
    #: Active NVLinks of each GPU; left out: as many as the one that has most.
    nvlinks: Annotated[int, Field(ge=1)] | None = None
    #: Seconds that checks are waited for; what answers later counts in the next run.
    deadline: Annotated[float, Field(ge=0.1, le=10)] = 0.8


class HealthCheck(Model):
    """``slurmstack:healthCheck``: what slurmd runs to see whether a node is fit."""

    #: LBNL Node Health Check, or our own checks.
    by: Literal["nhc", "slurmstack"] = "nhc"
    #: The package that has NHC; left out, it is on the nodes already.
    package: (
        Annotated[str, matching(r"[a-z0-9][a-z0-9+.-]+", "the name of a package, such as lbnl-nhc")]
        | None
    ) = None
    #: NHC's path.
    program: Path = _NHC
    #: Seconds.
    interval: Annotated[int, Field(ge=60, le=65533)] = 300
    node_state: tuple[Literal["ALLOC", "ANY", "CYCLE", "IDLE", "NONDRAINED_IDLE", "MIXED"], ...] = (
        "ANY",
        "CYCLE",
    )
    #: Further lines of nhc.conf, after those that follow from the settings.
    rules: tuple[
        Annotated[
            str,
            matching(
                r"[^\n]*\|\|[^\n]*",
                "a line of nhc.conf, such as * || check_fs_mount_rw -f /scratch",
            ),
        ],
        ...,
    ] = ()
    #: Of our own checks: those that are not made.
    without: tuple[Check, ...] = ()
    limits: HealthLimits = HealthLimits()
    #: Mounts that must answer, beside those of slurmstack:storage.
    mounts: tuple[Path, ...] = ()
    #: XIDs after which a GPU is not fit for the next job.
    xids: tuple[Annotated[int, Field(ge=1)], ...] = (48, 64, 74, 79, 95, 119, 120, 140)
    #: Whether what is known at once is looked at before each job.
    prolog: bool = True
    #: Whether a job's processes and its user's files are removed after it.
    epilog: bool = True
    #: Folders in which the files of a user are removed with their last job on the node.
    sweep: tuple[Path, ...] = ("/dev/shm", "/tmp")

    @model_validator(mode="after")
    def _of_one_program(self) -> Self:
        of_nhc = {"package", "program", "rules"}
        of_ours = {"without", "limits", "mounts", "xids", "prolog", "epilog", "sweep"}
        ours = self.by == "slurmstack"
        wrong = sorted(self.model_fields_set & (of_nhc if ours else of_ours))
        if wrong:
            other = "nhc" if ours else "slurmstack"
            raise ValueError(f"{', '.join(wrong)} with by: {other} only")
        return self

    @property
    def command(self) -> str:
        """What slurmd runs."""
        return PROGRAM if self.by == "slurmstack" else self.program
