"""One folder of this machine in several of a lab's: what a share is, without a server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab import machine
from lab.names import Lab
from tests.lab.conftest import RunningLab

#: open_tree(2) of the folder, setns(2) into the machine, and move_mount(2) there.
_BIND = """
import ctypes, os, sys
source, process, target = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
def good(value):
    if value < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return value
space = os.open(f"/proc/{process}/ns/mnt", os.O_RDONLY)
tree = good(libc.syscall(428, -100, source.encode(), 1))
good(libc.setns(space, 0x20000))
good(libc.syscall(429, tree, b"", -100, target.encode(), 4))
"""


def bind(lab: Lab, node: str, source: Path, target: str) -> None:
    """Mount a folder of this machine on a node, until it is unmounted there."""
    words = [
        sys.executable,
        "-c",
        _BIND,
        str(source),
        str(machine.first_process(lab, node)),
        target,
    ]
    subprocess.run(words, check=True, capture_output=True, text=True, timeout=30)


@contextmanager
def shared(lab: RunningLab, nodes: tuple[str, ...], source: Path, target: str) -> Iterator[None]:
    """Have a folder of this machine, which all may read, on several nodes until the end."""
    source.chmod(0o755)
    for node in nodes:
        lab.ssh(node, f"mkdir {target}")
        bind(lab.lab, node, source, target)
    yield
    for node in nodes:
        lab.ssh(node, f"umount -l {target}; rmdir {target}")
