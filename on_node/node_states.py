"""What people have decided of nodes and partitions outlasts a change, and what slurmctld itself
has against a node ends with its cause.

    before FILE    notes, before slurm.conf becomes FILE's text, who is fit and what people decided
    after FILE     puts back what a change has overwritten, sets partition states that the settings
                   changed; FILE is the slurm.conf that is in place
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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from on_node import slurm_state

MEMORY = Path("/var/lib/slurmstack/slurmctld/node-states.json")
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
    def fit(self) -> bool:
        """Takes jobs, or will."""
        closed = any(flag in self.flags for flag in (*_CLOSED, "INVALID_REG", "UNKNOWN"))
        return self.answers and not closed and bool(self.flags & _FIT)


def states(shown: str) -> dict[str, State]:
    """From `scontrol show node`, an empty line between nodes."""
    found = {}
    for block in re.split(r"\n\s*\n", shown):
        name = re.search(r"^NodeName=(\S+)", block.strip())
        state = re.search(r"^\s*State=(\S+)", block, re.MULTILINE)
        if not name or not state:
            continue
        reason = re.search(r"^\s*Reason=(.*?)(?: \[([^@\]]*)@[^\]]*\])?\s*$", block, re.MULTILINE)
        found[name[1]] = State(
            name[1],
            frozenset(flag.rstrip("*") for flag in state[1].split("+")),
            "*" not in state[1] and "NOT_RESPONDING" not in state[1],
            reason[1] if reason else "",
            (reason[2] or "") if reason else "",
        )
    return found


def noted(memory: Mapping[str, object], now: Mapping[str, State]) -> dict[str, str]:
    """Node → the reason that a person gave, kept where slurmctld has overwritten it since."""
    kept = memory.get("decisions")
    decisions = dict(kept) if isinstance(kept, dict) else {}
    found = {}
    for name, state in now.items():
        if state.closed_by_person:
            found[name] = state.reason
        elif state.drained_for_misfit and name in decisions:
            found[name] = str(decisions[name])
    return found


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
        }
    )


def after(file: str) -> None:
    """Put back people's reasons, and take up partition states that the settings changed."""
    memory = _recall()
    decisions, partitions = memory.get("decisions"), memory.get("partitions")
    now = states(slurm_state.command("scontrol", "show", "node"))
    for name, reason in (decisions if isinstance(decisions, dict) else {}).items():
        if name in now and now[name].drained_for_misfit:
            _give_back(now[name], str(reason))
    config = slurm_state.config_of_text(Path(file).read_text(), slurm_state.expand)
    declared = partitions if isinstance(partitions, dict) else {}
    for name, partition in config.partitions.items():
        # With KeepPartState, slurmctld keeps the state that a partition had.
        if name in declared and declared[name] != partition.state:
            words = ("update", f"PartitionName={name}", f"State={partition.state}")
            slurm_state.command("scontrol", *words)
            print(f"partition {name} is {partition.state} as the settings now say")
    _remember({**memory, "pending": False})


def fit(file: str, patience: float) -> list[str]:
    """What is wrong with the nodes of slurm.conf, after waiting for it to come right."""
    wanted = slurm_state.config_of_text(Path(file).read_text(), slurm_state.expand).nodes
    memory = _recall()
    fit_before = {str(name) for name in _list(memory.get("fit"))}
    kept = memory.get("decisions")
    decisions = dict(kept) if isinstance(kept, dict) else {}
    end = time.monotonic() + patience
    while True:
        now = states(slurm_state.command("scontrol", "show", "node"))
        for name in wanted:
            if name in now and _cause_is_gone(now[name]):
                _clear(now[name], decisions.get(name))
        wrong = [*unfit(wanted, now, fit_before)]
        if not wrong or time.monotonic() > end:
            return wrong
        time.sleep(1)


def unfit(
    wanted: Mapping[str, object], now: Mapping[str, State], fit_before: set[str]
) -> Iterator[str]:
    """Nodes that are not as they should be. One that was dead before the change may stay so, and
    a person's decision is none of ours."""
    for name in wanted:
        state = now.get(name)
        if state is None:
            yield f"{name}: slurmctld does not know it"
        elif state.misfit:
            yield f"{name}: {state.reason or '+'.join(sorted(state.flags))}"
        elif not state.fit and not state.closed_by_person and name in fit_before:
            shown = "+".join(sorted(state.flags)) + ("" if state.answers else ", not responding")
            yield f"{name}: {shown}" + (f": {state.reason}" if state.reason else "")


def _cause_is_gone(state: State) -> bool:
    """slurmctld has drained it, and its last registration, which ended UNKNOWN, was good."""
    unsettled = {"INVALID_REG", "UNKNOWN", "DOWN"} & state.flags
    return state.drained_for_misfit and state.answers and not unsettled


def _clear(state: State, decision: object) -> None:
    if decision is not None:
        _give_back(state, str(decision))
        return
    slurm_state.command("scontrol", "update", f"NodeName={state.name}", "State=UNDRAIN")
    print(f"resumed {state.name}: {state.reason}")


def _give_back(state: State, reason: str) -> None:
    slurm_state.command("scontrol", "update", f"NodeName={state.name}", f"Reason={reason}")
    print(f"{state.name} stays drained: {reason}")


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _recall() -> dict[str, object]:
    try:
        found = json.loads(MEMORY.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


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
