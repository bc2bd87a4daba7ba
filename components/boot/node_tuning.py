"""NodeTuning: what a compute node's kernel is set to while it runs. No job is touched by it, and no
node is drained."""

from __future__ import annotations

from components.assembly import Assembly
from components.bundle_resource import HostRole
from components.host import applier, host_baseline
from components.packages import package_repository
from remote.bundle import Bundle, Command, File, Guard, Package, Part, Unit
from settings import Settings
from settings.boot import Boot
from templates.rendering import render

ROLE = "tuning"
SYSCTL = "/etc/sysctl.d/90-slurmstack.conf"
MODULES = "/etc/modules-load.d/slurmstack.conf"
_LIBRARY = "/usr/local/lib/slurmstack"
GOVERNOR, GOVERNOR_UNIT = f"{_LIBRARY}/cpu-governor", "slurmstack-cpu-governor.service"
ACS, ACS_UNIT = f"{_LIBRARY}/acs-off", "slurmstack-acs.service"
#: What values were before the first of ours, so that they can come back.
KEPT = "/var/lib/slurmstack-tuning"


class NodeTuning(HostRole):
    """The kernel of one compute node, as far as it needs no boot. slurmd does not wait for it."""

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        settings = assembly.settings
        for name in filter(settings.gets_boot, settings.compute_nodes):
            if settings.boot is None or not settings.boot.tunes:
                continue
            needs = assembly.on(name, applier.ROLE, host_baseline.ROLE, *package_repository.ROLES)
            cls(name, assembly, tuning_bundle(name, settings), needs)


def tuning_bundle(node: str, settings: Settings) -> Bundle:
    """What a compute node gets.

    Raises:
        ValueError: the settings have nothing of the kind.
    """
    boot = settings.boot
    if boot is None:
        raise ValueError("no slurmstack:boot in the settings")
    return Bundle(node, ROLE, [*_values(boot), *_modules(boot), *_governor(boot), *_acs(boot)])


def _values(boot: Boot) -> list[Part]:
    values = {name.replace("/", "."): value for name, value in sorted(boot.values.items())}
    parts: list[Part] = []
    if boot.huge_pages is not None and boot.huge_pages.size == "2M":
        count = boot.huge_pages.count
        parts.append(Guard("memory-is-free", render("boot/huge-pages.sh", count=count)))
    if values:
        parts.append(File(SYSCTL, render("boot/sysctl.conf", values=values)))
    script = render("boot/sysctl.sh", values=values, file=SYSCTL, kept=KEPT)
    return [
        *parts,
        # Without values, too: it takes back those that were given.
        Command(
            "values",
            f"SLURMSTACK_LOOK=''\n{script}",
            on=(SYSCTL,) if values else (),
            timeout=120,
            probe=f"SLURMSTACK_LOOK=yes\n{script}" if values else None,
        ),
        Command(
            "values-back",
            "SLURMSTACK_LOOK=''\n" + render("boot/sysctl.sh", values={}, file=SYSCTL, kept=KEPT),
            when="remove",
            timeout=120,
        ),
    ]


def _modules(boot: Boot) -> list[Part]:
    if not boot.modules:
        return []
    modules = sorted(boot.modules)
    return [
        File(MODULES, render("boot/modules.conf", modules=modules)),
        Command(
            "modules",
            render("boot/modules.sh", modules=modules, load=True),
            on=(MODULES,),
            probe=render("boot/modules.sh", modules=modules, load=False),
        ),
    ]


def _governor(boot: Boot) -> list[Part]:
    if boot.cpu_governor is None:
        return []
    unit = f"/etc/systemd/system/{GOVERNOR_UNIT}"
    return [
        File(GOVERNOR, render("boot/cpu-governor", governor=boot.cpu_governor), mode="0755"),
        File(
            unit,
            render("boot/at-boot.service", what="the governor of the CPUs", program=GOVERNOR),
        ),
        Unit(GOVERNOR_UNIT, restart_on=(GOVERNOR, unit)),
        # Also before its unit first runs.
        Command(
            "governor",
            f'said=$({GOVERNOR} set) || {{\n  echo "$said"\n  exit 1\n}}\n'
            '[ -z "$said" ] || echo "cpu-governor $said" >>"$SLURMSTACK_FACTS"\n',
            on=(GOVERNOR,),
            probe=f"exec {GOVERNOR} look\n",
        ),
    ]


def _acs(boot: Boot) -> list[Part]:
    if boot.acs is None:
        return []
    unit = f"/etc/systemd/system/{ACS_UNIT}"
    return [
        Guard("no-virtual-machine", render("boot/no-virtual-machine.sh")),
        Package("pciutils"),
        File(ACS, render("boot/acs-off"), mode="0755"),
        File(unit, render("boot/at-boot.service", what="ACS of PCIe bridges", program=ACS)),
        Unit(ACS_UNIT, restart_on=(ACS, unit)),
        Command("acs-off", f"exec {ACS} set\n", on=(ACS,), probe=f"exec {ACS} look\n"),
    ]
