"""What `slurmstack diagnose` asks of hosts: JSON on stdout.

job JOBID LOG             on the controller: the job, slurmctld's lines, the nodes' reasons, and
                          other jobs that failed on its nodes
node JOB LOG              on a node of the job (JOB: as JSON): its evidence
keep JOBID UID FILES DAYS MEGABYTES
                          on the controller: a report (FILES: name → text, as JSON) is kept
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from on_node.diagnosis import gather, report
from on_node.diagnosis.job import Job, JobError, expanded, job
from on_node.diagnosis.rule import Line

_FAILED = "FAILED,NODE_FAIL,OUT_OF_MEMORY,BOOT_FAIL"
#: Seconds after a job's end within which a node's reason may still be about it.
_SOON = 120
#: Of the jobs that failed, the last ones.
_JOBS = 200
#: node_mgr.c and ping_nodes.c of slurmctld, 24.11.5: a line for all that do not answer.
_AWAY = re.compile(r"\bNodes? (\S+) not responding")


def main(words: Sequence[str]) -> int:
    verb, *rest = words
    try:
        if verb == "job":
            answer = of_job(job(rest[0]), rest[1])
        elif verb == "node":
            answer = of_node(Job.of(json.loads(rest[0])), rest[1])
        else:
            place = report.keep(int(rest[0]), int(rest[1]), json.loads(rest[2]))
            report.prune(float(rest[3]), float(rest[4]))
            answer = {"kept": str(place)}
    except JobError as error:
        answer = {"error": str(error)}
    json.dump(answer, sys.stdout)
    return 0


def of_job(found: Job, log: str) -> dict[str, Any]:
    """What the controller has of it."""
    node = socket.gethostname().split(".")[0]
    lines = found.lines()
    told_of = gather.daemon("slurmctld", log, found.id, found.start, found.end, node)
    # A node that comes and goes is in many of the lines, and each list is a call of scontrol.
    members = cache(expanded)
    lines += [line for line in told_of if not _of_other_nodes(line.text, found, members)]
    # The log names nodes that went down without the job.
    told = _said("scontrol", "-o", "show", "node", ",".join(found.nodes)) if found.nodes else ""
    lines += [Line("node", text, name) for name, text in reasons(told, found.start, found.end)]
    return {
        "job": found.as_dict(),
        "lines": [[it.source, it.text, it.node, it.place] for it in lines],
        "neighbours": _neighbours(found),
    }


def _of_other_nodes(text: str, found: Job, members: Callable[[str], tuple[str, ...]]) -> bool:
    """Whether slurmctld names nodes that are gone, and none of the job's while it had them."""
    away = _AWAY.search(text)
    if away is None:
        return False
    before = 0 < gather.stamp(text) < found.start
    return before or not set(members(away[1])) & set(found.nodes)


def of_node(found: Job, log: str) -> dict[str, Any]:
    """What a node has of it: what lies there now, and what its epilog kept."""
    node = socket.gethostname().split(".")[0]
    lines: list[Line] = []
    for path in found.outputs:
        lines += gather.output(path, found.uid, found.gid, node)
    lines += gather.daemon("slurmd", log, found.id, found.start, found.end, node)
    lines += gather.kernel(found.start, found.end, node)
    folders = [found.work_dir, "/tmp", "/dev/shm", "/"]
    lines += gather.node_facts(folders, found.id, node, found.start, found.end)
    with suppress(OSError, ValueError, KeyError):
        path_ = Path(report.FOLDER) / str(found.id) / "evidence.json"
        known = {(line.source, line.text) for line in lines}
        kept = [
            line
            for line in report.evidence_of(path_.read_text())
            if (line.source, line.text) not in known
        ]
        lines += kept
    return json.loads(report.evidence(found.id, node, lines, 4 << 20))  # type: ignore[no-any-return]


def reasons(shown: str, start: float, end: float) -> list[tuple[str, str]]:
    """Node → its reason, of those that were given while the job was there or soon after.

    Args:
        shown: what `scontrol --oneliner show node` said.
        start: when the job began, seconds since 1970; 0 where it did not.
        end: when it ended; 0 where it has not.
    """
    found = []
    for line in shown.splitlines():
        name = re.match(r"NodeName=(\S+)", line)
        reason = re.search(r" Reason=(.*?)(?: \[[^\]@]*@(\S+)\])?(?: Comment=| Extra=|\s*$)", line)
        if not name or not reason:
            continue
        # A prolog that failed after its end was another job's; a health check needs a moment.
        late = 0 if reason[1].startswith("Prolog") else _SOON
        at = datetime.fromisoformat(reason[2]).timestamp() if reason[2] else end
        if not (start and at < start - 1) and not (end and at > end + late):
            found.append((name[1], f"Reason={reason[1]}"))
    return found


def _neighbours(found: Job) -> dict[str, list[int]]:
    """Node → other jobs that failed there in the day before this one ended."""
    end = found.end or datetime.now().timestamp()
    since, until = (
        datetime.fromtimestamp(at).strftime("%Y-%m-%dT%H:%M:%S") for at in (end - 86400, end)
    )
    words = ["sacct", "-n", "-X", "-P", "-a", "-s", _FAILED, "-S", since, "-E", until]
    if not found.nodes:
        return {}
    told = _said(*words, "-N", ",".join(found.nodes), "-o", "JobIDRaw,NodeList")
    jobs = [row.partition("|") for row in told.splitlines()[-_JOBS:]]
    nodes = {names: set(expanded(names)) for names in {names for _, _, names in jobs}}
    neighbours: dict[str, list[int]] = {}
    for number, _, names in jobs:
        if number.isdigit() and int(number) != found.id:
            for node in nodes[names] & set(found.nodes):
                neighbours.setdefault(node, []).append(int(number))
    return neighbours


def _said(*words: str) -> str:
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, errors="replace", timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
