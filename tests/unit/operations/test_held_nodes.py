"""A reservation for validation: made, told why not, and taken back however it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from operations import held_nodes
from operations.cluster import Cluster
from operations.held_nodes import held, left_behind
from operations.refused import Refused
from remote.contact import ContactError
from remote.host import Host
from tests.unit.operations.slurmctld import Controller, cluster, controller

__all__ = ["controller"]

NAMES = ["cn01", "cn02", "cn04"]


class Guard:
    """What the script on the controller says, and whether it was ended."""

    def __init__(self) -> None:
        self.says: list[str] = ["held"]
        self.fails: BaseException | None = None
        self.script, self.ended = "", False

    async def follow(
        self, hosts: list[Any], script: str, say: Callable[[str, str], None], **_: Any
    ) -> None:
        self.script = script
        for line in self.says:
            say(hosts[0], line)
        if self.fails is not None:
            raise self.fails
        try:
            await asyncio.Event().wait()
        finally:
            self.ended = True


@pytest.fixture
def guard(monkeypatch: pytest.MonkeyPatch, controller: Controller) -> Guard:
    made = Guard()
    monkeypatch.setattr(held_nodes, "follow_on_hosts", made.follow)
    monkeypatch.setattr("operations.cluster.Cluster.hosts", {"ctl": "the controller"})
    return made


def test_nodes_are_held_while_the_command_works(
    guard: Guard, controller: Controller, tmp_path: Path
) -> None:
    with held(cluster(tmp_path), NAMES, 10) as name:
        assert not guard.ended
        assert not controller.asked
        assert name.startswith("slurmstack-validate-")
        assert all(it in guard.script for it in (name, "cn[01-02,04]", held_nodes.LOCK))
    assert guard.ended
    assert name in "".join(controller.asked)


def test_they_are_given_back_when_it_fails(
    guard: Guard, controller: Controller, tmp_path: Path
) -> None:
    with pytest.raises(ZeroDivisionError), held(cluster(tmp_path), NAMES, 10) as name:
        raise ZeroDivisionError
    assert guard.ended
    assert name in "".join(controller.asked)


@pytest.mark.parametrize(
    ("says", "told"),
    [
        (["refused somebody validates nodes already"], "ctl: somebody validates nodes already"),
        (["refused Requested nodes are busy"], "ctl: Requested nodes are busy"),
        ([""], "ctl: no reservation could be made"),
    ],
)
def test_why_there_is_none_is_told(
    guard: Guard, tmp_path: Path, says: list[str], told: str
) -> None:
    guard.says = says
    with pytest.raises(Refused) as refused, held(cluster(tmp_path), NAMES, 10):
        pytest.fail("nothing is held")
    assert str(refused.value) == told
    assert guard.ended


def test_a_controller_that_says_nothing_is_waited_for_in_bounds(
    guard: Guard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard.says = []
    monkeypatch.setattr(held_nodes, "_MADE", 0.1)
    told = r"no reservation within 0\.1 s"
    with pytest.raises(Refused, match=told), held(cluster(tmp_path), NAMES, 10):
        pytest.fail("nothing is held")
    assert guard.ended


def test_a_controller_that_is_not_reached_is_told_as_such(guard: Guard, tmp_path: Path) -> None:
    guard.says = []
    lost = ContactError(
        Host("ctl", "10.0.0.1", "ssh-ed25519 AAAA"), "connect", "no route", "look at its network"
    )
    guard.fails = BaseExceptionGroup("of a task group", [ValueError(), lost])
    with pytest.raises(ContactError) as told, held(cluster(tmp_path), NAMES, 10):
        pytest.fail("nothing is held")
    assert told.value is lost
    guard.fails = KeyError("a fault of ours")
    with pytest.raises(KeyError), held(cluster(tmp_path), NAMES, 10):
        pytest.fail("nothing is held")


def test_a_guard_that_has_ended_by_itself_is_ended(guard: Guard) -> None:
    """However late: its thread may be at its last step when the command ends, too."""
    guard.says, guard.fails = ["held"], ValueError("the connection is gone")
    own = held_nodes._Guard(Host("ctl", "10.0.0.1", "ssh-ed25519 AAAA"), "")
    assert own.first_line() == "held"
    own._thread.join(timeout=30)
    own._thread.is_alive = lambda: True  # type: ignore[method-assign]
    own.end()


def test_what_a_killed_run_left_is_removed(
    controller: Controller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = (
        "ReservationName=slurmstack-validate-17 StartTime=2026-11-25T10:00:00 Nodes=cn01\n"
        "ReservationName=maintenance StartTime=2026-11-25T10:00:00 Nodes=cn02\n"
        "ReservationName=slurmstack-validate-of-a-person Nodes=cn03\n"
        "ReservationName=slurmstack-validate-18 Nodes=cn04\n"
    )

    def answer(_: Cluster, script: str, *words: object) -> str:
        controller.asked.append(script)
        return shown if "show reservation" in script else ""

    monkeypatch.setattr(controller, "answer", answer)
    told: list[str] = []
    assert left_behind(cluster(tmp_path), told.append)
    assert told == [
        "removed slurmstack-validate-17, which a run that was killed had left",
        "removed slurmstack-validate-18, which a run that was killed had left",
    ]
    removed = "".join(controller.asked[1:])
    assert "slurmstack-validate-17" in removed
    assert "slurmstack-validate-18" in removed
    assert "maintenance" not in removed
    assert "person" not in removed
    # Not before its guard has let go of the lock.
    assert controller.asked[0].startswith(f"flock -w 20 {held_nodes.LOCK} true || ")
    shown = ""
    assert not left_behind(cluster(tmp_path), told.append)
    assert len(told) == 2
