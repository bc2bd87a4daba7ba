"""``slurmstack:kubernetesBridge``: job files for Kubernetes and their folder."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from settings.base import Model, Path, matching
from settings.problems import refused


class Registry(Model):
    """Where images may come from."""

    #: As images name it, such as nas-hub.local:5407.
    name: Annotated[
        str,
        matching(
            r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?",
            "a registry as images name it, such as nas-hub.local:5407",
        ),
    ]
    scheme: Literal["https", "http"] = "https"


class KubernetesBridge(Model):
    """``slurmstack:kubernetesBridge``; present, each file in the submit folder becomes a job of its
    owner's, and users have ``slurmstack-job``, which says what is wrong with one."""

    #: On a share that the controller has; below it are submit, processed and failed.
    folder: Path = "/mnt/nas/slurm-jobs"
    registries: Annotated[tuple[Registry, ...], Field(min_length=1)]
    #: Where scripts, logs and results of jobs may lie.
    folders: Annotated[tuple[Path, ...], Field(min_length=1)] = ("/mnt/nas",)
    #: Files of one user that may wait in the submit folder.
    waiting_files: Annotated[int, Field(ge=1, le=100000)] = 200
    #: Seconds for which a file has not grown when it is taken.
    settled: Annotated[int, Field(ge=1, le=600)] = 2
    #: Seconds within which a registry says whether it has an image.
    registry_timeout: Annotated[int, Field(ge=1, le=60)] = 5
    #: A file on the hosts with the certificates of registries; left out, the system's.
    registry_ca: Path | None = None

    @model_validator(mode="after")
    def _once(self) -> KubernetesBridge:
        names = [it.name for it in self.registries]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise refused("each registry once", f"{', '.join(twice)} twice")
        return self
