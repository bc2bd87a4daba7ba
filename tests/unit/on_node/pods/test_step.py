"""A pod's log, its results, and pods without a job."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from on_node.pods.reconcile import orphans
from on_node.pods.results import Results, differences, tidy
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


def kept(folder: Path, name: str, days: float, size: int = 0) -> Path:
    """Results that were complete so many days before day 1,000."""
    place = folder / name
    (place / "outputs").mkdir(parents=True)
    (place / "outputs" / "model").write_bytes(b"." * size)
    os.utime(place, (0, (1000 - days) * 86400))
    return place


def removed(folder: Path, stays: Path, days: int | None, limit: int | None) -> list[str]:
    """Names of what gave way; the folder holds all else."""
    before = {it.name for it in folder.iterdir()}
    lines = [*tidy(folder, stays, days, limit, 1000 * 86400)]
    gone = before - {it.name for it in folder.iterdir()}
    assert gone == {line.partition(":")[0].rpartition("/")[2] for line in lines}
    return [line.rpartition("/")[2] for line in lines]


def test_old_results_give_way(tmp_path: Path) -> None:
    stays = kept(tmp_path, "9", 0)
    kept(tmp_path, "7", 31)
    kept(tmp_path, "7.1", 29)
    # What still runs, what is no result, and what is a link to elsewhere stays.
    kept(tmp_path, ".8.part", 99)
    kept(tmp_path, "notes", 99)
    elsewhere = kept(tmp_path / "elsewhere", "1", 99)
    (tmp_path / "6").symlink_to(elsewhere)
    assert removed(tmp_path, stays, 30, None) == ["7: removed, older than 30 days"]
    assert elsewhere.is_dir()
    assert removed(tmp_path, stays, None, None) == []


def test_results_give_way_to_newer_ones_oldest_first(tmp_path: Path) -> None:
    mebibyte = 1 << 20
    kept(tmp_path, "3", 3, mebibyte)
    kept(tmp_path, "2", 5, mebibyte)
    kept(tmp_path, "5", 1, mebibyte)
    stays = kept(tmp_path, "9", 0, mebibyte)
    assert removed(tmp_path, stays, None, 2) == [
        "2: removed, more than 2 MiB", "3: removed, more than 2 MiB",
    ]  # fmt: skip
    # The newest stays, however large.
    assert removed(tmp_path, stays, None, 1) == ["5: removed, more than 1 MiB"]
    assert removed(tmp_path, kept(tmp_path, "10", 0, 2 * mebibyte), None, 1) == [
        "9: removed, more than 1 MiB"
    ]


def test_a_removal_that_was_broken_off_is_finished(tmp_path: Path) -> None:
    stays = kept(tmp_path, "9", 0)
    kept(tmp_path, ".7.old", 0)
    assert [*tidy(tmp_path, stays, 30, None, 1000 * 86400)] == []
    assert [it.name for it in tmp_path.iterdir()] == ["9"]


def test_results_of_others_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stays = kept(tmp_path, "9", 0)
    kept(tmp_path, "7", 99)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert removed(tmp_path, stays, 30, 1) == []


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
