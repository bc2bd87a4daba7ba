"""`slurmstack node replace`: what is applied again, on which hosts, and in which order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pulumi import automation

from operations import replace as verb
from operations.cluster import Cluster
from operations.operation import unfinished
from operations.refused import Refused
from operations.stack_file import StackFile
from tests.unit.operations.slurmctld import Controller, cluster, controller

__all__ = ["controller"]
COMMAND = "command:remote:Command"


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, controller: Controller) -> list[str]:
    """What is done, in its order; Pulumi is not there."""
    done: list[str] = []
    (tmp_path / "Pulumi.x.yaml").write_text("config:\n  slurmstack:cluster:\n    name: x\n")
    (tmp_path / "Pulumi.yaml").write_text("name: slurmstack\nruntime: python\n")
    monkeypatch.setenv("PULUMI_BACKEND_URL", f"file://{tmp_path}/state")

    def ask(of: Cluster, script: str, *words: Any, **more: Any) -> str:
        if "scontrol update" in script:
            done.append(" ".join(script.split()[2:4]))
        return controller.answer(of, script, *words, **more)

    monkeypatch.setattr(Cluster, "ask", ask)
    monkeypatch.setattr(Cluster, "file", lambda of: StackFile(of.project, of.stack, "slurmstack"))
    change = SimpleNamespace(host=SimpleNamespace(name="cn01"))
    monkeypatch.setattr(verb, "reached", lambda *_: [])
    monkeypatch.setattr(verb, "new_keys", lambda _: [change])
    monkeypatch.setattr(verb, "pin", lambda *_: done.append("pin"))
    monkeypatch.setattr(verb, "targets", lambda names, _: [f"urn:{name}" for name in names])
    monkeypatch.setattr(verb, "up", lambda of, yes, urns: done.append(f"up {' '.join(urns)}"))
    return done


def again(folder: Path, names: list[str], agreed: Callable[[Any], bool] = bool) -> list[str]:
    return verb.replace(cluster(folder), names, "new board", agreed)


def test_a_node_is_empty_while_it_is_made_anew(tmp_path: Path, steps: list[str]) -> None:
    again(tmp_path, ["cn01", "ctl"])
    assert steps[:3] == ["pin", "NodeName=cn01 State=DRAIN", "up urn:cn01 urn:ctl"]
    text = (tmp_path / "Pulumi.x.yaml").read_text()
    assert "slurmstack:reapply" in text
    assert " cn01: " in text
    assert " ctl: " in text
    assert unfinished(cluster(tmp_path).place) is None


def test_the_drain_ends_with_it_and_no_other_does(
    tmp_path: Path, steps: list[str], controller: Controller
) -> None:
    controller.nodes = controller.nodes.replace("excluded: disk", "replace: new board")
    deeds = again(tmp_path, ["cn02", "cn04"])
    assert steps == ["pin", "up urn:cn02 urn:cn04", "NodeName=cn04 State=RESUME"]
    assert deeds == [
        "pinned the key that cn01 shows",
        "new jobs are kept from cn[02,04] meanwhile",
        "settings: slurmstack:reapply",
        "applied all of cn[02,04] again",
        "cn02: drain+mixed, 'fan (by bob@admin)', by bob@admin: left so",
        "cn04: resumed",
    ]


def test_a_key_that_nobody_has_compared_changes_nothing(tmp_path: Path, steps: list[str]) -> None:
    assert again(tmp_path, ["cn01"], lambda _: False) == []
    assert steps == []


def test_while_another_operation_is_not_finished_no_host_is_looked_at(
    tmp_path: Path, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verb, "new_keys", lambda _: pytest.fail("a host was looked at"))
    place = cluster(tmp_path).place
    place.mkdir(parents=True)
    (place / "operation.json").write_text(
        '{"what": "node add cn09", "by": "bob", "since": "T", "pid": 1, "finish": "F"}'
    )
    with pytest.raises(Refused, match=r"unfinished: node add cn09 .*finish it with `F`"):
        again(tmp_path, ["cn01"])
    (place / "operation.json").unlink()
    folder = tmp_path / "state/.pulumi/locks/organization/slurmstack/x"
    folder.mkdir(parents=True)
    (folder / "1.json").write_text("{")
    with pytest.raises(Refused, match="stack x is locked by somebody"):
        again(tmp_path, ["cn01"])
    assert steps == []


def test_what_is_applied_again_is_all_of_these_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    inventory = {"cn01": {"roles": ["node", "slurmd"]}, "cn02": {"roles": ["slurmd"]}}
    resources = [
        {"type": COMMAND, "urn": f"urn:pulumi:x::slurmstack::{COMMAND}::{name}"}
        for name in ("cn01-node", "cn01-slurmd", "cn01-left-over", "cn02-slurmd", "cn011-slurmd")
    ]
    resources.append({"type": "other", "urn": "urn:pulumi:x::slurmstack::other::cn01-slurmd"})
    exported = SimpleNamespace(deployment={"resources": resources})
    workspace = SimpleNamespace(export_stack=lambda _: exported)
    monkeypatch.setattr(verb, "outputs", lambda *_: {"inventory": inventory})
    monkeypatch.setattr(automation, "LocalWorkspace", lambda **_: workspace)
    found = verb.targets(["cn01", "new09"], cluster(Path()))
    assert [urn.rpartition("::")[2] for urn in found] == ["cn01-node", "cn01-slurmd"]
