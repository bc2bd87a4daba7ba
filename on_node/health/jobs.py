"""Before and after a job: who has jobs here, what of a job is left, and files of users without one.

The prolog leaves a file for each job, since nobody on the node knows whose job it is without asking
slurmctld. Where a job runs that has none, begun before the prolog was there, nothing is swept.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path

_STEP = re.compile(rb"slurmstepd: \[(\d+)")
#: Users below are the system's (login.defs(5), UID_MIN).
_FIRST_USER = 1000


def begin(folder: Path, job: str, uid: int) -> None:
    """A job has come."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / job).write_text(str(uid))


def end(folder: Path, job: str) -> None:
    """It has gone."""
    (folder / job).unlink(missing_ok=True)


def steps(proc: Path = Path("/proc")) -> set[str]:
    """Jobs whose slurmstepd runs here."""
    found = set()
    for entry in proc.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                match = _STEP.match((entry / "cmdline").read_bytes())
                if match:
                    found.add(match[1].decode())
    return found


def others(folder: Path, job: str, uid: int, running: set[str]) -> bool:
    """Whether the user has another job here, or may have."""
    known = {}
    for path in folder.glob("*"):
        with contextlib.suppress(OSError, ValueError):
            known[path.name] = int(path.read_text())
    return any(other != job and known.get(other, uid) == uid for other in {*known, *running})


Process = tuple[int, str]
"""A number, and field 22 of /proc/PID/stat: another process of that number has another."""


def of_job(job: str, uid: int, proc: Path = Path("/proc")) -> list[Process]:
    """Processes of the user that a job has started, as their environment says."""
    mark = f"SLURM_JOB_ID={job}".encode()
    found = []
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            if entry.stat().st_uid == uid and mark in _environment(entry).split(b"\0"):
                found.append((int(entry.name), _stat(entry)[19]))
    return found


def _environment(entry: Path) -> bytes:
    """Of a process; where its first thread has ended, another one has it."""
    for thread in (entry, *(entry / "task").iterdir()):
        with contextlib.suppress(OSError):
            text = (thread / "environ").read_bytes()
            if text:
                return text
    return b""


def runs(pid: int, start: str, proc: Path = Path("/proc")) -> bool:
    """Whether a process is there yet, with any of its threads.

    One that ends has no environment any more while the driver still frees its GPU's memory, and
    its first thread may be gone before the others.
    """
    entry = proc / str(pid)
    try:
        threads = list((entry / "task").iterdir()) if _stat(entry)[19] == start else []
    except (OSError, IndexError):
        return False
    return any(_runs(thread) for thread in threads)


def _runs(thread: Path) -> bool:
    # One that has gone since they were listed says nothing of the others.
    with contextlib.suppress(OSError, IndexError):
        return _stat(thread)[0] not in "ZX"
    return False


def _stat(entry: Path) -> list[str]:
    """Fields of /proc/PID/stat from the third on (proc(5)): its state, …"""
    return (entry / "stat").read_text().rpartition(")")[2].split()


def ended(job: str, uid: int, seconds: float) -> list[Process]:
    """End what a job has left behind; what has not ended after this time."""
    deadline = time.monotonic() + seconds
    left: set[Process] = set()
    while True:
        left |= set(of_job(job, uid))
        left = {it for it in left if runs(*it)}
        if not left or time.monotonic() > deadline:
            return sorted(left)
        for pid, _ in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def has_processes(uid: int, proc: Path = Path("/proc")) -> bool:
    """Whether any process of the user runs: of a login, say."""
    for entry in proc.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if entry.stat().st_uid == uid:
                    return True
    return False


def sweep(folder: str, uid: int, deadline: float) -> int:
    """Remove what belongs to a user below a folder, by time.monotonic(); how much that was.

    What belongs to others stays, in a folder of the user's, too; no link is followed, and no other
    file system is entered.
    """
    if uid < _FIRST_USER:
        return 0
    try:
        top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return 0
    try:
        return sum(_sweep(top, uid, os.fstat(top).st_dev, deadline))
    finally:
        os.close(top)


def _sweep(folder: int, uid: int, device: int, deadline: float) -> Iterator[int]:
    for name in os.listdir(folder):
        if time.monotonic() > deadline:
            return
        with contextlib.suppress(OSError):
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if found.st_uid != uid or found.st_dev != device:
                continue
            if not stat.S_ISDIR(found.st_mode):
                os.unlink(name, dir_fd=folder)
                yield 1
                continue
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            inner = os.open(name, flags, dir_fd=folder)
            try:
                yield from _sweep(inner, uid, device, deadline)
            finally:
                os.close(inner)
            os.rmdir(name, dir_fd=folder)
            yield 1
