"""Software: what users load as modules, on compute and login nodes.

Packages come from the nodes' own sources, Python environments from lock files. An environment is
made in a folder of its own, by its content, and linked to as a whole: a job that has loaded the old
one keeps it.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from components.assembly import Assembly
from components.bundle_resource import HostRole
from components.host import host_baseline
from components.host.modules import module_files
from components.packages import package_repository
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
    made = {name: it.environment for name, it in software.items() if it.environment is not None}
    packages = {name for it in software.values() for name in it.packages}
    if any(it.python == "/usr/bin/python3" for it in made.values()):
        packages.add("python3-venv")
    files = {file.package: file for it in software.values() for file in it.package_files}
    return Bundle(
        node,
        ROLE,
        [
            *map(Package, sorted(packages - {*files})),
            *(Package(file.package, file.version) for file in files.values()),
            *module_files(settings.modules.path, software, {name: _link(name) for name in made}),
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


def _environments(made: dict[str, PythonEnvironment]) -> list[Part]:
    locks = {name: f"{LOCKS}/{name.replace('/', '-')}.lock" for name in made}
    links = sorted({_link(name) for name in made})
    folders = {name: f"{_link(name)}-{it.digest}" for name, it in made.items()}
    wanted = {"root": FOLDER, "wanted": sorted(folders.values()), "links": links}
    environments = [
        {
            "name": name,
            "folder": folders[name],
            "link": _link(name),
            "lock": locks[name],
            "python": it.python,
            "source": f"--index-url {it.index}" if "://" in it.index
            else f"--no-index --find-links {it.index}",
        }
        for name, it in sorted(made.items())
    ]  # fmt: skip
    return [
        *_folders(made, locks),
        Command(
            "environments",
            render("software/environments.sh", environments=environments, days=_DAYS, **wanted),
            on=tuple(locks.values()),
            timeout=_SECONDS,
            probe="".join(
                f"test -e {folder}/.slurmstack && test {link} -ef {folder} || exit 1\n"
                for folder, link in sorted((folders[name], _link(name)) for name in made)
            )
            or None,
        ),
        Command(
            "unused",
            render("software/unused.sh", days=0, root=FOLDER, wanted=[], links=[]),
            when="remove",
        ),
    ]


def _folders(made: dict[str, PythonEnvironment], locks: dict[str, str]) -> list[Part]:
    if not made:
        return []
    return [
        Directory(str(PurePosixPath(LOCKS).parent)),
        Directory(LOCKS),
        Directory(FOLDER, parents=True),
        *(Directory(f"{FOLDER}/{name}") for name in sorted({it.split("/")[0] for it in made})),
        *(File(locks[name], it.text) for name, it in sorted(made.items())),
    ]


def _link(name: str) -> str:
    """Where the environment of NAME/VERSION is found."""
    return f"{FOLDER}/{name}"
