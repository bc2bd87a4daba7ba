"""What the verbs read of a stack, by Pulumi's own Automation API."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from pulumi import automation
from pulumi.automation._cmd import CommandResult

from operations import stack
from operations.stack import Applied, NoSuchStack
from operations.stack_file import StackFile
from remote.bundle import Bundle, Directory
from settings import SettingsError
from tests.unit.operations.pulumi_command import Pulumi, pulumi
from tests.unit.operations.test_hosts import RAW

__all__ = ["pulumi"]

#: As Pulumi 3.260 prints it where a stack is not there.
NO_STACK = "error: no stack named 'z' found"
SECRET = "4dabf18193072939515e22adb298388d"  # the SDK's mark of a secret in a state


def bundle(node: str, role: str) -> str:
    return Bundle(node, role, [Directory("/srv/x")]).render()


def test_settings_are_those_of_the_selected_stack(pulumi: Pulumi) -> None:
    read, folder, name = stack.settings(None, pulumi.project)
    assert (read.cluster.name, folder, name) == ("x", pulumi.project, "x")
    assert pulumi.asked == [
        "stack ls --json", "config --show-secrets --json --stack x",
    ]  # fmt: skip


def test_settings_of_a_stack_by_name_and_from_a_folder_below(pulumi: Pulumi) -> None:
    below = pulumi.project / "a" / "b"
    below.mkdir(parents=True)
    _, folder, name = stack.settings("y", below)
    assert (folder, name) == (pulumi.project, "y")
    assert pulumi.asked == ["config --show-secrets --json --stack y"]


def test_a_stack_of_an_organization_is_selected_by_its_own_name(pulumi: Pulumi) -> None:
    pulumi.stacks = [{"name": "x"}, {"name": "acme/slurmstack/y", "current": True}]
    assert stack.settings(None, pulumi.project)[2] == "y"


def test_secrets_are_opened_for_the_settings_alone(pulumi: Pulumi) -> None:
    pulumi.secrets = {"mungeKey": "k" * 32}
    read, *_ = stack.settings("x", pulumi.project)
    assert read.munge_key is not None
    assert "kkkk" not in repr(read)


def test_mistakes_are_those_of_the_settings(pulumi: Pulumi) -> None:
    pulumi.config["nosuch"] = 1
    with pytest.raises(SettingsError, match="nosuch"):
        stack.settings("x", pulumi.project)


def test_where_no_stack_is_selected_the_ways_are_named(pulumi: Pulumi) -> None:
    pulumi.stacks = [{"name": "x"}]
    with pytest.raises(NoSuchStack, match="no stack is selected; name one with --stack, or pulumi"):
        stack.settings(None, pulumi.project)


@pytest.mark.parametrize("read", [stack.settings, stack.applied, stack.outputs])
def test_a_stack_that_is_not_there_is_named_with_pulumi_s_words(
    pulumi: Pulumi, read: object
) -> None:
    pulumi.error = NO_STACK
    with pytest.raises(NoSuchStack, match=r"^stack z cannot be read: no stack named 'z' found$"):
        read("z", pulumi.project)  # type: ignore[operator]


def test_a_backend_that_cannot_be_read_is_told(pulumi: Pulumi) -> None:
    pulumi.error = "error: PULUMI_ACCESS_TOKEN must be set"
    with pytest.raises(NoSuchStack, match=r"^no stack can be read: PULUMI_ACCESS_TOKEN must"):
        stack.outputs(None, pulumi.project)


def test_a_folder_that_is_no_project_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoSuchStack, match=rf"no Pulumi.yaml in {tmp_path} or above it; .*--cwd"):
        stack.settings("x", tmp_path)


@pytest.mark.parametrize(
    ("prints", "says"),
    [
        (None, "there is no pulumi beside this program or on PATH; python -m engine.choose puts"),
        (
            "v2.9.0",
            r"pulumi on PATH is not for this program: .*CLI version is 2\.9\.0",
        ),
    ],
)
def test_an_engine_that_is_none_is_told(
    prints: str | None, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Pulumi.yaml").write_text("name: slurmstack\nruntime: python\n")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    if prints is not None:
        (tmp_path / "pulumi").write_text(f"#!/bin/sh\necho {prints}\n")
        (tmp_path / "pulumi").chmod(0o755)
    with pytest.raises(NoSuchStack, match=says):
        stack.settings("x", tmp_path)


def test_the_engine_is_the_one_of_this_installation(pulumi: Pulumi) -> None:
    stack.prefix(pulumi.project)
    assert os.environ["PATH"] == f"{Path(sys.executable).parent}:/usr/bin:/bin"


def test_the_file_s_prefix_is_the_project_s_name(pulumi: Pulumi) -> None:
    (pulumi.project / "Pulumi.yaml").write_text("name: ours\nruntime: python\n")
    assert stack.prefix(pulumi.project) == "ours"


def test_outputs_are_given_opened(pulumi: Pulumi) -> None:
    pulumi.outputs = {"inventory": {"cn01": {"roles": ["slurmd"]}}, "number": 3}
    assert stack.outputs(None, pulumi.project) == pulumi.outputs


def test_a_stack_that_was_not_deployed_has_no_outputs(pulumi: Pulumi) -> None:
    with pytest.raises(NoSuchStack, match=r"stack y has no outputs yet; run pulumi up --stack y"):
        stack.outputs("y", pulumi.project)


def test_edited_settings_are_read_before_they_are_written(pulumi: Pulumi) -> None:
    """As they are in the file, with the secrets that Pulumi opens."""
    path = pulumi.project / "Pulumi.x.yaml"
    pulumi.secrets = {"mungeKey": "k" * 32}

    def written(excluded: str) -> StackFile:
        values = {f"slurmstack:{key}": value for key, value in RAW.items()}
        values |= {"slurmstack:excluded": {excluded: "fan"}}
        values |= {"slurmstack:mungeKey": {"secure": "v1:bm90aGluZw=="}}
        path.write_text(json.dumps({"config": values}))  # JSON is YAML
        return StackFile(pulumi.project, "x", "slurmstack")

    file = written("cn02")
    text = path.read_text()
    read = stack.edited(file, "x", pulumi.project)
    assert read.excluded == {"cn02": "fan"}
    assert [*read.compute] == ["cn01", "cn03", "cn04", "gpu1", "gpu2", "gpu3"]
    assert read.munge_key is not None
    assert path.read_text() == text
    with pytest.raises(SettingsError, match="nosuch"):
        stack.edited(written("nosuch"), "x", pulumi.project)


def resource(name: str, stdin: object, stdout: object = "") -> dict[str, object]:
    urn = f"urn:pulumi:x::slurmstack::{stack.COMMAND}::{name}"
    inputs, outputs = {"stdin": stdin}, {"stdout": stdout}
    return {"type": stack.COMMAND, "urn": urn, "inputs": inputs, "outputs": outputs}


def test_what_the_state_holds_of_each_role(pulumi: Pulumi) -> None:
    def hidden(text: str) -> dict[str, str]:
        return {SECRET: "1b47061264138c4ac30d75fd1eb44270", "plaintext": json.dumps(text)}

    slurmd, munge = bundle("cn01", "slurmd"), bundle("cn01", "munge")
    pulumi.resources = [
        {"type": "pulumi:pulumi:Stack", "urn": "urn:pulumi:x::slurmstack::stack::x"},
        resource("cn01-node", "the applier\n", "an answer"),
        resource("cn01-munge", hidden(munge), hidden("told")),
        {**resource("cn01-slurmd", slurmd), "type": "random:index/randomBytes:RandomBytes"},
        resource("cn01-slurmd", slurmd),
        resource("cn01-guard", ""),
        resource("cn01-other", {SECRET: "1b47061264138c4ac30d75fd1eb44270"}),
    ]
    held = stack.applied("x", pulumi.project)
    urns = [f"urn:pulumi:x::slurmstack::{stack.COMMAND}::cn01-{it}" for it in ("node", "munge")]
    assert held[:2] == [
        Applied(urns[0], "cn01", "node", "the applier\n", "an answer"),
        Applied(urns[1], "cn01", "munge", munge, "told"),
    ]
    assert [(it.node, it.role, it.answer) for it in held[2:]] == [("cn01", "slurmd", "")]
    # Bundles may hold secrets, and what is printed of them goes into logs.
    assert "slurmstack-bundle" not in repr(held)
    assert "told" not in repr(held)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "a"), ({"plaintext": '"a"'}, "a"), ({}, ""), (None, ""), (3, ""), (["a"], ""),
        ({"plaintext": '{"a": 1}'}, ""),
    ],
)  # fmt: skip
def test_only_a_text_is_opened(value: object, text: str) -> None:
    assert stack.opened(value) == text


def test_a_stack_without_a_deployment_holds_nothing(
    pulumi: Pulumi, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stack.applied(None, pulumi.project) == []
    empty = CommandResult('{"version": 3}', "", 0)
    workspace = automation.LocalWorkspace(work_dir=str(pulumi.project))
    monkeypatch.setattr(pulumi, "run", lambda *_: empty)
    assert stack.resources(workspace, "x") == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (" code: 255\n stdout: \n stderr: error: no stack 'x'\n", "no stack 'x'"),
        (" code: 255\n stderr: warning: old\nerror: first\nerror: second\n", "first"),
        ("no such\n\n  thing\n", "no such thing"),
    ],
)  # fmt: skip
def test_of_a_command_s_words_its_error_is_told(text: str, said: str) -> None:
    assert stack.reason(text) == said
