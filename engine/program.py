"""Runs the program in a process of its own, as Pulumi's Python language host does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from engine.api import Project, Request
from engine.errors import EngineError
from engine.processes import end, start

SHOWN = 32
"""The exit code of a program that has reported its error itself (pulumi-language-python-exec)."""


class Program:
    """``on_line(text, is_stderr)`` gets each line of output, its newline included."""

    def __init__(self, on_line: Callable[[str, bool], None]) -> None:
        self._on_line = on_line
        self._process: asyncio.subprocess.Process | None = None
        self._pumps: list[asyncio.Task[None]] = []

    async def start(self, request: Request, engine: str) -> None:
        """``engine`` is the address of the monitor. Raises EngineError when the program or its
        interpreter is not there."""
        project = request.project
        main = (project.root / project.main).resolve()
        folder, entry = (main, ".") if main.is_dir() else (main.parent, main.name)
        if not main.exists() or (main.is_dir() and not (main / "__main__.py").exists()):
            raise EngineError(f"{main} has no Python program: expected __main__.py")
        arguments = {
            "project": project.name, "root_directory": str(project.root), "pwd": str(folder),
            "monitor": engine, "engine": engine, "stack": request.stack,
            "dry_run": str(request.dry_run).lower(), "parallel": str(request.parallel),
            "organization": request.organization, "debug": str(request.debug).lower(),
        }  # fmt: skip
        command = [_interpreter(project), str(Path(__file__).with_name("language_exec.py"))]
        for name, value in arguments.items():
            command += [f"--{name}", value]
        environment = dict(os.environ)
        if project.virtualenv:
            venv = (project.root / project.virtualenv).resolve()
            environment["VIRTUAL_ENV"] = str(venv)
            environment["PATH"] = f"{venv / 'bin'}{os.pathsep}{environment.get('PATH', '')}"
            environment.pop("PYTHONHOME", None)
        self._process = await start(*command, entry, cwd=folder, env=environment)
        streams = ((self._process.stdout, False), (self._process.stderr, True))
        self._pumps = [asyncio.create_task(self._pump(s, e)) for s, e in streams if s]
        # Secrets are among it: Pulumi's own host puts it into the environment, where all that the
        # program starts has it, too, and /proc shows it.
        assert self._process.stdin
        given = {"config": dict(request.config), "secretKeys": sorted(request.secret_keys)}
        with contextlib.suppress(ConnectionError):  # it has ended; wait() says how
            self._process.stdin.write(json.dumps(given).encode())
            await self._process.stdin.drain()
        self._process.stdin.close()

    async def _pump(self, stream: asyncio.StreamReader, is_stderr: bool) -> None:
        rest = b""
        while data := await stream.read(65536):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._on_line(line.decode("utf-8", "replace") + "\n", is_stderr)
        if rest:
            self._on_line(rest.decode("utf-8", "replace"), is_stderr)

    async def wait(self) -> int:
        """The exit code, after all output has been passed on; negative for a signal."""
        assert self._process
        code = await self._process.wait()
        await asyncio.wait(self._pumps, timeout=5)  # a child of the program may hold the pipe
        return code

    async def stop(self) -> None:
        """End it, and all that it started."""
        self._on_line = lambda text, is_stderr: None
        if self._process is not None:
            await end(self._process, signal.SIGINT)
            for pump in self._pumps:
                pump.cancel()


def _interpreter(project: Project) -> str:
    if not project.virtualenv:
        return sys.executable
    python = (project.root / project.virtualenv).resolve() / "bin" / "python"
    if not python.exists():
        raise EngineError(
            f'The "virtualenv" option in Pulumi.yaml is set to {project.virtualenv!r}, but '
            f"{python} does not exist; make the virtual environment and install the requirements"
        )
    return str(python)
