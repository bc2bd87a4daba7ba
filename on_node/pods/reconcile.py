"""Pods whose job is not there any more end: what an epilog could not see to, since Kubernetes was
away, or its node had gone. On the controller, by a timer.

A job whose pod has gone needs no help: its batch step sees it, and ends with the reason.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from on_node import slurm_state
from on_node.pods.api import Away, Refused
from on_node.pods.site import site


def held() -> dict[str, str]:
    """Jobs that have nodes, and how often each was started before.

    Raises:
        RuntimeError: slurmctld does not answer.
    """
    shown = slurm_state.command(
        "squeue", "--noheader", "--array", "--states=R,S,CG,CF,SI,ST,SO",
        "--Format=JobID:.20,RestartCnt:.12",
    )  # fmt: skip
    return dict(line.split() for line in shown.splitlines())


def orphans(pods: list[Mapping[str, Any]], jobs: Mapping[str, str]) -> list[Mapping[str, Any]]:
    """Pods of jobs that have no nodes, or of an earlier run of one."""
    return [
        pod
        for pod in pods
        if "deletionTimestamp" not in pod["metadata"]
        and jobs.get(pod["metadata"]["labels"].get("job-id", ""))
        != pod["metadata"]["labels"].get("restart")
    ]


def main() -> int:
    """Once."""
    told = site()
    api = told.api()
    try:
        # Pods before jobs: a pod is there only while its job is.
        pods = api.get("/api/v1/pods", labelSelector="app=slurm-job")["items"]
        of_ours = [pod for pod in pods if pod["metadata"]["namespace"].startswith(told.prefix)]
        for pod in orphans(of_ours, held()):
            of = pod["metadata"]
            path = f"/api/v1/namespaces/{of['namespace']}/pods/{of['name']}"
            api.delete(path, told.grace, of["uid"])
            print(f"{of['namespace']}/{of['name']}: its job is not there any more; it ends")
    except (Away, Refused, RuntimeError) as error:
        print(f"not now: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
