"""Checks of the machine and its links, what Slurm is told, and what is swept."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from on_node.health import fabric, jobs, probes, system, told
from on_node.health.results import GOOD, Result, fault, unknown
from on_node.node_states import State
from templates.rendering import render


def port(sys: Path, name: str, state: str = "4: ACTIVE", rate: str = "400 Gb/sec (4X NDR)") -> None:
    folder = sys / "class/infiniband" / name / "ports/1"
    (folder / "counters").mkdir(parents=True, exist_ok=True)
    (folder / "state").write_text(f"{state}\n")
    (folder / "rate").write_text(f"{rate}\n")


def test_infiniband_ports_and_rates(tmp_path: Path) -> None:
    """As the kernel writes them (ABI/stable/sysfs-class-infiniband); no card was there."""
    port(tmp_path, "mlx5_0")
    port(tmp_path, "mlx5_1")
    assert fabric.infiniband(2, 400, tmp_path) == GOOD
    port(tmp_path, "mlx5_1", rate="200 Gb/sec (2X NDR)")
    assert fabric.infiniband(2, 400, tmp_path).words == "mlx5_1/1 has 200 Gb/s, expected 400"
    assert fabric.infiniband(2, None, tmp_path) == GOOD
    port(tmp_path, "mlx5_1", state="1: DOWN")
    assert fabric.infiniband(2, 400, tmp_path).words == (
        "1 active InfiniBand ports, expected 2, mlx5_1/1 is DOWN"
    )
    # A port without a cable is none of ours to mind, where the settings say nothing of ports.
    assert fabric.infiniband(None, None, tmp_path) == GOOD


def test_a_link_that_goes_down_again_and_again(tmp_path: Path) -> None:
    port(tmp_path, "mlx5_0")
    counter = tmp_path / "class/infiniband/mlx5_0/ports/1/counters/link_downed"
    memory = tmp_path / "links.json"

    def look(count: int, now: float) -> Result:
        counter.write_text(f"{count}\n")
        return fabric.flaps(2, memory, now, tmp_path)

    assert look(40, 0) == GOOD  # of months, maybe
    assert look(42, 60) == GOOD
    assert look(43, 120).words == "mlx5_0/1 went down 3 times within an hour, expected 2 at most"
    assert look(43, 600).verdict == "fault"
    assert look(43, 3800) == GOOD
    assert look(0, 3900) == GOOD  # the driver was loaded again
    assert look(2, 4000) == GOOD


def test_a_clock_without_a_server() -> None:
    running = [(1, "systemd", "S"), (7, "chronyd", "S")]
    old = 7200.0
    assert system.clock(running, 1000, old, lambda: (0, 500)) == GOOD
    assert system.clock(running, 1000, 60, lambda: (0x40, 0)).verdict == "unknown"
    words = system.clock(running, 1000, old, lambda: (0x40, 0)).words
    assert words == "the clock follows no time server (chronyd runs)"
    slow = system.clock(running, 1000, old, lambda: (0, 3_000_000)).words
    assert slow == "the clock may be off by 3000 ms, expected 1000 at most"
    # The host of a virtual machine, or nobody, keeps the time: nothing here says that it is wrong.
    assert system.clock(running[:1], 1000, old, lambda: (0x40, 0)) == GOOD
    status, error = system.kernel_clock()
    assert status >= 0 <= error


def test_memory(tmp_path: Path) -> None:
    file = tmp_path / "meminfo"
    file.write_text("MemTotal: 2048000 kB\nMemAvailable:  204800 kB\n")
    assert system.memory(200, str(file)) == GOOD
    assert system.memory(201, str(file)).words == (
        "200 MiB of memory available without any job, expected 201"
    )


def test_a_mount_with_a_blank_in_its_name(tmp_path: Path) -> None:
    place = tmp_path / "my share"
    place.mkdir()
    info = tmp_path / "mountinfo"
    info.write_text(f"36 35 98:0 / {str(place).replace(' ', chr(92) + '040')} rw - tmpfs none rw\n")
    assert system.mount(str(place), str(info)) == GOOD
    assert "nothing is mounted" in system.mount(f"{place}s", str(info)).words


def test_a_probe_that_never_answers_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As stat(2) on a dead server's share: late first, then a fault, and never started twice."""
    starts = tmp_path / "starts"

    def hangs() -> Result:
        with starts.open("a") as file:
            file.write("x")
        while not (tmp_path / "go").exists():
            time.sleep(0.01)
        return fault("told late")

    mount = {"mount /a": (hangs, "/a does not answer")}

    def look() -> Result:
        return probes.answers(mount, tmp_path, 0.1)["mount /a"]

    both = probes.answers({**mount, "b": (lambda: GOOD, "")}, tmp_path, 3)
    assert both == {"mount /a": unknown("no answer in time"), "b": GOOD}
    assert look() == unknown("no answer yet")
    monkeypatch.setattr(probes, "PATIENCE", 0.0)
    assert look().words.startswith("/a does not answer (for ")
    assert starts.read_text() == "x"
    (tmp_path / "go").touch()
    end = time.monotonic() + 20
    while not list(tmp_path.glob("mount*json")) and time.monotonic() < end:
        time.sleep(0.01)
    os.waitpid(json.loads((tmp_path / "mount %2Fa.pid").read_text())[0], 0)
    (tmp_path / "go").unlink()
    # What it said at last counts, while the next one is not done.
    assert look() == fault("told late")
    (tmp_path / "go").touch()


def test_who_is_left_behind_holds_no_lock_of_the_run(tmp_path: Path) -> None:
    """Else the next run would wait for the mount that this one has given up."""

    def hangs() -> Result:
        while not (tmp_path / "go").exists():
            time.sleep(0.01)
        return GOOD

    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert probes.answers({"a": (hangs, "")}, tmp_path, 0.1)["a"].verdict == "unknown"
    try:
        with (tmp_path / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        (tmp_path / "go").touch()
        os.waitpid(json.loads((tmp_path / "a.pid").read_text())[0], 0)


def seen(*flags: str, reason: str = "", by: str = "root") -> State:
    return State("cn01", frozenset(flags), True, reason, by if reason else "")


OURS = "slurmstack: health: /a does not answer"
BAD = {"mount /a": fault("/a does not answer"), "disk": GOOD}


@pytest.mark.parametrize(
    ("state", "results", "drained_for", "what"),
    [
        (seen("IDLE"), {"disk": GOOD}, (), "nothing"),
        (seen("IDLE"), BAD, (), "drain"),
        (seen("MIXED"), BAD, (), "drain"),
        (seen("IDLE", "DRAIN", reason="new memory"), BAD, (), "nothing"),
        (seen("DOWN", reason="Not responding", by="slurm"), BAD, (), "nothing"),
        (seen("IDLE", "DRAIN", reason="slurmstack: the node is being changed"), BAD, (), "nothing"),
        (seen("IDLE", "DRAIN", reason=OURS), BAD, ("mount /a",), "nothing"),
        (seen("IDLE", "DRAIN", reason=OURS), {**BAD, "disk": fault("full")}, (), "reason"),
        (seen("IDLE", "DRAIN", reason=OURS), {"mount /a": GOOD}, ("mount /a",), "return"),
        (seen("IDLE", "DRAIN", reason=OURS), {"mount /a": unknown("")}, ("mount /a",), "nothing"),
        # Another check that cannot tell keeps nobody out, but for where nobody knows which it was.
        (
            seen("IDLE", "DRAIN", reason=OURS),
            {"mount /a": GOOD, "gpus": unknown("")},
            ("mount /a",),
            "return",
        ),
        (seen("IDLE", "DRAIN", reason=OURS), {"gpus": unknown("")}, (), "nothing"),
        # The settings have that check no more.
        (seen("IDLE", "DRAIN", reason=OURS), {"disk": GOOD}, ("mount /a",), "return"),
        (
            seen("IDLE", "DRAIN", reason="I look"),
            {"mount /a": GOOD},
            ("mount /a",),
            "nothing",
        ),
    ],
)
def test_what_slurm_is_told(
    state: State, results: dict[str, Result], drained_for: tuple[str, ...], what: str
) -> None:
    assert told.step(state, results, drained_for).what == what


def test_a_reason_is_one_line_that_slurm_keeps() -> None:
    reason = told.worded(['a "b"\nc', "x" * 400])
    assert reason.startswith("slurmstack: health: a  b  c; xxx")
    assert (len(reason), '"' in reason, "\n" in reason) == (300, False, False)


def test_whose_jobs_are_here(tmp_path: Path) -> None:
    for job, uid in (("7", 5001), ("8", 5002)):
        jobs.begin(tmp_path, job, uid)
    assert not jobs.others(tmp_path, "7", 5001, {"7", "8"})
    assert jobs.others(tmp_path, "9", 5001, {"7", "8"})
    # Begun before there was a prolog: whose it is nobody knows.
    assert jobs.others(tmp_path, "7", 5001, {"7", "8", "6"})


def test_files_of_one_user_are_swept(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files to others")
    shm, other = tmp_path / "shm", tmp_path / "other"
    for folder in (shm / "alice/in", shm / "bob", other):
        folder.mkdir(parents=True)
    (other / "kept").touch()
    (shm / "alice/link").symlink_to(other)
    for name in ("alice/in/a", "alice/in/of-bob", "bob/of-alice", "a"):
        (shm / name).touch()
    for name in ("alice", "alice/in", "alice/link", "alice/in/a", "bob/of-alice", "a"):
        os.chown(shm / name, 5001, 5001, follow_symlinks=False)
    os.chown(other / "kept", 5001, 5001)
    assert jobs.sweep(str(shm), 5001, time.monotonic() + 5) == 3
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == [
        "other", "other/kept", "shm", "shm/alice", "shm/alice/in", "shm/alice/in/of-bob",
        "shm/bob", "shm/bob/of-alice",
    ]  # fmt: skip
    assert jobs.sweep(str(shm), 0, time.monotonic() + 5) == 0
    assert jobs.sweep(str(shm / "bob"), 5001, time.monotonic() - 1) == 0


_FIRST_THREAD_ENDS = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
print("there", flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_process_is_ended_when_its_last_thread_is() -> None:
    """As one that frees a GPU's memory: its first thread is gone, and its environment with it."""
    job = str(os.getpid())
    words = [sys.executable, "-c", _FIRST_THREAD_ENDS]
    environment = {**os.environ, "SLURM_JOB_ID": job}
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        stat = Path(f"/proc/{process.pid}/stat")
        deadline = time.monotonic() + 10
        while ") Z " not in stat.read_text() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert ") Z " in stat.read_text()
        ((pid, start),) = jobs.of_job(job, os.getuid())
        assert pid == process.pid
        assert jobs.runs(pid, start)
        assert not jobs.runs(pid, start + "0")
        assert jobs.ended(job, os.getuid(), 10) == []
        # Not yet waited for, and yet it runs no more.
        assert not jobs.runs(pid, start)


def test_modules_are_not_taken_from_where_somebody_stands(tmp_path: Path) -> None:
    """Root looks at a node in whatever folder, a user's, too."""
    library, here = tmp_path / "library/on_node/health", tmp_path / "here"
    library.mkdir(parents=True)
    here.mkdir()
    for folder in (library.parent, library):
        (folder / "__init__.py").touch()
    (library / "__main__.py").write_text("import calendar\nprint(calendar.__file__)\n")
    (here / "calendar.py").touch()
    script = render("health/health-check.sh", library=str(tmp_path / "library"))
    done = subprocess.run(
        ["sh", "-c", script], cwd=here, capture_output=True, text=True, check=True
    )
    assert str(here) not in done.stdout
