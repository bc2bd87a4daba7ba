#!/usr/bin/python3
"""Slurm's figures as a text file for node-exporter: slurm-exporter FOLDER SECONDS [accounting].

Each interval slurmctld is asked once by each of squeue, scontrol (nodes, licences, reservations),
sdiag and sshare, one after the other, and no oftener whoever reads the file. Jobs are asked for as
text, of which only the fields that are counted are written out: their JSON takes squeue seconds for
ten thousand jobs. What does not answer in time counts as away; its figures are left out rather than
told old.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

#: Seconds for each command.
PATIENCE = 20
#: %V is the time of submission: a wait for a dependency counts as one.
JOBS = "%i|%T|%P|%V|%S|%N|%r"
FAILED = {"FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "LAUNCH_FAILED"}
WAITS = (1, 10, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 86400, 7 * 86400)


@dataclass(frozen=True)
class Sample:
    """One series and its value now."""

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


#: Name → what it says. A name that is not here is not told.
HELP = {
    "slurm_up": "slurmctld answers.",
    "slurm_exporter_seconds": "How long the last look took.",
    "slurm_exporter_timestamp_seconds": "When slurmctld was last looked at.",
    "slurm_jobs": "Jobs by partition and state, each task of an array counted.",
    "slurm_jobs_pending": "Waiting jobs by partition and reason.",
    "slurm_queue_wait_max_seconds": "How long the oldest waiting job of a partition has waited.",
    "slurm_queue_wait_median_seconds": "How long half of a partition's waiting jobs have waited.",
    "slurm_nodes": "Nodes by state; one in several states counts in each.",
    "slurm_node_state": "1 for each state that a node is in.",
    "slurm_node_drain_timestamp_seconds": "When a node was drained or set down, by whom, and why.",
    "slurm_cpus": "CPUs allocated, and idle.",
    "slurm_gpus": "GPUs allocated, idle, and of nodes that take no job.",
    "slurm_node_gpus": "The same by node.",
    "slurm_fairshare": "The fair-share factor of an association, 0 to 1.",
    "slurm_share_usage": "The share of the cluster that an association has used.",
    "slurm_scheduler_last_cycle_seconds": "The last cycle of the main scheduler.",
    "slurm_scheduler_mean_cycle_seconds": "Its mean cycle since slurmctld's counters began.",
    "slurm_scheduler_queue_length": "Jobs that it looked at last.",
    "slurm_backfill_last_cycle_seconds": "The last cycle of the backfill scheduler.",
    "slurm_backfill_mean_cycle_seconds": "Its mean cycle since slurmctld's counters began.",
    "slurm_backfill_last_timestamp_seconds": "When it ran last.",
    "slurm_backfill_last_depth": "Jobs that it tried last.",
    "slurm_backfill_jobs": "Jobs that it has started since slurmctld began.",
    "slurm_server_threads": "Threads of slurmctld at work.",
    "slurm_agent_queue_length": "Messages to nodes that wait to be sent.",
    "slurm_dbd_queue_length": "Messages to slurmdbd that wait to be sent.",
    "slurm_jobs_since": "Jobs since slurmctld's counters began, by what became of them.",
    "slurm_rpcs": "RPCs since slurmctld's counters began, by type.",
    "slurm_rpc_seconds": "Time that they took.",
    "slurm_licenses": "Licences in all, used, and free.",
    "slurm_reservation_start_timestamp_seconds": "When a reservation begins.",
    "slurm_reservation_end_timestamp_seconds": "When a reservation ends.",
    "slurm_reservation_nodes": "Nodes of a reservation.",
}


class Away(Exception):
    """slurmctld, or what asks it, does not answer."""


def ask(*words: str) -> str:
    """What a command says within its time."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise Away(f"{words[0]} has not answered within {PATIENCE} s") from None
    except OSError as error:
        raise Away(f"{words[0]}: {error.strerror}") from None
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise Away(f"{words[0]} ended with {done.returncode}: {said[0] if said else ''}")
    return done.stdout


def ask_json(*words: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(ask(*words, "--json"))
    except ValueError:
        raise Away(f"{words[0]} --json gave no JSON") from None
    return found


def number(value: Any) -> float:
    """A figure of Slurm's JSON, which is plain, or in a table that says whether it is set."""
    if isinstance(value, dict):
        return float(value.get("number", 0)) if value.get("set") else 0.0
    return float(value or 0)


def when(text: str) -> float | None:
    """Seconds of a time as squeue writes it, in the zone of this machine."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


@dataclass(frozen=True)
class Job:
    """A line of squeue."""

    id: str
    state: str
    partition: str
    submitted: float | None
    started: float | None
    nodes: str
    reason: str


def read_jobs(text: str) -> list[Job]:
    """squeue's lines by the format JOBS; the reason, which may hold anything, is the last."""
    jobs = []
    for line in text.splitlines():
        words = line.split("|", 6)
        if len(words) == 7:
            number_, state, partition, submit, start, nodes, reason = words
            jobs.append(
                Job(number_, state, partition, when(submit), when(start), nodes, reason.strip())
            )
    return jobs


def of_jobs(jobs: Iterable[Job], now: float) -> Iterator[Sample]:
    """The queue by state, and what waits by reason and for how long."""
    states: Counter[tuple[str, str]] = Counter()
    reasons: Counter[tuple[str, str]] = Counter()
    waits: dict[str, list[float]] = {}
    for job in jobs:
        states[job.partition, job.state] += 1
        if job.state == "PENDING":
            reasons[job.partition, short(job.reason)] += 1
            if job.submitted is not None:
                waits.setdefault(job.partition, []).append(max(0.0, now - job.submitted))
    for (partition, state), count in sorted(states.items()):
        yield Sample("slurm_jobs", count, {"partition": partition, "state": state})
    for (partition, reason), count in sorted(reasons.items()):
        yield Sample("slurm_jobs_pending", count, {"partition": partition, "reason": reason})
    for partition, found in sorted(waits.items()):
        where = {"partition": partition}
        yield Sample("slurm_queue_wait_max_seconds", max(found), where)
        yield Sample("slurm_queue_wait_median_seconds", statistics.median(found), where)


def short(reason: str) -> str:
    """A reason as one of a few: some name nodes ("ReqNodeNotAvail, UnavailableNodes:cn01")."""
    return re.split(r"[,:(]", reason, maxsplit=1)[0].strip() or "None"


def gpus(text: str) -> Counter[str]:
    """Type → number, of gres as scontrol writes it: gpu:h100:4(S:0-1),gpu:h100:2(IDX:0-1)."""
    found: Counter[str] = Counter()
    for match in re.finditer(
        r"(?:^|,)gpu(?::([A-Za-z][^:,(]*))?:(\d+)", re.sub(r"\(.*?\)", "", text)
    ):
        found[match[1] or ""] += int(match[2])
    return found


def of_nodes(nodes: Iterable[Mapping[str, Any]]) -> Iterator[Sample]:
    """Nodes by state, who drained them, their CPUs and GPUs."""
    states: Counter[str] = Counter()
    cpus: Counter[str] = Counter()
    every: Counter[tuple[str, str]] = Counter()
    for node in nodes:
        name, has = str(node["name"]), [str(state) for state in node.get("state", ())]
        states.update(has)
        for state in has:
            yield Sample("slurm_node_state", 1, {"node": name, "state": state})
        shut = bool({"DRAIN", "DOWN", "FAIL", "NOT_RESPONDING", "MAINTENANCE"} & {*has})
        if node.get("reason"):
            said = {
                "node": name,
                "user": str(node.get("reason_set_by_user") or ""),
                "reason": str(node["reason"]),
            }
            yield Sample(
                "slurm_node_drain_timestamp_seconds", number(node.get("reason_changed_at")), said
            )
        cpus["allocated"] += int(number(node.get("alloc_cpus")))
        cpus["idle"] += int(number(node.get("alloc_idle_cpus")))
        there, used = gpus(str(node.get("gres") or "")), gpus(str(node.get("gres_used") or ""))
        for kind, count in sorted(there.items()):
            taken = min(count, used[kind])
            of = {"allocated": taken, "drained" if shut else "idle": count - taken}
            for what, many in of.items():
                every[kind, what] += many
                where = {"node": name, "type": kind, "state": what}
                yield Sample("slurm_node_gpus", many, where)
    for state, count in sorted(states.items()):
        yield Sample("slurm_nodes", count, {"state": state})
    for what, count in sorted(cpus.items()):
        yield Sample("slurm_cpus", count, {"state": what})
    for (kind, what), count in sorted(every.items()):
        yield Sample("slurm_gpus", count, {"type": kind, "state": what})


def of_sdiag(found: Mapping[str, Any]) -> Iterator[Sample]:
    """The schedulers, queues of messages, and RPCs. sdiag's cycles are microseconds."""
    cycles = {
        "slurm_scheduler_last_cycle_seconds": "schedule_cycle_last",
        "slurm_scheduler_mean_cycle_seconds": "schedule_cycle_mean",
        "slurm_backfill_last_cycle_seconds": "bf_cycle_last",
        "slurm_backfill_mean_cycle_seconds": "bf_cycle_mean",
    }
    for name, key in cycles.items():
        yield Sample(name, number(found.get(key)) / 1e6)
    plain = {
        "slurm_scheduler_queue_length": "schedule_queue_length",
        "slurm_backfill_last_timestamp_seconds": "bf_when_last_cycle",
        "slurm_backfill_last_depth": "bf_last_depth",
        "slurm_backfill_jobs": "bf_backfilled_jobs",
        "slurm_server_threads": "server_thread_count",
        "slurm_agent_queue_length": "agent_queue_size",
        "slurm_dbd_queue_length": "dbd_agent_queue_size",
    }
    for name, key in plain.items():
        yield Sample(name, number(found.get(key)))
    for what in ("submitted", "started", "completed", "canceled", "failed"):
        yield Sample("slurm_jobs_since", number(found.get(f"jobs_{what}")), {"what": what})
    for rpc in found.get("rpcs_by_message_type") or ():
        where = {"type": str(rpc["message_type"])}
        yield Sample("slurm_rpcs", number(rpc.get("count")), where)
        yield Sample("slurm_rpc_seconds", number(rpc.get("total_time")) / 1e6, where)


def of_shares(text: str) -> Iterator[Sample]:
    """Lines of sshare -P: account, user, fair share, effective usage."""
    for line in text.splitlines():
        words = line.split("|")
        if len(words) >= 4:
            where = {"account": words[0].strip(), "user": words[1].strip()}
            for name, value in (("slurm_fairshare", words[2]), ("slurm_share_usage", words[3])):
                if re.fullmatch(r"[0-9.]+(e[+-]?\d+)?", value):
                    yield Sample(name, float(value), where)


def of_licenses(found: Iterable[Mapping[str, Any]]) -> Iterator[Sample]:
    for license_ in found:
        for what, key in (("total", "Total"), ("used", "Used"), ("free", "Free")):
            where = {"license": str(license_.get("LicenseName")), "state": what}
            yield Sample("slurm_licenses", number(license_.get(key)), where)


def of_reservations(found: Iterable[Mapping[str, Any]]) -> Iterator[Sample]:
    for reservation in found:
        where = {"reservation": str(reservation.get("name"))}
        start, end = number(reservation.get("start_time")), number(reservation.get("end_time"))
        yield Sample("slurm_reservation_start_timestamp_seconds", start, where)
        yield Sample("slurm_reservation_end_timestamp_seconds", end, where)
        yield Sample("slurm_reservation_nodes", number(reservation.get("node_count")), where)


class Events:
    """What happened to jobs since the last look, each job told once.

    What was over, or had begun, before the first look is not told, so that a new start of the
    exporter counts nothing twice.
    """

    def __init__(self) -> None:
        self._begun: set[str] | None = None
        self._failed: set[str] = set()

    def look(self, jobs: Iterable[Job]) -> tuple[list[tuple[str, float]], list[Job]]:
        """Partition and wait of each job that has begun, and the jobs that have failed."""
        # A short one may be over by now: slurmctld tells of it for MinJobAge. One that was
        # cancelled may never have begun, whatever its start says.
        started = {job.id: job for job in jobs if job.state not in ("PENDING", "CANCELLED")}
        failed = {job.id: job for job in jobs if job.state in FAILED}
        known = self._begun
        begun, broken = [], []
        if known is not None:
            for id_ in sorted(started.keys() - known):
                job = started[id_]
                if job.started is not None and job.submitted is not None:
                    begun.append((job.partition, max(0.0, job.started - job.submitted)))
            broken = [failed[id_] for id_ in sorted(failed.keys() - self._failed)]
        self._begun, self._failed = set(started), set(failed)
        return begun, broken


def look(
    events: Events, accounting: bool
) -> tuple[list[Sample], list[tuple[str, float]], list[Job]]:
    """One look at slurmctld.

    Raises:
        Away: it does not answer.
    """
    jobs = read_jobs(
        ask("squeue", "--noheader", "--all", "--array", "--states=all", f"--format={JOBS}")
    )
    samples = [
        *of_jobs(jobs, time.time()),
        *of_nodes(ask_json("scontrol", "show", "node").get("nodes", ())),
        *of_sdiag(ask_json("sdiag").get("statistics", {})),
        *of_licenses(ask_json("scontrol", "show", "license").get("licenses", ())),
        *of_reservations(ask_json("scontrol", "show", "reservation").get("reservations", ())),
    ]
    if accounting:
        words = "--format=Account,User,FairShare,EffectvUsage"
        samples += of_shares(ask("sshare", "--all", "--parsable2", "--noheader", words))
    return samples, *events.look(jobs)


def main(folder: str, interval: float, accounting: bool) -> None:
    """Look and write for ever."""
    import prometheus_client as prometheus

    prometheus.disable_created_metrics()
    lasting = prometheus.CollectorRegistry()
    waits = prometheus.Histogram(
        "slurm_job_wait_seconds",
        "From submission to start.",
        ["partition"],
        buckets=WAITS,
        registry=lasting,
    )
    failures = prometheus.Counter(
        "slurm_jobs_failed",
        "Jobs that failed, on each of their nodes.",
        ["node", "state"],
        registry=lasting,
    )
    events, said, place = Events(), "", Path(folder)
    while True:
        began = time.monotonic()
        samples: list[Sample] = []
        try:
            samples, begun, broken = look(events, accounting)
            for partition, wait in begun:
                waits.labels(partition).observe(wait)
            for job in broken:
                for node in ask("scontrol", "show", "hostnames", job.nodes).split():
                    failures.labels(node, job.state).inc()
            up, problem = 1.0, ""
        except Away as error:
            up, problem = 0.0, str(error)
        if problem != said:
            print(problem or "slurmctld answers", flush=True)
            said = problem
        now = time.monotonic()
        samples += [
            Sample("slurm_up", up),
            Sample("slurm_exporter_seconds", now - began),
            Sample("slurm_exporter_timestamp_seconds", time.time()),
        ]
        registry = prometheus.CollectorRegistry()
        gauges: dict[str, prometheus.Gauge] = {}
        for sample in samples:
            if sample.name not in gauges:
                gauges[sample.name] = prometheus.Gauge(
                    sample.name, HELP[sample.name], sorted(sample.labels), registry=registry
                )
            gauge = gauges[sample.name]
            (gauge.labels(**sample.labels) if sample.labels else gauge).set(sample.value)
        prometheus.write_to_textfile(str(place / "slurm.prom"), registry)
        prometheus.write_to_textfile(str(place / "slurm_events.prom"), lasting)
        time.sleep(max(1.0, interval - (time.monotonic() - began)))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), "accounting" in sys.argv[3:])
