"""One operation at a time on a stack, and what an interrupted one left behind.

A verb that changes the stack's file or its nodes says, step by step, what stands. That is on disk
before the next step begins. While it works it holds a lock, which the kernel releases however it
ends; what it said stays until an operation of the same name has come to its end.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from components import history
from operations.refused import Refused


class Waits(Refused):
    """The verb has done what it can do now, and what stands may stay so; exit code 3."""

    def __init__(self, found: str, deeds: Sequence[str]) -> None:
        super().__init__(found)
        self.deeds = list(deeds)


@dataclass
class Operation:
    """What an operation is, and how far it has come."""

    #: Such as ``node exclude cn02``.
    what: str
    by: str
    since: str
    pid: int
    #: The commands that finish it and take it back.
    finish: str
    undo: str = ""
    stands: list[str] = field(default_factory=list)
    #: Whether one of the same name was there before and is gone on with.
    resumed: bool = False

    def __str__(self) -> str:
        return f"{self.what} (by {self.by}, pid {self.pid}, since {self.since})"

    @property
    def left(self) -> str:
        """One line for one that has not come to its end."""
        so_far = "; ".join(self.stands) or "nothing was changed"
        ways = f"finish it with `{self.finish}`"
        ways += f", or take it back with `{self.undo}`" if self.undo else ""
        return f"unfinished: {self}; so far: {so_far}; {ways}"


class Running(Operation):
    """The operation that this process does."""

    _file: Path

    def did(self, step: str) -> None:
        """Say what stands now. Raises Refused where that cannot be kept."""
        if step not in self.stands:
            self.stands.append(step)
        _write(self._file, self)


def unfinished(place: Path) -> Operation | None:
    """The operation that has not come to its end, whether somebody is at it or not."""
    try:
        return Operation(**json.loads((place / "operation.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def running(place: Path) -> bool:
    """Whether somebody on this host is at it."""
    try:
        with (place / "operation.lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def refuse_if_taken(place: Path, what: str, ends: Sequence[str] = ()) -> None:
    """Say so before anything else is looked at; `operation` looks again, with the lock in hand.

    Args:
        place: the stack's folder beside the program.
        what: the operation that is to begin.
        ends: names of operations that it takes back: one of them may be unfinished.

    Raises:
        Refused: another one is being done, or one stands unfinished; nothing was changed.
    """
    if running(place):
        raise _busy(place)
    before = unfinished(place)
    if before is not None and before.what not in (what, *ends):
        raise Refused(before.left)


def _busy(place: Path) -> Refused:
    told = unfinished(place) or "another operation"
    return Refused(f"{told} is being done; wait for its end, or end it there")


@contextmanager
def operation(
    place: Path, what: str, finish: str, undo: str = "", ends: Sequence[str] = ()
) -> Iterator[Running]:
    """Hold the stack for an operation.

    Args:
        place: the stack's folder beside the program.
        what: its name: the verb and its hosts.
        finish: the command that goes on with it.
        undo: the command that takes it back.
        ends: names of operations that this one takes back: one of them may be unfinished.

    Raises:
        Refused: another one is being done, or one stands unfinished; nothing was changed.
    """
    file = place / "operation.json"
    try:
        place.mkdir(parents=True, exist_ok=True)
        lock = (place / "operation.lock").open("ab")
    except OSError as error:
        raise Refused(f"{place}: {error.strerror}; nothing was changed") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _busy(place) from None
        before = unfinished(place)
        if before is not None and before.what not in (what, *ends):
            raise Refused(before.left)
        mine = Running(what, history.operator(), history.now(), os.getpid(), finish, undo)
        mine._file = file
        if before is not None:
            mine.stands = list(before.stands)
            mine.resumed = True
        _write(file, mine)
        try:
            yield mine
        except BaseException as error:
            why = str(error) or type(error).__name__
            try:
                if mine.stands:
                    _note(place, mine, f"stopped: {why}")
            except Refused as unwritten:
                raise Refused(f"{why}; {unwritten}") from error
            if not mine.stands or isinstance(error, Waits):
                file.unlink(missing_ok=True)
            raise
        _note(place, mine, "done")
        file.unlink(missing_ok=True)


def _note(place: Path, done: Operation, result: str) -> None:
    try:
        history.note(place, done.what, result, done.stands)
    except OSError as error:
        raise Refused(f"{place}: {error.strerror}: it is not in the history") from error


def _write(file: Path, running: Operation) -> None:
    new = file.with_suffix(".new")
    try:
        with new.open("w", encoding="utf-8") as text:
            json.dump(asdict(running), text)
            text.flush()
            os.fsync(text.fileno())
        new.replace(file)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise Refused(f"{file}: {error.strerror}; what stands cannot be kept") from error
