"""`slurmstack report` from the first look to the page: whom it asks, and that what does not answer
stands on the page and hides nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from components import history
from operations import report as verb
from operations.figures import Drawing
from operations.past import Deed
from operations.refused import Refused
from operations.report import Group, Holding, Node, Report, Share, page, report
from operations.stack import NoSuchStack
from operations.status import NodesAlike, Status, Thing
from remote.contact import ContactError
from remote.host import Host
from tests.unit.operations.slurmctld import Controller, cluster, controller
from tests.unit.operations.test_report import NODES, Page

__all__ = ["controller"]

GONE = ContactError(Host("ctl", "10.0.0.1", ""), "connect", "no answer", "see")
HELD = {"inventory": {"cn01": {"keys": {"munge": "a" * 64}}}}
DEED = Deed("2026-11-25T20:00:00Z", "pulumi up", "anna@admin", "done")


class Asked:
    """What else than the controller is asked, and what it answers or raises."""

    def __init__(self) -> None:
        self.nodes = [NodesAlike("cn01", 1, "idle")]
        self.drawings: Any = []
        self.outputs: Any = HELD
        self.past: Any = [DEED]
        self.words: dict[str, tuple[Any, ...]] = {}

    def status(self, *_: Any) -> Status:
        return Status("x", "x", "ctl", "2026-11-25T21:00:00Z", nodes=self.nodes)

    def told(self, name: str) -> Any:
        def give(*words: Any) -> Any:
            self.words[name] = words[1:]
            answer = getattr(self, name)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return give


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, controller: Controller) -> Asked:
    made = Asked()
    controller.nodes = NODES
    monkeypatch.setattr(verb, "status", made.status)
    for name in ("drawings", "outputs", "past"):
        monkeypatch.setattr(verb, name, made.told(name))
    return made


def test_every_node_of_the_settings_is_on_the_page(asked: Asked, tmp_path: Path) -> None:
    found = report(cluster(tmp_path), 7200)
    assert [(node.name, node.kind) for node in found.nodes] == [
        ("cn01", "busy"), ("cn02", "drained"), ("cn03", "silent"), ("cn04", "down"),
        ("gpu1", "unknown"), ("gpu2", "unknown"), ("gpu3", "unknown"),
    ]  # fmt: skip
    assert found.nodes[4].state == "not known to slurmctld"
    assert [job.name for job in found.jobs] == ["a|b<script>"]
    assert found.holdings == [Holding("key munge", {"a" * 12: "cn01"})]
    assert found.deeds == [DEED]
    assert found.status.waits == []
    assert asked.words == {
        "drawings": (7200,), "outputs": (tmp_path,), "past": (verb.DEEDS,),
    }  # fmt: skip
    assert found.seconds == 7200


def test_the_declared_fabric_has_what_slurmctld_says(asked: Asked, tmp_path: Path) -> None:
    switches = {"leaf": {"Nodes": "cn[01-04],gpu[1-3]"}}
    found = report(cluster(tmp_path, topology={"plugin": "tree", "switches": switches}), 60)
    assert found.fabric == [Group("leaf", found.nodes)]
    assert report(cluster(tmp_path), 60).fabric == []


def test_validations_of_nodes_that_are_gone_are_left_out(asked: Asked, tmp_path: Path) -> None:
    place = history.folder(tmp_path, "x")
    place.mkdir(parents=True)
    run = {"time": "t", "by": "anna", "level": "full", "nodes": ["cn01", "cn77"], "words": []}
    (place / "validations.json").write_text(json.dumps([run]))
    assert [*report(cluster(tmp_path), 60).standings] == ["cn01"]


def test_a_controller_that_was_silent_is_not_asked_again(
    asked: Asked, controller: Controller, tmp_path: Path
) -> None:
    asked.nodes = []
    found = report(cluster(tmp_path), 60)
    assert controller.asked == []
    assert {node.kind for node in found.nodes} == {"unknown"}
    assert found.deeds == [DEED]


@pytest.mark.parametrize("error", [GONE, Refused("ctl: report: exit 255")])
def test_what_does_not_answer_is_told_and_hides_nothing(
    error: Exception, asked: Asked, controller: Controller, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    asked.drawings = error
    found = report(cluster(tmp_path), 60)
    assert found.status.waits == [str(error)]
    assert (found.nodes[0].kind, found.deeds) == ("busy", [DEED])

    def raises(*_: Any) -> str:
        raise error

    asked.drawings = drawings = [Drawing("jobs", "", False, (), 1.0)]
    monkeypatch.setattr(controller, "answer", raises)
    found = report(cluster(tmp_path), 60)
    assert found.status.waits == [str(error)]
    assert found.drawings == drawings


def test_a_state_that_cannot_be_read_is_told(asked: Asked, tmp_path: Path) -> None:
    asked.outputs = NoSuchStack("stack x has no outputs yet; run pulumi up --stack x")
    found = report(cluster(tmp_path), 60)
    assert found.status.waits == [str(asked.outputs)]
    assert found.nodes[0].kind == "busy"
    # What hosts hold is there where the history is not.
    asked.outputs, asked.past = HELD, Refused("pulumi stack history: locked")
    found = report(cluster(tmp_path), 60)
    assert found.status.waits == ["pulumi stack history: locked"]
    assert len(found.holdings) == 1
    asked.outputs = {"other": 1}
    assert report(cluster(tmp_path), 60).holdings == []


def test_the_page_says_what_waits_and_since_when() -> None:
    status = Status("x", "prod", "ctl", "2026-11-25T21:00:00Z", waits=["look at <cn01>"])
    status.excluded = {"cn02": "fan"}
    status.jobs, status.waiting = {"running": 3, "pending": 9}, {"Priority": 6, "Resources": 3}
    # date -u -d @1795640400
    status.keys = [Thing("munge key", 1795640400.0, None, "of ctl")]
    status.drift = {"time": "T", "by": "bob", "nodes": {"cn03": 4}}
    found = Report(status, nodes=[Node("cn01", "busy", "mixed", cpus=Share(1, 4))], seconds=90000)
    text = " ".join(Page(page(found)).text.split())
    for told in (
        "look at <cn01>", "cn02 is excluded: fan", "3 running, 9 waiting", "2026-11-25 21:00",
        "munge key of ctl", "looked at T by bob: cn03: 4", "1 at work", "1/4 CPUs", "1 of 4",
        "no node was validated from here",
    ):  # fmt: skip
        assert told in text
    # The longest wait fills its bar, the others are parts of it.
    assert "width: 100%" in page(found)
    assert "width: 50%" in page(found)
    assert "GPUs in use" not in text
    status.drift = {"time": "T", "by": "bob", "nodes": {}}
    assert "nothing differs" in page(found)
    status.drift = None
    assert "nobody has looked from here" in page(found)
