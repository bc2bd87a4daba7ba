"""Starting and ending a process that leads a session of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from pathlib import Path
from signal import SIGKILL, Signals


async def start(*argv: str, cwd: str | Path, env: Mapping[str, str]) -> Process:
    """With pipes; the terminal's Ctrl-C is for the engine, not for it."""
    return await asyncio.create_subprocess_exec(
        *argv, cwd=cwd, env=env, stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True
    )


async def end(process: Process, polite: Signals, grace: float = 5) -> None:
    """Send the signal to the session, and after ``grace`` seconds SIGKILL to what is left of it.
    When this returns nothing of the process is left to the event loop, either."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if process.returncode is None:
            os.killpg(process.pid, polite)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), grace)
        os.killpg(process.pid, SIGKILL)
    await process.wait()
    process._transport.close()  # type: ignore[attr-defined]  # or it outlives the loop
