"""Local disks for what jobs write on the way: an array, a file system, and folders of users.

It is made of disks that are empty, and assembled and mounted where it exists. Nothing else is
written to a disk, and nothing takes a file system away, the role's end included.
"""

from __future__ import annotations

from collections.abc import Iterator

from components.host.mounts import unit_name
from remote.bundle import Check, Command, Directory, File, Guard, Package, Part, Unit
from settings import Settings
from settings.hostlist import expand
from settings.scratch import Scratch
from settings.scripts import JobProgram
from templates.rendering import render

#: The folders of users: a line for each place in which they have one.
PLACES = "/etc/slurmstack/scratch"
#: What a user may have in them: place, KiB and files; a file of its own, since nodes have a new
#: prolog and new files at different moments.
QUOTAS = "/etc/slurmstack/scratch-quotas"
_TOOLS = {"xfs": "xfsprogs", "ext4": "e2fsprogs"}


def scratches(node: str, settings: Settings) -> dict[str, Scratch]:
    """Name → what a compute node has."""
    if node not in settings.compute:
        return {}
    return {
        name: scratch
        for name, scratch in settings.scratch.items()
        if scratch.nodes == "ALL" or node in expand(scratch.nodes)
    }


def scratch_parts(node: str, settings: Settings) -> list[Part]:
    """What a compute node gets."""
    parts: list[Part] = []
    found = scratches(node, settings)
    for name, scratch in sorted(found.items()):
        unit = unit_name(scratch.path)
        path = f"/etc/systemd/system/{unit}"
        disks = {"name": name, "scratch": scratch}
        parts += [
            Guard(f"scratch-{name}", render("host/scratch-disks.sh", makes=False, **disks)),
            Command(
                f"scratch-{name}",
                render("host/scratch-disks.sh", makes=True, **disks),
                probe=f"[ -e /dev/disk/by-label/{name} ] || "
                f"{{ echo 'no file system {name}'; exit 1; }}",
            ),
            File(path, _unit(name, scratch)),
            Unit(unit, restart_on=(path,)),
        ]
        if scratch.quota is not None:
            counted = render("host/scratch-quota.sh", name=name, scratch=scratch)
            parts.append(Check(f"scratch-quota-{name}", counted, timeout=60))
    packages = {_TOOLS[scratch.file_system] for scratch in found.values()}
    packages |= {"mdadm" for scratch in found.values() if scratch.count > 1}
    parts += map(Package, sorted(packages))
    places = sorted(scratch.path for scratch in found.values() if scratch.per_user)
    if places:
        text = "".join(f"{place}\n" for place in places)
        parts += [Directory("/etc/slurmstack"), File(PLACES, text)]
    limits = {it.path: it.quota for it in found.values() if it.quota is not None}
    if limits:
        text = "".join(
            f"{it} {limits[it].size * 1024} {limits[it].files}\n" for it in sorted(limits)
        )
        parts += [Package("quota"), File(QUOTAS, text)]
    return parts


def with_jobs(settings: Settings) -> Iterator[JobProgram]:
    """A user's folder is there before their first job on a node begins."""
    if any(scratch.per_user for scratch in settings.scratch.values()):
        text = render("host/scratch-prolog.sh", places=PLACES, quotas=QUOTAS)
        yield JobProgram("Prolog", "scratch", text)


def _unit(name: str, scratch: Scratch) -> str:
    return render(
        "host/mount.unit",
        origin=f"local disks ({name})",
        what=f"/dev/disk/by-label/{name}",
        where=scratch.path,
        type=scratch.file_system,
        options=scratch.mount_options,
        remote=False,
        after=(),
    )
