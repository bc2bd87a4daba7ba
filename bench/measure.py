"""One command measured as a whole: wall time, the memory of all its processes together, and what it
asked of nodes that count."""

from __future__ import annotations

import resource
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

#: Seconds between two looks at the memory.
_INTERVAL = 0.25


@dataclass(frozen=True)
class Measured:
    """Seconds, MiB of the process tree at its peak (proportional set size), seconds of processors
    here, and where the nodes count them, SSH commands: in all, on the controller, and the most on
    another host."""

    seconds: float
    peak_mib: float
    output: str
    commands: int | None = None
    on_controller: int | None = None
    on_a_node: int | None = None
    cpu: float = 0.0


def measure(
    command: Sequence[str], cwd: Path, environment: Mapping[str, str], ends: tuple[int, ...] = (0,)
) -> Measured:
    """Run a command to its end. `ends`: its good exit codes.

    Raises:
        RuntimeError: it failed; the message holds what it printed.
    """
    began, used = time.monotonic(), _processors()
    with subprocess.Popen(
        command,
        cwd=cwd,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        peak, done = [0.0], threading.Event()

        def watch() -> None:
            while not done.wait(_INTERVAL):
                peak[0] = max(peak[0], _tree_mib(process.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        output, _ = process.communicate()
        seconds = time.monotonic() - began
        done.set()
        watcher.join()
    if process.returncode not in ends:
        raise RuntimeError(f"{' '.join(command)} failed:\n{output}")
    return Measured(seconds, peak[0], output, cpu=_processors() - used)


def _processors() -> float:
    """Seconds of the processors that all processes took that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _tree_mib(root: int) -> float:
    parents: dict[int, int] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
            parents[int(status.parent.name)] = int(fields[1])
        except OSError:
            continue
    tree = {root}
    while grown := {child for child, parent in parents.items() if parent in tree} - tree:
        tree |= grown
    total = 0
    for process in tree:
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024
