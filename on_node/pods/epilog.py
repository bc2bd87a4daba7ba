"""After a job, on the node of its batch step: its pods go, before Slurm gives out what they use.

It knows by a file of the node whether there are any, waits no longer than they may take to end,
and ends well whatever comes: what it could not clean up, the reconciler does.
"""

from __future__ import annotations

import json
import os
import sys
import time

from on_node.pods.api import Away, Refused
from on_node.pods.places import RECORDS
from on_node.pods.site import site

#: Seconds more than the pods have to end: for their node to say that they have.
_MORE = 15


def main() -> int:
    """Clean up after the job that Slurm names in the environment."""
    number = os.environ.get("SLURM_JOB_ID", "")
    record = RECORDS / f"{number}.json"
    if not number.isdecimal() or not record.exists():
        return 0
    of = json.loads(record.read_text())
    told = site()
    api = told.api()
    end = time.monotonic() + told.grace + _MORE
    inside = f"/api/v1/namespaces/{of['namespace']}/pods"
    left, why = list(of["pods"]), ""
    sent: set[str] = set()
    while left:
        try:
            path = f"{inside}/{left[0]}"
            pod = api.get(path)
            if pod["metadata"]["labels"].get("restart") != of["restart"]:
                left.pop(0)
            elif left[0] not in sent:
                done = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
                api.delete(path, 0 if done else told.grace, pod["metadata"]["uid"])
                sent.add(left[0])
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
            print(f"job {number}: pod {left[0]}: {why}; left to the reconciler", file=sys.stderr)
            break
    record.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
