"""What people have decided of nodes and partitions outlasts a change, and what slurmctld itself
has against a node ends with its cause.

    before FILE    notes, before slurm.conf becomes FILE's text, who is fit and what people decided
    after FILE     puts back what a change has overwritten, sets partition states that the settings
                   changed; FILE is the slurm.conf that is in place
    started FILE   notes when each slurmd was started, right before it is to take FILE up
    back FILE SECONDS NUMBER   waits until the nodes that were fit have come back with FILE, all but
                   NUMBER of them; names those that have not
    fit FILE SECONDS   waits until each node of FILE is fit, or not fit by a person's word; names
                   those that are not

slurmctld drains a node that reports less than slurm.conf says, with a reason of its own, and
leaves it so when that is mended (validate_node_specs in slurmctld/node_mgr.c); where a person had
drained it before, it writes its own reason over theirs.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from on_node import slurm_state

MEMORY = Path("/var/lib/slurmstack/slurmctld/node-states.json")
#: Seconds after which a node that slurmctld has found unfit is not waited for any longer: its
#: slurmd has read the new slurm.conf by then.
JUDGED = 10
#: Seconds that nodes which slurmctld has drained may take to register again.
SETTLE = 30
#: The reason that is left of a node that was given back. No role takes it for its own.
RETURNED = "given back by slurmstack"
#: Reasons that slurmctld gives a node whose registration does not fit slurm.conf.
_REGISTRATION = re.compile(r"Low |gres/|CoreSpec differ|Could not unpack gres|Invalid gres")
#: States in which a node is in use, or could be.
_FIT = {"IDLE", "MIXED", "ALLOCATED", "COMPLETING", "RESERVED", "PLANNED"}
_CLOSED = ("DRAIN", "DOWN", "FAIL")


@dataclass(frozen=True)
class State:
    """A node as slurmctld sees it."""

    name: str
    #: Base state and flags, without the mark of a node that does not answer.
    flags: frozenset[str]
    answers: bool
    reason: str = ""
    #: Who gave the reason.
    by: str = ""
    #: When its slurmd was started, by the node's clock. It is another process with each slurm.conf.
    #: A slurmctld that has just read slurm.conf does not know it before the node registers.
    started: str = ""

    @property
    def misfit(self) -> bool:
        """slurmctld found less than slurm.conf says, now or before."""
        return "INVALID_REG" in self.flags or self.drained_for_misfit

    @property
    def drained_for_misfit(self) -> bool:
        own = self.by == "slurm" and _REGISTRATION.match(self.reason) is not None
        return own and "DRAIN" in self.flags

    @property
    def closed_by_person(self) -> bool:
        """Drained, down or failed by somebody else than slurmctld."""
        closed = any(flag in self.flags for flag in _CLOSED)
        return closed and self.by not in ("", "slurm")

    @property
    def opening(self) -> tuple[str, str]:
        """What scontrol sets to end its drain.

        The reason, too: without accounting slurmctld keeps one until a job gets the node
        (clusteracct_storage_g_node_up in interfaces/accounting_storage.c, 24.11.5), and a drain of
        its own meanwhile would stand under it, as one of ours.

        One that did not answer for SlurmdTimeout while it was drained is DOWN besides, and stays
        so: slurmctld by itself takes back only those whose reason is its own "Not responding"
        (ReturnToService of slurm.conf(5); _node_did_resp in slurmctld/node_mgr.c, 24.11.5).
        """
        return ("State=RESUME" if "DOWN" in self.flags else "State=UNDRAIN", f"Reason={RETURNED}")

    @property
    def fit(self) -> bool:
        """Takes jobs, or will."""
        closed = any(flag in self.flags for flag in (*_CLOSED, "INVALID_REG", "UNKNOWN"))
        return self.answers and not closed and bool(self.flags & _FIT)


def states(shown: str) -> dict[str, State]:
    """From `scontrol show node`: several lines a node, some of them empty."""
    nodes = {}
    for block in re.split(r"^(?=NodeName=)", shown, flags=re.MULTILINE):
        name = re.match(r"NodeName=(\S+)", block)
        state = re.search(r"^\s*State=(\S+)", block, re.MULTILINE)
        if not name or not state:
            continue
        started = re.search(r"SlurmdStartTime=(\d\S+)", block)
        reason = re.search(r"^\s*Reason=(.*?)(?: \[([^@\]]*)@[^\]]*\])?\s*$", block, re.MULTILINE)
        nodes[name[1]] = State(
            name[1],
            frozenset(flag.rstrip("*") for flag in state[1].split("+")),
            "*" not in state[1] and "NOT_RESPONDING" not in state[1],
            reason[1] if reason else "",
            (reason[2] or "") if reason else "",
            started[1] if started else "",
        )
    return nodes


def noted(memory: Mapping[str, object], now: Mapping[str, State]) -> dict[str, str]:
    """Node → the reason that a person gave, kept where slurmctld has overwritten it since."""
    decisions = _decisions(memory)
    reasons = {}
    for name, state in now.items():
        if state.closed_by_person:
            reasons[name] = state.reason
        elif state.drained_for_misfit and name in decisions:
            reasons[name] = decisions[name]
    return reasons


def before(file: str) -> None:
    """Note who is fit, people's decisions, and the states that partitions were declared to have."""
    try:
        now = states(slurm_state.command("scontrol", "show", "node"))
    except RuntimeError:
        return  # what was noted last still holds
    memory = _recall()
    fit = {name for name, state in now.items() if state.fit}
    pending = bool(memory.get("pending"))
    if pending:  # the last change is not over: what was fit before it counts
        fit |= {str(name) for name in _list(memory.get("fit"))}
    partitions = memory.get("partitions") if pending else None
    if not isinstance(partitions, dict):
        text = Path(file).read_text() if Path(file).exists() else ""
        config = slurm_state.config_of_text(text, slurm_state.expand)
        partitions = {name: partition.state for name, partition in config.partitions.items()}
    _remember(
        {
            "decisions": noted(memory, now),
            "fit": sorted(fit),
            "partitions": partitions,
            "pending": True,
            "known": _starts(now),
        }
    )


def after(file: str) -> None:
    """Put back people's reasons, and take up partition states that the settings changed."""
    memory = _recall()
    partitions = memory.get("partitions")
    settle(_decisions(memory), SETTLE)
    config = slurm_state.config_of_text(Path(file).read_text(), slurm_state.expand)
    declared = partitions if isinstance(partitions, dict) else {}
    for name, partition in config.partitions.items():
        # With KeepPartState, slurmctld keeps the state that a partition had.
        if name in declared and declared[name] != partition.state:
            words = ("update", f"PartitionName={name}", f"State={partition.state}")
            slurm_state.command("scontrol", *words)
            print(f"partition {name} is {partition.state} as the settings now say")
    _remember({**memory, "pending": False})


def settle(decisions: Mapping[str, str], patience: float) -> None:
    """Give back people's reasons, and end slurmctld's own drains whose cause is gone. Which those
    are is known when the nodes have registered again."""
    end = time.monotonic() + patience
    while True:
        now = states(slurm_state.command("scontrol", "show", "node"))
        waiting = False
        for name, state in now.items():
            if state.drained_for_misfit and name in decisions:
                _give_back(state, decisions[name])
            elif _cause_is_gone(state):
                _end_drain(state)
            elif state.drained_for_misfit and "INVALID_REG" not in state.flags:
                waiting = True
        if not waiting or time.monotonic() > end:
            return
        time.sleep(1)


def started() -> None:
    """Note which slurmd each node has; of a slurmctld that does not answer, nothing."""
    try:
        now = states(slurm_state.command("scontrol", "show", "node"))
    except RuntimeError:
        now = {}
    memory = _recall()
    known = memory.get("known")
    # One that has just been started does not know it of all: what was noted before counts there.
    before = known if isinstance(known, dict) else {}
    _remember({**memory, "started": {**before, **_starts(now)}})


def _starts(now: Mapping[str, State]) -> dict[str, str]:
    """Node → when its slurmd was started, of those of which slurmctld knows it."""
    return {name: state.started for name, state in now.items() if state.started}


def back(file: str, patience: float, may_fail: int) -> list[str]:
    """The nodes that have not come back with slurm.conf, where they are more than may be."""
    wanted = slurm_state.config_of_text(Path(file).read_text(), slurm_state.expand).nodes
    fit_before = {str(name) for name in _list(_recall().get("fit"))}
    end = time.monotonic() + patience
    while True:
        now = states(slurm_state.command("scontrol", "show", "node"))
        left = behind(fit_before & {*wanted}, now)
        if len(left) <= may_fail:
            return []
        if time.monotonic() > end:
            return left
        time.sleep(0.5)


def behind(names: Iterable[str], now: Mapping[str, State]) -> list[str]:
    """Those that have not come back with the slurm.conf that slurmctld was last told to take up."""
    noted = _recall().get("started")
    return missing(names, now, noted if isinstance(noted, dict) else {})


def missing(
    names: Iterable[str], now: Mapping[str, State], started: Mapping[str, object]
) -> list[str]:
    """Those that do not answer, have not registered, or have the slurmd that they had."""
    return sorted(
        name
        for name in names
        if name in now and (not now[name].answers or now[name].started in ("", started.get(name)))
    )


def fit(file: str, patience: float) -> list[str]:
    """What is wrong with the nodes of slurm.conf, after waiting for it to come right."""
    wanted = slurm_state.config_of_text(Path(file).read_text(), slurm_state.expand).nodes
    memory = _recall()
    fit_before = {str(name) for name in _list(memory.get("fit"))}
    began = time.monotonic()
    while True:
        settle(_decisions(memory), 0)
        now = states(slurm_state.command("scontrol", "show", "node"))
        wrong = unfit(wanted, now, fit_before)
        waited = time.monotonic() - began
        judged = all("INVALID_REG" in now[name].flags for name in wrong if name in now)
        if not wrong or waited > patience or (judged and waited > JUDGED):
            return list(wrong.values())
        time.sleep(1)


def unfit(wanted: Iterable[str], now: Mapping[str, State], fit_before: set[str]) -> dict[str, str]:
    """Node → what is wrong with it. One that was dead before the change may stay so, and a person's
    decision is none of ours."""
    wrong = {}
    for name in wanted:
        state = now.get(name)
        if state is None:
            wrong[name] = f"{name}: slurmctld does not know it"
        elif state.misfit:
            wrong[name] = f"{name}: {state.reason or '+'.join(sorted(state.flags))}"
        elif not state.fit and not state.closed_by_person and name in fit_before:
            shown = "+".join(sorted(state.flags)) + ("" if state.answers else ", not responding")
            wrong[name] = f"{name}: {shown}" + (f": {state.reason}" if state.reason else "")
    return wrong


def _cause_is_gone(state: State) -> bool:
    """slurmctld has drained it, and its last registration, which ended UNKNOWN, was good."""
    unsettled = {"INVALID_REG", "UNKNOWN"} & state.flags
    return state.drained_for_misfit and state.answers and not unsettled


def _end_drain(state: State) -> None:
    slurm_state.command("scontrol", "update", f"NodeName={state.name}", *state.opening)
    print(f"resumed {state.name}: {state.reason}")


def _give_back(state: State, reason: str) -> None:
    slurm_state.command("scontrol", "update", f"NodeName={state.name}", f"Reason={reason}")
    print(f"{state.name} stays drained: {reason}")


def _decisions(memory: Mapping[str, object]) -> dict[str, str]:
    kept = memory.get("decisions")
    return (
        {str(name): str(reason) for name, reason in kept.items()} if isinstance(kept, dict) else {}
    )


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _recall() -> dict[str, object]:
    try:
        memory = json.loads(MEMORY.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return memory if isinstance(memory, dict) else {}


def _remember(memory: Mapping[str, object]) -> None:
    MEMORY.parent.mkdir(parents=True, exist_ok=True)
    new = MEMORY.with_suffix(".new")
    with new.open("w") as file:
        json.dump(memory, file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    new.replace(MEMORY)


def main(words: Sequence[str]) -> int:
    verb, file, *rest = words
    if verb == "before":
        before(file)
        return 0
    try:
        if verb == "after":
            after(file)
            return 0
        if verb == "started":
            started()
            return 0
        if verb == "back":
            left = back(file, float(rest[0]), int(rest[1]))
            if left:
                print(
                    f"{','.join(left)} did not come back with the new slurm.conf (journalctl -u "
                    "slurmd there); correct the settings and run again",
                    file=sys.stderr,
                )
            return 1 if left else 0
        wrong = fit(file, float(rest[0]))
    except RuntimeError as error:
        wrong = [str(error)]
    if not wrong:
        return 0
    print(
        f"slurmctld does not see these nodes fit: {'; '.join(wrong)}. Correct their figures in "
        "slurmstack:nodes, or the nodes (journalctl -u slurmd there), and run again; a node that "
        "is to stay out is drained (scontrol update NodeName=NODE State=DRAIN Reason=TEXT)",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
