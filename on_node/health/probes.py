"""Checks that may take long, or for ever, each in a process of its own.

Nobody can end a process that waits for a dead NFS server, and a busy one answers late. So a probe
that has not answered in time is left alone: the next run takes its answer, or, while it is still at
it after some seconds, calls that the fault. No second one is started beside it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from on_node.health.results import Result, fault, unknown

Probe = Callable[[], Result]
#: Seconds after which a probe that has not answered is a fault.
PATIENCE = 10.0
_PAUSE = 0.005


@dataclass(frozen=True)
class _Left:
    """A probe that is under way."""

    pid: int
    #: Field 22 of /proc/PID/stat: another process of that number has another.
    start: str
    #: By time.monotonic(), which all processes of a boot share.
    began: float


def answers(
    probes: Mapping[str, tuple[Probe, str]], folder: Path, seconds: float
) -> dict[str, Result]:
    """Run them side by side.

    Args:
        probes: name → what is run, and what is wrong where it never answers.
        folder: of this boot, for answers that come late.
        seconds: how long they are waited for.
    """
    end = time.monotonic() + seconds
    results: dict[str, Result] = {}
    late: dict[str, Result] = {}
    waiting: dict[str, int] = {}
    for name, (probe, silent) in probes.items():
        left = _left(folder, name)
        if left is not None:
            age = time.monotonic() - left.began
            results[name] = (
                fault(f"{silent} (for {age:.0f} s)")
                if age >= PATIENCE
                else unknown("no answer yet")
            )
            continue
        answer = _taken(folder, name)
        if answer is not None:
            late[name] = answer
        waiting[name] = _start(folder, name, probe)
    while waiting:
        for name, pid in list(waiting.items()):
            if os.waitpid(pid, os.WNOHANG)[0]:
                del waiting[name]
                _file(folder, name, "pid").unlink(missing_ok=True)
                results[name] = _taken(folder, name) or unknown("it gave no answer")
        if waiting and time.monotonic() >= end:
            break
        if waiting:
            time.sleep(_PAUSE)
    for name in waiting:
        results[name] = late.get(name, unknown("no answer in time"))
    return results


def _start(folder: Path, name: str, probe: Probe) -> int:
    pid = os.fork()
    if pid:
        left = [pid, _start_of(pid), time.monotonic()]
        _write(_file(folder, name, "pid"), json.dumps(left))
        return pid
    try:
        # What runs the checks waits for the end of its output, and ends what is in its group.
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(nothing, number)
        # Nor may it hold the lock of a run that has ended long since.
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        try:
            result = probe()
        except Exception as error:  # whatever ails a probe says nothing of the node
            result = unknown(f"{type(error).__name__}: {error}")
        _write(_file(folder, name, "json"), json.dumps([result.verdict, result.words]))
    finally:
        os._exit(0)


def _left(folder: Path, name: str) -> _Left | None:
    try:
        pid, start, began = json.loads(_file(folder, name, "pid").read_text())
    except (OSError, ValueError):
        return None
    return _Left(pid, start, began) if start and _start_of(pid) == start else None


def _start_of(pid: int) -> str:
    """When a process was started; nothing of one that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def _taken(folder: Path, name: str) -> Result | None:
    path = _file(folder, name, "json")
    try:
        verdict, words = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    path.unlink(missing_ok=True)
    return Result(verdict, words)


def _file(folder: Path, name: str, kind: str) -> Path:
    return folder / f"{name.replace('%', '%25').replace('/', '%2F')}.{kind}"


def _write(path: Path, text: str) -> None:
    new = path.with_name(f"{path.name}.{os.getpid()}")
    new.write_text(text)
    new.replace(path)
