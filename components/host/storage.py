"""Shared file systems: exports on servers of ours, mounts everywhere else."""

from __future__ import annotations

from pathlib import PurePosixPath

from components.assembly import Assembly
from components.bundle_resource import HostRole
from components.host import applier
from components.host.precheck import guard
from remote.bundle import Bundle, Check, Command, Directory, File, Guard, Package, Part, Unit
from settings import Settings
from settings.hostlist import expand
from settings.storage import Share
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
    return tuple(
        sorted(
            {share.server for share in settings.storage.values() if share.server in settings.hosts}
        )
    )


def clients(share: Share, settings: Settings) -> tuple[str, ...]:
    """The hosts that mount a share."""
    names = tuple(settings.members) if share.clients == "ALL" else expand(share.clients)
    return tuple(name for name in names if name != share.server and not settings.hosts[name].lost)


def storage_bundle(node: str, settings: Settings) -> Bundle:
    """What a server gets. Directories are not removed with the role: data stays."""
    shares = {name: share for name, share in settings.storage.items() if share.server == node}
    exports = [
        {
            "path": share.path,
            "options": ",".join(share.export_options),
            "clients": [settings.hosts[client].address for client in clients(share, settings)],
        }
        for share in sorted(shares.values(), key=lambda share: share.path)
    ]
    paths = sorted(share.path for share in shares.values())
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
            *(
                Directory(share.path, owner=share.owner, mode=share.mode)
                for share in shares.values()
            ),
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


def mounts_stay(node: str, role: str, settings: Settings) -> list[Part]:
    """Mounts that jobs or state need are not taken away. It is there with shares and without: the
    last one may go. Nothing where the settings let jobs be lost, and no state lies.

    Args:
        node: the host.
        role: the bundle that has the mounts.
        settings: the stack's.
    """
    state = []
    if node == settings.roles.controller:
        state.append((settings.slurm.StateSaveLocation, "slurmctld"))
        if settings.accounting is not None:
            state.append(("/var/lib/mysql", "mariadb"))
    if not state and settings.guards.allow_job_loss:
        return []
    script = render(
        "host/mounts-stay.sh",
        node=node,
        role=role,
        jobs=not settings.guards.allow_job_loss,
        state=state,
    )
    return [Guard("mounts-stay", script)]


def mounts(node: str, settings: Settings) -> list[Part]:
    """What a client gets: a systemd unit for each share that it mounts."""
    wanted = [share for share in settings.storage.values() if node in clients(share, settings)]
    if not wanted:
        return []
    parts: list[Part] = [Package("nfs-common")]
    for share in sorted(wanted, key=lambda wanted_share: wanted_share.mounted_at):
        unit = unit_name(share.mounted_at)
        path = f"/etc/systemd/system/{unit}"
        server = (
            settings.hosts[share.server].address if share.server in settings.hosts else share.server
        )
        parts += [
            File(path, render("host/mount.unit", share=share, server=server)),
            Unit(unit, restart_on=(path,)),
        ]
    return parts


def unit_name(path: str) -> str:
    """The unit of a mount point, as systemd-escape(1) --path names it."""
    name = path.strip("/")
    # Byte for byte: a letter outside ASCII is several.
    escaped = (
        chr(byte) if _stays(chr(byte), at) else f"\\x{byte:02x}"
        for at, byte in enumerate(name.replace("/", "\0").encode())
    )
    return "".join(escaped).replace("\\x00", "-") + ".mount"


def _stays(character: str, at: int) -> bool:
    plain = character.isascii() and (character.isalnum() or character in "_.:")
    return plain and not (character == "." and at == 0)
