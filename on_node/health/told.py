"""What Slurm is told of a node: a drain in words where a check fails, and its end when that one
passes again. What anybody else has decided of the node stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from on_node import slurm_state
from on_node.health.results import Result
from on_node.node_states import State, states

#: Reasons of ours begin with it; a reason that does not is somebody's word.
MARK = "slurmstack: health: "
#: A reason is a line in sinfo.
_LONGEST = 300


@dataclass(frozen=True)
class Step:
    """What is to be done."""

    what: Literal["nothing", "drain", "reason", "return"]
    reason: str = ""


def step(state: State, results: Mapping[str, Result], drained_for: Sequence[str]) -> Step:
    """What follows from a look at the node.

    Args:
        state: as slurmctld has it.
        results: check → its word.
        drained_for: the checks for which we drained it.
    """
    faults = {name: it.words for name, it in results.items() if it.verdict == "fault"}
    closed = state.flags & {"DRAIN", "DOWN", "FAIL"}
    ours = "DRAIN" in closed and state.reason.startswith(MARK)
    if faults:
        reason = worded(faults.values())
        if not closed:
            return Step("drain", reason)
        return Step("reason", reason) if ours and state.reason != reason else Step("nothing")
    if not ours:
        return Step("nothing")
    # A check that the settings no longer have keeps nobody out; one that cannot tell does.
    open_ones = drained_for or list(results)
    if any(results[name].verdict != "good" for name in open_ones if name in results):
        return Step("nothing")
    return Step("return")


def worded(faults: Iterable[str]) -> str:
    """The reason of a drain."""
    text = MARK + "; ".join(faults)
    text = "".join(it if it.isprintable() and it != '"' else " " for it in text)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def tell(node: str, results: Mapping[str, Result], drained_for: Sequence[str]) -> Step:
    """Do it.

    Raises:
        RuntimeError: slurmctld does not answer.
    """
    state = states(slurm_state.command("scontrol", "show", "node", node)).get(node)
    if state is None:
        return Step("nothing")
    decided = step(state, results, drained_for)
    name = f"NodeName={node}"
    if decided.what == "drain":
        slurm_state.command("scontrol", "update", name, "State=DRAIN", f"Reason={decided.reason}")
    elif decided.what == "reason":
        slurm_state.command("scontrol", "update", name, f"Reason={decided.reason}")
    elif decided.what == "return":
        slurm_state.command("scontrol", "update", name, *state.opening)
    return decided
