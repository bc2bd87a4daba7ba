"""Checks of links: InfiniBand ports and rates by sysfs, and links that go down time and again."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

from on_node.health.results import GOOD, Result, all_of, fault

_SYS = Path("/sys")
#: Seconds that a link's going down is remembered.
_WINDOW = 3600


def infiniband(ports: int | None, rate: int | None, sys: Path = _SYS) -> Result:
    """Ports that are active, and Gb/s of each (Linux, ABI/stable/sysfs-class-infiniband)."""
    active, faults = 0, []
    for port in sorted(sys.glob("class/infiniband/*/ports/*")):
        name = f"{port.parts[-3]}/{port.name}"
        state = _read(port / "state").partition(": ")[2]
        if state != "ACTIVE":
            if ports is not None:
                faults.append(f"{name} is {state or 'silent'}")
            continue
        active += 1
        found = re.match(r"[\d.]+", _read(port / "rate"))
        if rate is not None and found and float(found[0]) < rate:
            faults.append(f"{name} has {found[0]} Gb/s")
    if ports is not None and active < ports:
        faults.insert(0, f"{active} active InfiniBand ports, expected {ports}")
        return all_of(faults)
    slow = [words for words in faults if words.endswith("Gb/s")]
    return fault(f"{', '.join(slow)}, expected {rate}") if slow else GOOD


def flaps(limit: int, memory: Path, now: float | None = None, sys: Path = _SYS) -> Result:
    """How often each link went down within the last hour, by its counters."""
    now = time.time() if now is None else now
    try:
        seen: dict[str, list[list[float]]] = json.loads(memory.read_text())
    except (OSError, ValueError):
        seen = {}
    faults, kept = [], {}
    for name, count in _counters(sys):
        history = seen.get(name, [])
        if history and count < history[-1][1]:
            history = []  # counted anew: the driver was loaded again
        if not history or count != history[-1][1]:
            history.append([now, count])
        # The last one before the hour is what it began with.
        while len(history) > 1 and now - history[1][0] > _WINDOW:
            del history[0]
        kept[name] = history
        downs = count - history[0][1]
        if downs > limit:
            faults.append(f"{name} went down {downs:.0f} times within an hour")
    new = memory.with_suffix(".new")
    new.write_text(json.dumps(kept))
    new.replace(memory)
    return fault(f"{', '.join(faults)}, expected {limit} at most") if faults else GOOD


def _counters(sys: Path) -> Iterator[tuple[str, int]]:
    for path in sorted(sys.glob("class/infiniband/*/ports/*/counters/link_downed")):
        text = _read(path)
        if text.isdigit():
            yield f"{path.parts[-5]}/{path.parts[-3]}", int(text)
    for device in sorted(sys.glob("class/net/*/device")):
        text = _read(device.parent / "carrier_down_count")
        if text.isdigit():
            yield device.parent.name, int(text)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
