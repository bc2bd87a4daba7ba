"""Names the jobs that a new slurm.conf would end or leave waiting for good.

    check BUNDLE [NAME|PATH…]
                   before anything is changed; ends with 1 and the jobs on stderr. The parameters
                   and files are those whose change no running job survives: slurmd would not know
                   it any more, or slurmctld could not read what it has saved of it
    hold FILE      right before slurmctld takes FILE up: no job starts meanwhile where the change
                   would end it, and those that have started since are looked at
    release        afterwards, whatever became of it
    destroy        before the whole cluster is taken back: ends with 1 while any job runs or waits

What jobs suffer from a change, Slurm itself asks nobody: job_harm.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from on_node import slurm_state
from on_node.job_change import Change, change
from on_node.job_harm import all_harm, lost_reservations, too_many
from on_node.job_hold import hold, release
from on_node.job_words import listed, report
from on_node.slurm_state import Job
from on_node.user_groups import groups_of


def check(
    bundle: str,
    alone: Sequence[str],
    concerned: Callable[[Change], Sequence[Job]] = lambda it: it.jobs,
) -> str | None:
    """What is to be said against the bundle's slurm.conf; None where nothing is.

    Args:
        bundle: its text.
        alone: the parameters and files whose change no running job survives.
        concerned: which of the jobs it is asked for.
    """
    try:
        found = change(bundle, alone)
        if found is None:
            return None
        reservations = [*lost_reservations(slurm_state.reservations(), found.new)]
    except RuntimeError as error:
        return (
            "nodes or partitions are to change, and slurmctld does not say which jobs that "
            f"concerns ({error}). Either start it (systemctl start slurmctld), or allow the loss "
            "of jobs with slurmstack:guards.allowJobLoss: true"
        )
    suffering = all_harm(concerned(found), found.old, found.new, found.others, groups_of)
    further = [*too_many(found.kept, found.old, found.new)]
    return report(suffering, reservations, further) or None


def destroy() -> str | None:
    """What is to be said against taking the cluster back; None where nothing is."""
    try:
        jobs = slurm_state.jobs()
    except RuntimeError as error:
        # Whoever has disabled it has said that this host holds no jobs any more (it moves, say).
        if _is_disabled("slurmctld.service"):
            return None
        return (
            f"the cluster is to be taken back, and slurmctld does not say which jobs there are "
            f"({error}). Either start it (systemctl start slurmctld), or, if no job is left, "
            "disable it (systemctl disable --now slurmctld), or allow the loss of jobs with "
            "slurmstack:guards.allowJobLoss: true and pulumi up first"
        )
    if not jobs:
        return None
    at_work = [job for job in jobs if not job.waits]
    waiting = [job for job in jobs if job.waits]
    parts = [
        f"{len(some)} {what} ({listed(some)})"
        for what, some in (("running", at_work), ("waiting", waiting))
        if some
    ]
    return (
        f"jobs would be lost with the cluster: {', '.join(parts)}. Either let them end (scontrol "
        "update PartitionName=NAME State=DRAIN keeps new ones out meanwhile), or cancel them "
        "(scancel JOB…), or allow their loss with slurmstack:guards.allowJobLoss: true and "
        "pulumi up, then pulumi destroy"
    )


def _is_disabled(unit: str) -> bool:
    """Whether it neither runs nor starts with the host."""
    for verb in ("is-active", "is-enabled"):
        words = ["systemctl", verb, "--quiet", unit]
        if subprocess.run(words, timeout=20, check=False).returncode == 0:
            return False
    return True


def main(words: Sequence[str]) -> int:
    verb, *rest = words
    against = None
    try:
        if verb == "release":
            release()
        elif verb == "destroy":
            against = destroy()
        elif verb == "check":
            against = check(Path(rest[0]).read_text(), rest[1:])
        else:
            against = hold(rest[0])
    except RuntimeError as error:
        against = (
            "slurmctld does not say how nodes are, and those that were closed for this change stay "
            f"so until the next run: {error}"
        )
    if against is not None:
        print(against, file=sys.stderr)
    return 0 if against is None else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
