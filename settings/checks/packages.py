"""Where packages come from, and what containers ask of their versions."""

from __future__ import annotations

import re
from collections.abc import Iterator

from settings.apptainer_conf import POLICY
from settings.checks.draft import Draft
from settings.containers import ENROOT_PACKAGES, PYXIS_SINCE, Apptainer, EnrootPyxis
from settings.packages import Packages
from settings.problems import Problem


def sources(draft: Draft) -> Iterator[Problem]:
    """Each source of packages has what it needs, and the host that serves them is there."""
    packages, path = draft.part("packages", Packages), draft.path("packages")
    if packages is None:
        return
    needs = {
        "source": (("archive", packages.archive), ("version", packages.version)),
        "repository": (("repository", packages.repository),),
        "distribution": (),
    }
    for key, value in needs[packages.slurm]:
        if value is None:
            yield Problem(f"{path}.{key}", f"a value, since slurm is {packages.slurm}", "nothing")
    for key, value, owner in (
        ("archive", packages.archive, "source"),
        ("repository", packages.repository, "repository"),
    ):
        if value is not None and packages.slurm != owner:
            yield Problem(f"{path}.{key}", f"slurm: {owner} beside it", f"slurm: {packages.slurm}")
    if packages.slurm == "source" and packages.version and "+slurmstack" in packages.version:
        yield Problem(
            f"{path}.version", "the version in the archive's debian/changelog", packages.version
        )
    if packages.host is not None and draft.hosts is not None:
        host = draft.hosts.get(packages.host)
        if host is None:
            yield Problem(f"{path}.host", "a host of slurmstack:hosts", packages.host)
        elif host.lost:
            yield Problem(f"{path}.host", "a host that is not lost", f"{packages.host}, lost")


def pyxis_versions(draft: Draft) -> Iterator[Problem]:
    """Versions that are new enough, for all and for the options that are set."""
    containers, path = draft.part("enroot_pyxis", EnrootPyxis), draft.path("enrootPyxis")
    if containers is None:
        return
    version = tuple(int(part) for part in containers.pyxis.version.split("."))
    if version < (0, 20):
        yield Problem(f"{path}.pyxis.version", "0.20.0 or newer", containers.pyxis.version)
    for option, since in PYXIS_SINCE.items():
        wanted = getattr(containers.pyxis.options, option) is not None
        if wanted and not containers.pyxis.has(option):
            yield Problem(
                f"{path}.pyxis.options.{option}",
                f"Pyxis {since[0]}.{since[1]} or newer, which reads it",
                f"version {containers.pyxis.version}",
            )
    for index, file in enumerate(containers.enroot.packages):
        numbers = tuple(int(part) for part in re.findall(r"\d+", file.version)[:2])
        if file.package.startswith("enroot") and numbers < (3, 5):
            yield Problem(f"{path}.enroot.packages[{index}]", "Enroot 3.5.0 or newer", file.name)
    if not any(file.package in ENROOT_PACKAGES for file in containers.enroot.packages):
        names = ", ".join(file.package for file in containers.enroot.packages)
        yield Problem(f"{path}.enroot.packages", "the package enroot among them", names)


def apptainer_starter(draft: Draft) -> Iterator[Problem]:
    """The setuid starter comes with the setting that lets it run, and beside Apptainer."""
    apptainer, path = draft.part("apptainer", Apptainer), draft.path("apptainer")
    if apptainer is None:
        return
    setuid = (POLICY | apptainer.conf)["allow setuid"]
    names = [file.package for file in apptainer.packages]
    if "apptainer-suid" in names and not setuid:
        yield Problem(
            f"{path}.packages", 'no apptainer-suid while "allow setuid" is no', "apptainer-suid"
        )
    if apptainer.packages and "apptainer" not in names:
        yield Problem(f"{path}.packages", "the package apptainer among them", ", ".join(names))
