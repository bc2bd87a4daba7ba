"""``/opt/slurm/bin/diagnose_training_failure.py JOBID``: a user asks for a job of their own.

It has what that user may read: the job's output, what Slurm says of it, and what the epilog kept
of it on this node. Root, and `slurmstack diagnose`, have all of it from all nodes.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from on_node.diagnosis import gather, logs, report
from on_node.diagnosis.job import Job, JobError, job
from on_node.diagnosis.judge import judge
from on_node.diagnosis.rule import Line


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="diagnose_training_failure.py", description="Why a job of yours failed."
    )
    parser.add_argument("job", nargs="?", help="its number, such as 12 or 12_3")
    parser.add_argument(
        "--log", action="append", default=[], metavar="FILE", help="judge log files instead"
    )
    parser.add_argument("--json", action="store_true", help="all of it, for programs")
    parser.add_argument("--slurmd-log", default="/var/log/slurm/slurmd.log", help=argparse.SUPPRESS)
    asked = parser.parse_args(words)
    if (asked.job is None) == (not asked.log):
        parser.error("a job's number, or --log FILE")
    if asked.log:
        return _of_logs(asked.log, asked.json)
    try:
        found = job(asked.job)
        if os.getuid() not in (0, found.uid):
            raise JobError(
                f"job {asked.job} is {found.user}'s; it is diagnosed for {found.user} and for "
                "operators (slurmstack diagnose)"
            )
    except JobError as error:
        print(f"diagnose_training_failure.py: {error}", file=sys.stderr)
        return 1
    told = diagnose(found, asked.slurmd_log)
    _print(told, asked.json)
    return 0


def _print(told: dict[str, Any], as_json: bool) -> None:
    print(json.dumps(told, indent=2) + "\n" if as_json else report.page(told), end="")


def _of_logs(names: Sequence[str], as_json: bool) -> int:
    try:
        told = of_logs(names)
    except OSError as error:
        print(f"diagnose_training_failure.py: {error}", file=sys.stderr)
        return 1
    _print(told, as_json)
    return 0


def of_logs(names: Sequence[str]) -> dict[str, Any]:
    """What log files say, of whatever job.

    Raises:
        OSError: one cannot be read.
    """
    lines = [line for name in names for line in logs.read(Path(name))]
    return report.as_dict(names, judge(lines))


def diagnose(found: Job, slurmd_log: str) -> dict[str, Any]:
    """What is to be had here."""
    node = socket.gethostname().split(".")[0]
    lines = [*found.lines(), *_kept(found)]
    have = {line.source for line in lines}
    for path in found.outputs:
        # The file itself is whole; the epilog kept the end of it.
        fresh = gather.output(path, found.uid, found.gid, node)
        if fresh and "output" in have:
            lines = [line for line in lines if line.source != "output"]
            have.discard("output")
        lines += fresh
    if os.getuid() == 0 and node in found.nodes:
        lines = [line for line in lines if line.source not in ("slurmd", "kernel", "node")]
        lines += gather.daemon("slurmd", slurmd_log, found.id, found.start, found.end, node)
        lines += gather.kernel(found.start, found.end, node)
        folders = [found.work_dir, "/tmp", "/dev/shm", "/"]
        lines += gather.node_facts(folders, found.id, node, found.start, found.end)
    seen = {line.node for line in lines if line.node}
    missing = {
        it: "ask on that node, or an operator (slurmstack diagnose)"
        for it in found.nodes
        if it not in seen
    }
    return report.as_dict(found, judge(lines), sorted(seen), missing)


def _kept(found: Job) -> list[Line]:
    """What the epilog kept on this node."""
    with suppress(OSError, ValueError, KeyError):
        path = Path(report.FOLDER) / str(found.id) / "evidence.json"
        return report.evidence_of(path.read_text())
    return []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
