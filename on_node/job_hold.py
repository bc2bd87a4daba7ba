"""No job starts where a change would end it, while slurmctld takes the change up."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from on_node import node_states, slurm_state
from on_node.job_change import jobs_of
from on_node.job_harm import all_harm
from on_node.job_words import report
from on_node.slurm_state import Config, Node
from on_node.user_groups import groups_of

#: Nodes that `hold` has drained; gone with the next boot of the host, like the run itself.
HELD = Path("/run/slurmstack/held-nodes")
REASON = "slurmstack: slurm.conf is being changed"


def affected(old: Config, new: Config) -> list[str]:
    """Nodes on which no job may start while the change is made: it could not stay there."""
    names = []
    for name, was in old.nodes.items():
        node = new.nodes.get(name)
        fewer = node is not None and (
            node.cores != was.cores
            or node.cpus < was.cpus
            or node.memory < was.memory
            or node.gres != was.gres
            or node.address != was.address
        )
        left = any(
            name in partition.nodes
            and (other not in new.partitions or name not in new.partitions[other].nodes)
            for other, partition in old.partitions.items()
        )
        if node is None or fewer or left:
            names.append(name)
    return names


def hold(file: str) -> str | None:
    """Keep new jobs from what changes, then look again. What is said against it, or None."""
    new = slurm_state.config_of_text(Path(file).read_text(), slurm_state.expand)
    try:
        release()  # what a run left that was killed
        old = slurm_state.running()
        free = [name for name in affected(old, new) if _takes_jobs(old.nodes[name])]
        if free:
            HELD.parent.mkdir(parents=True, exist_ok=True)
            HELD.write_text(",".join(free) + "\n")
            _update(free, "State=DRAIN", f"Reason={REASON}")
        jobs = jobs_of(slurm_state.shown_jobs(), old, new)
        suffering = all_harm(jobs, old, new, [], groups_of)
    except RuntimeError as error:
        # It was asked before anything changed; that it answers no more is the caller's to see.
        print(f"slurmctld does not say which jobs there are: {error}", file=sys.stderr)
        return None
    return report(suffering) if suffering else None


def _takes_jobs(node: Node) -> bool:
    closed = ("DRAIN", "DOWN", "FAIL", "INVALID_REG")
    return node.answers and not any(flag.startswith(closed) for flag in node.state)


def release() -> None:
    """Give back what `hold` has drained."""
    if not HELD.exists():
        return
    known = node_states.states(slurm_state.command("scontrol", "show", "node"))
    for name in HELD.read_text().strip().split(","):
        if name in known and known[name].reason.startswith(REASON):
            _update([name], *known[name].opening)
    HELD.unlink()


def _update(names: Sequence[str], *what: str) -> None:
    slurm_state.command("scontrol", "update", f"NodeName={','.join(names)}", *what)
