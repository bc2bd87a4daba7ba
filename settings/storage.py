"""Shared file systems: ``slurmstack:storage``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import field_validator

from settings.base import Mode, Model, Owner, Path, Word, matching
from settings.hostlist import expand


class Share(Model):
    """One entry of ``slurmstack:storage``: a directory, its server, and where it is mounted."""

    #: A host of slurmstack:hosts, which then exports it, or the address of a server of the site.
    server: Annotated[
        str,
        matching(
            r"[A-Za-z0-9.:\[\]-]+", "a host of slurmstack:hosts, or the name or address of a server"
        ),
    ]
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
