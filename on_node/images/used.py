"""Who uses an image: programs that have it open on this host, and jobs that name it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from on_node.images.refused import Refused


def by_programs(root: Path, names: Iterable[str]) -> dict[str, list[str]]:
    """Files of the registry that this host's programs have open, mounted, or were given.

    Args:
        root: the registry's folder.
        names: of files in it.

    Returns:
        Name → words for each program.
    """
    paths = {str(root / name): name for name in names}
    found: dict[str, set[str]] = {}
    own = {str(os.getpid()), str(os.getppid())}
    for process in Path("/proc").glob("[0-9]*"):
        if process.name in own:
            continue
        for path in {*_open(process), *_words(process)} & paths.keys():
            found.setdefault(paths[path], set()).add(f"process {process.name}")
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            path = backing.read_text().strip()
        except OSError:
            continue
        if path in paths:
            found.setdefault(paths[path], set()).add(f"the mount {backing.parts[3]}")
    return {name: sorted(words) for name, words in found.items()}


def by_jobs(names: Iterable[str]) -> dict[str, list[str]]:
    """Files that running and waiting jobs name: in their batch scripts, their submit lines, in what
    scontrol says of them; by path, or as Pyxis is told (NAME:VERSION).

    Raises:
        Refused: Slurm cannot be asked.
    """
    wanted = {name: re.compile(rf"(?<![\w+.-])({_words_for(name)})(?![\w+-])") for name in names}
    found: dict[str, list[str]] = {}
    for job, text in _jobs():
        for name, pattern in wanted.items():
            if pattern.search(text):
                found.setdefault(name, []).append(f"job {job}")
    return found


def _words_for(name: str) -> str:
    image, plus, version = name.removesuffix(".sqsh").partition("+")
    # Another registry's image may end in the same words: that it is taken for ours does no harm.
    short = [f"{image}:{version}"] if plus else []
    return "|".join(map(re.escape, [name, *short]))


def _jobs() -> Iterator[tuple[str, str]]:
    listed = _asked("squeue", "-h", "-a", "-o", "%A")
    jobs = sorted({*listed.split()}, key=int)
    if not jobs:
        return
    lines: dict[str, str] = {}
    told = _asked("sacct", "-n", "-P", "-j", ",".join(jobs), "-o", "JobIDRaw,SubmitLine", may=True)
    for line in told.splitlines():
        job, _, words = line.partition("|")
        lines[job.split(".")[0]] = lines.get(job.split(".")[0], "") + words + "\n"
    for job in jobs:
        shown = _asked("scontrol", "-o", "show", "job", job, may=True)
        script = _asked("scontrol", "write", "batch_script", job, "-", may=True)
        yield job, "\n".join((lines.get(job, ""), shown, script))


def _asked(*words: str, may: bool = False) -> str:
    try:
        done = subprocess.run(
            words, capture_output=True, timeout=60, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        if may:
            return ""
        raise Refused(
            f"{words[0]}: {error}; jobs cannot be asked for the images they use"
        ) from None
    if done.returncode != 0 and not may:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise Refused(f"{words[0]}: {' '.join(said)}; jobs cannot be asked for the images they use")
    return done.stdout.decode(errors="replace")


def _open(process: Path) -> Iterator[str]:
    try:
        for entry in (process / "fd").iterdir():
            yield str(entry.readlink())
    except OSError:
        return


def _words(process: Path) -> Iterator[str]:
    try:
        words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return
    for word in words:
        yield word
        if word.startswith("/"):
            yield os.path.realpath(word)
