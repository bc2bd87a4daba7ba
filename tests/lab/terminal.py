"""A terminal of 100 columns and 30 lines, and what its last screen shows after a command."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path

COLUMNS, LINES = 100, 30
#: Colours, cursor moves, titles.
_ESCAPE = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07|[=>])")


def last_screen(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], timeout: float = 2400
) -> tuple[int, str, str]:
    """Exit code, what the last screen shows, and all that was printed.

    What a command prints last must not move the cursor: the screen is told from its lines.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**environment, "TERM": "xterm-256color"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    printed = b""
    try:
        # A terminal whose other side is closed gives an error, not an end.
        while data := _read(ours):
            printed += data
        code = process.wait(timeout)
    finally:
        process.kill()
        os.close(ours)
    text = _ESCAPE.sub("", printed.decode(errors="replace")).replace("\r\n", "\n")
    rows = []
    for line in text.splitlines():
        shown = line.rpartition("\r")[2]
        rows += [shown[at : at + COLUMNS] for at in range(0, max(len(shown), 1), COLUMNS)]
    # A line for the shell's prompt.
    return code, "\n".join(rows[-(LINES - 1) :]), text


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""
