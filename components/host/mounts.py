"""Shared file systems: what a host mounts, and what it needs for that.

Each mount is a unit of systemd, of whichever type. What the kernel must have for it is looked for
by the precheck, before anything on the host is changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from remote.bundle import Command, File, Guard, Package, Part, Unit
from settings import Settings
from settings.hostlist import expand
from settings.storage import Share
from templates.rendering import render

#: Seconds. A client of a cluster file system takes minutes to build its module.
_BUILD_TIMEOUT = 1800


def clients(share: Share, settings: Settings) -> tuple[str, ...]:
    """The hosts that mount a share."""
    names = tuple(settings.members) if share.clients == "ALL" else expand(share.clients)
    return tuple(name for name in names if name != share.server and not settings.hosts[name].lost)


def mounted(node: str, settings: Settings) -> dict[str, Share]:
    """Name → what a host mounts."""
    return {
        name: share for name, share in settings.storage.items() if node in clients(share, settings)
    }


@dataclass(frozen=True)
class KernelNeed:
    """What the kernel of a host must have for a share."""

    share: str
    #: As /proc/filesystems has it.
    file_system: str
    module: str
    #: Those that may bring the module.
    packages: tuple[str, ...]
    #: Whether it is built on the host for any kernel, also for that of the next boot.
    built_ahead: bool
    #: What builds it for the running kernel; for another, its service does when that has booted.
    built_at_boot: str | None
    #: What brings it, in words.
    remedy: str


#: Patterns of sh(1): the packages that have a module built on the host.
BUILDERS = "*dkms* | beegfs-client"
_OF_THE_SITE = (
    "install its client module for this kernel, or have it built: name the packages of the site's "
    "repository in slurmstack:storage.{}.packages ({}, linux-headers-{{kernel}}), or boot a kernel "
    "that it is built for"
)
_OF_THE_KERNEL = (
    "boot a kernel that has it, or install linux-modules-extra-{kernel} where the distribution "
    "keeps it there"
)
_REMEDIES: Mapping[str, str] = {
    "lustre": _OF_THE_SITE.format("{name}", "lustre-client-modules-dkms, lustre-client-utils"),
    "beegfs": _OF_THE_SITE.format("{name}", "beegfs-client-dkms"),
}


def kernel_needs(node: str, settings: Settings) -> tuple[KernelNeed, ...]:
    """What its shares ask of a host's kernel; nothing for a folder that is bound."""
    return tuple(
        KernelNeed(
            name,
            share.file_system.mounted_as,
            module,
            share.site_packages,
            any("dkms" in package for package in share.site_packages),
            "/etc/init.d/beegfs-client rebuild" if "beegfs-client" in share.site_packages else None,
            _REMEDIES.get(share.type, _OF_THE_KERNEL).replace("{name}", name),
        )
        for name, share in sorted(mounted(node, settings).items())
        if (module := share.kernel_module) is not None
    )


@dataclass(frozen=True)
class PathNeed:
    """What must lie on a host for a share."""

    share: str
    path: str


def bound_folders(node: str, settings: Settings) -> tuple[PathNeed, ...]:
    """Folders that are bound, but those that come with another share."""
    shares = mounted(node, settings)
    return tuple(
        PathNeed(name, share.source)
        for name, share in sorted(shares.items())
        if share.type == "bind"
        and share.source is not None
        and not any(_below(share.source, other.mounted_at) for other in shares.values())
    )


def secret_files(node: str, settings: Settings) -> tuple[PathNeed, ...]:
    """Files with the key of a client."""
    return tuple(
        PathNeed(name, share.secret_file)
        for name, share in sorted(mounted(node, settings).items())
        if share.secret_file is not None
    )


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
    """What a client gets: the packages, and a systemd unit for each share that it mounts."""
    shares = sorted(mounted(node, settings).values(), key=lambda share: share.mounted_at)
    packages = {package for share in shares for package in share.client_packages}
    parts: list[Part] = [*map(Package, sorted(packages)), *_modules(node, settings)]
    for share in shares:
        unit = unit_name(share.mounted_at)
        path = f"/etc/systemd/system/{unit}"
        parts += [
            File(path, mount_unit(share, shares, settings)),
            Unit(unit, restart_on=(path,)),
        ]
    return parts


def _modules(node: str, settings: Settings) -> list[Part]:
    """Modules that packages of the site bring are there, or built, before anything is mounted."""
    needs = [need for need in kernel_needs(node, settings) if need.packages]
    if not needs:
        return []
    known = render("host/kernel-knows.sh")
    return [
        Command(
            "file-system-modules",
            render("host/file-system-modules.sh", knows=known, needs=needs, builds=True),
            timeout=_BUILD_TIMEOUT,
            # Another kernel was booted, or will be.
            probe=render("host/file-system-modules.sh", knows=known, needs=needs, builds=False),
        )
    ]


def mount_unit(share: Share, shares: list[Share], settings: Settings) -> str:
    """The unit of a share.

    Args:
        share: what is mounted.
        shares: all that the host mounts.
        settings: the stack's.
    """
    kind = share.file_system
    options = share.mount_options
    remote = _waits_for_network(share, shares)
    # By this systemd knows it (systemd.mount(5)): a boot waits for it when the network is there.
    if remote and not kind.remote and "_netdev" not in options:
        options = (*options, "_netdev")
    known = settings.hosts.get(share.server or "")
    origin = (known.address if known else share.server) or share.source
    what = origin if share.path is None else f"{origin}:{share.path}"
    return render(
        "host/mount.unit",
        origin=origin,
        # A client of BeeGFS has its server from the options.
        what="beegfs_nodev" if share.type == "beegfs" else what,
        where=share.mounted_at,
        type=kind.mounted_as,
        options=options,
        remote=remote,
        after=(*kind.after, *share.built_before),
    )


def _waits_for_network(share: Share, shares: list[Share]) -> bool:
    """A share comes over the network, or lies on, or below, one that does."""
    if share.file_system.remote or "_netdev" in share.mount_options:
        return True
    places = [share.mounted_at, *([share.source] if share.type == "bind" and share.source else [])]
    return any(
        _waits_for_network(other, [it for it in shares if it is not share])
        for other in shares
        if other is not share and any(_below(place, other.mounted_at) for place in places)
    )


def _below(path: str, folder: str) -> bool:
    return PurePosixPath(path).is_relative_to(folder)


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
