"""What slurmctld has saved of its jobs and tells no client: all the partitions that a job names.

slurmctld saves what a request has changed within five seconds (SAVE_MAX_WAIT in
slurmctld/state_save.c). A job that its backfill scheduler starts is no request: that is saved
with the next one, or after five minutes.
"""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from on_node import slurm_state
from on_node.slurm_state import Job

#: What is read above a job's partitions in job_state: its record so far, and its nodes with their
#: bitmap, are shorter.
_RECORD, _LIST = 2**16, 2**13
#: A job's nodes, right before its partitions; 24.11 and later: their number and bitmap, too.
_NODES = re.compile(rb"\0\0..([^\0]+)\0(.{8}\0\0..0x[0-9A-F]*\0)?\Z", re.DOTALL)
#: The head of job_state: a text of this length, the protocol's version, and when it was packed.
_HEAD = struct.Struct(">I17sHQ")
#: Seconds within which what is asked for is saved.
_SAVED = 30


def with_all_partitions(jobs: Sequence[Job], file: Path) -> list[Job]:
    """Jobs that have nodes, with all partitions that they were submitted to.

    slurmctld tells clients only of the one in which a job runs, but ends the job when any of the
    others goes (get_part_list in slurmctld/partition_mgr.c).

    Args:
        jobs: as clients were told of them before.
        file: job_state, in slurmctld's StateSaveLocation.

    Raises:
        RuntimeError: slurmctld does not save them.
    """
    at_work = [job for job in jobs if not job.waits and job.partitions]
    return partitions_of(jobs, _saved_after_now(file, at_work)) if at_work else [*jobs]


def _saved_after_now(file: Path, jobs: Sequence[Job]) -> bytes:
    """What slurmctld saves, packed after this was called."""
    # The file tells whole seconds: what is packed in the next one is packed after this.
    asked = int(time.time()) + 1
    while time.time() < asked:
        time.sleep(0.05)
    _have_saved(jobs)
    until = time.monotonic() + _SAVED
    while time.monotonic() < until:
        state = file.read_bytes() if file.exists() else b""
        if len(state) >= _HEAD.size and _HEAD.unpack_from(state)[3] >= asked:
            return state
        time.sleep(0.2)
    raise RuntimeError(f"slurmctld has not saved its jobs in {file} within {_SAVED} s")


def _have_saved(jobs: Sequence[Job]) -> None:
    """Have slurmctld save its jobs: one of them is set what it has (scontrol(1), Requeue)."""
    refusals = []
    for job in jobs:
        try:
            slurm_state.command(
                "scontrol", "update", f"JobId={job.number}", f"Requeue={job.requeue}"
            )
        except RuntimeError as error:  # it has ended meanwhile, say
            refusals.append(str(error))
        else:
            return
    # The end of a job is saved as well.
    if {job.id for job in jobs} & {job.id for job in slurm_state.jobs()}:
        raise RuntimeError(refusals[0])


def partitions_of(jobs: Sequence[Job], state: bytes) -> list[Job]:
    """The same, from what job_state holds.

    It has a job's partitions, the one in which it runs first, right after the job's nodes, of which
    24.11 and later write number and bitmap as well (job_record_pack in common/job_record.c). A
    string is written behind its length, and ends with a zero byte.
    """
    alike: dict[tuple[bytes, bytes], list[Job]] = {}
    for job in jobs:
        if not job.waits and job.partitions:
            where = job.node_list.encode(), job.partitions[0].encode()
            alike.setdefault(where, []).append(job)
    firsts = b"|".join(sorted({re.escape(first) for _, first in alike}))
    of_job: dict[str, tuple[str, ...]] = {}
    for match in re.finditer(rb"\0\0..((" + firsts + rb"),[^\0]+)\0", state, re.DOTALL):
        above = state[max(0, match.start() - _RECORD) : match.start()]
        nodes = _NODES.search(above[-_LIST:])
        some = alike.get((nodes[1], match[2]), []) if nodes else []
        # In 24.11 and later, each job's number is followed by its state, farther up in its record.
        if nodes and nodes[2]:
            some = sorted(some, key=lambda job: _last_number(above, job.number))[-1:]
        of_job |= {job.id: tuple(match[1].decode(errors="replace").split(",")) for job in some}
    return [replace(job, partitions=of_job.get(job.id, job.partitions)) for job in jobs]


def _last_number(text: bytes, number: int) -> int:
    """Where the number of a job that runs (1) or is suspended (2) is last; -1 where it is not."""
    packed, at = number.to_bytes(4, "big"), len(text)
    while (at := text.rfind(packed, 0, at + 3)) >= 0:
        if text[at + 7 : at + 8] in (b"\1", b"\2"):
            return at
    return -1
