"""`python -m engine.choose`: choose the Pulumi engine and put it at .venv/bin/pulumi.

In which order, and what PULUMI_ENGINE forces, docs/pulumi.md says. One line on standard output says
which engine stands there and why. Exit code 1 when `cli` is forced, or a release named, and not to
be had.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version as installed
from pathlib import Path

from engine.release import ReleaseError
from engine.release import install as install_release

SETTINGS = Path(__file__).parents[1] / "engine.toml"
INSTALL_SECONDS = 60
MARK = "slurmstack embedded engine"
HOST = "pulumi-language-python"
_RUN = (
    "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); "
    "runpy.run_module('engine', run_name='__main__', alter_sys=True)"
)
"""The engine's folder is not published: its launcher says where it lies."""
_INSTALL = "import sys, pulumi.automation as a; a.PulumiCommand.install(root=sys.argv[1])"


@dataclass(frozen=True)
class Found:
    path: Path
    version: str


def _numbers(version: str) -> tuple[int, ...]:
    core = version.strip().removeprefix("v").split("-")[0].split("+")[0]
    return tuple(int(part) for part in core.split("."))


def usable(candidate: Path, wanted: str) -> Found | None:
    """The command if it is Pulumi's own, new enough, and has its Python host."""
    if not os.access(candidate, os.X_OK) or candidate.is_dir():
        return None
    with candidate.open("rb") as file:
        if MARK.encode() in file.read(512):
            return None
    environment = os.environ | {"PULUMI_SKIP_UPDATE_CHECK": "true"}
    try:
        done = subprocess.run(
            [candidate, "version"], capture_output=True, text=True, timeout=20, check=True,
            env=environment, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        found, least = _numbers(done.stdout), _numbers(wanted)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    if found < least or found[0] != least[0]:
        return None
    folders = [candidate.resolve().parent, *_path()]
    if not any(os.access(folder / HOST, os.X_OK) for folder in folders):
        return None
    return Found(candidate.resolve(), done.stdout.strip().removeprefix("v"))


def _path() -> list[Path]:
    return [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]


def on_path(own: Path, wanted: str) -> Found | None:
    """The first usable command on PATH; last, the one that ``own`` already points to
    outside .venv."""
    candidates = [folder / "pulumi" for folder in _path() if folder / "pulumi" != own]
    if own.is_symlink() and own.parent.parent not in own.resolve().parents:
        candidates.append(own.resolve())
    return next(filter(None, (usable(c, wanted) for c in candidates if c.is_file())), None)


def install(folder: Path, seconds: float = INSTALL_SECONDS, program: str = _INSTALL) -> str:
    """Run the SDK's installer; returns "" or why it failed. Bounded as a whole: the installer and
    what it started are killed when the time is up."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", program, str(folder)], stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return f"its installer did not finish within {seconds:.0f} s"
    if process.returncode == 0:
        return ""
    last = (output.strip().splitlines() or ["no output"])[-1]
    return f"its installer failed: {last[:200]}"


def put(own: Path, target: Path | None) -> None:
    """Make ``own`` a link to the command, or with None a launcher of the embedded engine."""
    command = shlex.join([sys.executable, "-P", "-c", _RUN, str(Path(__file__).parents[1])])
    launcher = f'#!/bin/sh\n# {MARK}\nexec {command} "$@"\n'
    if target is None and not own.is_symlink() and own.exists() and own.read_text() == launcher:
        return
    if target is not None and own.is_symlink() and own.readlink() == target:
        return
    fresh = own.with_name(f".pulumi.{os.getpid()}")
    if target is None:
        fresh.write_text(launcher)
        fresh.chmod(0o755)
    else:
        fresh.symlink_to(target)
    fresh.replace(own)


def choose(venv: Path, wish: str, wanted: str, seconds: float = INSTALL_SECONDS) -> tuple[str, int]:
    """Choose and put it in place; returns the line that says so and the exit code."""
    own, memory = venv / "bin" / "pulumi", venv / "engine.json"
    if wish not in ("", "cli", "embedded"):
        return f"PULUMI_ENGINE is {wish!r}: it can be cli or embedded", 1
    if wish == "embedded":
        put(own, None)
        return f"engine: the embedded one (PULUMI_ENGINE=embedded), at {own}", 0
    found, where = on_path(own, wanted), "on PATH"
    failure = ""
    if SETTINGS.exists():
        where = f"the site's release, {SETTINGS.name}"
        try:
            found = usable(install_release(SETTINGS, venv), wanted)
        except ReleaseError as error:
            return f"{error}; PULUMI_ENGINE=embedded does without", 1
        if not found:
            return f"{SETTINGS}: not Pulumi {wanted} or newer with its Python host", 1
    elif not found:
        folder = venv / f"pulumi-{wanted}"
        found, where = usable(folder / "bin" / "pulumi", wanted) if folder.exists() else None, (
            "fetched by the SDK's installer"
        )  # fmt: skip
        if not found:
            failure = _remembered(memory, wanted) if wish != "cli" else ""
            if not failure:
                failure = install(folder, seconds)
                found = None if failure else usable(folder / "bin" / "pulumi", wanted)
                if not found and not failure:
                    failure = "its installer left no usable command"
    if found:
        memory.unlink(missing_ok=True)
        put(own, found.path)
        return f"engine: Pulumi {found.version} ({where}: {found.path}), at {own}", 0
    memory.write_text(json.dumps({"version": wanted, "failure": failure}))
    if wish == "cli":
        return f"PULUMI_ENGINE=cli, but no Pulumi {wanted} or newer on PATH, and {failure}", 1
    put(own, None)
    why = f"no Pulumi {wanted} or newer on PATH; {failure}"
    return f"engine: the embedded one ({why}), at {own}", 0


def _remembered(memory: Path, wanted: str) -> str:
    try:
        document = json.loads(memory.read_text())
        return str(document["failure"]) if document["version"] == wanted else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def main() -> int:
    line, code = choose(Path(sys.prefix), os.environ.get("PULUMI_ENGINE", ""), installed("pulumi"))
    print(line if not code else f"error: {line}", file=sys.stderr if code else sys.stdout)
    return code


if __name__ == "__main__":
    sys.exit(main())
