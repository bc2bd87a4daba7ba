"""One watcher of a submit folder at a time, on whichever host.

The lock lies on a plain file that is open for writing: of a folder, or of one that is read, NFS
locks nothing but on the host itself. Its server may lose it (it was away for longer than its lease,
it was set up anew); so it is looked after at each round.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

#: How NFS tells that it has lost a lock, or the file.
_LOST = (errno.EIO, errno.ESTALE, errno.EBADF)


class Lost(OSError):
    """Another watcher may have it by now."""


class Lock:
    """Held from when it is made until `close`."""

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        """Wait for it.

        Args:
            path: the file.
            say: gets a line when another has it, and when nobody can.

        Raises:
            OSError: the share gives no such file.
        """
        self.path = path
        self._words = f"{os.uname().nodename} {os.getpid()}\n".encode()
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o600)
        try:
            self._take(say)
            self._write()
        except OSError:
            os.close(self._file)
            raise

    def _take(self, say: Callable[[str], None]) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = os.pread(self._file, 200, 0).decode(errors="replace").split("\n")[0]
            say(f"another watcher has {self.path.parent.parent} ({who!a}); this one waits")
            fcntl.flock(self._file, fcntl.LOCK_EX)
            say(f"this watcher has {self.path.parent.parent} now")
        except OSError as error:
            # Each file is taken by one all the same; what was begun is finished by any.
            say(f"{self.path} gives no locks ({error}): see that one watcher runs")

    def look(self) -> None:
        """See that it is there still.

        Raises:
            Lost: it is not, or cannot be told.
            OSError: the share is not to be written to.
        """
        try:
            there, own = self.path.lstat(), os.fstat(self._file)
        except FileNotFoundError as error:
            raise Lost(error.errno, "has gone", str(self.path)) from None
        if (there.st_dev, there.st_ino) != (own.st_dev, own.st_ino):
            raise Lost(errno.ESTALE, "is another file by now", str(self.path))
        try:
            self._write()
        except OSError as error:
            if error.errno in _LOST:
                raise Lost(error.errno, error.strerror, str(self.path)) from None
            raise

    def _write(self) -> None:
        os.pwrite(self._file, self._words, 0)
        os.ftruncate(self._file, len(self._words))
        os.fsync(self._file)

    def close(self) -> None:
        """Let others have it."""
        os.close(self._file)
