"""A pod's log, its results, and pods without a job."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from on_node.pods.reconcile import orphans
from on_node.pods.results import Results, differences
from on_node.pods.step import Log, waiting


def test_each_line_of_a_log_comes_once_though_it_breaks_off() -> None:
    got: list[bytes] = []
    log = Log("", got.append)
    log.take(b"2026-01-01T00:00:00.1Z one\n2026-01-01T00:00:00.25Z two\n2026-01-01T00:00:00.3Z th")
    log.cut(write=False)
    assert log.since == {"sinceTime": "2026-01-01T00:00:00Z"}
    # Asked for again from the second on: what is there already, and the half line whole.
    log.take(b"2026-01-01T00:00:00.1Z one\n2026-01-01T00:00:00.25Z two\n")
    log.take(b"2026-01-01T00:00:00.3Z three\n2026-01-01T00:00:01Z four \xff\n")
    log.take(b"2026-01-01T00:00:01.5Z no end")
    log.cut(write=True)
    assert got == [b"one\n", b"two\n", b"three\n", b"four \xff\n", b"no end\n"]


def test_why_a_pod_waits() -> None:
    assert waiting({}, {}) == "no kubelet has taken it yet"
    state = {"waiting": {"reason": "ErrImagePull", "message": "not found"}}
    assert waiting({}, state) == "ErrImagePull: not found"
    assert waiting({"reason": "NodeLost", "message": "x"}, {}) == "NodeLost: x"


def pod(job: str, restart: str, **more: Any) -> dict[str, Any]:
    return {"metadata": {"labels": {"job-id": job, "restart": restart}, **more}}


def test_pods_without_a_job() -> None:
    own, gone, earlier = pod("1", "0"), pod("2", "0"), pod("3", "0")
    ending = pod("4", "0", deletionTimestamp="2026-01-01T00:00:00Z")
    nobody = {"metadata": {"labels": {"app": "slurm-job"}}}
    jobs = {"1": "0", "3": "1"}
    assert orphans([own, gone, earlier, ending], jobs) == [gone, earlier]
    # A pod of somebody's who has taken the label: it names no job, and none is asked for it.
    assert orphans([nobody], jobs) == []


def test_results_are_whole_or_not_there(tmp_path: Path) -> None:
    results = Results(tmp_path, 7, 0)
    results.begin()
    part = tmp_path / ".7.part"
    (part / "outputs" / "model").write_bytes(b"x" * 10)
    (part / "outputs" / "link").symlink_to("/etc/shadow")
    results.write("stdout.log", b"out\n")
    assert not (tmp_path / "7").exists()
    assert results.end({"job": "7", "name": "a\nexit code: 0"}) == tmp_path / "7"
    assert not part.exists()
    assert (tmp_path / "7" / "job_summary.txt").read_text() == "job: 7\nname: a exit code: 0\n"
    assert differences(tmp_path / "7") == []
    (tmp_path / "7" / "outputs" / "model").write_bytes(b"y" * 10)
    (tmp_path / "7" / "stderr.log").unlink()
    (tmp_path / "7" / "outputs" / "new").touch()
    assert differences(tmp_path / "7") == [
        "outputs/model: is another one", "outputs/new: was not there", "stderr.log: is gone",
    ]  # fmt: skip


def test_a_second_run_has_a_place_of_its_own(tmp_path: Path) -> None:
    for restarts in (0, 1):
        results = Results(tmp_path, 7, restarts)
        results.begin()
        assert results.end({}) == tmp_path / ("7.1" if restarts else "7")


def test_results_that_cannot_be_kept_are_said(tmp_path: Path) -> None:
    results = Results(tmp_path / "gone", 7, 0)
    results.begin()
    results.write("stdout.log", b"out\n")
    assert results.end({}) is None
    assert results.trouble.endswith("gone/.7.part: No such file or directory")


def test_a_folder_of_another_s_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".7.part").mkdir(mode=0o777)
    uid = os.getuid()
    monkeypatch.setattr("os.getuid", lambda: uid + 1)
    results = Results(tmp_path, 7, 0)
    results.begin()
    assert "is another's already" in results.trouble
    assert list((tmp_path / ".7.part").iterdir()) == []
    monkeypatch.undo()
    (tmp_path / ".8.part").symlink_to(tmp_path / ".7.part")
    link = Results(tmp_path, 8, 0)
    link.begin()
    assert "is another's already" in link.trouble
