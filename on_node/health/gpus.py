"""Checks of NVIDIA GPUs, by nvidia-smi and /proc."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from on_node.health.results import GOOD, Result, all_of, fault, unknown

#: nvidia-smi(1), --help-query-gpu and --help-query-remapped-rows.
_FIELDS = (
    "index", "name", "pci.bus_id", "driver_version", "ecc.errors.uncorrected.volatile.total",
    "retired_pages.pending", "memory.used",
)  # fmt: skip
_ROWS = ("gpu_bus_id", "remapped_rows.pending", "remapped_rows.failure")
#: By the name that drivers before 535 have, too; later ones take it for clocks_event_reasons.
_SLOWED = {
    "clocks_throttle_reasons.hw_thermal_slowdown": "it is too hot",
    "clocks_throttle_reasons.hw_power_brake_slowdown": "the power supply asks for it",
}
#: What another driver's nvidia-smi says of a field that it does not have.
_NO_FIELD = "is not a valid field to query"
#: Seconds. It takes long without persistence mode, and for ever at a GPU that is gone.
_TIMEOUT = 60
_YES = ("yes", "1")


@dataclass(frozen=True)
class Wanted:
    """What the settings say that the node has."""

    #: GPUs that are given out whole.
    count: int
    #: A part of the driver's name, as gres.conf's Type is; None: any.
    type: str | None = None
    #: GPUs that are cut into MIG instances. Where there are any, there may be more than is known.
    cut: int = 0
    #: Active NVLinks of each; None: as many as the GPU that has most.
    nvlinks: int | None = None

    @property
    def least(self) -> int:
        return self.count + self.cut

    @property
    def expected(self) -> str:
        return f"{self.least} or more" if self.cut else str(self.least)


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
        words = f"nvidia-smi: {_first(told.stdout) or _first(told.stderr)}"
        return unknown(words) if _NO_FIELD in words else fault(words)
    return judged(wanted, told.stdout, rows.stdout if rows.returncode == 0 else "")


def judged(wanted: Wanted, told: str, rows: str) -> Result:
    """From nvidia-smi's two tables."""
    faults = []
    found = [dict(zip(_FIELDS, line, strict=False)) for line in _table(told)]
    if len(found) < wanted.least or (len(found) > wanted.least and not wanted.cut):
        faults.append(f"{len(found)} GPUs answer, expected {wanted.expected}")
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
        mig = _in_mig_mode() if wanted.cut else set()
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return unknown("nvidia-smi does not answer")
    return links_judged(wanted, told.stdout if told.returncode == 0 else "", mig)


def _in_mig_mode() -> set[str]:
    told = smi("--query-gpu=index,mig.mode.current", "--format=csv,noheader")
    return {row[0] for row in _table(told.stdout) if row[1:] == ["Enabled"]}


def links_judged(wanted: Wanted, told: str, mig: Collection[str] = ()) -> Result:
    """From `nvidia-smi nvlink --status`, which says nothing where no GPU has a link.

    Args:
        mig: GPUs in MIG mode. They talk to no other GPU (MIG User Guide, Deployment
            Considerations: no peer to peer), so nothing follows from their links.
    """
    active: dict[str, int] = {}
    gpu = ""
    for line in told.splitlines():
        if head := re.match(r"GPU (\d+):", line):
            gpu = head[1]
            active[gpu] = 0
        elif re.match(r"\s+Link \d+: [\d.]+ GB/s", line):
            active[gpu] += 1
    active = {gpu: number for gpu, number in active.items() if gpu not in mig}
    if wanted.nvlinks is not None and len(active) < wanted.count:
        words = f"NVLinks: {len(active)} of {wanted.count} GPUs have any, expected {wanted.nvlinks}"
        return fault(f"{words} each")
    expected = max(active.values(), default=0) if wanted.nvlinks is None else wanted.nvlinks
    down = [f"GPU {gpu} has {number}" for gpu, number in active.items() if number < expected]
    return fault(f"NVLinks: {', '.join(down)}, expected {expected}") if down else GOOD


def clocks() -> Result:
    """Whether a GPU runs slower than it could, by what its own hardware decides: heat, power."""
    try:
        told = smi(f"--query-gpu=index,{','.join(_SLOWED)}", "--format=csv,noheader,nounits")
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return unknown("nvidia-smi does not answer")
    if told.returncode:
        return unknown(f"nvidia-smi: {_first(told.stdout)}")
    return all_of(
        [
            f"GPU {row[0]} is slowed down by its hardware: {why}"
            for row in _table(told.stdout)
            for word, why in zip(row[1:], _SLOWED.values())  # noqa: B905 (Python 3.9)
            if word == "Active"
        ]
    )


def memory_held(used: int) -> Result:
    """MiB held on a GPU without any job, and by whom."""
    without = "--format=csv,noheader,nounits"
    try:
        told = smi("--query-gpu=index,pci.bus_id,memory.used", without)
        if all(mib <= used for _, _, mib in _held(told.stdout)):
            return GOOD
        programs = smi("--query-compute-apps=gpu_bus_id,pid,name,used_memory", without)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return unknown("nvidia-smi does not answer")
    return held_judged(used, told.stdout, programs.stdout)


def held_judged(used: int, told: str, programs: str, proc: Path = Path("/proc")) -> Result:
    """From nvidia-smi's tables of GPUs and of compute processes."""
    faults = []
    for index, bus, mib in _held(told):
        if mib <= used:
            continue
        # Of one that has ended and is still being cleaned up, the driver has no name any more.
        of_it = [row for row in _table(programs) if row[0] == bus and row[2:-1] != ["[No data]"]]
        who = "; ".join(_program(row[1], ",".join(row[2:-1]), proc) for row in of_it)
        faults.append(f"GPU {index} holds {mib} MiB ({who or 'of no process that is to be seen'})")
    words = f"{', '.join(faults)} without any job, expected {used} at most"
    return fault(words) if faults else GOOD


def _held(told: str) -> list[tuple[str, str, int]]:
    rows = [row for row in _table(told) if len(row) == 3 and row[2].isdigit()]
    return [(index, bus, int(mib)) for index, bus, mib in rows]


def _program(pid: str, name: str, proc: Path) -> str:
    """A process in words: its name, its number, whose it is."""
    try:
        uid = (proc / pid).stat().st_uid
        owner = pwd.getpwuid(uid).pw_name
    except OSError:
        owner = "?"
    except KeyError:
        owner = str(uid)
    return f"{Path(name).name}, pid {pid}, of {owner}"


def devices(wanted: Wanted, root: Path = Path("/")) -> Result:
    """The driver's own list, which is read in no time: for the prolog."""
    there = len(list(root.glob("proc/driver/nvidia/gpus/*")))
    if there < wanted.least:
        return fault(f"the NVIDIA driver has {there} GPUs, expected {wanted.expected}")
    return GOOD


def versions(root: Path = Path("/"), cache: str | None = None) -> Result:
    """The kernel's driver and its library: after an upgrade they differ until a reboot.

    Args:
        root: where /proc and the libraries are.
        cache: what `ldconfig -p` says of the linker's cache; left out, it is asked.
    """
    try:
        text = (root / "proc/driver/nvidia/version").read_text()
    except OSError:
        return unknown("no NVIDIA driver is loaded")
    driver = re.search(r"\b\d+\.\d+(\.\d+)?\b", text.partition("Kernel Module")[2])
    libraries = set(_libraries(root, _linker_cache() if cache is None else cache))
    if driver is None or not libraries or driver[0] in libraries:
        return GOOD
    return fault(
        f"the NVIDIA driver that is loaded is {driver[0]}, its library "
        f"{', '.join(sorted(libraries))}: reboot"
    )


def _linker_cache() -> str:
    words = ["/sbin/ldconfig", "-p"]
    try:
        return subprocess.run(
            words, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _libraries(root: Path, cache: str) -> Iterator[str]:
    """Versions of NVML that the linker finds, wherever the driver's installer put it (ld.so(8))."""
    for path in re.findall(r"^\s*libnvidia-ml\.so\.1 \(.*\) => /(\S+)$", cache, re.M):
        name = os.path.realpath(root / path).rpartition("/libnvidia-ml.so.")[2]
        if re.fullmatch(r"\d+\.\d+[.\d]*", name):
            yield name


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


def _table(text: str) -> list[list[str]]:
    return [
        [word.strip() for word in line.split(",")] for line in text.splitlines() if line.strip()
    ]


def _first(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else ""
