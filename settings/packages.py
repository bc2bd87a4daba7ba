"""``slurmstack:packages``: where Slurm's packages come from."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Literal

from pydantic import Field, field_validator

from settings.artifact import Artifact
from settings.base import Model, matching
from settings.problems import refused

Feature = Literal["http", "hwloc", "jwt", "nvml", "pmix"]
PackageName = Annotated[
    str, matching(r"[a-z0-9][a-z0-9+.-]+", "the name of a package, such as libnvidia-ml-dev")
]


class Repository(Model):
    """A package repository of the site."""

    #: A deb822 paragraph, sources.list(5), without Signed-By.
    sources: str
    #: The public key that signs it, ASCII-armoured; left out where nodes trust it already.
    key: str | None = None

    @field_validator("sources")
    @classmethod
    def _paragraph(cls, value: str) -> str:
        # First of all: what else is wrong is reported with the text itself.
        if re.search(r"//[^/\s]*@", value):
            raise refused(
                "URIs without a password (apt_auth.conf(5) has the place for it)",
                "a URI with a user or password, which is not shown",
            )
        # A field goes on in lines that begin with a blank; its name may be in any case.
        fields = {name.lower() for name in re.findall(r"^([A-Za-z-]+):", value, re.MULTILINE)}
        if not {"types", "uris", "suites"} <= fields or re.search(r"\n[ \t]*\n", value.strip()):
            raise ValueError("one deb822 paragraph with Types, URIs and Suites")
        if "signed-by" in fields:
            raise ValueError("the key beside it, under key, instead of Signed-By")
        return value.strip() + "\n"

    @field_validator("key")
    @classmethod
    def _armoured(cls, value: str | None) -> str | None:
        if value is not None and not value.lstrip().startswith(
            "-----BEGIN PGP PUBLIC KEY BLOCK-----"
        ):
            raise ValueError("an ASCII-armoured public key (-----BEGIN PGP PUBLIC KEY BLOCK-----)")
        return value


class Packages(Model):
    """Where Slurm comes from, and who serves packages that no source of the nodes has."""

    slurm: Literal["distribution", "repository", "source"] = "distribution"
    #: The packages' exact version. With ``source``, that of the packaging in the archive.
    version: (
        Annotated[
            str, matching(r"[0-9][A-Za-z0-9.+:~-]*", "the version of a package, such as 25.05.1-1")
        ]
        | None
    ) = None
    #: Whose names the packages have: Debian's (slurmd, …) or SchedMD's (slurm-smd-slurmd, …).
    names: Literal["distribution", "schedmd"] | None = None
    repository: Repository | None = None
    archive: Artifact | None = None
    #: What the built packages must be able to do.
    features: tuple[Feature, ...] = ("http", "hwloc", "jwt", "nvml", "pmix")
    #: Development packages for the build beyond those that the packaging names.
    build_packages: tuple[PackageName, ...] = ()
    #: The host that fetches, builds and serves packages; left out: the controller.
    host: str | None = None
    port: Annotated[int, Field(ge=1, le=65535)] = 8460
    #: Whether slurmctld's state is copied before a slurmctld of another major release comes.
    copy_state_before_upgrade: bool = True

    @property
    def naming(self) -> str:
        """``distribution`` or ``schedmd``."""
        if self.names is not None:
            return self.names
        return "distribution" if self.slurm == "distribution" else "schedmd"

    @property
    def release(self) -> str | None:
        """The exact version that the nodes get; None where any will do.

        Packages built here carry a mark of what they were built from: other inputs are another
        version, and no package of the distribution is mistaken for them.
        """
        if self.slurm != "source" or self.archive is None:
            return self.version
        inputs = [self.archive.sha256, *sorted(self.features), "", *sorted(self.build_packages)]
        mark = hashlib.sha256("\n".join(inputs).encode()).hexdigest()[:8]
        return f"{self.version}+slurmstack.{mark}"
