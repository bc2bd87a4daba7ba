"""Files that are whole or not there, whatever ends the program that writes them."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from on_node.images.refused import Refused

_BLOCK = 1 << 20


def digest(path: Path) -> str:
    """The SHA-256 of a file's bytes."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


def settle(path: Path) -> None:
    """Have a file or a folder on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put(part: Path, path: Path) -> None:
    """A file that is complete takes its place; both are in one file system."""
    settle(part)
    part.replace(path)
    settle(path.parent)


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """A text in place, as a whole."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.chmod(mode)
    put(part, path)


def write_json(path: Path, value: Any, head: str = "") -> None:
    """A value as JSON, in place as a whole."""
    write(path, head + json.dumps(value, indent=2, sort_keys=True) + "\n")


def link(path: Path, target: str) -> None:
    """A symbolic link, in place of what was there."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    part.symlink_to(target)
    part.replace(path)
    settle(path.parent)


@contextmanager
def held(path: Path, what: str, seconds: float = 0) -> Iterator[int]:
    """Hold a lock, which the kernel takes back however its holders end.

    Args:
        path: the lock's file.
        what: what it is held for; who finds it taken is told.
        seconds: for which to wait for it.

    Yields:
        Its descriptor: what inherits it holds the lock, too.

    Raises:
        Refused: another one has it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        end = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    who = os.pread(descriptor, 300, 0).decode(errors="replace").strip()
                    raise Refused(
                        f"{who or 'another one'} is at it; wait for its end, or end it there"
                    ) from None
                time.sleep(0.1)
        since = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime())
        words = f"{what} (pid {os.getpid()} on {os.uname().nodename}, since {since})\n".encode()
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, words, 0)
        yield descriptor
    finally:
        os.close(descriptor)
