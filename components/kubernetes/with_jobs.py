"""What the bridge to Kubernetes runs after jobs."""

from __future__ import annotations

from collections.abc import Iterator

from on_node.pods.places import KUBELET, RECORDS
from settings import Settings
from settings.scripts import JobProgram
from templates.rendering import render

ROLE = "pods"
LIBRARY = "/usr/local/lib/slurmstack-pods"


def with_jobs(settings: Settings) -> Iterator[JobProgram]:
    """The epilog, which ends a job's pods: before others look at what is left of the job."""
    bridge = settings.kubernetes_bridge
    if bridge is not None and bridge.pods is not None:
        text = render(
            "kubernetes/pods-epilog.sh",
            records=RECORDS,
            kubelet=KUBELET,
            library=LIBRARY,
            seconds=bridge.pods.grace + 30,
        )
        yield JobProgram("Epilog", ROLE, text)
