"""Pulumi's own lock of a stack: who holds it and since when, before an `up` is begun."""

from __future__ import annotations

import json
import os
import re
import socket
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ruamel.yaml import YAML

from operations.refused import Refused


@dataclass(frozen=True)
class Lock:
    """A lock's file, as Pulumi writes it."""

    user: str
    host: str
    pid: int
    since: str

    @property
    def stale(self) -> bool:
        """Its process was on this host and is gone. Of another host nobody here can say."""
        return self.host == socket.gethostname() and not _has_run(self.pid, self.since)

    def told(self, stack: str) -> str:
        """One line: who holds it, and what to do."""
        held = f"stack {stack} is locked by {self.user}@{self.host} (pid {self.pid})"
        clear = f"clear it with `pulumi cancel --stack {stack}`"
        if self.stale:
            return f"{held} since {self.since}, a process that is gone: {clear}"
        return f"{held} since {self.since}: wait for its end; if it is gone there, {clear}"


def _has_run(pid: int, since: str) -> bool:
    """Whether the process runs and did then: a number is given again, after a reboot soon."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    if state in ("Z", "X"):  # proc_pid_stat(5): ended, not yet waited for
        return False
    (booted,) = re.findall(r"^btime (\d+)$", Path("/proc/stat").read_text(), re.MULTILINE)
    started = int(booted) + int(fields[18]) / os.sysconf("SC_CLK_TCK")
    try:
        return started <= datetime.fromisoformat(since).timestamp() + 2  # btime is whole seconds
    except ValueError:
        return True


def locks(stack: str, project: Path) -> list[Lock]:
    """The stack's locks. None is known of a backend that is no folder: there `up` says it."""
    words = YAML(typ="safe", pure=True).load((project / "Pulumi.yaml").read_text())
    url = os.environ.get("PULUMI_BACKEND_URL") or (words.get("backend") or {}).get("url", "")
    parts = urlsplit(str(url))
    if parts.scheme != "file":
        return []
    root = Path(unquote(parts.netloc + parts.path)).expanduser()
    folder = root / ".pulumi" / "locks" / "organization" / words["name"] / stack
    held = []
    for file in sorted(folder.glob("*.json")):
        try:
            said = json.loads(file.read_text())
            since = str(said["timestamp"])
            held.append(Lock(said["username"], said["hostname"], int(said["pid"]), since))
        except FileNotFoundError:
            continue  # released meanwhile
        except (OSError, ValueError, KeyError, TypeError):
            held.append(Lock("somebody", "a host not known", 0, f"a time not known ({file})"))
    return held


def refuse_if_locked(stack: str, project: Path) -> None:
    """
    Raises:
        Refused: it is locked: who, since when, and the way on.
    """
    for lock in locks(stack, project):
        raise Refused(f"{lock.told(stack)}; nothing was changed")
