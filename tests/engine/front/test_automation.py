"""The Automation API of the SDK, unchanged, on the embedded engine."""

from __future__ import annotations

from typing import Any

import pytest
from pulumi import automation as auto

from tests.engine.front.scenarios import Sandbox


@pytest.fixture
def options(ours: Sandbox) -> auto.LocalWorkspaceOptions:
    command = auto.PulumiCommand(root=str(ours.root))
    assert str(command.version) == "3.260.0"
    env = {key: value for key, value in ours.env.items() if key != "PATH"}
    return auto.LocalWorkspaceOptions(env_vars=env, pulumi_command=command)


@pytest.fixture
def stack(ours: Sandbox, options: auto.LocalWorkspaceOptions) -> auto.Stack:
    return auto.create_or_select_stack("dev", work_dir=str(ours.project), opts=options)


def test_stacks(ours: Sandbox, options: auto.LocalWorkspaceOptions) -> None:
    work: dict[str, Any] = {"work_dir": str(ours.project), "opts": options}
    with pytest.raises(auto.StackNotFoundError):
        auto.select_stack("dev", **work)
    auto.create_stack("dev", **work)
    with pytest.raises(auto.StackAlreadyExistsError):
        auto.create_stack("dev", **work)
    stack = auto.create_or_select_stack("dev", **work)
    workspace = stack.workspace
    assert workspace.who_am_i().url == ours.env["PULUMI_BACKEND_URL"]
    auto.create_stack("other", **work)
    assert [(s.name, s.current) for s in workspace.list_stacks()] == [
        ("dev", False), ("other", True),
    ]  # fmt: skip
    workspace.remove_stack("other")
    current = auto.select_stack("dev", **work).workspace.stack()
    assert current is not None
    assert current.resource_count == 0
    assert current.last_update is not None


def test_configuration(stack: auto.Stack) -> None:
    stack.set_config("a", auto.ConfigValue("-1"))
    stack.set_config("s", auto.ConfigValue("hush", secret=True))
    stack.set_all_config({"b": auto.ConfigValue("x=y"), "t": auto.ConfigValue("u", secret=True)})
    stack.set_config("o.k[0]", auto.ConfigValue("5"), path=True)
    found = {key: (v.value, v.secret) for key, v in stack.get_all_config().items()}
    assert found == {
        "small:a": ("-1", False), "small:b": ("x=y", False), "small:o": ('{"k":[5]}', False),
        "small:s": ("hush", True), "small:t": ("u", True),
    }  # fmt: skip
    assert stack.get_config("o.k[0]", path=True).value == "5"
    stack.remove_config("a")
    stack.remove_all_config(["b", "o"])
    assert sorted(stack.get_all_config()) == ["small:s", "small:t"]
    with pytest.raises(auto.CommandError, match="configuration key 'a' not found"):
        stack.get_config("a")


def test_life_of_a_stack(stack: auto.Stack) -> None:
    lines: list[str] = []
    events: list[Any] = []
    assert stack.preview(on_output=lines.append, on_event=events.append).change_summary == {
        "create": 3
    }
    assert lines[0] == "Previewing update (dev):"
    up = stack.up(message="first", parallel=2, on_event=events.append)
    assert {key: (v.value, v.secret) for key, v in up.outputs.items()} == {
        "plain": ("hello", False),
        "number": (1.5, False),
        "hidden": ("s3cret", True),
        "tree": ({"a": [1, 2], "b": "x\ny\nz\n"}, False),
    }
    assert (up.summary.message, up.summary.result, up.summary.resource_changes) == (
        "first", "succeeded", {"create": 3},
    )  # fmt: skip
    kinds = [key for e in events for key in ("summary_event", "cancel_event") if getattr(e, key)]
    assert kinds == ["summary_event", "cancel_event"] * 2
    stamps = [e.sequence for e in events]
    assert stamps == [*range(stamps.index(0, 1)), *range(len(stamps) - stamps.index(0, 1))]
    assert stack.up(expect_no_changes=True).summary.resource_changes == {"same": 3}
    assert stack.refresh().summary.kind == "refresh"
    assert stack.preview_destroy().change_summary == {"delete": 3}
    exported = stack.export_stack()
    assert exported.version == 3
    assert stack.destroy().summary.resource_changes == {"delete": 3}
    stack.import_stack(exported)
    assert stack.outputs()["hidden"].value == "s3cret"
    assert [update.kind for update in stack.history()] == [
        "destroy", "refresh", "update", "update",
    ]  # fmt: skip
    assert len(stack.history(page_size=1, page=2)) == 1
    stack.cancel()


def test_refresh_and_replace(stack: auto.Stack) -> None:
    stack.up()
    again = stack.up(refresh=True)
    assert again.summary.resource_changes == {"same": 3}
    assert "refresh" in again.stdout
    assert stack.preview(refresh=True).change_summary == {"same": 3}
    urn = "urn:pulumi:dev::small::small:index:Thing::one"
    replaced = stack.up(replace=[urn])
    assert (replaced.summary.resource_changes or {})[auto.OpType.REPLACE] >= 1
    assert stack.destroy(refresh=True).summary.resource_changes == {"delete": 3}


def test_errors(ours: Sandbox, stack: auto.Stack) -> None:
    lock = ours.state / "locks/organization/small/dev/x.json"
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.write_text('{"pid":1,"username":"u","hostname":"h","timestamp":"2026-01-02T03:04:05Z"}')
    with pytest.raises(auto.ConcurrentUpdateError):
        stack.up()
    stack.cancel()
    (ours.project / "__main__.py").write_text("raise Exception('it broke')\n")
    with pytest.raises(auto.errors.RuntimeError, match="it broke"):
        stack.up()
    info = stack.info()
    assert info is not None
    assert info.result == "failed"
    with pytest.raises(auto.CommandError, match="--client is not supported"):
        stack.up(program=lambda: None)
