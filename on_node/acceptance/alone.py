"""What a node does alone: memory, HPL, folders."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from on_node.acceptance.figures import Measured

MIB = 1 << 20
#: Seconds that a folder is waited for before it is written to.
_PATIENCE = 10


def measures(config: Mapping[str, Any]) -> Iterator[Measured]:
    """What the node does alone."""
    size, stream, hpl = config["hplSize"], config.get("stream"), config.get("hpl")
    # HPCC is both.
    told = {it: _run(it, size) for it in dict.fromkeys((stream, hpl)) if it}
    yield _stream(told[stream]) if stream else _copied()
    if hpl:
        yield _hpl(told[hpl], size)
    else:
        yield Measured("HPL", "not here", words="no program: slurmstack:acceptance.hpl")
    for folder in config["storage"]:
        yield from _storage(folder, config["storageSize"])


def _stream(told: str) -> Measured:
    figure = triad(told)
    if figure is None:
        return Measured("STREAM triad", "failed", words=told or "it printed nothing")
    return Measured("STREAM triad", "proven", figure, "GB/s", key="stream")


def _copied() -> Measured:
    """What one core's memory moves, the best of three: Python's own copy."""
    best = 0.0
    source = bytearray(128 * MIB)
    for _ in range(3):
        start = time.perf_counter()
        copy = bytes(source)
        best = max(best, 2 * len(copy) / (time.perf_counter() - start) / 1e9)
        del copy
    return Measured("memory copy (one core, not STREAM)", "stand-in", best, "GB/s", key="stream")


def triad(told: str) -> float | None:
    """GB/s, as STREAM 5.10 prints it (MB/s), or HPCC 1.5 (StarSTREAM_Triad, of each process)."""
    # HPCC prints a table like STREAM's too, in GB/s.
    match = re.search(r"^StarSTREAM_Triad=([\d.]+)", told, re.MULTILINE)
    if match:
        return float(match[1])
    match = re.search(r"^Triad:\s+([\d.]+)", told, re.MULTILINE)
    return float(match[1]) / 1000 if match else None


def _hpl(told: str, size: int) -> Measured:
    figure = gflops(told)
    if figure is None:
        return Measured("HPL", "failed", words=told or "it printed nothing")
    return Measured("HPL", "proven", figure, "GFLOPS", f"order {size}", key="hpl")


def gflops(told: str) -> float | None:
    """The best line of HPL 2.3 (``WR11C2R4 N NB P Q time Gflops``), or of HPCC (HPL_Tflops)."""
    found = [
        float(line.split()[6])
        for line in told.splitlines()
        if re.match(r"W[RC]\S+\s+\d+\s+\d+\s+\d+\s+\d+\s+[\d.]+\s+[\d.eE+-]+", line)
    ]
    match = re.search(r"^HPL_Tflops=([\d.eE+-]+)", told, re.MULTILINE)
    found += [float(match[1]) * 1000] if match else []
    return max(found) if found else None


#: HPL.dat of HPL 2.3, and with it hpccinf.txt: one process, one panel.
_HPL_DAT = """HPLinpack benchmark input file
slurmstack
HPL.out      output file name (if any)
6            device out (6=stdout,7=stderr,file)
1            # of problems sizes (N)
{size}       Ns
1            # of NBs
128          NBs
0            PMAP process mapping (0=Row-,1=Column-major)
1            # of process grids (P x Q)
1            Ps
1            Qs
16.0         threshold
1            # of panel fact
2            PFACTs (0=left, 1=Crout, 2=Right)
1            # of recursive stopping criterium
4            NBMINs (>= 1)
1            # of panels in recursion
2            NDIVs
1            # of recursive panel fact.
1            RFACTs (0=left, 1=Crout, 2=Right)
1            # of broadcast
1            BCASTs (0=1rg,1=1rM,2=2rg,3=2rM,4=Lng,5=LnM)
1            # of lookahead depth
1            DEPTHs (>=0)
2            SWAP (0=bin-exch,1=long,2=mix)
64           swapping threshold
0            L1 in (0=transposed,1=no-transposed) form
0            U  in (0=transposed,1=no-transposed) form
1            Equilibration (0=no,1=yes)
8            memory alignment in double (> 0)
"""


def _run(command: str, size: int) -> str:
    """What a program of the site says, and what it writes beside itself. Slurm's and PMIx'
    variables are not for it: it is one process, no rank of a step."""
    environment = {
        key: value for key, value in os.environ.items()
        if not key.startswith(("SLURM", "PMI", "OMPI_", "PRTE_"))
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="slurmstack-") as place:
        for name in ("HPL.dat", "hpccinf.txt"):
            Path(place, name).write_text(_HPL_DAT.format(size=size))
        try:
            done = subprocess.run(
                ["sh", "-c", command], cwd=place, env=environment, capture_output=True, text=True,
                check=False, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except OSError as error:
            return str(error)
        beside = [Path(place, name) for name in ("HPL.out", "hpccoutf.txt")]
        more = "".join(it.read_text(errors="replace") for it in beside if it.exists())
    return done.stdout + more + (done.stderr if done.returncode else "")


def _answers(folder: str) -> bool:
    """In a process of its own, which can be left: a share whose server is gone holds who asks."""
    asks = subprocess.Popen(
        ["stat", "-f", "--", folder], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        asks.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        asks.kill()
        return False
    return True


def _storage(folder: str, size: int) -> Iterator[Measured]:
    """A file of so many MiB, written to the disk or server and read from there again."""
    if not _answers(folder):
        words = f"{folder} does not answer for {_PATIENCE} s"
        yield Measured(f"storage {folder}", "failed", words=words)
        return
    block = os.urandom(MIB)
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".slurmstack-acceptance-") as file:
            start = time.perf_counter()
            for _ in range(size):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
            wrote = size * MIB / 1e6 / (time.perf_counter() - start)
            # Not from this machine's memory.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            file.seek(0)
            start = time.perf_counter()
            while file.read(MIB):
                pass
            read = size * MIB / 1e6 / (time.perf_counter() - start)
    except OSError as error:
        yield Measured(f"storage {folder}", "failed", words=str(error))
        return
    yield Measured(f"storage {folder}, written", "proven", wrote, "MB/s", key="storage")
    yield Measured(f"storage {folder}, read", "proven", read, "MB/s")
