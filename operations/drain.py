"""Drain, resume and reboot nodes by slurmctld, and never against somebody else's decision.

Every command on the controller runs as root, so that Slurm's own word on whose a drain is says
`root`: the reason ends with the operator instead.
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from components import history
from on_node.node_states import RETURNED, State
from operations.cluster import Cluster
from operations.refused import Refused
from settings.hostlist import fold

T = TypeVar("T")

_OWNER = re.compile(r" \(by ([^()]+)\)$")
#: Seconds between two looks while something is waited for.
_PAUSE = 2.0


@dataclass(frozen=True)
class Job:
    """A job that has nodes."""

    id: str
    user: str
    partition: str
    state: str
    nodes: str

    def __str__(self) -> str:
        return f"{self.id} ({self.user}, {self.partition}, {self.state.lower()} on {self.nodes})"


def checked(reason: str) -> str:
    """A reason that Slurm keeps as it is.

    Raises:
        Refused: it is empty, or more than a line.
    """
    text = reason.strip()
    if not text or not text.isprintable() or '"' in text:
        raise Refused(f"--reason: expected one line without double quotes; found {reason!r}")
    return text


def owner(state: State) -> str:
    """Whose word it is that a node is out; empty where nobody's."""
    if not state.closed_by_person:
        return ""
    match = _OWNER.search(state.reason)
    return match[1] if match else state.by


def without_owner(reason: str) -> str:
    """A reason as it was given."""
    return _OWNER.sub("", reason)


def resuming(names: Sequence[str]) -> str:
    """The command that gives nodes back, with a reason that is nobody's (see ``State.opening``)."""
    return f"scontrol update NodeName={fold(names)} State=RESUME Reason='{RETURNED}'"


def known(cluster: Cluster, names: Sequence[str]) -> dict[str, State]:
    """The nodes as slurmctld sees them.

    Raises:
        Refused: it does not know one of them.
    """
    states = cluster.states(list(names))
    missing = [name for name in names if name not in states]
    if missing:
        raise Refused(f"{fold(missing)}: slurmctld does not know it; run pulumi up first")
    return states


def drain(cluster: Cluster, names: Sequence[str], reason: str) -> list[str]:
    """Keep new jobs from nodes; running ones go on. Nodes that somebody has taken out already stay
    as they are, with that reason.

    Returns:
        What was done, by node.
    """
    states = known(cluster, names)
    closed = {name: state for name, state in states.items() if state.closed_by_person}
    rest = [name for name in names if name not in closed]
    deeds = [f"{name}: {_told(state)}: left so" for name, state in closed.items()]
    if rest:
        text = shlex.quote(f"{reason} (by {history.operator()})")
        words = f"scontrol update NodeName={fold(rest)} State=DRAIN Reason={text}"
        cluster.ask(words, "scontrol update")
        deeds.append(f"{fold(rest)}: drained")
    return deeds


def resume(cluster: Cluster, names: Sequence[str], force: bool = False) -> list[str]:
    """Give nodes back to jobs.

    Args:
        cluster: whose.
        names: the nodes.
        force: also where somebody else took them out.

    Raises:
        Refused: one of them was taken out by somebody else, who is named; nothing was changed.
    """
    states = known(cluster, names)
    others = {
        name: state
        for name, state in states.items()
        if state.closed_by_person and owner(state) != history.operator()
    }
    if others and not force:
        found = "; ".join(f"{name}: {_told(state)}" for name, state in others.items())
        raise Refused(f"{found}. Nothing was changed; ask them, or resume with --force")
    closed = [name for name in names if not states[name].fit]
    deeds = [f"{name}: was {_told(state)}" for name, state in others.items()]
    if closed:
        cluster.ask(resuming(closed), "scontrol update")
        deeds.append(f"{fold(closed)}: resumed")
    return deeds or [f"{fold(names)}: in use already"]


def give_back(cluster: Cluster, names: Sequence[str], mark: str) -> list[str]:
    """End the drains whose reason begins with this, and what slurmctld itself has against these
    nodes; what people have decided stays.

    Returns:
        What was done.
    """
    states = cluster.states(list(names))
    ours = [
        name
        for name, state in states.items()
        if not state.fit and (state.reason.startswith(mark) or not state.closed_by_person)
    ]
    if ours:
        cluster.ask(resuming(ours), "scontrol update")
    left = {name: state for name, state in states.items() if name not in ours and not state.fit}
    deeds = [f"{name}: {_told(state)}: left so" for name, state in left.items()]
    return [*deeds, *([f"{fold(ours)}: resumed"] if ours else [])]


def reboot(cluster: Cluster, names: Sequence[str], reason: str) -> list[str]:
    """Let Slurm reboot each node after its jobs, and give it back when its slurmd is there again.

    Raises:
        Refused: one of them is out by somebody's word, which the reboot would end; or slurmctld
            does not reach it. Nothing was changed.
    """
    states = known(cluster, names)
    out = {name: state for name, state in states.items() if state.closed_by_person}
    if out:
        found = "; ".join(f"{name}: {_told(state)}" for name, state in out.items())
        raise Refused(
            f"{found}: it would be in use again after the reboot. Nothing was changed; "
            f"slurmstack node resume {fold(out)} first, or reboot it by hand"
        )
    silent = [name for name, state in states.items() if not state.answers]
    if silent:
        raise Refused(f"{fold(silent)}: slurmctld does not reach it; nothing was changed")
    text = shlex.quote(f"{reason} (by {history.operator()})")
    words = f"scontrol reboot ASAP nextstate=RESUME reason={text} {fold(names)}"
    cluster.ask(words, "scontrol reboot")
    return [f"{fold(names)}: rebooted by Slurm after its jobs"]


def jobs(cluster: Cluster, names: Sequence[str]) -> list[Job]:
    """The jobs that have one of these nodes."""
    words = f"timeout 20 squeue -h -w {fold(names)} -o '%i|%u|%P|%T|%N'"
    lines = cluster.ask(words, "squeue").splitlines()
    return [Job(*line.split("|", 4)) for line in lines if line.count("|") >= 4]


def await_jobs(cluster: Cluster, names: Sequence[str], seconds: float) -> list[Job]:
    """Wait for the end of these nodes' jobs; those that are left after this time."""
    return _await_none(lambda: jobs(cluster, names), seconds)


def await_use(cluster: Cluster, names: Sequence[str], seconds: float) -> list[str]:
    """Wait until nodes take jobs again; those that do not after this time."""
    return _await_none(lambda: _not_back(known(cluster, names)), seconds)


def _await_none(look: Callable[[], list[T]], seconds: float) -> list[T]:
    """Look again until there is none, or until the time is over; those that are left."""
    end = time.monotonic() + seconds
    while (left := look()) and time.monotonic() < end:
        time.sleep(min(_PAUSE, max(end - time.monotonic(), 0)))
    return left


def _not_back(states: Mapping[str, State]) -> list[str]:
    under_way = {"REBOOT_ISSUED", "REBOOT_REQUESTED", "POWERING_UP"}
    return [name for name, it in states.items() if not it.fit or it.flags & under_way]


def _told(state: State) -> str:
    flags = "+".join(sorted(state.flags)).lower()
    return f"{flags}, {state.reason or 'no reason'!r}, by {owner(state) or state.by}"
