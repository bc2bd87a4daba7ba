"""Shared file systems: ``slurmstack:storage``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, field_validator

from settings.artifact import PackageFile
from settings.base import Mode, Model, Owner, Path, Word, matching
from settings.hostlist import expand
from settings.packages import PackageName
from settings.problems import refused


@dataclass(frozen=True)
class FileSystem:
    """What is known of a type of shared file system."""

    #: What its `source` is: a pattern, and the words of a refusal; None where a server and a path
    #: say it.
    source: tuple[str, str] | None
    #: As mount(8) and /proc/filesystems call it.
    mounted_as: str
    #: Of the kernel; None where it needs none.
    module: str | None
    #: The client's, as Debian and Ubuntu call them; those that no distribution has are the site's.
    packages: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    #: Mounted when the network is there.
    remote: bool = False
    #: Units that it is mounted after, where the host has them.
    after: tuple[str, ...] = ()


_HOST = r"[A-Za-z0-9][A-Za-z0-9.:-]*"
#: mount.nfs(8), mount.lustre(8), BeeGFS's client (its mount options and beegfs-client.conf), the
#: kernel's virtiofs.rst, mount.ceph(8), mount(8) of --bind.
TYPES: Mapping[str, FileSystem] = {
    **{
        name: FileSystem(
            source=None,
            mounted_as=name,
            module=module,
            packages=("nfs-common",),
            options=("hard", "noatime", "_netdev"),
            remote=True,
        )
        for name, module in (("nfs", "nfs"), ("nfs4", "nfsv4"))
    },
    "lustre": FileSystem(
        source=(
            r"[^/=]+:/[A-Za-z0-9_-]{1,8}(/.+)?",
            "MGS:/FSNAME, such as 10.0.0.5@o2ib:10.0.0.6@o2ib:/scratch",
        ),
        mounted_as="lustre",
        module="lustre",
        options=("flock", "_netdev"),
        remote=True,
        after=("lnet.service",),
    ),
    "beegfs": FileSystem(
        source=(_HOST, "the host of BeeGFS's management service"),
        mounted_as="beegfs",
        module="beegfs",
        options=("cfgFile=/etc/beegfs/beegfs-client.conf", "_netdev"),
        remote=True,
        after=("beegfs-helperd.service",),
    ),
    "virtiofs": FileSystem(
        source=(r"[A-Za-z0-9._-]{1,36}", "the tag that the hypervisor gave it, such as home"),
        mounted_as="virtiofs",
        module="virtiofs",
    ),
    "cephfs": FileSystem(
        source=(
            r"[^/=]+:/.*|[^/=]+@[^/=]*\.[^/=]+=/.*",
            "MONITORS:/PATH or NAME@FSID.FS=/PATH, such as 10.0.0.5,10.0.0.6:/home",
        ),
        mounted_as="ceph",
        module="ceph",
        packages=("ceph-common",),
        options=("noatime", "_netdev"),
        remote=True,
    ),
    "bind": FileSystem(
        source=(r"/.*", "a folder of the same host, such as /data/home"),
        mounted_as="none",
        module=None,
        options=("bind",),
    ),
}
#: Types of mount(8) that have another name here.
_CALLED = {"ceph": "cephfs", "none": "bind"}


def _not_called_otherwise(value: str) -> str:
    if value in _CALLED:
        raise ValueError(_CALLED[value])
    return value


def _no_secret(value: Any) -> Any:
    """What stands in an option can be read by everybody: in the unit, and in /proc/mounts."""
    key, given, _ = str(value).partition("=")
    if given and key in ("secret", "password", "pass", "passwd"):
        raise refused(
            "the file on the hosts that has it (secretFile of cephfs, credentials= of cifs): "
            "everybody reads options",
            f"{key}=, whose value is not shown",
        )
    return value


class Share(Model):
    """One entry of ``slurmstack:storage``: what is mounted, from where, and on which hosts."""

    #: mount(8)'s type where it is none of those that are known.
    type: Annotated[
        str,
        matching(
            r"[a-z][a-z0-9._-]*",
            f"{', '.join(TYPES)}, or a type of mount(8)",
        ),
        AfterValidator(_not_called_otherwise),
    ] = "nfs"
    #: Of nfs: a host of slurmstack:hosts, which then exports it, or the address of a server of the
    #: site.
    server: (
        Annotated[
            str,
            matching(
                r"[A-Za-z0-9.:\[\]-]+",
                "a host of slurmstack:hosts, or the name or address of a server",
            ),
        ]
        | None
    ) = None
    #: Of nfs: the directory there.
    path: Path | None = None
    #: Of any other type: what is mounted, as its mount command wants it.
    source: (
        Annotated[
            str,
            matching(
                r"[A-Za-z0-9._:=,/@\[\]+-]+", "what mount(8) mounts, without blanks, %, # or quotes"
            ),
        ]
        | None
    ) = None
    #: Where it is mounted; of nfs, left out, the same path.
    mount: Path | None = None
    #: Left out, those of the type.
    options: tuple[Annotated[Word, BeforeValidator(_no_secret)], ...] | None = None
    #: The client's, on the hosts that mount it; left out, those of the type.
    packages: tuple[PackageName, ...] | None = None
    #: Package files of the site, where no package source has them.
    package_files: tuple[PackageFile, ...] = ()
    #: The kernel's, where its name is not the type's; fuse for what a program of its own mounts.
    module: (
        Annotated[str, matching(r"[A-Za-z0-9_-]+", "the name of a kernel module, such as mmfs26")]
        | None
    ) = None
    #: Of cephfs: the client's name, without "client.".
    name: (
        Annotated[str, matching(r"[A-Za-z0-9_.-]+", "the name of a Ceph client, such as slurm")]
        | None
    ) = None
    #: Of cephfs: the file on the hosts that has the client's key, and nothing else.
    secret_file: Path | None = None
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
    def file_system(self) -> FileSystem:
        """What is known of its type; a type that is not listed is as mount(8) has it."""
        if self.type in TYPES:
            return TYPES[self.type]
        program = self.type == "fuse" or self.type.startswith("fuse.")
        return FileSystem((r".+", ""), self.type, "fuse" if program else self.type)

    @property
    def kernel_module(self) -> str | None:
        """What the kernel must have; None where it needs nothing."""
        return self.module or self.file_system.module

    @property
    def client_packages(self) -> tuple[str, ...]:
        """What the hosts that mount it get."""
        return self.file_system.packages if self.packages is None else self.packages

    @property
    def site_packages(self) -> tuple[str, ...]:
        """Those of them that the site names or has the files of: the client, and what it takes."""
        return self.client_packages if self.packages or self.package_files else ()

    @property
    def built_before(self) -> tuple[str, ...]:
        """Units that have its module built at a boot."""
        return ("beegfs-client.service",) if "beegfs-client" in self.site_packages else ()

    @property
    def mounted_at(self) -> str:
        """Checked: a share has one of them."""
        return self.mount or self.path or ""

    @property
    def mount_options(self) -> tuple[str, ...]:
        """As they stand in the unit."""
        given = self.file_system.options if self.options is None else self.options
        if self.type == "bind" and not {"bind", "rbind"} & {*given}:
            given = ("bind", *given)
        if self.type == "beegfs":
            given = (f"sysMgmtdHost={self.source}", *given)
        if self.name is not None:
            given = (*given, f"name={self.name}")
        if self.secret_file is not None:
            given = (*given, f"secretfile={self.secret_file}")
        return given
