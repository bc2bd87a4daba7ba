"""What a job leaves on the share: ``RESULTS/JOBID`` with its output, a summary, what its pods
wrote, and checksums of all of it. Written as the user, and there whole or not at all.

    .JOBID.part/    while it runs; what it leaves in outputs, its next run after a requeue finds
    JOBID/          once it has ended
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

CHECKSUMS = "checksums.txt"
SUMMARY = "job_summary.txt"
_BLOCK = 1 << 20
#: Of results that are whole, and of those that are on their way out.
_WHOLE, _OLD = re.compile(r"[0-9]+(\.[0-9]+)?"), re.compile(r"\.[0-9.]+\.old")
#: Seconds for what goes at the end of one job: it has its nodes that long.
_TIDY = 60.0


def outputs(results: str, job: int) -> str:
    """Where the pods of a job put what is to stay."""
    return f"{results}/.{job}.part/outputs"


@dataclass
class Results:
    """Of one run of a job."""

    folder: Path
    job: int
    #: How often it was started before.
    restarts: int
    _files: dict[str, BinaryIO] = field(default_factory=dict)
    #: What went wrong first.
    trouble: str = ""

    @property
    def _part(self) -> Path:
        return self.folder / f".{self.job}.part"

    def begin(self) -> None:
        """The folder, before there is a pod."""
        try:
            for folder in (self._part, self._part / "outputs"):
                folder.mkdir(exist_ok=True)
                look = folder.lstat()
                if not stat.S_ISDIR(look.st_mode) or look.st_uid != os.getuid():
                    # Anybody may make folders beside it.
                    raise OSError(errno.EEXIST, "is another's already", str(folder))
            for name in ("stdout.log", "stderr.log"):
                (self._part / name).unlink(missing_ok=True)
                self._files[name] = (self._part / name).open("xb")
        except OSError as error:
            self._fail(error)

    def write(self, name: str, data: bytes) -> None:
        """Further output."""
        if not self.trouble and name in self._files:
            try:
                self._files[name].write(data)
                self._files[name].flush()
            except OSError as error:
                self._fail(error)

    def end(self, summary: Mapping[str, str]) -> Path | None:
        """All of it to its place; None where something of it could not be kept."""
        if self.trouble:
            return None
        try:
            for file in self._files.values():
                os.fsync(file.fileno())
                file.close()
            text = "".join(f"{name}: {' '.join(it.split())}\n" for name, it in summary.items())
            _whole(self._part / SUMMARY, text)
            lines = [
                f"{_sum(path)}  {path.relative_to(self._part)}\n" for path in files(self._part)
            ]
            _whole(self._part / CHECKSUMS, "".join(lines))
            place = self.folder / str(self.job)
            if os.path.lexists(place):
                place = self.folder / f"{self.job}.{self.restarts}"
            self._part.rename(place)
        except OSError as error:
            self._fail(error)
            return None
        return place

    def _fail(self, error: OSError) -> None:
        self.trouble = self.trouble or f"{error.filename or self._part}: {error.strerror}"


def tidy(
    folder: Path, stays: Path, days: int | None, limit: int | None, now: float
) -> Iterator[str]:
    """Take away what this user's earlier jobs left, oldest first; what was taken, and why.

    Args:
        folder: of all results; those of other users are left alone.
        stays: the results just written.
        days: older ones go.
        limit: MiB that all of the user's may take.
        now: seconds since 1970.

    Raises:
        OSError: something cannot be looked at or removed.
    """
    end = time.monotonic() + _TIDY
    mine = {path: at for path, at in _own(folder) if path != stays}
    # Of a run that ended in the middle.
    for path in [path for path in mine if _OLD.fullmatch(path.name)]:
        shutil.rmtree(path)
        del mine[path]
    left = {path: _size(path) for path in (*mine, stays)} if limit else {}
    for path, at in sorted(mine.items(), key=lambda it: it[1]):
        if time.monotonic() > end:
            return
        old = days is not None and at < now - days * 86400
        if not old and (limit is None or sum(left.values()) <= limit << 20):
            continue
        out = folder / f".{path.name}.old"
        path.rename(out)  # whole or absent
        shutil.rmtree(out)
        left.pop(path, None)
        yield f"{path}: removed, {f'older than {days} days' if old else f'more than {limit} MiB'}"


def _own(folder: Path) -> Iterator[tuple[Path, float]]:
    """This user's results, and when each was complete."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if not (_WHOLE.fullmatch(entry.name) or _OLD.fullmatch(entry.name)):
                continue
            look = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(look.st_mode) and look.st_uid == os.getuid():
                yield Path(entry.path), look.st_mtime


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in files(folder))


def files(folder: Path) -> Iterator[Path]:
    """All plain files, but the checksums; a link is none, wherever it leads."""
    for where, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(where, name)
            if not path.is_symlink() and path.is_file() and path != folder / CHECKSUMS:
                yield path


def differences(folder: Path) -> list[str]:
    """What is other in a job's results than when it ended.

    Raises:
        OSError: it has none, or they cannot be read.
    """
    told = {}
    for line in (folder / CHECKSUMS).read_text().split("\n"):
        digest, _, name = line.partition("  ")
        if name:
            told[name] = digest
    found = {str(path.relative_to(folder)): path for path in files(folder)}
    lines = [f"{name}: is gone" for name in told if name not in found]
    lines += [f"{name}: was not there" for name in found if name not in told]
    lines += [
        f"{name}: is another one"
        for name, digest in told.items()
        if name in found and _sum(found[name]) != digest
    ]
    return sorted(lines)


def _sum(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _whole(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
