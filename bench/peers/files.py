"""The folder in which the files and scripts of the work lie for a tool that sends them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from remote.bundle import File


def place(folder: Path, content: str | bytes) -> str:
    """The path of a file with this content; root's alone, since it may be a secret."""
    data = content.encode() if isinstance(content, str) else content
    files = folder / "files"
    files.mkdir(mode=0o700, exist_ok=True)
    path = files / hashlib.sha256(data).hexdigest()
    path.touch(mode=0o600)
    path.write_bytes(data)
    return str(path)


def script(folder: Path, text: str) -> str:
    """The same of a script's text, which gets the shell that the applier gives it."""
    return place(folder, f"#!/bin/sh\nexport SLURMSTACK_FACTS=/dev/null\n{text}\n")


def is_secret(file: File) -> bool:
    """Whether others must not read it, so that no output may show it."""
    return file.mode[-1] in "0123"
