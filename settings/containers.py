"""``slurmstack:enrootPyxis`` and ``slurmstack:apptainer``: container runtimes."""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import Field, field_validator

from settings.apptainer_conf import Value, check
from settings.artifact import Artifact, PackageFile
from settings.base import Model, SlurmObject, matching
from settings.packages import Packages

_Path = Annotated[
    str,
    matching(r"/[A-Za-z0-9._/-]+", "a whole path of letters, digits and . _ -, such as /run/pyxis"),
]
#: Keys that enroot.conf takes, as Enroot's config::load matches them (3.5 to 4.1).
_ENROOT_KEY = re.compile(
    r"ENROOT_[A-Z_]+|(MELLANOX_|NVIDIA_)[A-Z_]+|SSL_CERT_(DIR|FILE)|(all|no|http|https)_proxy"
)
#: Enroot evaluates values as shell, as the user: nothing but paths, words and these.
_ENROOT_VALUE = re.compile(
    r"([A-Za-z0-9 ._/,:=+@%-]|\$\((id -un?|nproc)\)|\$[A-Z_]+"
    r"|\$\{[A-Z_]+(:-[A-Za-z0-9._/-]*)?\})+"
)
#: Folders that Enroot makes with mode 0700 for whoever comes first.
_PER_USER = ("ENROOT_RUNTIME_PATH", "ENROOT_CACHE_PATH", "ENROOT_DATA_PATH")
#: Raised when something else is packed beside Pyxis, so that nodes take the new package.
_RECIPE = "3"
ENROOT_DEFAULTS = {
    "ENROOT_RUNTIME_PATH": "/run/enroot/user-$(id -u)",
    "ENROOT_CACHE_PATH": "/tmp/enroot-cache/user-$(id -u)",
    "ENROOT_DATA_PATH": "/tmp/enroot-data/user-$(id -u)",
    "ENROOT_SQUASH_OPTIONS": "-noI -noD -noF -noX -no-duplicates",
}
#: Pyxis options by the version that first reads them (config.c); an older one refuses to load.
PYXIS_SINCE = {"importer": (0, 21), "use_enroot_load": (0, 21), "use_squashfuse": (0, 22)}


class Enroot(Model):
    """Enroot's package files, and its configuration."""

    #: Usually two: enroot and enroot+caps.
    packages: Annotated[tuple[PackageFile, ...], Field(min_length=1)]
    #: Key → value of enroot.conf, over slurmstack's own.
    conf: dict[str, str] = Field(default_factory=dict)

    @field_validator("conf")
    @classmethod
    def _readable(cls, value: dict[str, str]) -> dict[str, str]:
        for key, text in value.items():
            if not _ENROOT_KEY.fullmatch(key):
                raise ValueError(f"keys that enroot.conf knows, not {key!r}")
            if not _ENROOT_VALUE.fullmatch(text):
                raise ValueError(
                    f"{key} without shell beyond $(id -u), $(id -un), $(nproc) and ${{NAME}}: "
                    "Enroot evaluates it as each user"
                )
            if key in _PER_USER and "$" not in text:
                raise ValueError(
                    f"{key} with a folder of each user's own, such as {ENROOT_DEFAULTS[key]}: "
                    "Enroot makes it for the first user alone"
                )
        return value

    @property
    def written(self) -> dict[str, str]:
        """What enroot.conf says."""
        return dict(sorted((ENROOT_DEFAULTS | self.conf).items()))

    @property
    def shared_folders(self) -> tuple[str, ...]:
        """Folders that users make theirs in, and that must therefore be there for all."""
        folders = set()
        for key in _PER_USER:
            prefix = self.written[key].partition("$")[0]
            folder = PurePosixPath(prefix).parent if prefix[-1:] != "/" else PurePosixPath(prefix)
            # /tmp and the like are there already; below $HOME nothing is to be made.
            if prefix.startswith("/") and len(folder.parts) > 2:
                folders.add(str(folder))
        return tuple(sorted(folders))


class PyxisOptions(SlurmObject):
    """Options of plugstack.conf's line, as Pyxis spells them (its config.c)."""

    runtime_path: _Path = "/run/pyxis"
    container_scope: Literal["job", "global"] = "job"
    execute_entrypoint: bool = True
    sbatch_support: bool = True
    use_enroot_load: bool | None = None
    importer: _Path | None = None
    use_squashfuse: bool | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """``option=value`` for each option that is set."""
        return tuple(
            f"{name}={str(value).lower() if isinstance(value, bool) else value}"
            for name, value in self
            if value is not None
        )


class Pyxis(Model):
    """Pyxis' source archive; it is built against exactly the Slurm that is deployed."""

    version: Annotated[str, matching(r"[0-9]+\.[0-9]+\.[0-9]+", "a version such as 0.20.0")]
    archive: Artifact
    options: PyxisOptions = PyxisOptions()

    def has(self, option: str) -> bool:
        """Whether this version reads an option."""
        since = PYXIS_SINCE.get(option)
        return since is None or tuple(map(int, self.version.split(".")[:2])) >= since

    def release(self, packages: Packages) -> str:
        """The version of the package it becomes: another source or another Slurm, another one."""
        inputs = [self.archive.sha256, packages.naming, packages.release or "", _RECIPE]
        mark = hashlib.sha256("\n".join(inputs).encode()).hexdigest()[:8]
        return f"{self.version}+slurmstack.{mark}"


class EnrootPyxis(Model):
    """``slurmstack:enrootPyxis``."""

    enroot: Enroot
    pyxis: Pyxis


class Apptainer(Model):
    """``slurmstack:apptainer``."""

    #: Package files; left out, the package apptainer comes from the nodes' own sources.
    packages: tuple[PackageFile, ...] = ()
    #: Directive → value of apptainer.conf, over slurmstack's own.
    conf: dict[str, Value] = Field(default_factory=dict)

    @field_validator("conf")
    @classmethod
    def _known(cls, value: dict[str, Value]) -> dict[str, Value]:
        check(value)
        return value


#: enroot-hardened is the same built with restrictions (Enroot's release page).
ENROOT_PACKAGES = ("enroot", "enroot-hardened")
