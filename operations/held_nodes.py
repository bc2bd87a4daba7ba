"""Idle nodes, reserved for jobs of root for as long as a command works, however it ends.

What guards the reservation runs on the controller and lives as long as its connection does: when
the command ends, is interrupted or killed, it cancels the jobs and takes the reservation back. One
that even that could not (the controller fell) is removed by the next, and ends by itself.
"""

from __future__ import annotations

import asyncio
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from operations.cluster import Cluster
from operations.refused import Refused
from remote.contact import ContactError, follow_on_hosts
from remote.host import Host
from settings.hostlist import fold
from templates.rendering import render

#: Reservations of ours, one a run.
PREFIX = "slurmstack-validate-"
#: On the controller, held while tests run.
LOCK = "/run/slurmstack-validate.lock"
#: Seconds for slurmctld to make the reservation.
_MADE = 60.0


@contextmanager
def held(cluster: Cluster, names: Sequence[str], minutes: int) -> Iterator[str]:
    """Reserve nodes, and take the reservation and its jobs back in the end.

    Args:
        cluster: whose.
        names: idle nodes.
        minutes: after which the reservation ends by itself.

    Yields:
        The reservation's name.

    Raises:
        Refused: slurmctld makes none, or somebody validates.
        ContactError: the controller cannot be asked.
    """
    name = f"{PREFIX}{int(time.time())}"
    script = render(
        "operations/hold-nodes.sh",
        reservation=name,
        hostlist=fold(list(names)),
        minutes=minutes,
        lock=LOCK,
    )
    guard = _Guard(cluster.hosts[cluster.controller], script)
    try:
        said = guard.first_line()
        if said != "held":
            raise Refused(f"{cluster.controller}: {said or 'no reservation could be made'}")
        yield name
    finally:
        guard.end()
        # So that they are free when the command ends, and not a moment later.
        take_back(cluster, name)


class _Guard:
    """The script on the controller, followed by a thread of its own."""

    def __init__(self, host: Host, script: str) -> None:
        self._lines: queue.Queue[str | BaseException] = queue.Queue()
        self._loop = asyncio.new_event_loop()
        self._work = self._loop.create_task(self._follow(host, script))
        self._thread = threading.Thread(target=self._run, name="held-nodes", daemon=True)
        self._thread.start()

    async def _follow(self, host: Host, script: str) -> None:
        await follow_on_hosts([host], script, lambda _, line: self._lines.put(line))

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._work)
            self._lines.put("")
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            self._lines.put(error)

    def first_line(self) -> str:
        try:
            said = self._lines.get(timeout=_MADE)
        except queue.Empty:
            return f"slurmctld has made no reservation within {_MADE:g} s"
        if isinstance(said, BaseExceptionGroup):
            said = next((it for it in said.exceptions if isinstance(it, ContactError)), said)
        if isinstance(said, BaseException):
            raise said
        return said.removeprefix("refused ")

    def end(self) -> None:
        # It may have ended by itself, this moment.
        self._loop.call_soon_threadsafe(self._work.cancel)
        self._thread.join(timeout=30)
        if not self._thread.is_alive():
            self._loop.close()


def take_back(cluster: Cluster, name: str) -> None:
    """Cancel the jobs of a reservation, and remove it; it may be gone already.

    Raises:
        Refused: it is still there.
    """
    script = render("operations/take-back.sh", reservation=name)
    cluster.ask(script, f"the reservation {name} could not be removed", 150)


def left_behind(cluster: Cluster, say: Callable[[str], None]) -> bool:
    """Remove reservations of ours in which nothing works any more; whether there were any.

    Raises:
        Refused: somebody validates: the guard on the controller holds a lock.
    """
    # The guard of a command that was killed a moment ago is still taking back.
    free = f"flock -w 20 {LOCK} true || {{ echo 'somebody validates nodes already' >&2; exit 1; }}"
    script = f"{free}; timeout 20 scontrol -o show reservation 2>/dev/null || true"
    found = re.findall(rf"ReservationName=({PREFIX}\d+)", cluster.ask(script, "validate", 60))
    for name in found:
        take_back(cluster, name)
        say(f"removed {name}, which a run that was killed had left")
    return bool(found)
