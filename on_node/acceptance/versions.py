"""What a node runs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

#: Packages whose versions change what a node does (dpkg-query(1) patterns).
_PACKAGES = (
    "slurmd", "slurm-smd-slurmd", "munge", "libpmix2*", "openmpi-bin", "libucx0", "libnccl2",
    "cuda-driver*", "nvidia-fabricmanager*", "datacenter-gpu-manager*", "enroot",
    "slurmstack-pyxis", "apptainer", "hpcc", "python3-mpi4py", "python3-torch", "libc6",
)  # fmt: skip


def versions() -> dict[str, str]:
    """What the node runs: kernel, driver, fabric, packages."""
    found = {"kernel": os.uname().release}
    form = "${db:Status-Abbrev}|${Package}|${Version}\n"
    for line in said(["dpkg-query", "-W", "-f", form, *_PACKAGES]).splitlines():
        status, _, rest = line.partition("|")
        if status.strip() == "ii":
            name, _, text = rest.partition("|")
            found[name] = text
    asked = "--query-gpu=driver_version,vbios_version"
    driver = said(["nvidia-smi", asked, "--format=csv,noheader"])
    if driver.strip():
        found["nvidia driver, vbios"] = " ".join(sorted({*driver.strip().splitlines()}))
    ofed = said(["ofed_info", "-s"]).strip()
    return {**found, **({"ofed": ofed} if ofed else {})}


def said(words: Sequence[str], timeout: float = 20) -> str:
    """What a program prints; nothing where it is not there or hangs."""
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=timeout, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
