"""Who did what, when, and what happened to which daemon: ``.slurmstack/STACK/history.jsonl``.

Pulumi's own history of a stack has when, how it ended and the number of resources; not who, on its
own backends, and not what a node did. The program notes that at the end of each `up`, and so do the
verbs that ask slurmctld for something.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

#: Where CI runners and sudo say who it is; the first that is set counts.
_NAMED_BY = ("GITHUB_ACTOR", "GITLAB_USER_LOGIN", "SUDO_USER")


def folder(project: Path, stack: str) -> Path:
    """What is kept of a stack beside the program."""
    return project / ".slurmstack" / stack


def operator() -> str:
    """Who runs this: ``anna@admin01``."""
    named = (os.environ.get(name) for name in _NAMED_BY)
    try:
        user = next(filter(None, named), None) or getpass.getuser()
    except (KeyError, OSError):  # a number without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def now() -> str:
    """The time in UTC, as the nodes' answers have it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def note(place: Path, what: str, result: str, deeds: list[str]) -> None:
    """Add a line to the history.

    Args:
        place: the stack's folder.
        what: such as ``pulumi up`` or ``node drain cn01``.
        result: such as ``done``.
        deeds: what happened, by node.

    Raises:
        OSError: it cannot be written.
    """
    entry = {"time": now(), "by": operator(), "what": what, "result": result, "deeds": deeds}
    place.mkdir(parents=True, exist_ok=True)
    # One write of a line: those of others who write at the same time stay whole.
    with (place / "history.jsonl").open("ab") as file:
        file.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")


def entries(place: Path) -> Iterator[dict[str, Any]]:
    """The history, the first entry first. A line that a full disk cut is passed over."""
    try:
        lines = (place / "history.jsonl").read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:
            continue
