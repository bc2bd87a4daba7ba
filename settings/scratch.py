"""Local disks for what jobs write on the way: ``slurmstack:scratch``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from settings.base import Model, Path, Word, matching
from settings.hostlist import expand

#: Also the label of the file system: XFS takes 12 characters (mkfs.xfs(8)).
ScratchName = Annotated[
    str,
    matching(
        r"[A-Za-z0-9][A-Za-z0-9-]{0,11}",
        "a name of at most 12 letters, digits and hyphens, such as raid",
    ),
]
Devices = Annotated[
    str,
    matching(
        r"/dev/[A-Za-z0-9._/:+*?\[\]-]+",
        "disks by path, * and ? for more than one, such as /dev/disk/by-id/nvme-*",
    ),
]


class Quota(Model):
    """What one user may have in it, at most: limits that are hard, 0 for none."""

    #: MiB.
    size: Annotated[int, Field(ge=0, le=1 << 34)] = 0
    #: Files and folders.
    files: Annotated[int, Field(ge=0, le=1 << 40)] = 0

    @model_validator(mode="after")
    def _limits_something(self) -> Quota:
        if not self.size and not self.files:
            raise ValueError("size in MiB, or files, above 0")
        return self


class Scratch(Model):
    """One entry of ``slurmstack:scratch``: a folder on disks of the node's own."""

    #: Where it is mounted.
    path: Path
    #: Disks, by path or pattern: whole ones, and no others than these may match.
    devices: Annotated[tuple[Devices, ...], Field(min_length=1)]
    #: How many that are.
    count: Annotated[int, Field(ge=1, le=64)]
    #: Of the array (md(4)); one disk alone needs none.
    level: Literal[0, 1, 5, 6, 10] = 0
    file_system: Literal["xfs", "ext4"] = "xfs"
    options: tuple[Word, ...] = ("noatime",)
    #: Host list of compute nodes, or ALL.
    nodes: str = "ALL"
    #: Each user has a folder of their own there from their first job on the node.
    per_user: bool = True
    #: Of each user, on each node; set before their jobs begin.
    quota: Quota | None = None

    @field_validator("nodes")
    @classmethod
    def _nodes(cls, value: str) -> str:
        if value != "ALL":
            expand(value)
        return value

    @property
    def mount_options(self) -> tuple[str, ...]:
        """With what quotas of users need, of XFS and of ext4 alike (mount(8), xfs(5), ext4(5))."""
        return (*self.options, "usrquota") if self.quota is not None else self.options
