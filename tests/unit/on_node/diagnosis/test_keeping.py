"""What is kept of jobs, by whom it is read, and for how long; and the line of figures."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path

from on_node.diagnosis import command, epilog, gather, report
from on_node.diagnosis.job import Job
from on_node.diagnosis.judge import judge
from on_node.diagnosis.links import Met
from on_node.diagnosis.rule import Line

ENVIRONMENT = {
    "SLURMD_NODENAME": "cn01",
    "SLURM_JOB_ID": "12",
    "SLURM_JOB_USER": "alice",
    "SLURM_JOB_UID": "5001",
    "SLURM_JOB_EXIT_CODE": "256",
    "SLURM_JOB_DERIVED_EC": "256",
    "SLURM_JOB_START_TIME": "1795657110",
    "SLURM_JOB_END_TIME": "1795657140",
    "SLURM_JOB_STDOUT": "logs/%x-%j_%u.out",
    "SLURM_JOB_WORK_DIR": "/home/alice",
    "SLURM_JOB_GPUS": "0,1,2,3",
    "HF_TOKEN": "never-to-be-written",
}


def a_job(**changes: object) -> Job:
    values = {
        "id": 12, "name": "train", "user": "alice", "uid": 5001, "gid": 5001,
        "partition": "main", "state": "FAILED", "exit_code": "1:0", "reason": "NonZeroExitCode",
        "nodes": ["cn01", "cn02"], "start": 1795657110.0, "end": 1795657140.0,
        "work_dir": "/home/alice", "outputs": [], "steps": [], **changes,
    }  # fmt: skip
    return Job.of(values)


def test_a_folder_of_a_user_takes_no_file_of_root_elsewhere(tmp_path: Path) -> None:
    place = report.keep(12, os.getuid(), {"evidence.json": "one\n"}, str(tmp_path / "debug"))
    kept = place / "evidence.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o400
    assert stat.S_IMODE(place.stat().st_mode) == 0o711
    # The second time, as when the job ran again, and were there a link in its place.
    other = tmp_path / "other"
    other.write_text("mine\n")
    kept.unlink()
    kept.symlink_to(other)
    report.keep(12, os.getuid(), {"evidence.json": "two\n"}, str(tmp_path / "debug"))
    assert other.read_text() == "mine\n"
    assert kept.read_text() == "two\n"
    assert [it.name for it in place.iterdir()] == ["evidence.json"]


def test_what_is_old_or_too_much_goes(tmp_path: Path) -> None:
    now = time.time()
    for number, days, size in ((1, 40, 10), (2, 3, 3 << 20), (3, 2, 10), (4, 1, 2 << 20)):
        place = report.keep(number, -1, {"evidence.json": "x" * size}, str(tmp_path))
        os.utime(place, (now - days * 86400,) * 2)
    (tmp_path / "by-hand").mkdir()
    os.utime(tmp_path / "by-hand", (0, 0))
    report.prune(30, 4, str(tmp_path))
    assert sorted(it.name for it in tmp_path.iterdir()) == ["3", "4", "by-hand"]


def test_evidence_is_bounded_and_comes_back() -> None:
    lines = [Line("output", f"line {number}", "cn01", number) for number in range(1000)]
    back = report.evidence_of(report.evidence(12, "cn01", lines, 10_000))
    assert back == lines[-len(back) :]
    assert 50 < len(back) < 200


def test_the_line_of_figures() -> None:
    figures = epilog.metrics(ENVIRONMENT, "cn01", Met(received=4096))
    assert figures["job"] == 12
    assert (figures["exit_code"], figures["signal"], figures["failed"]) == (1, 0, True)
    assert (figures["seconds"], figures["gpus"], figures["user"]) == (30, 4, "alice")
    assert (figures["received"], figures["sent"]) == (4096, None)
    assert "never-to-be-written" not in json.dumps(figures)
    killed = epilog.metrics({**ENVIRONMENT, "SLURM_JOB_EXIT_CODE": "9"}, "cn01", Met())
    assert (killed["exit_code"], killed["signal"]) == (0, 9)
    well = {**ENVIRONMENT, "SLURM_JOB_EXIT_CODE": "0", "SLURM_JOB_DERIVED_EC": "0"}
    assert epilog.metrics(well, "cn01", Met())["failed"] is False
    # The script ended well and a step did not.
    step = {**well, "SLURM_JOB_DERIVED_EC": "256"}
    assert epilog.metrics(step, "cn01", Met())["failed"] is True


def test_the_file_of_figures_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "job_metrics.log"
    path.write_text("x" * (8 << 20))
    (tmp_path / "job_metrics.log.1").write_text("older\n")
    epilog.append(str(path), "{}")
    assert not path.exists()
    assert (tmp_path / "job_metrics.log.2").read_text() == "older\n"
    epilog.append(str(path), "{}")
    assert path.read_text() == "{}\n"


def test_the_output_of_a_job_is_found_by_its_pattern() -> None:
    assert epilog.output_paths(ENVIRONMENT) == ["/home/alice/logs/%x-12_alice.out"]
    same = {"SLURM_JOB_STDOUT": "/a/%A_%a.out", "SLURM_JOB_STDERR": "/a/%A_%a.out"}
    array = {**ENVIRONMENT, **same, "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}
    assert epilog.output_paths(array) == ["/a/7_3.out"]
    assert epilog.output_paths({"SLURM_JOB_STDOUT": "/dev/null"}) == []


def test_output_is_read_within_bounds_and_pipes_are_not(tmp_path: Path) -> None:
    me = os.getuid(), os.getgid()
    long = tmp_path / "long"
    with long.open("w") as file:
        file.write("error: first\n")
        file.write("error: in the middle of a long run\n" * 60_000)
        file.write("step 9\rstep 10\rerror: last HF_TOKEN=abcdef\n")
    lines = gather.output(str(long), *me, "cn01")
    assert lines[0].text == "error: first"
    assert lines[-1].text == "error: last HF_TOKEN=[left out]"
    assert [line.place for line in lines] == list(range(len(lines)))
    assert sum(len(line.text) for line in lines) <= gather.HEAD + gather.TAIL
    os.mkfifo(tmp_path / "pipe")
    assert gather.output(str(tmp_path / "pipe"), *me, "cn01") == []
    assert gather.output(str(tmp_path / "none"), *me, "cn01") == []
    assert gather.output("/dev/zero", *me, "cn01") == []


def test_a_users_path_to_a_file_of_roots_is_not_read(tmp_path: Path) -> None:
    if os.getuid() != 0:
        return  # nobody else's files can be read here at all
    secret = tmp_path / "shadow"
    secret.write_text("error: root's own\n")
    secret.chmod(0o600)
    tmp_path.chmod(0o755)
    link = tmp_path / "slurm-12.out"
    link.symlink_to(secret)
    assert gather.output(str(link), 0, 0, "cn01")
    assert gather.output(str(link), 65534, 65534, "cn01") == []
    assert os.geteuid() == 0


def test_logs_are_of_the_job_and_of_its_time(tmp_path: Path) -> None:
    log = tmp_path / "slurmd.log"
    log.write_text(
        "[2026-11-26T01:00:00.000] error: long before\n"
        "[2026-11-26T02:00:05.000] error: Munge decode failed: Expired credential\n"
        "[2026-11-26T02:00:06.000] [13.0] error: another job's\n"
        "[2026-11-26T02:00:06.000] [12.0] task 1 exited\n"
        "[2026-11-26T02:00:07.000] error: [job 12] prolog failed status=1:0\n"
        "[2026-11-26T02:00:07.000] launch task StepId=120.0 request from UID:5001\n"
    )
    start = time.mktime(time.strptime("2026-11-26T02:00:00", "%Y-%m-%dT%H:%M:%S"))
    lines = gather.daemon("slurmd", str(log), 12, start, start + 10, "cn01")
    assert [line.text.split("] ", 1)[1] for line in lines] == [
        "error: Munge decode failed: Expired credential",
        "[12.0] task 1 exited",
        "error: [job 12] prolog failed status=1:0",
    ]


def test_a_page_says_what_is_known_and_what_is_not() -> None:
    lines = [Line("output", "1: ValueError: step 7 has no data", "cn01", 0)]
    told = report.as_dict(
        a_job(), judge(lines), ["cn01"], {"cn02": "log in: refused"}, {"cn01": [9, 10]}
    )
    page = report.page(told)
    assert "Job 12 (train) of alice: FAILED, exit 1:0" in page
    assert "[python-exception, 70 %]\n  output cn01: 1: ValueError: step 7" in page
    assert "First to fail: rank 1 on cn01" in page
    assert "cn02: no evidence from it: log in: refused" in page
    assert "cn01: 2 other jobs failed there in the day before: 9 10" in page
    nothing = report.page(report.as_dict(a_job(outputs=["/home/alice/a.out"]), judge([])))
    assert "Cause: not known" in nothing
    assert "/home/alice/a.out" in nothing
    well = report.page(report.as_dict(a_job(state="COMPLETED", exit_code="0:0"), judge(lines)))
    assert "It did not fail." in well
    assert "ValueError" not in well


def test_a_job_that_slurm_put_back_and_held_failed() -> None:
    assert not a_job(state="PENDING", reason="Resources").failed
    assert a_job(state="PENDING", reason="launch_failed_requeued_held").failed
    assert a_job(state="CANCELLED by 0", reason="None").failed


def test_a_log_from_elsewhere_is_judged_by_what_its_lines_look_like(tmp_path: Path) -> None:
    log = tmp_path / "all.log"
    log.write_text(
        "[12345.678] NVRM: Xid (PCI:0000:44:00): 79, pid=1, GPU has fallen off the bus.\n"
        "step 9\rstep 10\r[rank1]: RuntimeError: CUDA error: unknown error\n"
        "8123 train gpu alice 8 TIMEOUT 0:0\n"
    )
    told = command.of_logs([str(log)])
    assert told["cause"] == "xid-79"
    assert {it["rule"] for it in told["findings"]} >= {"xid-79", "walltime"}
    page = report.page(told)
    assert page.startswith(f"{log}\n\nCause: XID 79")
    log.write_bytes(b"epoch done\n" * 200_000 + b"OSError: [Errno 28] No space left on device\n")
    assert command.of_logs([str(log)])["cause"] == "disk-full"
