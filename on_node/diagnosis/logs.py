"""Log files that somebody has, from wherever: one file may hold lines of several sources."""

from __future__ import annotations

import re
from pathlib import Path

from on_node.diagnosis.gather import HEAD, TAIL
from on_node.diagnosis.redact import redacted
from on_node.diagnosis.rule import Line

_KERNEL = re.compile(
    r"NVRM:|\bkernel: |oom-kill:constraint|Killed process \d+ \(|^\[ *\d+\.\d+\] |"
    r"mlx5_core \d|EDAC |\bmce: |soft lockup"
)
_DAEMON = re.compile(r"^\[\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.\d]*\] ")
#: A row of `sacct` that somebody pasted.
_SACCT = re.compile(
    r"\b(FAILED|TIMEOUT|NODE_FAIL|OUT_OF_ME\w*\+?|PREEMPTED|BOOT_FAIL|CANCELLED(?: by \d+)?)\+?"
    r"[\s|]+(\d+:\d+)\b"
)


def read(path: Path) -> list[Line]:
    """A file's lines, its beginning and its end where it is long.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        parts = [file.read(HEAD + TAIL)]
        rest = file.read(64 << 20)
        while len(rest) > 0:
            parts = [parts[0][:HEAD], (parts[-1] + rest)[-TAIL:]]
            rest = file.read(64 << 20)
    text = "\n".join(part.decode(errors="replace") for part in parts)
    return of_text(text)


def of_text(text: str) -> list[Line]:
    """Each line as evidence of what it looks like."""
    lines: list[Line] = []
    for place, raw in enumerate(text.replace("\r", "\n").split("\n")):
        line = redacted(raw[:2000])
        row = _SACCT.search(line)
        if _KERNEL.search(line):
            lines.append(Line("kernel", line, "", place))
        elif _DAEMON.match(line):
            lines += [Line(source, line, "", place) for source in ("slurmctld", "slurmd")]
        elif row:
            lines.append(Line("sacct", f"State={row[1]} ExitCode={row[2]}", "", place))
        lines.append(Line("output", line, "", place))
    return lines
