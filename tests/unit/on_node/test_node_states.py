"""What people decided of nodes, and what slurmctld has against them; in words of 24.11."""

# ruff: noqa: E501, W293

from __future__ import annotations

import pytest

from on_node import node_states
from on_node.node_states import State

SHOWN = """\
NodeName=cn01 Arch=x86_64 CoresPerSocket=2
   CPUAlloc=0 CPUEfctv=2 CPUTot=2 CPULoad=9.21
   State=IDLE+DRAIN+INVALID_REG ThreadsPerCore=1 TmpDisk=0 Weight=10
   CurrentWatts=0 AveWatts=0
   
   Reason=Low RealMemory (reported:24105 < 100.00% of configured:48210) [slurm@2026-11-25T18:00:27]

NodeName=cn02 Arch=x86_64 CoresPerSocket=2
   State=IDLE*+DRAIN ThreadsPerCore=1 TmpDisk=0 Weight=10
   Reason=a [b] = c [root@2026-11-25T18:00:27]

NodeName=cn03 Arch=x86_64
   State=MIXED+PLANNED ThreadsPerCore=1

NodeName=cn04 Arch=x86_64
   State=DOWN+NOT_RESPONDING ThreadsPerCore=1
   Reason=Not responding [slurm@2026-11-25T18:00:27]
"""


def test_states_are_read() -> None:
    found = node_states.states(SHOWN)
    assert [*found] == ["cn01", "cn02", "cn03", "cn04"]
    low, drained, mixed, dead = found.values()
    assert low.misfit
    assert low.drained_for_misfit
    assert (drained.reason, drained.by, drained.answers) == ("a [b] = c", "root", False)
    assert drained.closed_by_person
    assert mixed.fit
    assert (dead.answers, dead.closed_by_person, dead.misfit) == (False, False, False)


def state(text: str, reason: str = "", by: str = "") -> State:
    flags = frozenset(text.replace("*", "").split("+"))
    return State("cn01", flags, "*" not in text, reason, by)


LOW = "Low RealMemory (reported:1 < 100.00% of configured:2)"


@pytest.mark.parametrize(
    ("now", "before", "wrong"),
    [
        (state("IDLE"), True, False),
        (state("ALLOCATED+COMPLETING"), True, False),
        (state("IDLE+INVALID_REG"), False, True),
        (state("UNKNOWN+DRAIN", LOW, "slurm"), False, True),
        (state("IDLE+DRAIN", "gres/gpu count reported lower than configured (0 < 4)", "slurm"), False, True),
        (state("IDLE+DRAIN", "Prolog error", "slurm"), False, False),
        (state("IDLE+DRAIN", "Low fan", "root"), True, False),
        (state("DOWN", "of a person", "ann"), True, False),
        # Dead before: no concern of this change. Dead since: it is.
        (state("DOWN*", "Not responding", "slurm"), False, False),
        (state("DOWN*", "Not responding", "slurm"), True, True),
        (state("IDLE*"), True, True),
        (state("UNKNOWN"), True, True),
    ],
)  # fmt: skip
def test_who_fails_a_run(now: State, before: bool, wrong: bool) -> None:
    found = node_states.unfit(["cn01"], {"cn01": now}, {"cn01"} if before else set())
    assert bool(found) is wrong
    if found and now.reason:
        assert now.reason in found["cn01"]


def test_a_node_that_slurmctld_does_not_know() -> None:
    assert node_states.unfit(["cn09"], {}, set()) == {"cn09": "cn09: slurmctld does not know it"}


@pytest.mark.parametrize(
    ("now", "gone"),
    [
        (state("IDLE+DRAIN", LOW, "slurm"), True),
        (state("MIXED+DRAIN", LOW, "slurm"), True),
        # slurmctld has not heard of the node since it read slurm.conf.
        (state("UNKNOWN+DRAIN", LOW, "slurm"), False),
        (state("IDLE*+DRAIN", LOW, "slurm"), False),
        (state("IDLE+DRAIN+INVALID_REG", LOW, "slurm"), False),
        (state("IDLE+DRAIN", LOW, "root"), False),
        (state("IDLE+DRAIN", "Kill task failed", "slurm"), False),
        # It did not answer for a time, and came back with what slurm.conf says.
        (state("DOWN+DRAIN", LOW, "slurm"), True),
        (state("DOWN*+DRAIN", LOW, "slurm"), False),
    ],
)
def test_when_slurmctlds_own_drain_ends(now: State, gone: bool) -> None:
    assert node_states._cause_is_gone(now) is gone


def test_a_persons_reason_outlasts_slurmctlds() -> None:
    mine = {"decisions": {"cn01": "fans"}}
    noted = node_states.noted
    assert noted({}, {"cn01": state("IDLE+DRAIN", "fans", "root")}) == {"cn01": "fans"}
    assert noted(mine, {"cn01": state("IDLE+DRAIN", LOW, "slurm")}) == {"cn01": "fans"}
    assert noted(mine, {"cn01": state("IDLE")}) == {}
    assert noted({}, {"cn01": state("IDLE+DRAIN", LOW, "slurm")}) == {}
    assert noted(mine, {"cn01": state("DOWN", "other", "ann")}) == {"cn01": "other"}


def test_a_node_has_come_back_when_another_slurmd_answers() -> None:
    shown = """NodeName=cn01 Arch=x86_64
   State=IDLE ThreadsPerCore=1
   BootTime=2026-11-25T20:00:00 SlurmdStartTime=2026-11-25T22:00:01

NodeName=cn02 Arch=x86_64
   State=MIXED ThreadsPerCore=1
   BootTime=2026-11-25T20:00:00 SlurmdStartTime=2026-11-25T21:00:00

NodeName=cn03 Arch=x86_64
   State=IDLE* ThreadsPerCore=1
   BootTime=2026-11-25T20:00:00 SlurmdStartTime=2026-11-25T22:00:01
"""
    shown += """
NodeName=cn04 Arch=x86_64
   State=IDLE ThreadsPerCore=1
   BootTime=None SlurmdStartTime=None
"""
    noted = dict.fromkeys(("cn01", "cn02", "cn03", "cn04"), "2026-11-25T21:00:00")
    now = node_states.states(shown)
    every = ["cn04", "cn03", "cn02", "cn01", "gone"]
    assert node_states.missing(every, now, noted) == ["cn02", "cn03", "cn04"]
    # Where nothing was noted, an answer is all that can be had.
    assert node_states.missing(["cn01", "cn02", "cn03"], now, {}) == ["cn03"]
