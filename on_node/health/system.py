"""Checks of the machine itself: disks, mounts, memory, processes, clock, munge."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from on_node.health.probes import PATIENCE
from on_node.health.results import GOOD, Result, all_of, fault, unknown

_MIB = 2**20
#: adjtimex(2): the clock follows no time server.
_STA_UNSYNC = 0x0040
_TIME_DAEMONS = {"chronyd", "ntpd", "systemd-timesyn"}
#: Seconds after boot in which a clock may still be without a server.
_BOOT = 1800


def disk(path: str, free: int) -> Result:
    """Room for users other than root, in MiB; and that it can be written."""
    try:
        found = os.statvfs(path)
    except OSError as error:
        return fault(f"{path}: {error.strerror}")
    there = found.f_bavail * found.f_frsize // _MIB
    if found.f_flag & os.ST_RDONLY:
        return fault(f"{path} is mounted read-only")
    if there < free:
        return fault(f"{path} has {there} MiB free, expected {free}")
    if found.f_files and not found.f_favail:
        return fault(f"{path} has no inodes left")
    return GOOD


def mount(path: str, mountinfo: str = "/proc/self/mountinfo") -> Result:
    """Mounted there, and answering. Only a child may ask this: a dead server never answers."""
    points = {_unescaped(line.split()[4]) for line in Path(mountinfo).read_text().splitlines()}
    if path not in points:
        return fault(f"nothing is mounted at {path}")
    try:
        Path(path).stat()
        os.statvfs(path)
    except OSError as error:
        return fault(f"{path} does not answer: {error.strerror}")
    return GOOD


def _unescaped(word: str) -> str:
    return re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), word)


def memory(available: int, meminfo: str = "/proc/meminfo") -> Result:
    """MiB that can be had, asked while no job runs: with one, it is the job's to use."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", Path(meminfo).read_text(), re.MULTILINE)
    if found is None:
        return unknown("no MemAvailable")
    there = int(found[1]) // 1024
    if there < available:
        return fault(f"{there} MiB of memory available without any job, expected {available}")
    return GOOD


def processes(proc: str = "/proc") -> list[tuple[int, str, str]]:
    """Number, name and state of each."""
    found = []
    for entry in Path(proc).iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text(errors="replace")
            except OSError:
                continue
            name = text[text.index("(") + 1 : text.rindex(")")]
            found.append((int(entry.name), name, text[text.rindex(")") + 2]))
    return found


def zombies(found: list[tuple[int, str, str]], limit: int) -> Result:
    """Processes that have ended and that nobody has waited for."""
    names = [name for _, name, state in found if state == "Z"]
    if len(names) <= limit:
        return GOOD
    most = max(sorted(set(names)), key=names.count)
    return fault(f"{len(names)} zombie processes, most of them {most}, expected {limit} at most")


def munge() -> Result:
    """A credential made here is decoded here: munged runs, and has a key."""
    try:
        made = subprocess.run(
            ["munge", "--no-input"], capture_output=True, timeout=PATIENCE, check=False
        )
        if made.returncode == 0:
            made = subprocess.run(
                ["unmunge"], input=made.stdout, capture_output=True, timeout=PATIENCE, check=False
            )
    except FileNotFoundError:
        return fault("munge is not there")
    except subprocess.TimeoutExpired:
        return fault("munge does not answer")
    if made.returncode:
        words = (made.stderr or made.stdout).decode(errors="replace").strip().splitlines()
        return fault(f"munge: {words[0] if words else made.returncode}")
    return GOOD


def fork(limit: float) -> Result:
    """Milliseconds that a new process takes to start: without memory it is many."""
    began = time.monotonic()
    try:
        subprocess.run(["/bin/true"], timeout=PATIENCE, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return fault(f"no process can be started: {error}")
    took = (time.monotonic() - began) * 1000
    if took > limit:
        return fault(f"a process takes {took:.0f} ms to start, expected {limit:.0f} at most")
    return GOOD


class _Timex(ctypes.Structure):
    """The head of struct timex, adjtimex(2); the rest is room."""

    _fields_ = [
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("room", ctypes.c_char * 256),
    ]


def kernel_clock() -> tuple[int, int]:
    """Status flags, and the estimated error in microseconds, as the kernel has them."""
    timex = _Timex()
    if ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex)) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return timex.status, timex.esterror


def clock(
    found: list[tuple[int, str, str]],
    limit: float,
    uptime: float,
    read: Callable[[], tuple[int, int]] = kernel_clock,
) -> Result:
    """Whether it follows a time server, where a daemon runs for that. Milliseconds it may err."""
    daemons = sorted({name for _, name, _ in found} & _TIME_DAEMONS)
    if not daemons:
        return GOOD
    try:
        status, error = read()
    except OSError as failure:
        return unknown(f"adjtimex: {failure.strerror}")
    if status & _STA_UNSYNC:
        if uptime < _BOOT:
            return unknown("the clock follows no time server yet")
        return fault(f"the clock follows no time server ({daemons[0]} runs)")
    if error / 1000 > limit:
        return fault(f"the clock may be off by {error / 1000:.0f} ms, expected {limit:.0f} at most")
    return GOOD


def disks(wanted: Mapping[str, int]) -> Result:
    """All of them."""
    results = [disk(path, free) for path, free in wanted.items()]
    return all_of([result.words for result in results if result.verdict == "fault"])
