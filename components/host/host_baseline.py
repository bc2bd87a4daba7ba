"""System: what a host has below Slurm; the precheck stands in front of it.

Its guard stops an unfit node before anything is done to it. The roles that do not come after this
one, package sources and shares, have the same guard.
"""

from __future__ import annotations

from components.assembly import Assembly
from components.bundle_resource import HostRole
from components.host import applier, storage
from components.host.lua import lua_is_read
from components.host.mounts import mounted, mounts, mounts_stay
from components.host.precheck import guard
from components.host.scratch import scratch_parts
from components.packages import package_repository
from remote.bundle import Bundle, Check, Directory, File, Package, Part
from settings import Settings
from templates.rendering import render

ROLE = "system"
LIMITS = "/etc/security/limits.d/90-slurmstack.conf"
#: Lmod's start file reads this one instead of the package's own, where it is there.
MODULES_PATH = "/etc/lmod/.modulespath"


class System(HostRole):
    """A host that was looked at and found fit, with limits, shared file systems and modules."""

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        exports = assembly.of(storage.ROLE)
        for name in assembly.hosts:
            bundle = system_bundle(name, assembly.settings)
            needs = [*assembly.on(name, applier.ROLE), *exports]
            # A client that the site names may come from its repository.
            if any(share.packages for share in mounted(name, assembly.settings).values()):
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
    modules = settings.modules
    if modules is None:
        return []
    folders = {modules.path, *(f"{modules.path}/{name.split('/')[0]}" for name in modules.tree)}
    defaults = {name for name, module in modules.tree.items() if module.default}
    parts: list[Part] = [
        Package("lmod"),
        Directory("/etc/lmod"),
        *(Directory(folder, parents=folder == modules.path) for folder in sorted(folders)),
        File(
            MODULES_PATH,
            render("host/modulespath", paths=[modules.path, *modules.further_paths]),
        ),
        *(
            File(f"{modules.path}/{name}.lua", render("host/module.lua", name=name, module=module))
            for name, module in sorted(modules.tree.items())
        ),
        *(
            File(
                f"{modules.path}/{name.split('/')[0]}/.modulerc.lua",
                render("host/modulerc.lua", name=name),
            )
            for name in sorted(defaults)
        ),
    ]
    files = tuple(
        part.path for part in parts if isinstance(part, File) and part.path.endswith(".lua")
    )
    if files:
        parts.append(lua_is_read(files))
    if modules.tree:
        names = sorted(modules.tree)
        parts.append(Check("modules-load", render("host/modules-load.sh", names=names)))
    return parts
