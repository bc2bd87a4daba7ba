"""Shared file systems: what servers of ours export. Who mounts it: `components.host.mounts`."""

from __future__ import annotations

from pathlib import PurePosixPath

from components.assembly import Assembly
from components.bundle_resource import HostRole
from components.host import applier
from components.host.mounts import clients
from components.host.precheck import guard
from remote.bundle import Bundle, Check, Command, Directory, File, Guard, Package, Part, Unit
from settings import Settings
from templates.rendering import render

ROLE = "storage"
EXPORTS = "/etc/exports.d/slurmstack.exports"


class Storage(HostRole):
    """An NFS server: directories with their right owners, exported to the cluster's hosts."""

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        for name in servers(assembly.settings):
            bundle = storage_bundle(name, assembly.settings)
            cls(name, assembly, bundle, assembly.on(name, applier.ROLE))


def servers(settings: Settings) -> tuple[str, ...]:
    """Hosts of ours that export something."""
    named = {share.server for share in settings.storage.values()}
    return tuple(sorted(name for name in settings.hosts if name in named))


def storage_bundle(node: str, settings: Settings) -> Bundle:
    """What a server gets. Directories are not removed with the role: data stays."""
    shares = sorted(
        (share.path, name, share)
        for name, share in settings.storage.items()
        if share.server == node and share.path is not None
    )
    exports = [
        {
            "path": path,
            "options": ",".join(share.export_options),
            "clients": [settings.hosts[client].address for client in clients(share, settings)],
        }
        for path, _, share in shares
    ]
    paths = [path for path, *_ in shares]
    above = sorted({str(PurePosixPath(path).parent) for path in paths} - set(paths))
    return Bundle(
        node,
        ROLE,
        [
            guard(node, settings),
            *_exports_stay(settings),
            Guard("folders-above", render("host/folders-above.sh", node=node, folders=above)),
            Package("nfs-kernel-server"),
            Package("iproute2"),
            *(Directory(path, owner=share.owner, mode=share.mode) for path, _, share in shares),
            Directory("/etc/exports.d"),
            File(EXPORTS, render("host/nfs-exports", exports=exports)),
            Unit("nfs-server.service", restart_on=("package:nfs-kernel-server",)),
            Command("export", "exportfs -r", on=(EXPORTS,), timeout=60),
            Check(
                "shares-can-be-entered",
                render("host/can-be-entered.sh", paths=paths),
                timeout=10,
            ),
        ],
    )


def _exports_stay(settings: Settings) -> list[Part]:
    """What is exported now stays so while clients have it mounted: when the list changes, and when
    the server goes."""
    if settings.guards.allow_job_loss:
        return []
    return [
        Guard("exports-stay", render("host/exports-stay.sh", exports=EXPORTS, goes=False)),
        Guard(
            "exports-unused",
            render("host/exports-stay.sh", exports=EXPORTS, goes=True),
            when="remove",
        ),
    ]
