"""Evidence of a job on one node, within bounds of time and size; secrets are left out.

Who runs it may be root: a job's output is read as the job's user, since its path is that user's
choice; links and pipes that it leads to are then that user's, too.
"""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from on_node.diagnosis.judge import worth
from on_node.diagnosis.redact import redacted
from on_node.diagnosis.rule import Line

#: Of an output's beginning and end; between them stands the progress of a training.
HEAD, TAIL = 128 << 10, 768 << 10
#: Of a daemon's log, from its end.
_LOG = 4 << 20
#: Lines of one source.
_LINES = 400
#: Seconds before the start and after the end of a job that concern it.
_BEFORE, _AFTER = 120, 300
#: Seconds by which the clocks of two hosts may differ.
_CLOCKS = 30
_STAMP = re.compile(r"\[(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)")
#: What our health checks found last (on_node/health).
HEALTH = "/var/lib/slurmstack-health/last.json"
#: How full a file system is that is told of.
_FULL = 0.985


@contextmanager
def _as_user(uid: int, gid: int) -> Iterator[None]:
    """File access as a user, where this is root."""
    if os.geteuid() != 0:
        yield
        return
    groups = os.getgroups()
    os.setgroups([gid])
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def output(path: str, uid: int, gid: int, node: str, tail: int = TAIL) -> list[Line]:
    """The beginning and the end of a file that a job wrote; none where there is no such file."""
    if uid < 0 or gid < 0:
        return []
    try:
        with _as_user(uid, gid):
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return []
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return []
        size = os.fstat(handle).st_size
        parts = [file.read(min(size, HEAD + tail))] if size <= HEAD + tail else [file.read(HEAD)]
        if size > HEAD + tail:
            file.seek(-tail, os.SEEK_END)
            parts.append(file.read(tail))
    lines: list[Line] = []
    for part in parts:
        # A progress bar writes over its line with \r.
        for text in part.decode(errors="replace").replace("\r", "\n").split("\n"):
            if worth(text):
                lines.append(Line("output", redacted(text[:2000]), node, len(lines)))
    return lines


def daemon(source: str, path: str, job_id: int, start: float, end: float, node: str) -> list[Line]:
    """Of slurmd's or slurmctld's log, what names the job, and errors of its time.

    Of a job that has ended, what was before its start is of a time before that it ran.
    """
    names = re.compile(
        rf"\[{job_id}\.|\[job {job_id}\]|\bJobId={job_id}\b|\bjob {job_id}\b|"
        rf"StepId={job_id}\.|\bjob{job_id:05d}\b",
        re.I,
    )
    found = []
    for text in _end_of(path):
        mine = names.search(text) is not None
        if not mine and ("error" not in text or re.search(r"\[\d+\.|JobId=\d|job \d", text)):
            continue
        at = stamp(text)
        if mine:
            near = not (start and end and at) or at >= start - _CLOCKS
        else:
            near = _within(at, start, end)
        if near:
            found.append(text)
    return _lines(source, found, node)


def kernel(start: float, end: float, node: str) -> list[Line]:
    """Of the kernel's log, what a rule could be about."""
    until = end or time.time()
    words = ["journalctl", "-k", "-q", "--no-pager", "-o", "short-iso", "--utc"]
    words += ["--since", f"@{int(start - _BEFORE)}", "--until", f"@{int(until + _AFTER)}"]
    told = _said(words) or ""
    about = re.compile(
        r"NVRM|oom|out of memory|killed process|mlx5|infiniband|\bib\d|nfs|lustre|segfault|"
        r"general protection|mce|hardware error|edac|i/o error|lockup|stall|panic|bug:|"
        r"read-only|ext4|xfs|hung_task|blocked for|memory failure|no space|fork rejected",
        re.I,
    )
    return _lines("kernel", [line for line in told.splitlines() if about.search(line)], node)


def node_facts(folders: list[str], job_id: int, node: str, start: float, end: float) -> list[Line]:
    """What a look at the node finds now: full file systems, ports, GPUs, the job's cgroup; and what
    its health checks had found while the job was there.

    Args:
        folders: whose file systems are looked at.
        job_id: the job's number.
        node: this node's name.
        start: of the job, seconds since 1970.
        end: of the job; 0 while it runs.
    """
    found = [*_full(folders), *_ports(), *_gpus(), *_cgroup(job_id), *health(start, end)]
    return _lines("node", found, node)


def health(start: float, end: float, path: str = HEALTH) -> Iterator[str]:
    """Faults of the last run of our health checks, if that was in the job's time."""
    with suppress(OSError, ValueError, KeyError):
        last = json.loads(Path(path).read_text())
        if _within(last["time"], start, end):
            for name, it in last["checks"].items():
                if it["verdict"] == "fault":
                    yield f"Health={name}: {it['words']}"


def _full(folders: list[str]) -> Iterator[str]:
    # In a process of its own, which can be left: a dead NFS server holds who asks.
    words = ["df", "-P", "--", *dict.fromkeys(it for it in folders if it)]
    for row in (_said(words, 3) or "").splitlines()[1:]:
        columns = row.split(None, 5)
        if len(columns) < 6 or not columns[1].isdigit() or int(columns[1]) == 0:
            continue
        used = int(columns[2]) / max(1, int(columns[2]) + int(columns[3]))
        if used >= _FULL:
            yield f"DiskFull={columns[5]} used={used:.1%}"


def _ports() -> Iterator[str]:
    for port in sorted(Path("/sys/class/infiniband").glob("*/ports/*")):
        with suppress(OSError):
            name = f"{port.parent.parent.name}/{port.name}"
            state = (port / "state").read_text().strip()
            physical = (port / "phys_state").read_text().strip()
            # A port without a cable is none that went down.
            if "ACTIVE" not in state and "Disabled" not in physical and "Polling" not in physical:
                yield f"IbPortDown={name} state={state.split()[-1]}"


def _gpus() -> Iterator[str]:
    query = "--query-gpu=index,ecc.errors.uncorrected.volatile.total"
    yield from gpus(_said(["nvidia-smi", query, "--format=csv,noheader,nounits"], 5) or "")


def gpus(told: str) -> Iterator[str]:
    """From nvidia-smi's rows of index and uncorrected errors, or what it says instead."""
    for row in told.splitlines():
        index, _, errors = row.partition(", ")
        if "Driver/library version mismatch" in row:
            yield f"DriverMismatch={row}"
        elif re.search(r"GPU is lost|Unable to determine the device handle", row):
            yield f"GpuMissing={row}"
        elif errors.strip().isdigit() and int(errors) > 0:
            yield f"EccUncorrected={errors.strip()} gpu={index}"


def _cgroup(job_id: int) -> Iterator[str]:
    for folder in Path("/sys/fs/cgroup").glob(f"system.slice/*slurmstepd.scope/job_{job_id}"):
        with suppress(OSError):
            told = dict(
                line.split() for line in (folder / "memory.events").read_text().splitlines()
            )
            yield f"CgroupOomKills={told.get('oom_kill', '0')}"


def _within(at: float, start: float, end: float) -> bool:
    return at >= start - _BEFORE and (not end or at <= end + _AFTER)


def stamp(text: str) -> float:
    """When a line of a daemon's log was written, seconds since 1970; 0 where it does not say."""
    match = _STAMP.match(text)
    return datetime.strptime(match[1], "%Y-%m-%dT%H:%M:%S").timestamp() if match else 0.0


def _end_of(path: str) -> list[str]:
    try:
        with Path(path).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _LOG))
            return file.read(_LOG).decode(errors="replace").splitlines()
    except OSError:
        return []


def _lines(source: str, texts: list[str], node: str) -> list[Line]:
    """The last ones, as evidence."""
    kept = texts[-_LINES:]
    return [Line(source, redacted(text[:2000]), node, place) for place, text in enumerate(kept)]


def _said(words: list[str], seconds: float = 8) -> str | None:
    """What a command prints; None where it fails, is not there, or does not end in time."""
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout
