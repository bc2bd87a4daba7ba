"""What jobs suffer from a configuration. What one does not suffer from the present configuration
already, it shall not suffer from the next.

Slurm itself asks nobody: with a reconfiguration it ends the jobs of a partition or node that is
gone, jobs on a node whose cores or GRES count differently from before, and waiting jobs that name
one of them (_sync_jobs_to_conf in slurmctld/read_config.c).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from on_node import slurm_state
from on_node.job_start import Groups, can_start
from on_node.slurm_state import Config, Job

#: What a change does → the jobs that suffer it.
Harm = dict[str, list[Job]]


def harm(jobs: Sequence[Job], old: Config, new: Config, groups: Groups) -> Harm:
    """What jobs suffer from the new configuration and not from the old one already."""
    suffering: Harm = {}
    for job in jobs:
        before = set(_suffers(job, old, old, groups))
        for what in _suffers(job, old, new, groups):
            if what not in before:
                suffering.setdefault(what, []).append(job)
    return suffering


def _suffers(job: Job, old: Config, new: Config, groups: Groups) -> Iterator[str]:
    gone = [name for name in job.partitions if name not in new.partitions]
    for name in gone:
        yield f"partition {name} goes"
    for name in job.demanded if job.waits else job.nodes:
        # A node that does not answer has nothing left to lose.
        if name not in new.nodes and not (name in old.nodes and not old.nodes[name].answers):
            yield f"node {name} leaves the cluster"
    for name, number in job.licenses:
        if name not in new.licenses:
            # Slurm strikes it from the job: one that waits then starts without.
            yield f"license {name} goes"
        elif job.waits and number > new.licenses[name]:
            yield f"there are {new.licenses[name]} licenses {name}, {number} are wanted at once"
    if gone:
        return
    if job.waits:
        if not any(can_start(job, new.partitions[name], new, groups) for name in job.partitions):
            yield "no partition is left in which these can start"
    else:
        yield from _loses(job, old, new)


def _loses(job: Job, old: Config, new: Config) -> Iterator[str]:
    """What a job that has nodes loses of them."""
    partition = new.partitions[job.partitions[0]] if job.partitions else None
    for name in job.nodes:
        if name not in new.nodes or name not in old.nodes:
            continue
        was, node = old.nodes[name], new.nodes[name]
        if not was.answers:
            continue
        if partition is not None and name not in partition.nodes:
            yield f"node {name} leaves partition {partition.name}"
        if node.address != was.address:
            yield f"node {name} is another machine ({node.address}, not {was.address})"
        if node.cores != was.cores:
            yield f"node {name} has {node.cores} cores, not {was.cores}"
        for what, kind, _, by_device in job.held[name].gres if name in job.held else ():
            # Of what is given out by device, Slurm wants to find the very number of devices.
            counted = "gpu" if what in ("shard", "mps") else what
            if kind not in node.gres.get(what, {}) and kind:
                yield f"node {name} has no gres/{what}:{kind}"
            elif by_device and node.count(counted) != was.count(counted):
                yield (
                    f"node {name} has {node.count(counted)} gres/{counted}, "
                    f"not {was.count(counted)}"
                )
    if partition is not None and job.time_limit > partition.max_time:
        yield f"MaxTime of partition {partition.name} is below their time limit"


def overcommitted(jobs: Sequence[Job], config: Config) -> Iterator[tuple[str, list[Job]]]:
    """Nodes and licenses of which there is less than jobs hold together, and these jobs."""
    for license_, total in config.licenses.items():
        wanted = {
            job.id: number
            for job in jobs
            for name, number in job.licenses
            if name == license_ and not job.waits
        }
        if (sum_held := sum(wanted.values())) > total:
            yield (
                f"there are {total} licenses {license_}, {sum_held} are held",
                [job for job in jobs if job.id in wanted],
            )
    for name, node in config.nodes.items():
        there = [(job, job.held[name]) for job in jobs if name in job.held]
        # Suspended jobs leave their CPUs to others, and keep their memory.
        at_work = [held for job, held in there if job.state != "SUSPENDED"]
        cpus = sum(held.cpus for held in at_work)
        if cpus > node.cpus:
            yield f"node {name} has {node.cpus} CPUs, {cpus} are held", [job for job, _ in there]
        memory = sum(held.memory for _, held in there)
        if memory > node.memory:
            yield (
                f"node {name} offers {node.memory} MiB, {memory} are held",
                [job for job, held in there if held.memory],
            )
        totals: dict[tuple[str, str], int] = {}
        for _, held in there:
            for what, kind, count, _ in held.gres:
                totals[what, kind] = totals.get((what, kind), 0) + count
        for (what, kind), count in totals.items():
            if count > node.count(what, kind):
                yield (
                    f"node {name} has {node.count(what, kind)} gres/{what}, {count} are held",
                    [job for job, held in there if what in [entry[0] for entry in held.gres]],
                )


def all_harm(
    jobs: Sequence[Job], old: Config, new: Config, changes: Sequence[str], groups: Groups
) -> Harm:
    """All that a change does to jobs.

    Args:
        jobs: those that wait or have nodes.
        old: what slurmctld runs by.
        new: what it is to run by.
        changes: what else changes that no running job survives.
        groups: the groups of a user.
    """
    suffering = harm(jobs, old, new, groups)
    before = dict(overcommitted(jobs, old))
    for what, sufferers in overcommitted(jobs, new):
        if what not in before and not _named_already(suffering, what):
            suffering[what] = sufferers
    at_work = [job for job in jobs if not job.waits]
    for change in changes:
        if at_work:
            suffering[f"{change}, which no running job survives"] = at_work
    return suffering


def _named_already(suffering: Harm, what: str) -> bool:
    """Whether fewer GRES of a node are named for the jobs that Slurm would end."""
    start = " ".join(what.split()[:3])
    return "gres/" in what and any(
        other.startswith(start) and "gres/" in other for other in suffering
    )


def lost_reservations(reservations: Sequence[Mapping[str, str]], new: Config) -> Iterator[str]:
    """Reservations that Slurm deletes or cuts, as it finds their partition or nodes no more."""
    for fields in reservations:
        name, partition = fields["ReservationName"], fields.get("PartitionName", "(null)")
        if partition not in ("", "(null)") and partition not in new.partitions:
            yield f"reservation {name} is of partition {partition}, which goes"
        hosts = fields.get("Nodes", "")
        names = () if hosts in ("", "(null)") else slurm_state.expand(hosts)
        gone = [host for host in names if host not in new.nodes]
        if gone:
            yield f"reservation {name} has {','.join(gone)}, which leave the cluster"


def too_many(count: int, old: Config, new: Config) -> Iterator[str]:
    """More jobs than slurmctld takes up again: it passes over the others, and their nodes end them
    as unknown (job_mgr_load_job_state in slurmctld/job_mgr.c).

    Args:
        count: the jobs that slurmctld keeps.
        old: what it runs by.
        new: what it is to run by.
    """
    if count >= new.max_jobs and new.max_jobs < old.max_jobs:
        yield (
            f"slurmctld keeps {count} jobs, finished ones among them (MinJobAge); with a "
            f"MaxJobCount of {new.max_jobs} it would forget some, and end those that run: choose "
            f"one above {count}"
        )
