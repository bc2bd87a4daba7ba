"""What Slurm has given a job, node by node, as slurmctld says it.

Read as JSON: of scontrol's lines a user writes parts (the job's name, its comment), which could
pass for others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from on_node import slurm_state


@dataclass(frozen=True)
class Share:
    """One node's part of it."""

    node: str
    cpus: int
    #: MiB.
    memory: int
    #: Numbers of its GPUs, as Slurm counts them there.
    gpus: tuple[int, ...] = ()


@dataclass(frozen=True)
class Allocation:
    """A running job."""

    job: int
    name: str
    user: str
    uid: int
    gid: int
    account: str
    qos: str
    partition: str
    #: How often it was started before.
    restarts: int
    #: The batch step's node first.
    shares: tuple[Share, ...]
    #: Job and task, of an array.
    array: tuple[int, int] | None = None


class Unknown(Exception):
    """slurmctld does not tell, or tells of no such running job; why."""


def allocation(job: int) -> Allocation:
    """Ask slurmctld, once.

    Raises:
        Unknown: it does not answer, or the job does not run.
    """
    try:
        told = slurm_state.command("scontrol", "--json", "show", "job", str(job), seconds=10)
    except RuntimeError as error:
        raise Unknown(str(error)) from None
    return read(json.loads(told), job)


def read(told: Mapping[str, Any], job: int) -> Allocation:
    """From scontrol's JSON (24.05 and later).

    Raises:
        Unknown: the job is not in it, or does not run.
    """
    for of in told["jobs"]:
        if of["job_id"] == job:
            break
    else:
        raise Unknown(f"slurmctld knows no job {job}")
    if "RUNNING" not in of["job_state"] or not of["job_resources"]:
        raise Unknown(f"job {job} is {'+'.join(of['job_state'])}, not RUNNING")
    nodes = of["job_resources"]["nodes"]["allocation"]
    # Of a node without any beside one with some it is null.
    gres = of["gres_detail"] or [None] * len(nodes)
    shares = [
        Share(it["name"], it["cpus"]["count"], it["memory"]["allocated"], gpus(detail or ""))
        for it, detail in zip(nodes, gres, strict=True)
    ]
    shares.sort(key=lambda share: share.node != of["batch_host"])
    array = _number(of["array_job_id"])
    return Allocation(
        job=job,
        name=of["name"],
        user=of["user_name"],
        uid=of["user_id"],
        gid=of["group_id"],
        account=of["account"],
        qos=of["qos"],
        partition=of["partition"],
        restarts=of["restart_cnt"],
        shares=tuple(shares),
        array=(array, _number(of["array_task_id"])) if array else None,
    )


def gpus(detail: str) -> tuple[int, ...]:
    """The GPUs of a node's GRES, such as ``gpu:h100:2(IDX:0-1)``."""
    numbers: set[int] = set()
    for listed in re.findall(r"(?:^|,)gpu\b[^,(]*\(IDX:([0-9,-]+)\)", detail):
        for part in listed.split(","):
            first, _, last = part.partition("-")
            numbers |= set(range(int(first), int(last or first) + 1))
    return tuple(sorted(numbers))


def _number(told: Mapping[str, Any] | int) -> int:
    return told if isinstance(told, int) else int(told["number"])
