"""Pods whose job is not there any more end: what an epilog could not see to, since Kubernetes was
away, or its node had gone. What the others use is noted for accounting. On the controller, by a
timer.

A job whose pod has gone needs no help: its batch step sees it, and ends with the reason.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from on_node import slurm_state
from on_node.pods import account, users
from on_node.pods.api import Api, Away, Refused
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
    good = True
    try:
        pods: list[Mapping[str, Any]] = []
        for name in users.namespaces(api, told):
            try:
                pods += users.pods(api, name)
            except (Away, Refused) as error:
                good = _not_now(error)
        # Pods before jobs: a pod is there only while its job is.
        for pod in orphans(pods, held()):
            of = pod["metadata"]
            path = f"/api/v1/namespaces/{of['namespace']}/pods/{of['name']}"
            api.delete(path, told.grace, of["uid"])
            print(f"{of['namespace']}/{of['name']}: its job is not there any more; it ends")
        if told.accounting and good:
            _account(api, pods)
    except (Away, Refused, RuntimeError) as error:
        good = _not_now(error)
    return 0 if good else 1


def _account(api: Api, pods: list[Mapping[str, Any]]) -> None:
    known = account.load()
    with _as_far_as_it_goes():
        account.look(api, pods, known)
    with _as_far_as_it_goes():
        account.write(known, [it["metadata"]["labels"].get("job-id", "") for it in pods])
    account.save(known)


@contextmanager
def _as_far_as_it_goes() -> Iterator[None]:
    """Figures that are not to be had now are no trouble of the pods'."""
    try:
        yield
    except (Away, Refused, RuntimeError, KeyError, ValueError) as error:
        print(f"what pods used: not now: {error}", file=sys.stderr)


def _not_now(error: Exception) -> bool:
    print(f"not now: {error}", file=sys.stderr)
    return False


if __name__ == "__main__":
    sys.exit(main())
