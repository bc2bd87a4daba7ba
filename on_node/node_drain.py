"""Drains nodes before slurm.conf is changed under them, and gives them back: what the bundle of
slurmctld asks where ``slurmstack:rollout.drain`` lets it wait for jobs instead of refusing.

    check BUNDLE [NAME|PATH…]
                   as job_guard's, but for the jobs that are waited for: of what no wait ends (a
                   partition goes, say) it speaks before any node is drained
    out BUNDLE SECONDS yes|no [NAME|PATH…]
                   keeps new jobs from the nodes concerned, and waits until no job is left that the
                   change would end; ends with 4 where there is none to begin with. When the time
                   is over, the jobs are cancelled (yes), or named, and the nodes given back
    back           gives back the nodes that have come back with the new slurm.conf and have proven
                   themselves by what is on stdin: a script that does both for the node it is told
    unchanged      gives back all that `out` has drained
    failed BUNDLE [NAME|PATH…]
                   the same, but where the bundle's files are in place: then they stay drained

Which nodes are ours to give back says the reason of their drain, which slurmctld keeps: it outlasts
a run that was killed, and who gives a node another reason has taken it over.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from on_node import job_change, job_guard, node_states, slurm_state
from on_node.job_change import Change
from on_node.job_harm import Harm, all_harm
from on_node.job_words import told
from on_node.node_states import State
from on_node.slurm_state import Job, Node

#: The reason of a drain that is ours to end.
OURS = "slurmstack: slurm.conf is to be changed"
#: How `out` ends where no node has to be drained (remote/README.md, withdraw).
NOTHING = 4
#: Nodes that are proven at the same time.
_AT_ONCE = 32
#: Seconds between two looks at the jobs.
_PAUSE = 1.0
#: Seconds for cancelled jobs to end, and for nodes to register with the new slurm.conf.
_CANCELLED, _RETURN = 300.0, 60.0


def suffering(change: Change) -> Harm:
    """What jobs suffer that have nodes, from what changes on these alone: such jobs are waited for.
    What leaves the cluster or a partition is no node that changes."""
    nodes = {name: change.new.nodes.get(name, node) for name, node in change.old.nodes.items()}
    return _harm(change, [job for job in change.jobs if not job.waits], nodes, change.others)


def _harm(
    change: Change, jobs: Sequence[Job], nodes: Mapping[str, Node], others: Sequence[str] = ()
) -> Harm:
    after = replace(change.old, nodes=nodes)
    return all_harm(jobs, change.old, after, others, lambda user: frozenset())


def not_waited_for(change: Change) -> list[Job]:
    """The jobs for which no wait helps, or is needed."""
    ends = {job.id for jobs in suffering(change).values() for job in jobs}
    return [job for job in change.jobs if job.id not in ends]


def concerned(change: Change, harm: Harm) -> list[str]:
    """The nodes that no further job may begin on while those are waited for that suffer.

    Args:
        change: what is to be changed.
        harm: what their jobs suffer from it.
    """
    if not harm:
        return []
    if change.others:
        return [name for name in change.old.nodes if name in change.new.nodes]
    return [
        name
        for name, was in change.old.nodes.items()
        # Of other devices or cores any job may suffer, also one that began meanwhile; of fewer CPUs
        # and less memory those that hold what goes.
        if (node := change.new.nodes.get(name)) is not None
        and (_is_other(was, node) or _is_too_small(change, name, node))
    ]


def _is_other(was: Node, node: Node) -> bool:
    return (was.cores, was.gres, was.address) != (node.cores, node.gres, node.address)


def _is_too_small(change: Change, name: str, node: Node) -> bool:
    there = [job for job in change.jobs if name in job.nodes and not job.waits]
    return bool(there and _harm(change, there, {**change.old.nodes, name: node}))


class JobsStay(Exception):
    """Jobs have not ended in time. Its text names them, and what they would suffer."""


def out(
    bundle: str, seconds: float, end_jobs: bool, alone: Sequence[str], alive: Callable[[], bool]
) -> bool:
    """Wait until no job is left that the bundle's slurm.conf would end.

    Args:
        bundle: its text.
        seconds: how long jobs may take to end by themselves.
        end_jobs: whether they are cancelled then.
        alone: the parameters and files whose change no running job survives.
        alive: whether the run goes on that this is a part of; the nodes of one that was killed are
            the next one's.

    Returns:
        Whether a node had to be drained.

    Raises:
        JobsStay: the time is over.
        RuntimeError: slurmctld does not answer.
    """
    end, cancelled = time.monotonic() + seconds, False
    taken: set[str] = set()
    while True:
        change = job_change.change(bundle, alone)
        harm = suffering(change) if change is not None else {}
        if change is None or not (harm or taken):
            return bool(taken)
        now = _states()
        # Once for each: what anybody decides of the node then counts.
        names = [name for name in concerned(change, harm) if name not in taken]
        free = [name for name in names if now[name].fit]
        if free:
            _update(free, "State=DRAIN", f"Reason={OURS}")
        taken |= {*names}
        # A job that completes has its node until its Epilog is over.
        if not harm and not any("COMPLETING" in now[it].flags for it in taken if it in now):
            return True
        if time.monotonic() > end:
            if not harm:
                return True
            if not end_jobs or cancelled:
                raise JobsStay("; ".join(told(harm)))
            ids = sorted({job.id for jobs in harm.values() for job in jobs})
            print(f"cancelled (slurmstack:rollout.endJobs): {' '.join(ids)}")
            slurm_state.command("scancel", *ids)
            cancelled, end = True, time.monotonic() + _CANCELLED
        if not alive():
            raise SystemExit(1)
        time.sleep(_PAUSE)


def give_back() -> None:
    """End all drains of ours."""
    ours = {name: state for name, state in _states().items() if _is_ours(state)}
    for opening in {state.opening for state in ours.values()}:
        _update([name for name, state in ours.items() if state.opening == opening], *opening)
    if ours:
        print(f"resumed {','.join(ours)}")


def back(proof: str, patience: float = _RETURN) -> list[str]:
    """Give back those that have come back with the new slurm.conf.

    Args:
        proof: a script (sh) that proves the node it is told and gives it back.
        patience: seconds for the nodes to come back.

    Returns:
        What is wrong with the others, which stay drained.
    """
    end = time.monotonic() + patience
    unproven: dict[str, str] = {}
    while True:
        now = _states()
        ours = {
            name: state for name, state in now.items() if _is_ours(state) and name not in unproven
        }
        wrong = {*node_states.behind(ours, now)}
        wrong |= {name for name, state in ours.items() if "INVALID_REG" in state.flags}
        fit = [name for name in ours if name not in wrong]
        with ThreadPoolExecutor(_AT_ONCE) as several:
            for name, failure in zip(fit, several.map(partial(_prove, proof), fit), strict=True):
                if failure:
                    unproven[name] = failure
                else:
                    print(f"resumed {name}")
        if not wrong or time.monotonic() > end:
            unproven |= dict.fromkeys(
                wrong, "did not come back with the new slurm.conf (journalctl -u slurmd there)"
            )
            return [f"{name} {what}" for name, what in sorted(unproven.items())]
        time.sleep(_PAUSE)


def _prove(proof: str, node: str) -> str:
    """What a node has failed by; nothing where it was given back."""
    words = ["sh", "-s", node]
    done = subprocess.run(words, input=proof, capture_output=True, text=True, check=False)
    said = (done.stdout + done.stderr).strip()
    if done.returncode == 0:
        print(said, end="\n" if said else "")
        return ""
    return f"is not given back: {said}"


def _is_ours(state: State) -> bool:
    return "DRAIN" in state.flags and state.reason.startswith(OURS)


def _states() -> dict[str, State]:
    return node_states.states(slurm_state.command("scontrol", "show", "node"))


def _update(names: Sequence[str], *what: str) -> None:
    slurm_state.command("scontrol", "update", f"NodeName={','.join(names)}", *what)


def _run_is_alive() -> bool:
    process = os.environ.get("SLURMSTACK_PROCESS", "")
    return not process.isdigit() or Path("/proc", process).exists()


def _in_place(bundle: str, alone: Sequence[str]) -> bool:
    """Whether the bundle's files are."""
    present = Path(job_change.SLURM_CONF)
    wanted = slurm_state.file_of_bundle(bundle, job_change.SLURM_CONF)
    same = present.exists() and wanted == present.read_text()
    return same and not any(job_change.files(bundle, alone))


def _back() -> int:
    wrong = back(sys.stdin.read())
    if wrong:
        print(f"{'; '.join(wrong)}; drained until it has (pulumi up again)", file=sys.stderr)
    return 1 if wrong else 0


def _failed(bundle: str, alone: Sequence[str]) -> int:
    ours = [name for name, state in _states().items() if _is_ours(state)]
    if not _in_place(bundle, alone):
        give_back()
    elif ours:
        print(f"{','.join(ours)} stays drained: {OURS}")
    return 0


def main(words: Sequence[str]) -> int:
    verb, *rest = words
    bundle = Path(rest[0]).read_text() if rest else ""
    try:
        if verb == "check":
            against = job_guard.check(bundle, rest[1:], not_waited_for)
            if against is not None:
                print(against, file=sys.stderr)
            return 0 if against is None else 1
        if verb == "out":
            seconds, end_jobs, *alone = rest[1:]
            drained = out(bundle, float(seconds), end_jobs == "yes", alone, _run_is_alive)
            return 0 if drained else NOTHING
        if verb == "back":
            return _back()
        if verb == "failed":
            return _failed(bundle, rest[1:])
        give_back()
    except JobsStay as error:
        what = "jobs are in the way when slurmstack:rollout.drainTimeout is over"
        print(f"{what}: {error}", file=sys.stderr)
        return 1
    except RuntimeError as error:
        print(f"slurmctld does not say how nodes and jobs are: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
