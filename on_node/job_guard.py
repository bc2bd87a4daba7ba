"""Names the jobs that a new slurm.conf would end or leave waiting for good.

Slurm itself asks nobody: with a reconfiguration it ends the jobs of a partition or node that is
gone, jobs on a node whose cores or GRES count differently from before, and waiting jobs that name
one of them (_sync_jobs_to_conf in slurmctld/read_config.c). What a job does not suffer from the
present configuration already, it shall not suffer from the next.

    check BUNDLE [NAME|PATH…]
                   before anything is changed; ends with 1 and the jobs on stderr. The parameters
                   and files are those whose change no running job survives: slurmd would not know
                   it any more, or slurmctld could not read what it has saved of it
    hold FILE      right before slurmctld takes FILE up: no job starts meanwhile where the change
                   would end it, and those that have started since are looked at
    release        afterwards, whatever became of it
    destroy        before the whole cluster is taken back: ends with 1 while any job runs or waits
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from on_node import job_state, slurm_state
from on_node.slurm_state import UNLIMITED, Config, Job, Node, Partition

SLURM_CONF = "/etc/slurm/slurm.conf"
TOPOLOGY_CONF = "/etc/slurm/topology.conf"
#: Nodes that `hold` has drained; gone with the next boot of the host, like the run itself.
HELD = Path("/run/slurmstack/held-nodes")
REASON = "slurmstack: slurm.conf is being changed"
#: Jobs that one message names of each kind.
_NAMED = 12

#: What a change does → the jobs that suffer it.
Harm = dict[str, list[Job]]


@dataclass(frozen=True)
class Change:
    """What a bundle is to change, and the jobs that there are."""

    #: What slurmctld runs by, and what it is to run by.
    old: Config
    new: Config
    #: What else changes that no running job survives.
    others: tuple[str, ...]
    #: Those that wait or have nodes.
    jobs: tuple[Job, ...]
    #: How many slurmctld keeps, finished ones among them.
    kept: int


#: The groups of a user, as the host knows them.
Groups = Callable[[str], "frozenset[str]"]


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
        if not any(_can_start(job, new.partitions[name], new, groups) for name in job.partitions):
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


def _can_start(job: Job, partition: Partition, config: Config, groups: Groups) -> bool:
    """Whether a waiting job may and can ever run in a partition."""
    rules = partition.rules
    names = {"Accounts": frozenset([job.account]), "Qos": frozenset([job.qos])}
    for what, own in names.items():
        if own == {""}:
            continue
        if f"Allow{what}" in rules and not own & rules[f"Allow{what}"]:
            return False
        if f"Deny{what}" in rules and own & rules[f"Deny{what}"]:
            return False
    if (
        "AllowGroups" in rules
        and job.user != "root"
        and not groups(job.user) & rules["AllowGroups"]
    ):
        return False
    # An unlimited time limit is the partition's own: the job asked for none.
    if job.time_limit != UNLIMITED and job.time_limit > partition.max_time:
        return False
    if job.node_count > partition.max_nodes:
        return False
    there = [config.nodes[name] for name in sorted(partition.nodes) if name in config.nodes]
    if not set(job.demanded) <= {node.name for node in there}:
        return False
    fit = [node for node in there if _offers(node, job)]
    # A job's nodes have one switch above them all (topology.conf(5)).
    return any(
        _suffice([node for node in fit if node.name in joined], job)
        for joined in config.apart or (frozenset(config.nodes),)
        if set(job.demanded) <= joined
    )


def _suffice(nodes: Sequence[Node], job: Job) -> bool:
    return (
        len(nodes) >= job.node_count
        and _has_features(nodes, job.features)
        and all(
            sum(node.count(what, kind) for node in nodes) >= number
            for what, kind, number in job.gres_of_job
        )
    )


def _offers(node: Node, job: Job) -> bool:
    return (
        node.cpus >= job.cpus_per_node
        and node.memory >= job.memory_per_node
        and all(node.count(what, kind) >= count for what, kind, count in job.gres_per_node)
    )


def _has_features(nodes: Sequence[Node], wanted: str) -> bool:
    """Whether the nodes have what --constraint of sbatch(1) asks for. In brackets or with counts,
    `&` may be met by several nodes; elsewhere by each."""
    if not wanted:
        return True
    several = "[" in wanted or "*" in wanted
    for alternative in wanted.split("|"):
        names = [re.sub(r"\*\d+$", "", name) for name in re.split(r"[&,\[\]()]", alternative)]
        needed = {name for name in names if name}
        if several and needed <= {name for node in nodes for name in node.features}:
            return True
        if not several and any(needed <= node.features for node in nodes):
            return True
    return False


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
        f"{what}: job{'s' if len(jobs) > 1 else ''} {_list(jobs)}"
        for what, jobs in suffering.items()
    ]


def _list(jobs: Sequence[Job]) -> str:
    more = f" and {len(jobs) - _NAMED} more" if len(jobs) > _NAMED else ""
    return ", ".join(_named(job) for job in jobs[:_NAMED]) + more


def _named(job: Job) -> str:
    place = f" on {','.join(job.nodes)}" if job.nodes else ""
    return f"{job.id} ({job.user}, {','.join(job.partitions)}, {job.state.lower()}{place})"


def groups_of(user: str) -> frozenset[str]:
    """The groups of a user by name; none where the host does not know the user."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return frozenset()
    names = set()
    for number in os.getgrouplist(user, entry.pw_gid):
        try:
            names.add(grp.getgrgid(number).gr_name)
        except KeyError:
            continue
    return frozenset(names)


def change(bundle: str, alone: Sequence[str]) -> Change | None:
    """What the bundle changes that could be a matter for jobs; None where that is nothing.

    Args:
        bundle: its text.
        alone: the parameters and files whose change no running job survives.

    Raises:
        RuntimeError: slurmctld does not answer.
    """
    text = slurm_state.file_of_bundle(bundle, SLURM_CONF)
    present = Path(SLURM_CONF)
    if text is None or not present.exists():
        return None
    new = slurm_state.config_of_text(text, slurm_state.expand)
    last = slurm_state.config_of_text(present.read_text(), slurm_state.expand)
    now = _text(TOPOLOGY_CONF) or ""
    to_be = slurm_state.file_of_bundle(bundle, TOPOLOGY_CONF) or ""
    last = replace(last, apart=slurm_state.apart(now, slurm_state.expand))
    new = replace(new, apart=slurm_state.apart(to_be, slurm_state.expand))
    others = (*_parameters(last, new, alone), *files(bundle, alone))
    if not others and _compared(last) == _compared(new):
        return None
    shown, old = slurm_state.shown_jobs(), replace(slurm_state.running(), apart=last.apart)
    kept = slurm_state.count_of_jobs(shown)
    return Change(old, new, others, tuple(_jobs(shown, old, new)), kept)


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


def _compared(config: Config) -> tuple[object, ...]:
    return config.nodes, config.partitions, config.licenses, config.max_jobs, config.apart


def _jobs(shown: str, old: Config, new: Config) -> list[Job]:
    """The jobs that wait or have nodes; if a partition goes, with all that they may run in."""
    jobs = slurm_state.jobs_of_scontrol(shown, slurm_state.expand)
    if old.partitions.keys() <= new.partitions.keys():
        return jobs
    return job_state.with_all_partitions(
        jobs, Path(old.parameters["statesavelocation"]) / "job_state"
    )


def _text(path: str) -> str | None:
    file = Path(path)
    return file.read_text() if file.exists() else None


def _parameters(last: Config, new: Config, alone: Sequence[str]) -> Iterator[str]:
    for name in (name for name in alone if not name.startswith("/")):
        was, now = last.parameters.get(name.lower()), new.parameters.get(name.lower())
        if was != now:
            yield f"{name} changes from {was or 'the default'} to {now or 'the default'}"


def files(bundle: str, alone: Sequence[str]) -> Iterator[str]:
    """Which of the files the bundle changes."""
    for path in (name for name in alone if name.startswith("/")):
        if _text(path) != slurm_state.file_of_bundle(bundle, path):
            yield f"{path} changes"


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
        jobs = _jobs(slurm_state.shown_jobs(), old, new)
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
    known = slurm_state.running().nodes
    for name in HELD.read_text().strip().split(","):
        if name in known and _reason(name).startswith(REASON):
            _update([name], "State=UNDRAIN")
    HELD.unlink()


def _reason(node: str) -> str:
    shown = slurm_state.command("scontrol", "show", "node", node)
    reason = re.search(r"^ *Reason=(.*)$", shown, re.MULTILINE)
    return reason[1] if reason else ""


def _update(names: Sequence[str], *what: str) -> None:
    slurm_state.command("scontrol", "update", f"NodeName={','.join(names)}", *what)


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
        f"{len(some)} {what} ({_list(some)})"
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
    if verb == "release":
        release()
    elif verb == "destroy":
        against = destroy()
    elif verb == "check":
        against = check(Path(rest[0]).read_text(), rest[1:])
    else:
        against = hold(rest[0])
    if against is not None:
        print(against, file=sys.stderr)
    return 0 if against is None else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
