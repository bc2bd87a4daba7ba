"""Slurm's packages by what they are for: their names, and the version that all nodes get."""

from __future__ import annotations

from typing import Any, Literal

from components.host.identities import service_user
from remote.bundle import Directory, File, Guard, Package, Part
from settings import Settings
from templates.rendering import render

Purpose = Literal[
    "client", "jwt", "pam", "sackd", "slurmctld", "slurmd", "slurmdbd", "slurmdbd-mysql",
    "slurmrestd",
]  # fmt: skip

_NAMES: dict[str, dict[str, str]] = {
    "distribution": {
        "client": "slurm-client",
        "jwt": "slurm-wlm-jwt-plugin",
        "pam": "libpam-slurm-adopt",
        "sackd": "sackd",
        "slurmctld": "slurmctld",
        "slurmd": "slurmd",
        "slurmdbd": "slurmdbd",
        "slurmdbd-mysql": "slurm-wlm-mysql-plugin",
        "slurmrestd": "slurmrestd",
    },
    # SchedMD's packages (debian/control of 24.11 and 25.05): all plugins are in slurm-smd.
    "schedmd": {
        "client": "slurm-smd-client",
        "jwt": "slurm-smd",
        "pam": "slurm-smd-libpam-slurm-adopt",
        "sackd": "slurm-smd-sackd",
        "slurmctld": "slurm-smd-slurmctld",
        "slurmd": "slurm-smd-slurmd",
        "slurmdbd": "slurm-smd-slurmdbd",
        "slurmdbd-mysql": "slurm-smd",
        "slurmrestd": "slurm-smd-slurmrestd",
    },
}
#: What every Slurm package depends on at its own version, and what holds spank.h.
BASE = {"distribution": "slurm-wlm-basic-plugins", "schedmd": "slurm-smd"}
HEADERS = {"distribution": "libslurm-dev", "schedmd": "slurm-smd-dev"}


def slurm_package(settings: Settings, purpose: Purpose) -> Package:
    """The package for this purpose, at the version that the settings ask for."""
    return Package(_NAMES[settings.packages.naming][purpose], settings.packages.release)


def slurm_packages(settings: Settings, *purposes: Purpose) -> list[Part]:
    """These packages, each once, the one that the others stand on, and the user slurm with
    the uid of the settings; nothing at all in place of a newer major release. To be called once
    for a bundle."""
    packages = {
        package.name: package
        for package in (slurm_package(settings, purpose) for purpose in purposes)
    }
    base = BASE[settings.packages.naming]
    guard = render("packages/no-step-back.sh", **release(settings))
    parts: list[Part] = [Guard("no-step-back", guard), *packages.values()]
    if settings.packages.release is not None and base not in packages:
        # apt takes its own candidate for a dependency unless it is told the version, too.
        parts.append(Package(base, settings.packages.release))
    return [*parts, *service_user(settings, "slurm")]


def started_again(daemon: Literal["slurmctld", "slurmd"]) -> list[Part]:
    """That systemd starts the daemon again when a signal ends it (Restart=on-abort of
    systemd.service(5)), as neither source's unit says: slurmctld of 24.11 can crash while it takes
    up a new slurm.conf, and a node whose slurmd is away loses its jobs after SlurmdTimeout. Asks
    for no restart: systemd reads it before the next crash."""
    folder = f"/etc/systemd/system/{daemon}.service.d"
    text = render("packages/started-again.conf")
    return [Directory(folder), File(f"{folder}/slurmstack-restart.conf", text)]


def release(settings: Settings) -> dict[str, Any]:
    """What scripts need that compare the release which is here with the one that comes
    (templates/packages/release.sh)."""
    return {
        "bases": sorted(BASE.values()),
        "base": BASE[settings.packages.naming],
        "release": settings.packages.release,
    }


def trigger(settings: Settings, purpose: Purpose) -> str:
    """What a unit names in ``restart_on`` so that a new version of the package restarts it."""
    return f"package:{_NAMES[settings.packages.naming][purpose]}"
