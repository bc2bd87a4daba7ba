"""Nodes that go, come back, are added and removed: what is written, and in which order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from operations import membership
from operations.cluster import Cluster
from operations.operation import Waits, unfinished
from operations.refused import Refused
from operations.stack_file import StackFile
from operations.up import NotDone
from tests.unit.operations.slurmctld import Controller, cluster, controller
from tests.unit.operations.test_hosts import RAW

__all__ = ["controller"]
TEXT = """\
config:
  slurmstack:cluster:
    name: x
  slurmstack:hosts:
    ctl: 10.0.0.1
    cn[01-04]: 10.0.0.[11-14]
    gpu[1-2]:
      address: 10.0.0.[21-22]
      user: admin
    gpu3: 10.0.0.23
  slurmstack:nodes:
    - hosts: cn[01-04]
    - hosts: gpu[1-3]
  slurmstack:partitions:
    all:
      Nodes: ALL
    gpu:
      Nodes: gpu[1-3]
    mixed:
      Nodes: cn01,gpu3
  slurmstack:topology:
    switches:
      leaf:
        Nodes: cn[01-04]
  slurmstack:excluded:
    cn04: disk
"""


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, controller: Controller) -> list[str]:
    """What is done, in its order; Pulumi is not there."""
    done: list[str] = []
    (tmp_path / "Pulumi.x.yaml").write_text(TEXT)
    (tmp_path / "Pulumi.yaml").write_text("name: slurmstack\nruntime: python\n")
    monkeypatch.setenv("PULUMI_BACKEND_URL", f"file://{tmp_path}/state")

    def up(of: Cluster, yes: bool) -> None:
        done.append(f"up{' --yes' if yes else ''}")

    def save(file: StackFile) -> None:
        done.append("save")
        file.path.write_text(file.text)

    def ask(of: Cluster, script: str, *words: Any, **more: Any) -> str:
        if "scontrol update" in script:
            done.append(" ".join(script.split()[2:4]))
        return controller.answer(of, script, *words, **more)

    monkeypatch.setattr(membership, "edited", lambda *_: cluster(tmp_path).settings)
    monkeypatch.setattr(membership, "up", up)
    monkeypatch.setattr(membership, "show_plan", lambda _: done.append("plan"))
    monkeypatch.setattr(StackFile, "save", save)
    monkeypatch.setattr(Cluster, "ask", ask)
    monkeypatch.setattr(Cluster, "file", lambda of: StackFile(of.project, of.stack, "slurmstack"))
    controller.jobs = ""
    return done


def written(folder: Path) -> str:
    return (folder / "Pulumi.x.yaml").read_text()


def of(folder: Path) -> Cluster:
    return cluster(folder, excluded={"cn04": "disk"})


def test_a_node_is_drained_before_it_leaves(tmp_path: Path, steps: list[str]) -> None:
    membership.exclude(of(tmp_path), ["cn01"], "fan", yes=True)
    assert steps == ["NodeName=cn01 State=DRAIN", "save", "up --yes"]
    assert "    cn01: fan\n" in written(tmp_path)
    assert unfinished(of(tmp_path).place) is None


def test_jobs_on_it_keep_it_in_the_settings(
    tmp_path: Path, steps: list[str], controller: Controller
) -> None:
    controller.jobs = "7|al|main|RUNNING|cn01\n"
    with pytest.raises(Waits, match=r"cn01: drained; jobs still run there: 7 \(al.*--reason 'fan'"):
        membership.exclude(of(tmp_path), ["cn01"], "fan")
    assert steps == ["NodeName=cn01 State=DRAIN"]
    assert written(tmp_path) == TEXT


def test_what_failed_on_the_way_is_gone_on_with(
    tmp_path: Path, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise NotDone("pulumi up ended with 1")

    with monkeypatch.context() as once:
        once.setattr(membership, "up", fails)
        with pytest.raises(NotDone):
            membership.exclude(of(tmp_path), ["cn01"], "fan")
    left = unfinished(of(tmp_path).place)
    assert left is not None
    assert left.undo == "slurmstack node return cn01 --stack x"
    assert left.stands == ["new jobs are kept from cn01", "settings: slurmstack:excluded"]
    with pytest.raises(Refused, match="unfinished: node exclude cn01"):
        membership.remove(of(tmp_path), ["cn02"])
    # What takes it back may follow.
    gone = cluster(tmp_path, excluded={"cn01": "fan", "cn04": "disk"})
    membership.come_back(gone, ["cn01"])
    assert "cn01: fan" not in written(tmp_path)
    assert unfinished(of(tmp_path).place) is None


def test_a_node_that_comes_back_is_given_to_jobs_last(tmp_path: Path, steps: list[str]) -> None:
    deeds = membership.come_back(of(tmp_path), ["cn04"])
    assert steps == ["save", "up", "NodeName=cn04 State=RESUME"]
    assert deeds[-1] == "cn04: resumed"
    assert "slurmstack:excluded" not in written(tmp_path)


def test_a_new_node_stands_wherever_the_one_does_that_it_is_like(
    tmp_path: Path, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "new_keys", lambda _: [])
    monkeypatch.setattr(membership, "reached", lambda *_: [])

    def add(like: str, **more: Any) -> list[str]:
        return membership.add(of(tmp_path), "cn05", "10.0.0.15", like, lambda _: True, **more)

    add("cn01")
    assert steps == ["save", "plan"]
    text = written(tmp_path)
    for line in ("cn05: 10.0.0.15", "- hosts: cn[01-05]", "Nodes: cn01,gpu3,cn05",
                 "Nodes: cn[01-05]", "Nodes: gpu[1-3]", "Nodes: ALL"):  # fmt: skip
        assert f" {line}\n" in text, line
    with pytest.raises(Refused, match="--like ctl: no compute node; there are cn"):
        add("ctl")
    with pytest.raises(Refused, match="expected"):
        membership.add(of(tmp_path), "cn[05-06]", "10.0.0.15", "cn01", lambda _: True)
    with pytest.raises(Refused, match=r"cn02: in the settings already, with the address 10\.0"):
        membership.add(of(tmp_path), "cn02", "10.0.0.99", "cn01", lambda _: True)


def test_a_key_that_nobody_has_compared_adds_nothing(
    tmp_path: Path, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "new_keys", lambda _: ["a key"])
    monkeypatch.setattr(membership, "reached", lambda *_: [])
    assert membership.add(of(tmp_path), "cn05", "10.0.0.15", "cn01", lambda _: False) == []
    assert (steps, written(tmp_path)) == ([], TEXT)
    assert unfinished(of(tmp_path).place) is None


def test_a_node_that_is_removed_is_nowhere_in_the_settings(
    tmp_path: Path, steps: list[str]
) -> None:
    membership.remove(of(tmp_path), ["cn04", "gpu2"], yes=True)
    assert steps == ["save", "up --yes"]
    text = written(tmp_path)
    for line in ("cn[01-03]: 10.0.0.[11-13]", "gpu1:", "address: 10.0.0.21", "- hosts: cn[01-03]",
                 "- hosts: gpu[1,3]", "Nodes: gpu[1,3]", "Nodes: cn01,gpu3",
                 "Nodes: cn[01-03]"):  # fmt: skip
        assert f" {line}\n" in text, line
    assert "excluded" not in text


def test_a_host_with_a_line_of_its_own_goes_with_it(tmp_path: Path, steps: list[str]) -> None:
    membership.remove(of(tmp_path), ["gpu3"])
    text = written(tmp_path)
    for line in ("- hosts: gpu[1-2]", "Nodes: gpu[1-2]", "Nodes: cn01"):
        assert f" {line}\n" in text, line
    assert "gpu3" not in text
    # Whom nobody asked about stays as it was written.
    assert "    cn[01-04]: 10.0.0.[11-14]\n    gpu[1-2]:\n      address: 10.0.0.[21-22]" in text


def test_a_removal_takes_back_what_added_or_excluded_it(tmp_path: Path, steps: list[str]) -> None:
    place = of(tmp_path).place
    place.mkdir(parents=True)
    for what in ("node add cn02", "node exclude cn02"):
        (tmp_path / "Pulumi.x.yaml").write_text(TEXT)
        (place / "operation.json").write_text(
            f'{{"what": "{what}", "by": "bob", "since": "T", "pid": 1, "finish": "F"}}'
        )
        membership.remove(of(tmp_path), ["cn02"])
        assert unfinished(place) is None


def test_nodes_that_were_added_in_part_are_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.x.yaml").write_text("config:\n  slurmstack:hosts:\n    cn05: 10.0.0.15\n")
    file = StackFile(tmp_path, "x", "slurmstack")
    hosts = {**RAW["hosts"], "cn05": "10.0.0.15"}
    pairs = [("cn05", "10.0.0.15"), ("cn06", "10.0.0.16")]
    it = cluster(tmp_path, hosts=hosts)
    membership._write(file, it, pairs, "cn[05-06]", "10.0.0.[15-16]")
    assert file.names("hosts") == ["cn05", "cn06"]
    assert file.value("hosts", "cn06") == "10.0.0.16"


def test_jobs_on_a_node_that_is_removed_are_told(
    tmp_path: Path, steps: list[str], controller: Controller
) -> None:
    controller.jobs = "7|al|main|RUNNING|cn02\n"
    deeds = membership.remove(of(tmp_path), ["cn02"])
    assert steps == ["save", "plan"]
    assert "pulumi up refuses while jobs run there: 7 (al, main, running on cn02)" in deeds[-1]


def test_the_last_node_of_a_class_is_taken_out_by_hand(tmp_path: Path, steps: list[str]) -> None:
    with pytest.raises(Refused, match=r"gpu\[1-3\]: all of slurmstack:nodes\.1; take that out"):
        membership.remove(of(tmp_path), ["gpu1", "gpu2", "gpu3"])
    assert (steps, written(tmp_path)) == ([], TEXT)


def test_pulumi_s_lock_comes_first(tmp_path: Path, steps: list[str]) -> None:
    folder = tmp_path / "state/.pulumi/locks/organization/slurmstack/x"
    folder.mkdir(parents=True)
    (folder / "1.json").write_text("{")
    it = of(tmp_path)
    verbs: list[Callable[[], object]] = [
        lambda: membership.exclude(it, ["cn01"], "fan"),
        lambda: membership.come_back(it, ["cn04"]),
        lambda: membership.remove(it, ["cn02"]),
        lambda: membership.add(it, "cn05", "10.0.0.15", "cn01", lambda _: True),
    ]
    for verb in verbs:
        with pytest.raises(Refused, match="stack x is locked by somebody"):
            verb()
    assert steps == []


def test_hosts_that_cannot_be_taken_out_of_a_list_are_left_to_the_operator(tmp_path: Path) -> None:
    """Names and addresses would be in another order than they are written in."""
    text = "config:\n  slurmstack:hosts:\n    a[1-3]: 10.0.0.[9,7,8]\n"
    (tmp_path / "Pulumi.x.yaml").write_text(text)
    file = StackFile(tmp_path, "x", "slurmstack")
    assert membership._drop_hosts(file, {"a3"}) == "a3"
    assert file.text == text


def test_what_the_operator_is_left_with_is_told(
    tmp_path: Path, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "_drop_hosts", lambda *_: "cn02")
    deeds = membership.remove(of(tmp_path), ["cn02"])
    assert "slurmstack:hosts still lists cn02: take it out by hand" in deeds
