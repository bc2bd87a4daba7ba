"""Software: what users load as modules, on compute and login nodes.

Packages come from the nodes' own sources, Python environments from lock files. An environment is
made in a folder of its own, by its content, and linked to as a whole: a job that has loaded the old
one keeps it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from components.assembly import Assembly
from components.bundle_resource import HostRole
from components.host import host_baseline
from components.host.modules import module_files
from components.packages import package_repository
from components.software import pip
from remote.bundle import Bundle, Check, Command, Directory, File, Package, Part
from settings import Settings
from settings.software import FOLDER, PythonEnvironment
from settings.software import Software as Entry
from templates.rendering import render

ROLE = "software"
LOCKS = "/etc/slurmstack/software"
#: Days that an environment stays which is wanted no more: a job that waits may have loaded it.
_DAYS = 14
#: Seconds for all environments of a node.
_SECONDS = 3600


class Software(HostRole):
    """What is installed for users on one host."""

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        settings = assembly.settings
        if not settings.software:
            return
        for name in assembly.hosts:
            if name not in settings.compute and name not in settings.login:
                continue
            needs = assembly.on(name, host_baseline.ROLE, *package_repository.ROLES)
            cls(name, assembly, software_bundle(name, settings), needs)


def software_bundle(node: str, settings: Settings) -> Bundle:
    """What a compute or login node gets."""
    assert settings.modules is not None  # checked with the settings
    software = settings.software
    made = [
        Made(name, it.environment)
        for name, it in sorted(software.items())
        if it.environment is not None
    ]
    packages = {name for it in software.values() for name in it.packages}
    if any(it.python == "/usr/bin/python3" for it in made):
        packages.add("python3-venv")
    packages |= pip.packages(it.environment for it in made)
    files = {file.package: file for it in software.values() for file in it.package_files}
    return Bundle(
        node,
        ROLE,
        [
            *map(Package, sorted(packages - {*files})),
            *(Package(file.package, file.version) for file in files.values()),
            *module_files(settings.modules.path, software, {it.name: it.link for it in made}),
            *_environments(made),
            Check(
                "users-have-it",
                render("software/users-have-it.sh", wanted=_programs(software)),
                timeout=60,
            ),
        ],
    )


def _programs(software: dict[str, Entry]) -> dict[str, tuple[str, ...]]:
    return {
        name: (*it.programs, *(["python"] if it.environment is not None else []))
        for name, it in sorted(software.items())
    }


@dataclass(frozen=True)
class Made:
    """An environment and its places on a node."""

    #: Of the module that brings it, NAME/VERSION.
    name: str
    environment: PythonEnvironment

    @property
    def link(self) -> str:
        """What stands for it; its folder is another one with each content."""
        return f"{FOLDER}/{self.name}"

    @property
    def folder(self) -> str:
        return f"{self.link}-{self.environment.digest}"

    @property
    def lock(self) -> str:
        return f"{LOCKS}/{self.name.replace('/', '-')}.lock"

    @property
    def python(self) -> str:
        return self.environment.python

    @property
    def source(self) -> str:
        """Where pip finds packages."""
        return pip.source(self.environment)


def _environments(made: Sequence[Made]) -> list[Part]:
    unused = {"root": FOLDER, "days": _DAYS, "links": [it.link for it in made],
              "wanted": [it.folder for it in made]}  # fmt: skip
    probe = "".join(
        f"test -e {it.folder}/.slurmstack && test {it.link} -ef {it.folder} || exit 1\n"
        for it in made
    )
    return [
        *_folders(made),
        Command(
            "environments",
            render(
                "software/environments.sh",
                environments=made,
                authorities=pip.AUTHORITIES,
                **unused,
            ),
            on=tuple(it.lock for it in made),
            timeout=_SECONDS,
            probe=probe or None,
        ),
        Command(
            "unused",
            render("software/unused.sh", root=FOLDER, days=0, links=[], wanted=[]),
            when="remove",
        ),
    ]


def _folders(made: Sequence[Made]) -> list[Part]:
    if not made:
        return []
    return [
        Directory(str(PurePosixPath(LOCKS).parent)),
        Directory(LOCKS),
        Directory(FOLDER, parents=True),
        *map(Directory, sorted({str(PurePosixPath(it.link).parent) for it in made})),
        *(File(it.lock, it.environment.text) for it in made),
    ]
