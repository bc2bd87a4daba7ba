"""Running the system's tools, with an end to every wait and errors that say what ran."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from lab.errors import LabError

# root's PATH lacks the sbin folders in some shells (su without a dash).
SEARCH = os.pathsep.join(
    dict.fromkeys([*os.environ.get("PATH", "").split(os.pathsep), "/usr/sbin", "/sbin"])
)

Argument = str | os.PathLike[str]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment with the sbin folders on PATH and messages in English."""
    return {**os.environ, "PATH": SEARCH, "LC_ALL": "C.UTF-8", **(extra or {})}


def run(
    command: Sequence[Argument],
    *,
    timeout: float = 60,
    check: bool = True,
    text: str | None = None,
    log: Path | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return it with its output.

    `timeout` is in seconds. `log` takes the output instead of the answer, for what is long.
    Raises `LabError` with the command and the last lines it printed when it fails or is late.
    """
    words = [os.fspath(word) for word in command]
    shown = shlex.join(words)
    try:
        if log is None:
            done = subprocess.run(
                words,
                timeout=timeout,
                input=text,
                stdin=subprocess.DEVNULL if text is None else None,
                capture_output=True,
                text=True,
                errors="replace",
                env=environment(env),
                cwd=cwd,
                check=False,
            )
        else:
            with log.open("a") as sink:
                done = subprocess.run(
                    words,
                    timeout=timeout,
                    stdin=subprocess.DEVNULL,
                    stdout=sink,
                    stderr=subprocess.STDOUT,
                    text=True,
                    env=environment(env),
                    cwd=cwd,
                    check=False,
                )
    except FileNotFoundError as error:
        raise LabError(f"{words[0]} is not installed: run `make lab` as root, or apt") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"`{shown}` did not end within {timeout:.0f} s; {_see(log, '')}") from error
    if check and done.returncode != 0:
        output = "" if log is not None else (done.stderr or done.stdout)
        raise LabError(f"`{shown}` failed with exit code {done.returncode}: {_see(log, output)}")
    return done


def start(command: Sequence[str], log: Path) -> None:
    """Start what outlives this process, its output at the end of `log`."""
    with log.open("a") as sink:
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=environment(),
            cwd="/",
        )


def _see(log: Path | None, output: str) -> str:
    if log is not None:
        output = log.read_text(errors="replace")
    tail = " | ".join(line.strip() for line in output.strip().splitlines()[-5:] if line.strip())
    where = f" (all of it: {log})" if log is not None else ""
    return f"{tail or 'it printed nothing'}{where}"


def wait_for(
    condition: Callable[[], bool], *, seconds: float, what: str, every: float = 0.1
) -> None:
    """Return as soon as the condition holds; `LabError` naming `what` after so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise LabError(f"{what} within {seconds:.0f} s")
        time.sleep(every)


def processes() -> Iterator[tuple[int, list[str]]]:
    """Every process's number and arguments, as /proc has them now."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            raw = (entry / "cmdline").read_bytes()
        except OSError:
            continue  # it ended meanwhile
        if raw:
            yield int(entry.name), raw.decode(errors="replace").rstrip("\0").split("\0")


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in {"Z", "X"}


def booted_with_systemd() -> bool:
    """Whether systemd is this machine's init (sd_booted(3))."""
    return Path("/run/systemd/system").is_dir()


def allow_watchers(wanted: int) -> int | None:
    """Let root's programs together have this many inotify(7) instances, until the next restart of
    this machine; how many it was before, or None where it was enough.

    A systemd machine needs six, and ends without a word where there is none left: with the
    kernel's 128 the twentieth does.
    """
    limit = Path("/proc/sys/fs/inotify/max_user_instances")
    before = int(limit.read_text())
    if before >= wanted:
        return None
    limit.write_text(f"{wanted}\n")
    return before
