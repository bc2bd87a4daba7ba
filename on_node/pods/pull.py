"""Images are fetched to nodes before a job needs them: on the controller, as root.

    python3 -m on_node.pods.pull SECONDS NODES IMAGES      (lists with commas)

A pod on each node asks for the image and does nothing; whether its command can be run does not
matter, the image is there by then. Prints ``NODE|IMAGE|pulled|SECONDS``, or
``NODE|IMAGE|failed|WHY``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from on_node.pods.api import Api, Away, Refused
from on_node.pods.manifests import BRIDGE
from on_node.pods.site import Site, site
from on_node.pods.step import waiting

#: The bridge's own, in which its token lies, too.
_NAMESPACE = f"/api/v1/namespaces/{BRIDGE}"
_LABEL = {"app": "slurm-image"}
_SELECTOR = "app=slurm-image"
#: Seconds between two looks.
_LOOK = 1.0
#: Reasons for which a container waits that still needs its image (kubelet's, pkg/kubelet/images).
_WITHOUT = (
    *("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"),
    *("ImageInspectError", "RegistryUnavailable", "SignatureValidationFailed"),
    *("ContainerCreating", "PodInitializing"),
)


def pod(image: str, node: str, seconds: int) -> dict[str, Any]:
    """A pod for which a node needs the image."""
    return {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": "slurm-image-", "labels": _LABEL},
        "spec": {
            "nodeName": node, "restartPolicy": "Never", "activeDeadlineSeconds": seconds,
            "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            # A node that nobody schedules to still gets images.
            "tolerations": [{"operator": "Exists"}],
            "securityContext": {"runAsNonRoot": True, "runAsUser": 65534, "runAsGroup": 65534,
                                "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "image", "image": image, "command": ["true"], "env": [],
                "volumeMounts": [],
                "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}},
                "securityContext": {"allowPrivilegeEscalation": False,
                                    "capabilities": {"drop": ["ALL"]}},
            }],
        },
    }  # fmt: skip


def state(of: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether a pod's node has its image, and why not."""
    status = of.get("status", {})
    container = (status.get("containerStatuses") or [{}])[0]
    now = container.get("state", {})
    if "running" in now or "terminated" in now:
        return True, ""
    why = waiting(status, now)
    reason = now.get("waiting", {}).get("reason", "")
    return bool(reason) and not reason.startswith(_WITHOUT), why


def pull(
    api: Api, told: Site, seconds: int, nodes: Sequence[str], images: Sequence[str]
) -> Iterator[tuple[str, str, str, str]]:
    """Have nodes fetch images: node, image, ``pulled`` or ``failed``, and what is to be said.

    Raises:
        Away, Refused: the API, before a node was asked.
    """
    for old in api.get(f"{_NAMESPACE}/pods", labelSelector=_SELECTOR)["items"]:
        if old.get("status", {}).get("phase") in ("Succeeded", "Failed"):  # of a run that was ended
            api.delete(f"{_NAMESPACE}/pods/{old['metadata']['name']}", 0)
    begin = time.monotonic()
    made: dict[str, tuple[str, str]] = {}
    try:
        for node in nodes:
            for image in images:
                body = pod(image, told.nodes.get(node, node), seconds)
                name = api.create(f"{_NAMESPACE}/pods", body)["metadata"]["name"]
                made[name] = node, image
        yield from _awaited(api, dict(made), begin, seconds)
    finally:
        for name in made:
            try:
                api.delete(f"{_NAMESPACE}/pods/{name}", 0)
            except (Away, Refused) as error:
                print(f"pod {name}: {error}; it ends by itself", file=sys.stderr)


def _awaited(
    api: Api, left: dict[str, tuple[str, str]], begin: float, seconds: int
) -> Iterator[tuple[str, str, str, str]]:
    reasons = dict.fromkeys(left, "no kubelet has taken it yet")
    while left:
        try:
            pods = api.get(f"{_NAMESPACE}/pods", labelSelector=_SELECTOR)["items"]
        except (Away, Refused) as error:
            pods, reasons = [], dict.fromkeys(left, str(error))
        for of in pods:
            name = of["metadata"]["name"]
            if name not in left:
                continue
            there, reasons[name] = state(of)
            if there:
                yield *left.pop(name), "pulled", f"{time.monotonic() - begin:.0f}"
        if time.monotonic() > begin + seconds:
            for name, (node, image) in left.items():
                yield node, image, "failed", reasons[name]
            return
        time.sleep(_LOOK)


def main(words: Sequence[str]) -> int:
    """End with 1 where a node has not got an image, with 2 where none was asked."""
    seconds, nodes, images = int(words[0]), words[1].split(","), words[2].split(",")
    told = site()
    good = True
    try:
        for line in pull(told.api(), told, seconds, nodes, images):
            good = good and line[2] == "pulled"
            print("|".join(" ".join(it.replace("|", " ").split()) for it in line), flush=True)
    except (Away, Refused) as error:
        print(error, file=sys.stderr)
        return 2
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
