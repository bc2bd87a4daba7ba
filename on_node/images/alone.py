"""Commands in namespaces of their own, which end with the program that started them.

The mounts that they make are nobody else's and go with them, so what they leave can be removed as
the plain folders that it is.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from on_node.images.refused import Refused

_NAMESPACES = (
    "setpriv", "--pdeathsig", "KILL",
    "unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child",
)  # fmt: skip
_ERROR = re.compile(r"^(E:|ERROR|.*\berror\b|.*[Nn]o space left|FATAL)", re.MULTILINE)
#: What an image has of /dev, and of the kernel, while something runs in it.
MOUNTS = """
mount -t proc proc "$1/proc"
mount -t tmpfs -o mode=755,size=1m dev "$1/dev"
for name in null zero full random urandom tty; do
    : >"$1/dev/$name" && mount --bind "/dev/$name" "$1/dev/$name"
done
ln -s /proc/self/fd "$1/dev/fd"
mkdir "$1/dev/shm"
mount -t tmpfs -o mode=1777 shm "$1/dev/shm"
"""


def run(
    command: Sequence[str],
    what: str,
    log: Path,
    *,
    lock: int | None = None,
    seconds: float = 4 * 3600,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a command by itself.

    Args:
        command: its words.
        what: what it does, said when it fails.
        log: gets all that it says.
        lock: a lock's descriptor, which it holds, too: nobody begins anew before it has ended.
        seconds: within which it ends.
        environment: in place of this process's.

    Raises:
        Refused: it failed; its words.
    """
    with log.open("ab") as out:
        start = out.tell()
        with subprocess.Popen(
            [*_NAMESPACES, *command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=None if environment is None else dict(environment),
            pass_fds=() if lock is None else (lock,),
        ) as process:
            try:
                status = process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                raise Refused(f"{what}: not done after {seconds:g} s; see {log}") from None
            except BaseException:
                process.kill()
                raise
    if status != 0:
        raise Refused(f"{what}: {said(log, start) or f'exit {status}'}")


def said(log: Path, start: int) -> str:
    """The words that tell why something failed."""
    with log.open("rb") as file:
        file.seek(max(start, os.fstat(file.fileno()).st_size - 100_000))
        lines = [it.strip() for it in file.read().decode(errors="replace").splitlines()]
    telling = [line for line in lines if _ERROR.match(line)] or [line for line in lines if line]
    return " / ".join(dict.fromkeys(telling[-3:]))[:600]
