"""`slurmstack validate` from the first look to what is kept: which nodes, in which partition, and
what is made of the answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from operations import validate
from operations.cluster import Cluster
from operations.refused import Refused
from operations.validations import Validation, Word, last
from settings.acceptance import Power
from tests.unit.operations.slurmctld import Controller, cluster, controller

__all__ = ["controller"]

NAMES = ["cn01", "cn02"]
TOLD = """\
version slurm 24.11.5
version kernel 6.12 #1
version cn01|driver|580.159.04
version cn02|driver|570.1 | beta
word srun|cn01|proven|||
word copy|cn02|failed|9|GB/s|below 12
pair bandwidth|cn01|cn02|stand-in|3|MB/s|
"""


def idle(*names: str) -> str:
    return "".join(
        f"NodeName={name} Arch=x86_64\n   State=IDLE ThreadsPerCore=1\n" for name in names
    )


class Run:
    """The controller of a validation, and what it was asked to hold and to run."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.told = TOLD
        self.nodes = [idle(*NAMES)]
        self.held: list[tuple[list[str], int]] = []
        self.scripts: list[tuple[str, float]] = []
        self.switched: list[str] = []

    def answer(self, _: Cluster, script: str, what: str, seconds: float = 30) -> str:
        if what == "scontrol show node":
            return self.nodes.pop(0) if len(self.nodes) > 1 else self.nodes[0]
        if self.held:
            self.scripts.append((script, seconds))
            return self.told
        return ""

    @contextmanager
    def hold(self, _: Cluster, names: Sequence[str], minutes: int) -> Iterator[str]:
        self.held.append(([*names], minutes))
        yield "slurmstack-validate-7"


@pytest.fixture
def run(controller: Controller, monkeypatch: pytest.MonkeyPatch) -> Run:
    made = Run(controller)
    monkeypatch.setattr(controller, "answer", made.answer)
    monkeypatch.setattr(validate, "held", made.hold)
    monkeypatch.setattr("components.history.now", lambda: "2026-11-25T18:00:27Z")
    return made


def validated(
    folder: Path, level: Any = "quick", patience: float = 0, **settings: Any
) -> tuple[Validation, list[str]]:
    steps: list[str] = []
    made = validate.validate(cluster(folder, **settings), NAMES, level, patience, steps.append)
    return made, steps


def test_what_the_tests_say_is_kept(run: Run, tmp_path: Path) -> None:
    made, _ = validated(tmp_path)
    assert made.words[:2] == [
        Word("srun", "cn01", "proven"),
        Word("copy", "cn02", "failed", "below 12", 9, "GB/s"),
    ]
    assert Word("bandwidth", "cn01", "stand-in", "with cn02", 3, "MB/s") in made.words
    assert made.versions == {"slurm": "24.11.5", "kernel": "6.12 #1"}
    assert made.of_nodes == {"cn01": {"driver": "580.159.04"}, "cn02": {"driver": "570.1 | beta"}}
    assert (made.by, made.level, made.nodes) == ("anna@admin", "quick", NAMES)
    assert last(cluster(tmp_path).place) == [made]
    assert run.held == [(NAMES, 10)]
    noted = (cluster(tmp_path).place / "history.jsonl").read_text()
    assert "validate cn[01-02] --level quick" in noted
    assert "1 failed" in noted


@pytest.mark.parametrize(("level", "minutes"), [("quick", 10), ("full", 60), ("burnin", 360)])
def test_each_level_has_its_time(run: Run, tmp_path: Path, level: str, minutes: int) -> None:
    made, _ = validated(tmp_path, level)
    assert run.held == [(NAMES, minutes)]
    ((script, seconds),) = run.scripts
    assert seconds == minutes * 60 + 60
    assert "slurmstack-validate-7" in script
    power = [it for it in made.words if it.test == "node powered off in the middle"]
    assert [it.verdict for it in power] == (["not here"] if level == "burnin" else [])


def test_the_last_node_is_powered_off_where_the_site_says_how(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts: list[tuple[Any, ...]] = []

    def cut(_: Cluster, *words: Any) -> Word:
        cuts.append(words)
        return Word("node powered off in the middle", "cn02", "proven")

    monkeypatch.setattr("operations.node_power.lost_and_back", cut)
    power = {"off": "off {node}", "on": "on {node}"}
    made, _ = validated(tmp_path, "burnin", acceptance={"power": power})
    assert cuts == [(Power(**power), "cn02", "slurmstack-validate-7", "all")]
    assert made.words[2] == Word("node powered off in the middle", "cn02", "proven")


def test_figures_are_compared_as_the_settings_tolerate(run: Run, tmp_path: Path) -> None:
    tolerant = {"tolerance": 0.5}
    run.told = "word copy|cn01|proven|10|GB/s|\nword copy|cn02|proven|10|GB/s|\n"
    first, _ = validated(tmp_path, acceptance=tolerant)
    assert not first.new_baseline
    run.told = run.told.replace("cn01|proven|10", "cn01|proven|6")
    assert not validated(tmp_path, acceptance=tolerant)[0].failed
    assert (cluster(tmp_path).place / "history.jsonl").read_text().count("all passed") == 2
    strict, _ = validated(tmp_path, acceptance={"tolerance": 0.9})
    assert [(it.test, it.node) for it in strict.failed] == [
        ("copy, baseline", "cn01"), ("copy, class", "cn01"),
    ]  # fmt: skip
    # What was before counts no longer; the node's class does.
    here = cluster(tmp_path, acceptance={"tolerance": 0.9})
    anew = validate.validate(here, NAMES, "quick", 0, lambda _: None, new_baseline=True)
    assert anew.new_baseline
    assert [it.test for it in anew.failed] == ["copy, class"]


@pytest.mark.parametrize(
    ("partitions", "together", "of"),
    [
        ({"a": {"Nodes": "cn[01-02]"}, "b": {"Nodes": "ALL", "Default": True}}, "b", "b"),
        ({"a": {"Nodes": "cn01", "Default": True}, "b": {"Nodes": "cn[01-02]"}}, "b", "a"),
    ],
)
def test_jobs_run_in_a_partition_that_has_the_nodes(
    run: Run, tmp_path: Path, partitions: dict[str, Any], together: str, of: str
) -> None:
    here = cluster(tmp_path, partitions={**partitions, "other": {"Nodes": "gpu[1-3]"}})
    assert validate._partition(here, NAMES) == together
    assert validate._partition(here, ["cn01"]) == of
    assert validate._partition(here, ["cn04", "gpu1"]) == ("b" if together == "b" == of else None)


def test_nodes_without_a_partition_are_refused_before_anything_is_held(
    run: Run, tmp_path: Path
) -> None:
    with pytest.raises(Refused, match=r"^cn02: in no partition, so no job can run there"):
        validated(tmp_path, partitions={"a": {"Nodes": "cn01", "Default": True}})
    assert run.held == []


def test_busy_nodes_are_named_and_left_alone(run: Run, tmp_path: Path) -> None:
    run.nodes = [idle("cn01") + "NodeName=cn02 A=b\n   State=MIXED+DRAIN T=1\n"]
    with pytest.raises(Refused, match=r"^cn02: drain\+mixed: only idle nodes .* nothing was run"):
        validated(tmp_path)
    run.nodes = [idle("cn01")]
    with pytest.raises(Refused, match=r"^cn02: not known: only idle"):
        validated(tmp_path)
    assert run.held == []


def test_busy_nodes_are_waited_for_and_said_once(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operations.validate.time.sleep", lambda _: None)
    busy = idle("cn01") + "NodeName=cn02 A=b\n   State=ALLOCATED T=1\n"
    run.nodes = [busy, busy, idle(*NAMES)]
    _, steps = validated(tmp_path, patience=60)
    assert steps == ["waiting for cn02 to be idle"]
    assert run.held == [(NAMES, 10)]


def test_what_a_killed_run_left_is_seen_to_first(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def switch_on(_: Cluster, power: Power | None) -> bool:
        run.switched.append(power.on if power else "")
        return len(run.switched) > 1

    monkeypatch.setattr("operations.node_power.switched_off", lambda _: ["cn02"])
    monkeypatch.setattr("operations.node_power.switch_on", switch_on)
    power = {"off": "off {node}", "on": "on {node}"}
    with pytest.raises(Refused, match="powered off have not come back"):
        validated(tmp_path, acceptance={"power": power})
    assert run.held == []
    _, steps = validated(tmp_path, acceptance={"power": power})
    assert steps == ["cn02: a run that was killed had powered it off; switching it on"]
    assert run.switched == ["on {node}"] * 2


def test_the_gpus_of_a_node_are_asked_for_by_their_type(run: Run, tmp_path: Path) -> None:
    nodes = [
        {"name": "plain", "hosts": "cn[01-04]"},
        {"name": "h100", "hosts": "gpu[1-3]", "Gres": [
            {"Name": "nic", "Count": 2, "standIn": True},
            {"Name": "gpu", "Type": "h100", "Count": 8, "standIn": True},
        ]},
    ]  # fmt: skip
    here = cluster(tmp_path, nodes=nodes)
    assert validate._gres(here, ["cn01", "gpu2"]) == {"gpu2": ("gpu:h100", 8, True)}
