"""Drains, and whose they are: nobody's decision is ended by somebody else's command."""

from __future__ import annotations

from pathlib import Path

import pytest

from on_node.node_states import states
from operations import drain
from operations.refused import Refused
from tests.unit.operations.slurmctld import NODES, Controller, cluster, controller

__all__ = ["controller"]
HERE = Path()
EVERY = ["cn01", "cn02", "cn03", "cn04"]


def test_a_drain_leaves_those_of_others_as_they_are(controller: Controller) -> None:
    deeds = drain.drain(cluster(HERE), ["cn01", "cn02", "cn03"], "it's hot")
    assert deeds == [
        "cn02: drain+mixed, 'fan (by bob@admin)', by bob@admin: left so", "cn[01,03]: drained",
    ]  # fmt: skip
    assert controller.changes == [
        "scontrol update NodeName=cn[01,03] State=DRAIN "
        """Reason='it'"'"'s hot (by anna@admin)'"""
    ]


def test_where_all_are_out_already_nothing_is_asked(controller: Controller) -> None:
    assert drain.drain(cluster(HERE), ["cn02"], "x") != []
    assert controller.changes == []


def test_a_node_that_slurmctld_does_not_know_is_named(controller: Controller) -> None:
    with pytest.raises(Refused, match="gpu1: slurmctld does not know it"):
        drain.drain(cluster(HERE), ["cn01", "gpu1"], "x")
    assert controller.changes == []


def test_a_resume_is_refused_for_another_s_drain(controller: Controller) -> None:
    with pytest.raises(Refused, match=r"^cn02: .*by bob@admin\. Nothing was changed"):
        drain.resume(cluster(HERE), ["cn02", "cn04"])
    assert controller.changes == []
    deeds = drain.resume(cluster(HERE), ["cn02", "cn04"], force=True)
    assert deeds[0].startswith("cn02: was drain+mixed, 'fan")
    assert deeds[1:] == ["cn[02,04]: resumed"]
    assert controller.changes == [
        "scontrol update NodeName=cn[02,04] State=RESUME Reason='given back by slurmstack'"
    ]


def test_a_resume_of_one_s_own_and_of_slurmctld_s(controller: Controller) -> None:
    assert drain.resume(cluster(HERE), ["cn01", "cn03", "cn04"]) == ["cn[03-04]: resumed"]
    assert controller.changes == [
        "scontrol update NodeName=cn[03-04] State=RESUME Reason='given back by slurmstack'"
    ]
    assert drain.resume(cluster(HERE), ["cn01"]) == ["cn01: in use already"]
    assert len(controller.changes) == 1


def test_what_is_given_back_is_what_was_taken(controller: Controller) -> None:
    deeds = drain.give_back(cluster(HERE), EVERY, "excluded: ")
    assert deeds == [
        "cn02: drain+mixed, 'fan (by bob@admin)', by bob@admin: left so", "cn[03-04]: resumed",
    ]  # fmt: skip
    assert controller.changes == [
        "scontrol update NodeName=cn[03-04] State=RESUME Reason='given back by slurmstack'"
    ]
    # A drain of another verb of ours is not this one's.
    controller.asked.clear()
    assert len(drain.give_back(cluster(HERE), ["cn02", "cn04"], "replace: ")) == 2
    assert controller.changes == []


def test_a_reboot_ends_nobody_s_drain_and_waits_for_no_dead_node(controller: Controller) -> None:
    with pytest.raises(Refused, match=r"cn02: .*slurmstack node resume cn02 first"):
        drain.reboot(cluster(HERE), ["cn01", "cn02"], "kernel")
    with pytest.raises(Refused, match="cn03: slurmctld does not reach it"):
        drain.reboot(cluster(HERE), ["cn01", "cn03"], "kernel")
    assert controller.changes == []
    drain.reboot(cluster(HERE), ["cn01"], "kernel")
    assert controller.changes == [
        "scontrol reboot ASAP nextstate=RESUME reason='kernel (by anna@admin)' cn01"
    ]


def test_jobs_that_are_left_are_named(controller: Controller) -> None:
    left = drain.await_jobs(cluster(HERE), ["cn02", "gpu1", "gpu2"], 0)
    assert list(map(str, left)) == [
        "7 (al, main, running on cn02)", "8 (bo, gpu, completing on gpu[1-2])",
    ]  # fmt: skip
    assert "-w cn02,gpu[1-2]" in controller.asked[0]
    controller.jobs = ""
    assert drain.await_jobs(cluster(HERE), ["cn02"], 60) == []
    assert len(controller.asked) == 2


def test_a_node_is_back_once_it_is_fit_and_nothing_is_under_way(controller: Controller) -> None:
    controller.nodes = NODES.replace("State=IDLE ", "State=IDLE+REBOOT_ISSUED ")
    assert drain.await_use(cluster(HERE), ["cn01", "cn02"], 0) == ["cn01", "cn02"]
    controller.nodes = NODES
    assert drain.await_use(cluster(HERE), ["cn01"], 60) == []


@pytest.mark.parametrize("reason", ["", "  ", "a\nb", 'say "no"'])
def test_a_reason_is_one_line(reason: str) -> None:
    with pytest.raises(Refused, match="--reason: expected one line"):
        drain.checked(reason)
    assert drain.checked(" fan ") == "fan"


def test_whose_a_drain_is() -> None:
    told = {name: (drain.owner(it), drain.without_owner(it.reason))
            for name, it in states(NODES).items()}  # fmt: skip
    assert told == {
        "cn01": ("", ""), "cn02": ("bob@admin", "fan"), "cn03": ("", "Not responding"),
        "cn04": ("anna@admin", "excluded: disk"),
    }  # fmt: skip
    by_hand = states(NODES.replace("fan (by bob@admin) [root@", "fan [carl@"))["cn02"]
    assert drain.owner(by_hand) == "carl"
