"""Which pods an epilog ends, and which run of a job has gone before the next begins."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from on_node.pods import agent
from on_node.pods.api import Away, Refused
from on_node.pods.epilog import Left, here, noted


def test_pods_that_the_kubelet_of_a_node_has(tmp_path: Path) -> None:
    for name in (
        "user-5001_slurm-job-47_aa-1", "user-5001_slurm-job-47-1_bb-2",
        # Another job's, another user's, and somebody's who takes such a name.
        "user-5001_slurm-job-471_cc-3", "user-5001_slurm-job-4_dd-4", "user-5002_slurm-job-47_ee-5",
        "user-5001_slurm-job-47-x_ff-6", "xuser-5001_slurm-job-47_aa-7",
    ):  # fmt: skip
        (tmp_path / name).mkdir()
    assert here("47", "user-5001", tmp_path) == [
        Left("user-5001", "slurm-job-47-1", uid="bb-2"),
        Left("user-5001", "slurm-job-47", uid="aa-1"),
    ]
    assert here("47", "user-5001", tmp_path / "none") == []


def test_the_agent_s_file_names_all(tmp_path: Path) -> None:
    record = tmp_path / "47.json"
    assert noted(record) == []
    record.write_text('{"namespace": "user-1", "pods": ["a", "b"], "restart": "2"}')
    assert noted(record) == [Left("user-1", "a", restart="2"), Left("user-1", "b", restart="2")]


def test_a_pod_of_another_run_is_another_pod() -> None:
    pod = {"metadata": {"uid": "aa", "labels": {"restart": "1"}}}
    assert Left("n", "p", restart="1").same(pod)
    assert Left("n", "p", uid="aa").same(pod)
    assert not Left("n", "p", restart="0").same(pod)
    assert not Left("n", "p", uid="bb").same(pod)


class Api:
    """One with a pod of an earlier run."""

    def __init__(self, **metadata: Any) -> None:
        self.pod: dict[str, Any] = {
            "metadata": {"name": "p", "uid": "u", "labels": {"restart": "0"}, **metadata}
        }
        self.deleted: list[tuple[int, str | None]] = []

    def get(self, path: str) -> dict[str, Any]:
        return self.pod

    def delete(self, path: str, grace: int, uid: str | None = None) -> None:
        self.deleted.append((grace, uid))

    def create(self, path: str, body: Any) -> dict[str, Any]:
        raise Refused(409, "there is one")


@pytest.mark.parametrize(
    ("metadata", "grace"),
    [
        ({}, 25),
        # Its time is over in 5 s, and 19 s ago: its node has not said yet that it has gone.
        ({"deletionTimestamp": "2026-01-01T00:01:05Z"}, 25),
        ({"deletionTimestamp": "2026-01-01T00:00:41Z"}, 25),
        # 21 s ago: its node has died.
        ({"deletionTimestamp": "2026-01-01T00:00:39Z"}, 0),
    ],
)
def test_an_earlier_run_has_its_time_to_end(
    monkeypatch: pytest.MonkeyPatch, metadata: dict[str, Any], grace: int
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1767225660.0)  # 2026-01-01T00:01:00Z
    api = Api(**metadata)
    body = {"metadata": {"name": "p", "labels": {"restart": "1"}}}
    with pytest.raises(Away, match="earlier run is being terminated"):
        agent._pod(api, "/inside", body, 25)  # type: ignore[arg-type]
    assert api.deleted == [(grace, "u")]
