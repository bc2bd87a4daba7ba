"""``slurmstack:images``: container images that are built, tested and kept for jobs."""

from __future__ import annotations

import hashlib
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from settings.acceptance import Package
from settings.artifact import Artifact
from settings.base import HostName, Model, Path, matching
from settings.jobs import Environment
from settings.scripts import ScriptFile, interpreter, script_text
from settings.software import PythonEnvironment

ImageName = Annotated[
    str,
    matching(
        r"[a-z0-9][a-z0-9_-]{0,39}",
        "a name of lower-case letters, digits, _ and -, such as pytorch",
    ),
]
ImageVersion = Annotated[
    str, matching(r"[0-9A-Za-z][0-9A-Za-z.+_]{0,39}", "a version in quotes, such as '2026.11'")
]
#: As Enroot's manual writes images of registries (doc/cmd/import.md); with a digest, it is the
#: same image whenever it is fetched.
Docker = Annotated[
    str,
    matching(
        r"([A-Za-z0-9.:-]+#)?[a-z0-9][a-z0-9._/-]*(:[A-Za-z0-9._-]+|@sha256:[0-9a-f]{64})",
        "REGISTRY#IMAGE:TAG, such as nvcr.io#nvidia/pytorch:25.01-py3",
    ),
]
_MiB = Annotated[int, Field(ge=1, le=1 << 30)]


def _runs(value: str) -> str:
    if interpreter(script_text(value)) is None:
        raise ValueError("a script whose first line names its interpreter, such as #!/bin/sh")
    return value


_BASES = ("suite", "tarball", "docker")


class Base(Model):
    """What an image begins with: exactly one of them."""

    #: A release of the distribution, bootstrapped from the build host's own package sources.
    suite: (
        Annotated[str, matching(r"[a-z][a-z0-9.-]*", "a release's name, such as trixie")] | None
    ) = None
    #: A root file system in a tar archive.
    tarball: Artifact | None = None
    #: An image of a registry, fetched by Skopeo.
    docker: Docker | None = None

    @model_validator(mode="after")
    def _one(self) -> Base:
        if sum(getattr(self, name) is not None for name in _BASES) != 1:
            raise ValueError("exactly one of suite, tarball and docker")
        return self


class ImageTest(Model):
    """A command that must succeed in the image before it may be published."""

    run: Annotated[
        str,
        matching(r"[^\n\x00]{1,2000}", "a command on one line, such as python3 -c 'import torch'"),
    ]
    #: On so many nodes, as a job; 0: on the build host, without rights and outside of Slurm.
    nodes: Annotated[int, Field(ge=0, le=64)] = 0
    #: Seconds.
    timeout: Annotated[int, Field(ge=1, le=86_400)] = 600


class Image(Model):
    """One entry of ``slurmstack:images.images``."""

    version: ImageVersion
    base: Base
    #: From the package sources that the image has.
    packages: tuple[Package, ...] = ()
    #: Made as /opt/python in the image.
    python: PythonEnvironment | None = None
    #: Run as root in the image when all else is there.
    script: Annotated[ScriptFile, AfterValidator(_runs)] | None = None
    environment: Environment = Field(default_factory=dict)
    labels: dict[
        Annotated[
            str, matching(r"[A-Za-z0-9][A-Za-z0-9._/-]*", "a word, such as org.example.owner")
        ],
        Annotated[str, matching(r"[^\n\x00]*", "a text on one line")],
    ] = Field(default_factory=dict)
    tests: tuple[ImageTest, ...] = ()

    @property
    def script_end(self) -> str:
        """A line that is none of the site's script: where it ends."""
        return f"end-{hashlib.sha256(self.script_text.encode()).hexdigest()[:16]}"

    @property
    def script_text(self) -> str:
        """The site's script; nothing where there is none."""
        return "" if self.script is None else script_text(self.script)


class Images(Model):
    """``slurmstack:images``."""

    #: The registry: published images, registry.yaml, and what is not published yet.
    root: Path = "/opt/containers"
    #: Where images are built and published; left out, the controller.
    host: HostName | None = None
    #: Where nodes fetch images from, on that host.
    port: Annotated[int, Field(ge=1, le=65535)] = 8461
    #: The group that may put images of its own into custom-images.
    writers: (
        Annotated[str, matching(r"[a-z_][a-z0-9_-]{0,31}", "the name of a group, such as ml")]
        | None
    ) = None
    #: Versions of each image that stay, and days for which one that was followed by another stays.
    keep: Annotated[int, Field(ge=1, le=1000)] = 3
    keep_days: Annotated[int, Field(ge=0, le=3650)] = 14
    #: MiB that all images may take: in the registry, and on a node that keeps copies.
    limit: _MiB | None = None
    node_limit: _MiB = 200 * 1024
    images: Annotated[dict[ImageName, Image], Field(min_length=1)]
