"""A diagnosis for people (a page of text) and for programs (JSON), and where it is kept."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import textwrap
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from on_node.diagnosis.job import Job
from on_node.diagnosis.judge import Diagnosis, Finding, confidence
from on_node.diagnosis.rule import Line

FOLDER = "/var/log/slurm/debug"
#: Of the JSON's shape.
VERSION = 1
#: Findings that the page shows besides the cause.
_MORE = 6
_WIDTH = 96


def as_dict(
    job: Job | Sequence[str],
    found: Diagnosis,
    asked: Sequence[str] = (),
    missing: Mapping[str, str] | None = None,
    neighbours: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, Any]:
    """All of it.

    Args:
        job: whose; or the names of log files, where no job is known.
        found: what the evidence says.
        asked: the nodes that evidence is from.
        missing: node → why there is none from it.
        neighbours: node → other jobs that failed there in the day before this one ended.
    """
    failed = job.failed if isinstance(job, Job) else True
    return {
        "version": VERSION,
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "job": job.as_dict() if isinstance(job, Job) else None,
        "logs": [] if isinstance(job, Job) else list(job),
        "failed": failed,
        "cause": found.cause.rule.id if found.cause and failed else None,
        "findings": [_of_finding(it, found.findings) for it in found.findings],
        "first": {
            "rank": found.culprit.rank,
            "node": found.culprit.node,
            "how": found.culprit.how,
        },
        "asked": list(asked),
        "missing": dict(missing or {}),
        "neighbours": {node: list(jobs) for node, jobs in (neighbours or {}).items() if jobs},
    }


def _of_finding(finding: Finding, findings: Sequence[Finding]) -> dict[str, Any]:
    rule = finding.rule
    return {
        "rule": rule.id,
        "says": rule.says,
        "level": rule.level,
        "confidence": confidence(finding, findings),
        "owner": rule.owner,
        "remedy": rule.remedy,
        "documented": rule.source,
        "follows": finding.follows,
        "count": finding.count,
        "evidence": [
            {"source": it.source, "node": it.node, "line": it.text} for it in finding.lines
        ],
    }


def page(told: Mapping[str, Any]) -> str:
    """The same as text, of `as_dict`."""
    job, findings = told["job"], told["findings"]
    if job is None:
        lines, outputs = [", ".join(told["logs"]), ""], told["logs"]
    else:
        nodes, outputs = ",".join(job["nodes"]) or "no node", job["outputs"]
        lines = [
            f"Job {job['id']} ({job['name']}) of {job['user']}: {job['state']}, "
            f"exit {job['exit_code']}",
            f"  {_when(job['start'])} to {_when(job['end'])} on {nodes}",
            "",
        ]
    if not told["failed"]:
        lines += ["It did not fail.", ""]
    elif not findings:
        lines += [
            "Cause: not known: no rule knows these lines.",
            *_wrapped("see", "the last lines of " + (" and ".join(outputs) or "its output")),
            "",
        ]
    else:
        lines += [*_cause(findings[0]), ""]
        first = told["first"]
        if first["rank"] is not None or first["node"]:
            rank = "" if first["rank"] is None else f"rank {first['rank']} "
            node = f"on {first['node']} " if first["node"] else ""
            lines += [f"First to fail: {rank}{node}({first['how']})", ""]
        if findings[1:]:
            lines += ["Also found:", *map(_also, findings[1 : 1 + _MORE]), ""]
    for node, jobs in told["neighbours"].items():
        some = " ".join(map(str, jobs[:8]))
        lines.append(f"{node}: {len(jobs)} other jobs failed there in the day before: {some}")
    for node, why in told["missing"].items():
        lines.append(f"{node}: no evidence from it: {why}")
    return "\n".join(lines).rstrip() + "\n"


def _cause(finding: Mapping[str, Any]) -> list[str]:
    sure = round(finding["confidence"] * 100)
    lines = [f"Cause: {finding['says']}  [{finding['rule']}, {sure} %]"]
    lines += [f"  {_evidence(it)}" for it in finding["evidence"]]
    lines += _wrapped("to do", finding["remedy"])
    lines += [f"  for {finding['owner']}; documented: {finding['documented']}"]
    return lines


def _evidence(line: Mapping[str, Any]) -> str:
    place = " ".join(it for it in (line["source"], line["node"]) if it)
    return f"{place}: {line['line'].strip()[:300]}"


def _also(finding: Mapping[str, Any]) -> str:
    follows = f", follows from {finding['follows']}" if finding["follows"] else ""
    times = f", {finding['count']} lines" if finding["count"] > 1 else ""
    return f"  {finding['says']}  [{finding['rule']}{follows}{times}]"


def _wrapped(word: str, text: str) -> list[str]:
    return textwrap.wrap(f"{word}: {text}", _WIDTH, initial_indent="  ", subsequent_indent="    ")


def _when(at: float) -> str:
    return datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S") if at else "(not yet)"


def evidence_of(text: str) -> list[Line]:
    """Lines as `evidence` wrote them."""
    return [Line(*it) for it in json.loads(text)["lines"]]


def evidence(job_id: int, node: str, lines: Sequence[Line], limit: int = 1 << 20) -> str:
    """Lines as JSON, the last ones where they are more than `limit` bytes."""
    kept: list[list[Any]] = []
    size = 0
    for line in reversed(lines):
        size += len(line.text.encode()) + 80
        if size > limit:
            break
        kept.append([line.source, line.text, line.node, line.place])
    return json.dumps({"version": VERSION, "job": job_id, "node": node, "lines": kept[::-1]}) + "\n"


def keep(job_id: int, uid: int, files: Mapping[str, str], folder: str = FOLDER) -> Path:
    """Write files of a job, for its user and root to read.

    The folders are root's, so that no user can put a link where root writes.
    """
    place = Path(folder) / str(job_id)
    for one in (place.parent, place):
        one.mkdir(mode=0o711, exist_ok=True)
        one.chmod(0o711)
    for name, text in files.items():
        handle, temporary = tempfile.mkstemp(dir=place, prefix=".")
        with os.fdopen(handle, "w") as file:
            file.write(text)
            os.fchmod(handle, 0o400)
            if uid >= 0:
                os.fchown(handle, uid, -1)
        Path(temporary).replace(place / name)
    return place


def prune(days: float, megabytes: float, folder: str = FOLDER) -> None:
    """Remove what is older, and the oldest of what is too much."""
    kept = []
    with suppress(OSError):
        for place in Path(folder).iterdir():
            with suppress(OSError):
                if not place.name.isdigit() or place.is_symlink():
                    continue
                size = sum(file.lstat().st_size for file in place.iterdir())
                kept.append((place.stat().st_mtime, size, place))
    total, oldest = 0.0, time.time() - days * 86400
    for changed, size, place in sorted(kept, reverse=True):
        total += max(size, 4096)
        if changed < oldest or total > megabytes * (1 << 20):
            shutil.rmtree(place, ignore_errors=True)
