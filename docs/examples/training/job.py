"""What a training needs of Slurm, whatever it trains: which rank this is, checkpoints that are
whole, and the word that its time is over. Python's standard library alone."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

Read = TypeVar("Read")

_NAME = re.compile(r"step-(\d{10})\.pt")


class NotAJob(Exception):
    """The environment does not say which rank this is."""


@dataclass(frozen=True)
class Place:
    """Where among the ranks a process is."""

    rank: int
    #: How many ranks there are.
    world: int
    #: Its number among those of its node: the GPU that it takes.
    local: int


#: By torchrun, and by srun: each of them sets all of its own.
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
_SRUN = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")


def place(environment: Mapping[str, str]) -> Place:
    """Which rank this is. torchrun's word goes before srun's: where both are there, srun has
    started torchrun, and its numbers are those of torchrun itself.

    Raises:
        NotAJob: neither has said all of it, or where rank 0 listens is not said.
    """
    for names in (_TORCHRUN, _SRUN):
        if names[0] not in environment:
            continue
        needed = (*names, "MASTER_ADDR", "MASTER_PORT")
        if missing := [name for name in needed if name not in environment]:
            raise NotAJob(f"{names[0]} is set, but not {', '.join(missing)}: see the batch scripts")
        rank, world, local = (int(environment[name]) for name in names)
        return Place(rank, world, local)
    raise NotAJob("neither srun nor torchrun has started this: sbatch train-srun.sbatch")


class Stop:
    """Whether Slurm has said that time is over: SIGUSR1 by `sbatch --signal`, SIGTERM by
    preemption. The step under way is finished first."""

    def __init__(self) -> None:
        #: The signal that came first.
        self.by: signal.Signals | None = None
        for number in (signal.SIGUSR1, signal.SIGTERM):
            signal.signal(number, self._came)

    def _came(self, number: int, _frame: object) -> None:
        self.by = self.by or signal.Signals(number)


def save(folder: Path, step: int, write: Callable[[BinaryIO], None], keep: int = 2) -> Path:
    """Put a checkpoint there as a whole, or not at all; one rank does it. The newest `keep` stay.

    It is written beside its place, brought to the disk and then named: who is killed in the middle,
    or finds the disk full, leaves the ones before as they are.

    Args:
        step: how many steps are in it.
        write: puts its content into a file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".step-*.part"):
        left.unlink(missing_ok=True)
    path = folder / f"step-{step:010}.pt"
    part = folder / f".{path.name}.part"
    with part.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    # The name is in the folder, which is a file of its own.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    for old in checkpoints(folder)[keep:]:
        old.unlink(missing_ok=True)
    return path


def checkpoints(folder: Path) -> list[Path]:
    """Those that are there, the newest first."""
    if not folder.is_dir():
        return []
    return sorted((it for it in folder.iterdir() if _NAME.fullmatch(it.name)), reverse=True)


def newest(
    folder: Path, read: Callable[[Path], Read], say: Callable[[str], object] = print
) -> tuple[Path, Read] | None:
    """The newest checkpoint that can be read, with what was read. One that cannot is told and
    passed over: a file system that lost its power may have cut it.

    Raises:
        ValueError: there are some, and none can be read: to begin anew would hide that.
    """
    found = checkpoints(folder)
    for path in found:
        try:
            return path, read(path)
        # What torch.load raises for a file that was cut differs by where it was.
        except Exception as error:
            say(f"{path} cannot be read, the one before is taken: {error}")
    if found:
        raise ValueError(f"none of {len(found)} checkpoints in {folder} can be read")
    return None
