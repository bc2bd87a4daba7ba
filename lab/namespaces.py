"""The numbers that Linux gives to namespaces, put in order for the lab's machines."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Sequence

from lab.errors import LabError

#: Numbers that a CPU takes at once (Linux 6.18, include/linux/cookie.h: COOKIE_LOCAL_BATCH).
BATCH = 4096
_CLONE_NEWUTS = 0x04000000


def settle() -> None:
    """Let every namespace that is made from now on have a higher number than those there are.

    A mount namespace may be held by a file (nsfs) only in one with a lower number, as that shows
    it to be older (mnt_ns_loop in fs/namespace.c); else mount(2) says "Invalid argument". In
    Linux 6.18 each CPU takes its numbers from a batch of its own, so that a younger namespace may
    have the lower one (later kernels count for all CPUs together again). On bare metal this harms
    nobody, as the first mount namespace has the lowest number of all. A machine of the lab lives
    in a namespace of its own, and job_container/tmpfs, which holds the namespace of each job so,
    failed there on some CPUs: the node was "still not ready" for the job. So the rest of each
    CPU's batch is used up.
    """
    command = [sys.executable, "-m", "lab.namespaces"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise LabError(f"namespaces cannot be made here: {done.stderr.strip()}")


def _use_up(cpus: Sequence[int]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    for cpu in cpus:
        os.sched_setaffinity(0, {cpu})
        for _ in range(BATCH):
            # The kind that costs least; the one left goes at once.
            if libc.unshare(_CLONE_NEWUTS) != 0:
                raise OSError(ctypes.get_errno(), "unshare")


if __name__ == "__main__":
    _use_up(sorted(os.sched_getaffinity(0)))
