"""A job's pods, for ``slurmstack job show``: on the controller, as root.

pod NAME PHASE, on NODE: WHY          event WHEN REASON: MESSAGE (TIMES)
image IMAGE                           log LINE
"""

from __future__ import annotations

import sys
from typing import Any

from on_node.pods import users
from on_node.pods.api import Api, Away, Refused
from on_node.pods.site import site
from on_node.pods.step import waiting

_EVENTS, _LINES = 6, 10


def main(job: str) -> int:
    """Print them; nothing where there are none."""
    if not job.isdecimal():
        return 2
    told = site()
    api = told.api()
    try:
        for name in users.namespaces(api, told):
            for pod in users.pods(api, name, **{"job-id": job}):
                print("\n".join(_lines(api, pod)))
    except (Away, Refused) as error:
        print(f"pod cannot be told: {error}")
    return 0


def _lines(api: Api, pod: dict[str, Any]) -> list[str]:
    of, status = pod["metadata"], pod.get("status", {})
    container = (status.get("containerStatuses") or [{}])[0]
    state = container.get("state", {})
    phase = "ending" if "deletionTimestamp" in of else status.get("phase", "Pending")
    why = ""
    if "terminated" in state:
        why = f": exit {state['terminated'].get('exitCode')}, {state['terminated'].get('reason')}"
    elif "running" not in state:
        why = f": {waiting(status, state)}"
    lines = [
        f"pod {of['namespace']}/{of['name']} {phase}, on {pod['spec'].get('nodeName')}{why}",
        f"image {pod['spec']['containers'][0]['image']}",
    ]
    inside = f"/api/v1/namespaces/{of['namespace']}"
    events = api.get(f"{inside}/events", fieldSelector=f"involvedObject.uid={of['uid']}")["items"]
    lines += [
        f"event {it.get('lastTimestamp') or it.get('eventTime')} {it.get('reason')}: "
        f"{' '.join(str(it.get('message', '')).split())}"
        for it in events[-_EVENTS:]
    ]
    try:
        path = f"{inside}/pods/{of['name']}/log"
        with api.stream(path, 5, tailLines=_LINES) as pieces:
            text = b"".join(pieces).decode(errors="replace")
        lines += [f"log {line[:200]}" for line in text.splitlines()]
    except (Away, Refused):
        pass  # nothing is written yet, or its node is away
    return ["".join(it if it.isprintable() else "?" for it in line) for line in lines]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
