"""Checks of NVIDIA GPUs, by nvidia-smi, /proc and the kernel's log."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from on_node.health.results import GOOD, Result, all_of, fault, unknown

#: nvidia-smi(1), --help-query-gpu and --help-query-remapped-rows.
_FIELDS = (
    "index", "name", "pci.bus_id", "driver_version", "ecc.errors.uncorrected.volatile.total",
    "retired_pages.pending", "memory.used",
)  # fmt: skip
_ROWS = ("gpu_bus_id", "remapped_rows.pending", "remapped_rows.failure")
#: Seconds. It takes long without persistence mode, and for ever at a GPU that is gone.
_TIMEOUT = 60
#: XIDs after which a GPU is not fit for the next job, with NVIDIA's words (XID Errors, the table);
#: those that an application causes (13, 31, 43, 45) are no fault of the node.
XIDS: Mapping[int, str] = {
    48: "double bit ECC error",
    64: "row remapping failed",
    74: "NVLink error",
    79: "fallen off the bus",
    95: "uncontained memory error",
    119: "GSP does not answer",
    120: "GSP error",
    140: "unrecovered ECC error",
}
_XID = re.compile(r"NVRM: Xid \(PCI:([0-9A-Fa-f:.]+)\): (\d+)")
_YES = ("yes", "1")


@dataclass(frozen=True)
class Wanted:
    """What the settings say that the node has."""

    count: int
    #: A part of the driver's name, as gres.conf's Type is; None: any.
    type: str | None = None
    #: There may be more, which are cut into MIG instances.
    more: bool = False
    #: Active NVLinks of each; None: as many as the GPU that has most.
    nvlinks: int | None = None


def smi(*words: str) -> subprocess.CompletedProcess[str]:
    """nvidia-smi's answer."""
    return subprocess.run(
        ["nvidia-smi", *words], capture_output=True, text=True, timeout=_TIMEOUT, check=False
    )


def gpus(wanted: Wanted) -> Result:
    """All there, the right ones, and their memory sound."""
    try:
        told = smi(f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits")
        rows = smi(f"--query-remapped-rows={','.join(_ROWS)}", "--format=csv,noheader")
    except FileNotFoundError:
        return fault("nvidia-smi is not there")
    except subprocess.TimeoutExpired:
        return fault("nvidia-smi does not answer")
    if told.returncode:
        return fault(f"nvidia-smi: {_first(told.stdout) or _first(told.stderr)}")
    return judged(wanted, told.stdout, rows.stdout if rows.returncode == 0 else "")


def judged(wanted: Wanted, told: str, rows: str) -> Result:
    """From nvidia-smi's two tables."""
    faults = []
    found = [dict(zip(_FIELDS, line, strict=False)) for line in _table(told)]
    if len(found) < wanted.count or (len(found) > wanted.count and not wanted.more):
        faults.append(f"{len(found)} GPUs answer, expected {wanted.count}")
    for gpu in found:
        name = f"GPU {gpu['index']} ({gpu.get('pci.bus_id', '')})"
        model = re.sub(r"\s+", "_", gpu.get("name", "").lower())
        if wanted.type and wanted.type.lower() not in model:
            faults.append(f"{name} is {gpu.get('name')}, expected {wanted.type}")
        errors = gpu.get("ecc.errors.uncorrected.volatile.total", "")
        if errors.isdigit() and int(errors):
            faults.append(f"{name} has {errors} uncorrected ECC errors since its driver was loaded")
        if gpu.get("retired_pages.pending", "").lower() in _YES:
            faults.append(f"{name} has pages to retire: reset it or reboot")
    for line in _table(rows):
        row = dict(zip(_ROWS, line, strict=False))
        if row.get("remapped_rows.failure", "").lower() in _YES:
            faults.append(f"GPU {row['gpu_bus_id']} could not remap a row: replace it")
        elif row.get("remapped_rows.pending", "").lower() in _YES:
            faults.append(f"GPU {row['gpu_bus_id']} has rows to remap: reset it or reboot")
    return all_of(faults)


def nvlinks(wanted: Wanted) -> Result:
    """Links that are up, of each GPU."""
    try:
        told = smi("nvlink", "--status")
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return unknown("nvidia-smi does not answer")
    return links_judged(wanted, told.stdout) if told.returncode == 0 else GOOD


def links_judged(wanted: Wanted, told: str) -> Result:
    """From `nvidia-smi nvlink --status`."""
    active: dict[str, int] = {}
    gpu = ""
    for line in told.splitlines():
        if head := re.match(r"GPU (\d+):", line):
            gpu = head[1]
            active[gpu] = 0
        elif re.match(r"\s+Link \d+: [\d.]+ GB/s", line):
            active[gpu] += 1
    expected = max(active.values(), default=0) if wanted.nvlinks is None else wanted.nvlinks
    down = [f"GPU {gpu} has {number}" for gpu, number in active.items() if number < expected]
    return fault(f"NVLinks: {', '.join(down)}, expected {expected}") if down else GOOD


def memory_held(used: int) -> Result:
    """MiB held on a GPU without any job: no process of a user is left that could free it."""
    try:
        told = smi("--query-gpu=index,memory.used", "--format=csv,noheader,nounits")
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return unknown("nvidia-smi does not answer")
    held = [
        f"GPU {line[0]} holds {line[1]} MiB"
        for line in _table(told.stdout)
        if len(line) > 1 and line[1].isdigit() and int(line[1]) > used
    ]
    return fault(f"{', '.join(held)} without any job, expected {used} at most") if held else GOOD


def devices(wanted: Wanted, root: Path = Path("/")) -> Result:
    """The driver's own list, which is read in no time: for the prolog."""
    there = len(list(root.glob("proc/driver/nvidia/gpus/*")))
    if there < wanted.count:
        return fault(f"the NVIDIA driver has {there} GPUs, expected {wanted.count}")
    return GOOD


def versions(root: Path = Path("/")) -> Result:
    """The kernel's driver and its library: after an upgrade they differ until a reboot."""
    try:
        text = (root / "proc/driver/nvidia/version").read_text()
    except OSError:
        return unknown("no NVIDIA driver is loaded")
    driver = re.search(r"\b\d+\.\d+(\.\d+)?\b", text.partition("Kernel Module")[2])
    libraries = {
        path.name.removeprefix("libnvidia-ml.so.")
        for folder in ("usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/lib64")
        for path in (root / folder).glob("libnvidia-ml.so.*.*")
    }
    if driver is None or not libraries or driver[0] in libraries:
        return GOOD
    return fault(
        f"the NVIDIA driver that is loaded is {driver[0]}, its library "
        f"{', '.join(sorted(libraries))}: reboot"
    )


def fabric_manager(names: Iterable[str], root: Path = Path("/")) -> Result:
    """Where NVSwitches are, GPUs work together only with it.

    Args:
        names: of the processes that run, as the kernel shortens them.
        root: where /proc is.
    """
    if not list(root.glob("proc/driver/nvidia-nvswitch/devices/*")):
        return GOOD
    if "nv-fabricmanage" in set(names):
        return GOOD
    return fault("there are NVSwitches, and nv-fabricmanager does not run")


def xids(numbers: Iterable[int], since: float, log: str = "/dev/kmsg") -> Result:
    """Those of this boot, from the kernel's log.

    Args:
        numbers: that make a GPU unfit.
        since: microseconds of this boot; what was told earlier has been seen to.
        log: the kernel's log.
    """
    try:
        records = list(_records(log))
    except OSError as error:
        return unknown(f"{log}: {error.strerror}")
    serious = set(numbers)
    seen: dict[tuple[str, int], int] = {}
    for record in records:
        head, _, text = record.partition(";")
        found = _XID.search(text)
        stamp = head.split(",")[2] if head.count(",") >= 2 else "0"
        if found and int(found[2]) in serious and int(stamp or 0) > since:
            key = found[1], int(found[2])
            seen[key] = seen.get(key, 0) + 1
    return all_of(
        [
            f"XID {number} ({XIDS.get(number, 'see NVIDIA')}) of GPU {bus}"
            + (f", {times} times" if times > 1 else "")
            for (bus, number), times in seen.items()
        ]
    )


def _records(log: str) -> Iterator[str]:
    """Of /dev/kmsg, one a read (Linux, Documentation/ABI/testing/dev-kmsg)."""
    descriptor = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    try:
        while True:
            try:
                text = os.read(descriptor, 65536)
            except BlockingIOError:
                return
            except BrokenPipeError:
                continue  # overwritten meanwhile: the next one follows
            if not text:
                return
            yield from text.decode(errors="replace").splitlines()
    finally:
        os.close(descriptor)


def _table(text: str) -> list[list[str]]:
    return [
        [word.strip() for word in line.split(",")] for line in text.splitlines() if line.strip()
    ]


def _first(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else ""
