"""``slurmstack:kubernetesBridge``: job files for Kubernetes and their folder."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, model_validator

from settings.base import Model, Path, certificates, matching
from settings.problems import refused

#: RFC 1123, as Kubernetes names most things.
_LABEL = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
#: What a ResourceQuota bounds. It takes nvidia.com/gpu, too, and counts nothing by it: of what is
#: no resource of Kubernetes' own only requests are counted.
_COUNTED = (
    r"[a-z0-9.-]+"
    r"|(requests\.[a-z0-9.-]+|count|[a-z0-9.-]+\.storageclass\.storage\.k8s\.io)/[a-z0-9./-]+"
)


def read_token(text: str) -> SecretStr:
    """The bridge's own token.

    Raises:
        ValueError: what was found instead; the text is not quoted.
    """
    if not re.fullmatch(r"[!-~]{16,8192}", text):
        raise ValueError(f"{len(text)} characters that are none")
    return SecretStr(text)


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


class Pods(Model):
    """``pods``; present, a job whose file names an image runs as a pod."""

    #: Of the API, such as https://10.0.0.5:6443.
    server: Annotated[
        str,
        matching(
            r"https://[A-Za-z0-9.-]+(:[0-9]{1,5})?",
            "the API server's URL, such as https://10.0.0.5:6443",
        ),
    ]
    #: Certificates in PEM by which the API server is known.
    ca: Annotated[str, AfterValidator(certificates)]
    #: A user's namespace is called so, and the user's number.
    namespace_prefix: Annotated[
        str, matching(r"[a-z0-9][a-z0-9-]{0,39}", "the beginning of a namespace's name")
    ] = "user-"
    #: Slurm's name of a node → Kubernetes', where they differ.
    node_names: dict[str, Annotated[str, matching(rf"{_LABEL}(\.{_LABEL})*", "a node's name")]] = (
        Field(default_factory=dict)
    )
    #: Seconds that a pod has to end; Slurm's KillWait is how long it waits itself.
    grace: Annotated[int, Field(ge=1, le=3600)] = 25
    #: Seconds within which a pod has started.
    start_within: Annotated[int, Field(ge=10, le=86400)] = 300
    #: QOS → priority class of Kubernetes'.
    priority_classes: dict[str, Annotated[str, matching(_LABEL, "a priority class")]] = Field(
        default_factory=dict
    )
    #: What all pods of a user may have together, as a ResourceQuota writes it.
    quota: dict[
        Annotated[str, matching(_COUNTED, "a resource, such as requests.nvidia.com/gpu")],
        Annotated[str, matching(r"[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?", "a quantity")],
    ] = Field(default_factory=dict)
    #: The resource by which a pod asks for GPUs; empty, it asks for none.
    gpu_resource: Annotated[str, matching(r"([a-z0-9.-]+/[A-Za-z0-9_.-]+)?", "a resource")] = (
        "nvidia.com/gpu"
    )
    #: A folder of ``folders`` in which results of jobs are kept, one folder a job.
    results: Path | None = None
    #: Days after which results of a user go, when a later job of theirs has ended.
    keep_results: Annotated[int, Field(ge=1, le=3650)] | None = None
    #: MiB that results of a user may take: the oldest go, when a later job of theirs has ended.
    results_limit: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _of_results(self) -> Pods:
        if self.results is None and (self.keep_results or self.results_limit):
            raise refused("results, the folder that keepResults and resultsLimit are about", "none")
        return self


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
    pods: Pods | None = None

    @model_validator(mode="after")
    def _once(self) -> KubernetesBridge:
        names = [it.name for it in self.registries]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise refused("each registry once", f"{', '.join(twice)} twice")
        results = None if self.pods is None else self.pods.results
        if results and not any(results.startswith(f"{it}/") for it in self.folders):
            raise refused(f"pods.results in {' or '.join(self.folders)}", results)
        return self
