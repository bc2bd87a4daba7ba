"""What is said of jobs that a change concerns: which, what becomes of them, what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from on_node.slurm_state import Job

#: Jobs that one message names of each kind.
_NAMED = 12


def report(
    suffering: Mapping[str, Sequence[Job]],
    reservations: Sequence[str] = (),
    further: Sequence[str] = (),
) -> str:
    """One line: what happens to which jobs, and what to do about it."""
    if not suffering and not reservations:
        return "; ".join(further)
    parts = [*further, *reservations, *told(suffering)]
    ids = " ".join(dict.fromkeys(job.id for jobs in suffering.values() for job in jobs))
    ways = [
        "let these jobs end (scontrol update NodeName=NODE State=DRAIN Reason=TEXT, or scontrol "
        "update PartitionName=NAME State=DRAIN, keeps new ones away meanwhile)",
        "change them (scontrol update JobId=…)",
        f"cancel them (scancel {ids})",
    ]
    if reservations:
        ways = [
            *(ways if suffering else []),
            "delete the reservations (scontrol delete Reservation=…)",
        ]
    ways.append("allow it with slurmstack:guards.allowJobLoss: true")
    return f"jobs would end or stay behind: {'; '.join(parts)}. Either {', or '.join(ways)}"


def told(suffering: Mapping[str, Sequence[Job]]) -> list[str]:
    """What happens to which jobs, one by one."""
    return [
        f"{what}: job{'s' if len(jobs) > 1 else ''} {listed(jobs)}"
        for what, jobs in suffering.items()
    ]


def listed(jobs: Sequence[Job]) -> str:
    more = f" and {len(jobs) - _NAMED} more" if len(jobs) > _NAMED else ""
    return ", ".join(_named(job) for job in jobs[:_NAMED]) + more


def _named(job: Job) -> str:
    place = f" on {','.join(job.nodes)}" if job.nodes else ""
    return f"{job.id} ({job.user}, {','.join(job.partitions)}, {job.state.lower()}{place})"
