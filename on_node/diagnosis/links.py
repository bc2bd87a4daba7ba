"""Counters of the node's links (InfiniBand ports and network cards), before and after a job.

The prolog keeps them in a file of the job's, as ``PATH:NUMBER`` lines; the epilog compares. Where
the kernel has them: Linux, Documentation/ABI/stable/sysfs-class-infiniband and
Documentation/ABI/testing/sysfs-class-net, sysfs-class-net-statistics.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

#: Of jobs that run here.
FOLDER = "/run/slurmstack/links"
_PORT = "/sys/class/infiniband/*/ports/*/counters"
#: By way of the card, which links within the machine (veth, bridges) do not have.
_CARD = "/sys/class/net/*/device/net/*"
_DOWN = ("link_downed", "carrier_down_count")
_ERRORS = (
    "symbol_error", "link_error_recovery", "port_rcv_errors", "local_link_integrity_errors",
    "rx_errors", "tx_errors",
)  # fmt: skip
#: Counter → what one of it is in bytes: a port counts words of four.
_RECEIVED = {"port_rcv_data": 4, "rx_bytes": 1}
_SENT = {"port_xmit_data": 4, "tx_bytes": 1}
#: What the prolog reads, as the shell finds it.
PATTERNS = (
    f"{_PORT}/link_downed", f"{_PORT}/symbol_error", f"{_PORT}/link_error_recovery",
    f"{_PORT}/port_rcv_errors", f"{_PORT}/local_link_integrity_errors",
    f"{_PORT}/port_rcv_data", f"{_PORT}/port_xmit_data",
    f"{_CARD}/carrier_down_count", f"{_CARD}/statistics/rx_errors", f"{_CARD}/statistics/tx_errors",
    f"{_CARD}/statistics/rx_bytes", f"{_CARD}/statistics/tx_bytes",
)  # fmt: skip


@dataclass
class Met:
    """What the links met while a job was here."""

    #: As evidence: ``IbLinkDowned=mlx5_0/1+2``, ``LinkErrors=mlx5_0/1 symbol_error+7``.
    lines: list[str] = field(default_factory=list)
    #: Bytes over all links together; None where nothing was counted.
    received: int | None = None
    sent: int | None = None


def met(job_id: int, folder: str = FOLDER, root: str = "") -> Met:
    """Since the prolog of a job; what it kept is gone after that.

    Args:
        job_id: the job's number.
        folder: where its prolog kept what it counted.
        root: what stands before the counters' paths.
    """
    kept = Path(folder) / str(job_id)
    try:
        before = dict(_counted(kept.read_text().splitlines()))
        kept.unlink()
    except OSError:
        return Met()
    more = {
        path: now - before[path]
        for path, now in _now(before, root).items()
        # Counted anew: its driver was loaded again.
        if now >= before[path]
    }
    found = Met()
    for path, count in more.items():
        counter = path.rpartition("/")[2]
        if count and counter in _DOWN:
            kind = "Ib" if "/infiniband/" in path else "Net"
            found.lines.append(f"{kind}LinkDowned={_name(path)}+{count}")
        elif count and counter in _ERRORS:
            found.lines.append(f"LinkErrors={_name(path)} {counter}+{count}")
        elif counter in _RECEIVED:
            found.received = (found.received or 0) + count * _RECEIVED[counter]
        elif counter in _SENT:
            found.sent = (found.sent or 0) + count * _SENT[counter]
    return found


def _now(before: Mapping[str, int], root: str) -> dict[str, int]:
    now = {}
    for path in before:
        with suppress(OSError, ValueError):
            now[path] = int(Path(root + path).read_text())
    return now


def _counted(lines: list[str]) -> Iterator[tuple[str, int]]:
    for line in lines:
        path, _, number = line.rpartition(":")
        if number.isdigit():
            yield path, int(number)


def _name(path: str) -> str:
    """A port as ``mlx5_0/1``, a card by the name of its network device."""
    port = re.search(r"/infiniband/([^/]+)/ports/([^/]+)/", path)
    return f"{port[1]}/{port[2]}" if port else path.split("/net/")[-1].split("/")[0]
