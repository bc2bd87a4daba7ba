"""What nodes must show before they take users' jobs: ``slurmstack:acceptance``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from settings.artifact import PackageFile
from settings.base import Model, Path, matching

Command = Annotated[
    str, matching(r"[^\n']{1,500}", "a command on one line, without single quotes, such as stream")
]
Package = Annotated[
    str, matching(r"[a-z0-9][a-z0-9+.-]+", "the name of a package, such as python3-mpi4py")
]
Image = Annotated[
    str, matching(r"[A-Za-z0-9._/:#@+-]{1,300}", "a path or name that srun --container-image takes")
]
#: What a node is measured by alone, as the settings name it.
Measure = Literal["stream", "hpl", "storage"]


class Power(Model):
    """Commands on the host where ``slurmstack`` runs; ``{node}`` stands for the node's name."""

    off: Command
    on: Command


class Stress(Model):
    """What ``--level burnin`` submits."""

    #: Jobs of their own, all at once.
    jobs: Annotated[int, Field(ge=1, le=100_000)] = 1_000
    #: Jobs of one array.
    array: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000


class Acceptance(Model):
    """``slurmstack:acceptance``; present, nodes have what measures them, and keep what it found."""

    #: From the nodes' own sources: MPI, Python bindings, benchmarks.
    packages: tuple[Package, ...] = ()
    #: Package files of the site.
    package_files: tuple[PackageFile, ...] = ()
    #: Of Enroot and Pyxis: in it run the container test and the all-reduce.
    image: Image | None = None
    #: Print the figures of STREAM, HPL (also as part of HPCC) and of nccl-tests.
    stream: Command | None = None
    hpl: Command | None = None
    nccl_all_reduce: Command | None = None
    #: Order of HPL's matrix; 8 bytes for each element.
    hpl_size: Annotated[int, Field(ge=100, le=2_000_000)] = 10_000
    #: Folders that are written and read, beside the mounts of slurmstack:storage.
    storage: tuple[Path, ...] = ()
    #: MiB of the file that is written there.
    storage_size: Annotated[int, Field(ge=1, le=1_048_576)] = 1024
    #: A node has failed below this part of its own best figure, or of its class.
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.8
    #: Class of nodes → measure → the least figure: GB/s, GFLOPS, MB/s.
    least: dict[str, dict[Measure, Annotated[float, Field(gt=0)]]] = Field(default_factory=dict)
    #: When `pulumi up` gives a node to jobs only after it was measured: one that is new or comes
    #: back, one that a rollout had drained.
    gate: tuple[Literal["new", "rollout"], ...] = ()
    stress: Stress = Stress()
    power: Power | None = None
