"""Software of users: ``slurmstack:software``, each with the module that brings it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Annotated

from pydantic import AfterValidator

from settings.acceptance import Package
from settings.artifact import PackageFile
from settings.base import Model, Path, matching
from settings.modules import Module
from settings.scripts import ScriptFile, script_text

#: Where environments are on nodes.
FOLDER = "/opt/slurmstack/software"
#: `name==1.0`, perhaps with extras and for some machines only, and the sums of its files.
_REQUIREMENT = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9._, -]+\])? *== *[A-Za-z0-9.!+_-]+( *;[^#]*?)?"
    r"( +--hash=sha(256:[0-9a-f]{64}|384:[0-9a-f]{96}|512:[0-9a-f]{128}))+"
)
_HOW = "uv export, uv pip compile --generate-hashes or pip-compile --generate-hashes"


def _mistakes(text: str) -> Iterator[str]:
    """Lines of a lock file that pin nothing."""
    # A requirement goes on where a line ends in a backslash (pip's requirements file format).
    for line in re.sub(r"[ \t]*\\\n[ \t]*", " ", text).splitlines():
        words = re.sub(r"(^|\s)#.*", "", line).strip()
        if words and not _REQUIREMENT.fullmatch(words):
            yield words if len(words) <= 60 else words[:57] + "…"


def _lock(value: str) -> str:
    text = script_text(value)
    if wrong := [*_mistakes(text)]:
        shown = "; ".join(wrong[:5]) + ("; …" if len(wrong) > 5 else "")
        raise ValueError(f"lines such as numpy==2.3.1 --hash=sha256:…, as {_HOW} write them, and "
                         f"not: {shown}")  # fmt: skip
    if not re.search(r"--hash=", text):
        raise ValueError(f"at least one requirement, as {_HOW} write them")
    return value


class PythonEnvironment(Model):
    """A virtual environment of a node's Python, of what a lock file pins and nothing else."""

    #: A local file, from the project folder on.
    lock: Annotated[ScriptFile, AfterValidator(_lock)]
    #: Where nodes find the packages: an index (PEP 503), or a folder with wheels.
    index: Annotated[
        str,
        matching(
            r"https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._/~+-]*)?|/[A-Za-z0-9._/+-]+",
            "the URL of a package index without a user, or a folder on the nodes, such as "
            "https://pypi.site.example/simple or /mnt/share/wheels",
        ),
    ]
    #: Of the nodes.
    python: Path = "/usr/bin/python3"

    @property
    def text(self) -> str:
        """The lock file."""
        return script_text(self.lock)

    @property
    def digest(self) -> str:
        """Another one for each content: what is made anew has a folder of its own."""
        return hashlib.sha256(f"{self.python}\n{self.text}".encode()).hexdigest()[:12]


class Software(Module):
    """One entry of ``slurmstack:software``: what is installed, and what its module changes."""

    #: From the nodes' own sources.
    packages: tuple[Package, ...] = ()
    #: Package files of the site.
    package_files: tuple[PackageFile, ...] = ()
    environment: PythonEnvironment | None = None
    #: Commands that a user must have when the module is loaded.
    programs: tuple[
        Annotated[str, matching(r"[A-Za-z0-9._+-]+", "the name of a command, such as mpirun")], ...
    ] = ()
