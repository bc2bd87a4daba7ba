"""System: what a host has below Slurm; the precheck stands in front of it.

Its guard stops an unfit node before anything is done to it. The roles that do not come after this
one, package sources and shares, have the same guard.
"""

from __future__ import annotations

from components.assembly import Assembly
from components.bundle_resource import HostRole
from components.host import applier, storage
from components.host.modules import modules
from components.host.mounts import mounted, mounts, mounts_stay
from components.host.precheck import guard
from components.host.scratch import scratch_parts
from components.packages import package_repository
from remote.bundle import Bundle, Check, Directory, File, Part
from settings import Settings
from templates.rendering import render

ROLE = "system"
LIMITS = "/etc/security/limits.d/90-slurmstack.conf"


class System(HostRole):
    """A host that was looked at and found fit, with limits, shared file systems and modules."""

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        exports = assembly.of(storage.ROLE)
        for name in assembly.hosts:
            bundle = system_bundle(name, assembly.settings)
            needs = [*assembly.on(name, applier.ROLE), *exports]
            # A client that the site names may come from its repository.
            if any(share.site_packages for share in mounted(name, assembly.settings).values()):
                needs += assembly.on(name, *package_repository.ROLES)
            cls(name, assembly, bundle, needs)


def system_bundle(node: str, settings: Settings) -> Bundle:
    """What every host gets; modules and limits only where users work."""
    parts: list[Part] = [
        guard(node, settings),
        *mounts_stay(node, ROLE, settings),
        *mounts(node, settings),
        *scratch_parts(node, settings),
    ]
    if node in settings.compute or node in settings.login:
        parts += [*_limits(settings), *_modules(settings)]
    return Bundle(node, ROLE, parts)


def _limits(settings: Settings) -> list[Part]:
    if settings.limits is None:
        return []
    return [
        Directory("/etc/security"),
        Directory("/etc/security/limits.d"),
        File(LIMITS, render("host/limits.conf", limits=settings.limits)),
    ]


def _modules(settings: Settings) -> list[Part]:
    if settings.modules is None:
        return []
    parts = modules(settings.modules)
    if names := sorted(settings.modules.tree):
        parts.append(Check("modules-load", render("host/modules-load.sh", names=names)))
    return parts
