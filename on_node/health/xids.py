"""What the NVIDIA driver has told of its GPUs in the kernel's log."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping

from on_node.health.results import Result, all_of, unknown

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
