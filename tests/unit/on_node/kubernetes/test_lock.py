"""One watcher at a time, and a share that takes its lock away, or is full, read-only or gone. NFS
itself is not here: what is known of it (flock(2), nfs(5)) is what these hold the lock to."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from on_node.kubernetes import __main__ as program
from on_node.kubernetes.folder import Site, Watcher
from on_node.kubernetes.lock import Lock, Lost
from tests.unit.on_node.kubernetes.test_folder import site


def test_another_waits_until_it_has_gone(tmp_path: Path) -> None:
    taken = tmp_path / "jobs" / ".taken"
    taken.mkdir(parents=True)
    said: list[str] = []
    first = Lock(taken / ".lock", said.append)
    assert said == []
    got = threading.Event()

    def second() -> None:
        Lock(taken / ".lock", said.append)
        got.set()

    other = threading.Thread(target=second, daemon=True)
    other.start()
    while not said:
        assert not got.wait(0.05)
    who = f"{os.uname().nodename} {os.getpid()}"
    assert said == [f"another watcher has {tmp_path}/jobs ('{who}'); this one waits"]
    assert not got.is_set()
    first.close()
    assert got.wait(10)
    assert said[1:] == [f"this watcher has {tmp_path}/jobs now"]


def test_nfs_can_lock_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file that is read alone, or of a folder, its locks are none, or the host's own."""
    locked: list[int] = []
    monkeypatch.setattr(fcntl, "flock", lambda file, how: locked.append(file))
    Lock(tmp_path / "lock", print)
    (file,) = locked
    assert (tmp_path / "lock").is_file()
    assert fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR


def test_a_lock_that_is_lost_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = Lock(tmp_path / "lock", print)
    lock.look()

    def fail(code: int) -> Callable[[int], None]:
        def fsync(file: int) -> None:
            raise OSError(code, os.strerror(code))

        return fsync

    for code in (errno.EIO, errno.ESTALE):
        monkeypatch.setattr(os, "fsync", fail(code))
        with pytest.raises(Lost):
            lock.look()
    # A share that is full, or read-only, has the lock still.
    for code in (errno.ENOSPC, errno.EROFS):
        monkeypatch.setattr(os, "fsync", fail(code))
        with pytest.raises(OSError, match=os.strerror(code)) as error:
            lock.look()
        assert not isinstance(error.value, Lost)
    monkeypatch.undo()
    (tmp_path / "new").touch()
    (tmp_path / "new").rename(tmp_path / "lock")
    with pytest.raises(Lost, match="is another file by now"):
        lock.look()


class Stop(BaseException):
    """The end of a test's watcher."""


@pytest.fixture
def watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[list[str], list[int]]]:
    """What a watcher says, and in which of its looks it took what was there, while something
    happens before each: a list."""

    def watch(*happens: Callable[[Site], Any]) -> tuple[list[str], list[int]]:
        said: list[str] = []
        rounds: list[int] = []
        told = site(tmp_path)
        left = list(happens)
        now = [0]

        def wait(_: float) -> None:
            if not left:
                raise Stop
            now[0] += 1
            left.pop(0)(told)

        monkeypatch.setattr(program, "_waiter", lambda path: wait)
        monkeypatch.setattr(program, "_say", said.append)
        monkeypatch.setattr(Watcher, "round", lambda self: rounds.append(now[0]))
        with pytest.raises(Stop):
            program.watch(told)
        return said, rounds

    return watch


def test_a_share_that_goes_and_comes(watched: Callable[..., tuple[list[str], list[int]]]) -> None:
    def go(told: Site) -> None:
        (told.folder / ".taken").rename(told.folder / "away")

    def come(told: Site) -> None:
        (told.folder / "away").rename(told.folder / ".taken")

    said, rounds = watched(go, lambda _: None, come)
    folder = said[-1].removesuffix(" is back")
    assert said == [
        f"{folder}/.taken/.lock: has gone; the lock is taken anew",
        f"{folder}: No such file or directory; nothing is taken until it is back",
        f"{folder} is back",
    ]
    assert rounds == [0, 3]


def test_another_share_in_its_place(watched: Callable[..., tuple[list[str], list[int]]]) -> None:
    def another(told: Site) -> None:
        (told.folder / ".taken").rename(told.folder / "old")
        (told.folder / ".taken").mkdir()

    said, rounds = watched(another, lambda _: None)
    assert [line.partition(": ")[2] for line in said] == ["has gone; the lock is taken anew"]
    assert rounds == [0, 2]
