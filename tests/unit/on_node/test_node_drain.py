"""Which jobs a change of slurm.conf waits for, and which nodes it keeps new ones from."""

from __future__ import annotations

import pytest

from on_node import node_drain, slurm_state
from on_node.job_change import Change
from settings.hostlist import expand
from tests.unit.on_node.test_job_guard import ACROSS, CONF, RUNNING, WAITING, old, read


def change(conf: str, *others: str) -> Change:
    jobs = tuple(read(RUNNING, WAITING, ACROSS))
    return Change(old(), slurm_state.config_of_text(conf, expand), others, jobs, 3)


@pytest.mark.parametrize(
    ("was", "now", "waited", "nodes"),
    [
        # Job 2 holds two GPUs of cn01; any other might begin there and hold one.
        ("gpu:h100:4", "gpu:h100:2", {"2"}, ["cn01"]),
        # Of a node on which nobody holds anything of the kind, nobody is waited for.
        ("gpu:h100:4,shard:8", "gpu:h100:4,shard:4", set(), []),
        # All nodes get smaller: those whose jobs hold more than is left.
        ("RealMemory=8000", "RealMemory=7400", {"2", "5"}, ["cn01"]),
        # Suspended jobs leave their CPUs to others.
        ("CPUs=4", "CPUs=1", {"2", "5"}, ["cn01"]),
        ("10.0.0.22", "10.0.0.99", {"5"}, ["cn02"]),
        # What goes is no node that changes.
        ("PartitionName=gpu ", "PartitionName=gpus ", set(), []),
        ("NodeName=cn02 ", "NodeName=cn12 ", set(), []),
        ("Nodes=ALL", "Nodes=cn[01,03]", set(), []),
        ("MaxTime=1-00", "MaxTime=0-01", set(), []),
        ("RealMemory=8000", "RealMemory=9000", set(), []),
    ],
)
def test_who_is_waited_for_and_where(
    was: str, now: str, waited: set[str], nodes: list[str]
) -> None:
    assert was in CONF
    it = change(CONF.replace(was, now))
    harm = node_drain.suffering(it)
    assert {job.id for jobs in harm.values() for job in jobs} == waited
    assert node_drain.concerned(it, harm) == nodes
    assert {job.id for job in node_drain.not_waited_for(it)} == {"2", "4_[1-3]", "5"} - waited


def test_what_no_job_survives_concerns_all_nodes() -> None:
    it = change(CONF, "ProctrackType changes")
    harm = node_drain.suffering(it)
    assert {job.id for jobs in harm.values() for job in jobs} == {"2", "5"}
    assert node_drain.concerned(it, harm) == ["cn01", "cn02", "cn03"]
