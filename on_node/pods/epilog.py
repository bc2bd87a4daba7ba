"""After a job, on each of its nodes: its pods go, before Slurm gives out what they use.

It knows without the API whether there are any: on the node of the batch step by a file of the
agent's, which names all of them; on the others by the folder that their kubelet keeps of a pod. It
waits no longer than they may take to end, and ends well whatever comes: what it could not clean up,
the reconciler does.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from on_node.pods.api import Away, Refused
from on_node.pods.manifests import namespace
from on_node.pods.places import KUBELET, RECORDS
from on_node.pods.site import site

#: Seconds more than the pods have to end: for their node to say that they have.
_MORE = 15


@dataclass(frozen=True)
class Left:
    """A pod of the job, and by what it is told from one of another run."""

    namespace: str
    name: str
    #: Of the agent's file.
    restart: str | None = None
    #: Of the kubelet's folder.
    uid: str | None = None

    @property
    def path(self) -> str:
        """In the API."""
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"

    def same(self, pod: Mapping[str, Any]) -> bool:
        """Whether it is this one that has the name now."""
        of = pod["metadata"]
        return self.uid in (None, of["uid"]) and self.restart in (None, of["labels"].get("restart"))


def noted(record: Path) -> list[Left]:
    """By the agent, if it was on this node."""
    if not record.exists():
        return []
    of = json.loads(record.read_text())
    return [Left(of["namespace"], name, restart=of["restart"]) for name in of["pods"]]


def here(job: str, inside: str, folder: Path = KUBELET) -> list[Left]:
    """Those that this node's kubelet has.

    Args:
        job: its number.
        inside: the user's namespace.
        folder: of the kubelet's.
    """
    named = re.compile(rf"{re.escape(inside)}_(slurm-job-{job}(?:-[0-9]+)?)_([0-9a-f-]+)")
    names = sorted(it.name for it in folder.iterdir()) if folder.is_dir() else []
    found = (named.fullmatch(name) for name in names)
    return [Left(inside, it[1], uid=it[2]) for it in found if it]


def main() -> int:
    """Clean up after the job that Slurm names in the environment."""
    number, uid = os.environ.get("SLURM_JOB_ID", ""), os.environ.get("SLURM_JOB_UID", "")
    if not (number.isdecimal() and uid.isdecimal()):
        return 0
    told = site()
    record = RECORDS / f"{number}.json"
    left, why = noted(record) or here(number, namespace(told, int(uid))), ""
    api = told.api()
    end = time.monotonic() + told.grace + _MORE
    sent: set[Left] = set()
    while left:
        one = left[0]
        try:
            pod = api.get(one.path)
            if not one.same(pod):
                left.pop(0)
            elif one not in sent:
                done = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
                api.delete(one.path, 0 if done else told.grace, pod["metadata"]["uid"])
                sent.add(one)
            else:
                why = "is there still"
                time.sleep(0.2)
        except Refused as error:
            if error.status == 404:
                left.pop(0)
                continue
            why = str(error)
            time.sleep(1)
        except Away as error:
            why = str(error)
            time.sleep(1)
        if left and time.monotonic() > end:
            print(f"job {number}: pod {one.name}: {why}; left to the reconciler", file=sys.stderr)
            break
    record.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
