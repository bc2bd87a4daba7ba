"""What the settings say of pods (``slurmstack:kubernetesBridge``), as the component has it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from on_node.kubernetes.rules import Rules
from on_node.pods.api import Api
from on_node.pods.places import CONFIGURATION, CREDENTIAL


@dataclass(frozen=True)
class Site:
    """The settings."""

    server: str
    #: A file.
    ca: str
    rules: Rules
    #: What a user's namespace is called, before the user's number.
    prefix: str
    #: Slurm's name of a node → Kubernetes', where they differ.
    nodes: Mapping[str, str]
    #: Seconds that a pod has to end.
    grace: int
    #: Seconds within which a pod has started.
    start: int
    #: QOS → priorityClassName.
    priorities: Mapping[str, str]
    #: Of a user's namespace: spec.hard of its ResourceQuota.
    quota: Mapping[str, str]
    #: The resource by which a pod asks for GPUs; empty: it asks for none.
    gpu: str
    #: Where results of jobs are kept; empty: nowhere.
    results: str = ""
    #: Days that they stay, and MiB that they may take, a user's; None: no bound.
    keep: int | None = None
    limit: int | None = None
    #: Whether Slurm has accounting.
    accounting: bool = False

    def api(self, token: str | None = None) -> Api:
        """The server, with this token or the bridge's own."""
        return Api(self.server, self.ca, token or CREDENTIAL.read_text().strip())


def site(path: Path = CONFIGURATION) -> Site:
    """Read them."""
    told = json.loads(path.read_text())
    return Site(
        server=told["server"],
        ca=told["ca"],
        rules=Rules(tuple(told["registries"]), tuple(told["folders"])),
        prefix=told["namespacePrefix"],
        nodes=told["nodeNames"],
        grace=told["graceSeconds"],
        start=told["startSeconds"],
        priorities=told["priorityClasses"],
        quota=told["quota"],
        gpu=told["gpuResource"],
        results=told["results"],
        keep=told["keepDays"],
        limit=told["resultsMebibytes"],
        accounting=told["accounting"],
    )
