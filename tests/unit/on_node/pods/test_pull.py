"""When a node has an image, by what its kubelet says of a pod that needs it."""

from __future__ import annotations

from typing import Any

import pytest

from on_node.pods.pull import pod, state


def of(phase: str, container: dict[str, Any]) -> dict[str, Any]:
    return {"status": {"phase": phase, "containerStatuses": [{"state": container}]}}


@pytest.mark.parametrize(
    ("told", "there", "why"),
    [
        ({}, False, "no kubelet has taken it yet"),
        (of("Pending", {"waiting": {"reason": "ContainerCreating"}}), False, "ContainerCreating"),
        (
            of("Pending", {"waiting": {"reason": "ErrImagePull", "message": "not found"}}),
            False,
            "ErrImagePull: not found",
        ),
        (
            of("Pending", {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off"}}),
            False,
            "ImagePullBackOff: Back-off",
        ),
        (of("Running", {"running": {}}), True, ""),
        (of("Succeeded", {"terminated": {"exitCode": 0}}), True, ""),
        # An image without such a command is there all the same.
        (of("Failed", {"terminated": {"exitCode": 128, "reason": "StartError"}}), True, ""),
        (of("Pending", {"waiting": {"reason": "RunContainerError", "message": "x"}}), True, None),
    ],
)
def test_whether_an_image_is_there(told: dict[str, Any], there: bool, why: str | None) -> None:
    assert state(told)[0] is there
    assert why is None or state(told)[1] == why


def test_such_a_pod_may_do_nothing_and_ends_by_itself() -> None:
    spec = pod("hub:5000/a:1", "k1", 60)["spec"]
    assert (spec["nodeName"], spec["activeDeadlineSeconds"]) == ("k1", 60)
    assert spec["restartPolicy"] == "Never"
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
