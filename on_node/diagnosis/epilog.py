"""What slurmd runs after each job: one line of figures, and of a failed one what is soon gone.

It asks no daemon, is done within seconds, and always ends well: a node whose epilog fails drains.
The environment is that of slurm.conf(5)'s Prolog and Epilog Scripts: none of it is the user's.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from on_node.diagnosis import gather, links, report
from on_node.diagnosis.rule import Line

CONFIGURATION = "/etc/slurmstack/diagnosis.json"
METRICS = "/var/log/slurm/job_metrics.log"
#: Bytes of the file of figures before it is put aside, and how many of them are kept.
_ROTATE, _KEPT = 8 << 20, 4
#: Seconds for all of it.
_SECONDS = 10
#: Of a job's output that is kept with the evidence.
_OUTPUT = 192 << 10


def main(environment: Mapping[str, str]) -> int:
    signal.alarm(_SECONDS)
    settings = json.loads(Path(CONFIGURATION).read_text(encoding="utf-8"))
    node = environment.get("SLURMD_NODENAME") or socket.gethostname().split(".")[0]
    met = links.met(_number(environment, "SLURM_JOB_ID") or 0)
    figures = metrics(environment, node, met)
    append(METRICS, json.dumps(figures, sort_keys=True))
    if figures["failed"]:
        lines = evidence(environment, node, settings["slurmdLog"])
        lines += [Line("node", text, node) for text in met.lines]
        files = {"evidence.json": report.evidence(figures["job"], node, lines)}
        report.keep(figures["job"], figures["uid"], files)
        report.prune(settings["keepDays"], settings["keepMegabytes"])
    return 0


def metrics(environment: Mapping[str, str], node: str, met: links.Met) -> dict[str, Any]:
    """The line of one job on one node."""
    code = _number(environment, "SLURM_JOB_EXIT_CODE")
    derived = _number(environment, "SLURM_JOB_DERIVED_EC")
    start, end = (_number(environment, f"SLURM_JOB_{it}_TIME") or 0 for it in ("START", "END"))
    now = int(time.time())
    # Before the end is known, slurmctld hands out when it is to be at the latest.
    ended = end if end and end <= now else now
    job_id = _number(environment, "SLURM_JOB_ID") or 0
    gpus = environment.get("SLURM_JOB_GPUS", "")
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "job": job_id,
        "array_job": _number(environment, "SLURM_ARRAY_JOB_ID"),
        "array_task": _number(environment, "SLURM_ARRAY_TASK_ID"),
        "user": environment.get("SLURM_JOB_USER", ""),
        "uid": _number(environment, "SLURM_JOB_UID", -1),
        "account": environment.get("SLURM_JOB_ACCOUNT", ""),
        "partition": environment.get("SLURM_JOB_PARTITION", ""),
        "node": node,
        "nodes": _number(environment, "SLURM_JOB_NUM_NODES"),
        "start": start or None,
        "seconds": max(0, ended - start) if start else None,
        # As wait(2) has them.
        "exit_code": None if code is None else code >> 8,
        "signal": None if code is None else code & 127,
        "failed": bool(code or derived),
        "restarts": _number(environment, "SLURM_JOB_RESTART_COUNT"),
        "gpus": len(gpus.split(",")) if gpus else 0,
        # Bytes over all links, also of other jobs that were here meanwhile.
        "received": met.received,
        "sent": met.sent,
        **_memory(job_id),
    }


def _memory(job_id: int) -> dict[str, int | None]:
    """Of the job's cgroup, where it is still there (cgroup v2)."""
    found: dict[str, int | None] = {"memory_peak": None, "oom_kills": None}
    for folder in Path("/sys/fs/cgroup").glob(f"system.slice/*slurmstepd.scope/job_{job_id}"):
        with suppress(OSError, ValueError):
            found["memory_peak"] = int((folder / "memory.peak").read_text())
        with suppress(OSError, ValueError):
            events = (folder / "memory.events").read_text()
            match = re.search(r"^oom_kill (\d+)", events, re.M)
            found["oom_kills"] = int(match[1]) if match else None
    return found


def evidence(environment: Mapping[str, str], node: str, slurmd_log: str) -> list[Line]:
    """What of this node will be gone, or be among other things, when somebody asks."""
    job_id = _number(environment, "SLURM_JOB_ID") or 0
    start = float(_number(environment, "SLURM_JOB_START_TIME") or time.time())
    now = time.time()
    uid, gid = (_number(environment, f"SLURM_JOB_{it}", -1) for it in ("UID", "GID"))
    folder = environment.get("SLURM_JOB_WORK_DIR", "/")
    lines: list[Line] = []
    for path in output_paths(environment):
        lines += gather.output(path, uid or 0, gid or 0, node, _OUTPUT)
    lines += gather.daemon("slurmd", slurmd_log, job_id, start, now, node)
    lines += gather.kernel(start, now, node)
    folders = [folder, "/tmp", "/dev/shm", "/"]
    return lines + gather.node_facts(folders, job_id, node, start, now)


def output_paths(environment: Mapping[str, str]) -> list[str]:
    """The files that it wrote, as far as their patterns are known here (sbatch(1))."""
    known = {
        "j": environment.get("SLURM_JOB_ID", ""),
        "A": environment.get("SLURM_ARRAY_JOB_ID") or environment.get("SLURM_JOB_ID", ""),
        "a": environment.get("SLURM_ARRAY_TASK_ID", ""),
        "u": environment.get("SLURM_JOB_USER", ""),
        "%": "%",
    }
    found = []
    for name in ("SLURM_JOB_STDOUT", "SLURM_JOB_STDERR"):
        path = environment.get(name, "")
        if not path or path == "/dev/null":
            continue
        path = re.sub(r"%\d*([jAau%])", lambda match: known[match[1]], path)
        if not path.startswith("/"):
            path = f"{environment.get('SLURM_JOB_WORK_DIR', '')}/{path}"
        found.append(path)
    return list(dict.fromkeys(found))


def append(path: str, line: str) -> None:
    """One line at the end of a file, which is put aside when it is too long."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o640)
    with os.fdopen(handle, "a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(line + "\n")
        file.flush()
        if os.fstat(handle).st_size < _ROTATE or not os.path.samestat(
            os.fstat(handle), Path(path).stat()
        ):
            return
        for number in range(_KEPT - 1, 0, -1):
            with suppress(FileNotFoundError):
                Path(f"{path}.{number}").replace(f"{path}.{number + 1}")
        Path(path).replace(f"{path}.1")


def _number(environment: Mapping[str, str], name: str, otherwise: int | None = None) -> int | None:
    try:
        return int(environment.get(name, ""))
    except ValueError:
        return otherwise


if __name__ == "__main__":
    sys.exit(main(os.environ))
