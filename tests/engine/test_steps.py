"""Each kind of step, and the order in which steps come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.engine.conftest import Json, Stack, local, remote


def order(file: Path) -> list[str]:
    return file.read_text().split() if file.exists() else []


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "order"


async def test_create_then_nothing_to_do(stack: Stack) -> None:
    stack.config["resources"] = [
        {"name": "g", "kind": "group", "args": {"n": 1}, "outputs": {"out": "${a.stdout}"}},
        remote("a", "cat", stdin="hello", parent="g"),
        local("b", "echo $A", environment={"A": "${a.stdout}"}),
    ]
    stack.config["exports"] = {"b": "${b.stdout}", "number": 2.5}
    first = await stack.up()
    assert first.result.result == "succeeded"
    assert first.result.changes == {"create": 4}
    found = stack.resources()
    assert found["a"]["outputs"]["stdout"] == "hello"
    assert found["g"]["outputs"] == {"out": "hello"}
    assert found["graph-test"]["outputs"] == {"b": "hello", "number": 2.5}
    assert found["a"]["parent"] == found["g"]["urn"]
    assert found["a"]["urn"].endswith("test:index:Group$command:remote:Command::a")
    assert found["b"]["dependencies"] == [found["a"]["urn"]]
    assert found["b"]["propertyDependencies"]["environment"] == [found["a"]["urn"]]

    again = await stack.up()
    assert again.steps == []
    assert again.result.changes == {"same": 4}


async def test_preview_knows_what_it_cannot_know(stack: Stack) -> None:
    stack.config["resources"] = [local("a"), local("b", environment={"A": "${a.stdout}"})]
    stack.config["exports"] = {"a": "${a.stdout}"}
    before = await stack.preview()
    assert before.steps == [("create", "graph-test"), ("create", "default_1_2_1"), *_creates("ab")]
    assert stack.document is None
    await stack.up()
    stack.config["resources"][0] = local("a", "echo changed")
    changed = await stack.preview()
    assert changed.steps == [("update", "a"), ("update", "b")]
    assert "04da6b54-80e4-46f7-96ec-b56ff0331ba9" in changed.text
    await stack.up()
    assert stack.resources()["b"]["inputs"]["environment"] == {"A": "changed"}


def _creates(names: str) -> list[tuple[str, str]]:
    return [("create", name) for name in names]


async def test_update_runs_update_or_else_create(stack: Stack) -> None:
    stack.config["resources"] = [local("a", update="echo updated"), local("b")]
    await stack.up()
    ids = {name: r["id"] for name, r in stack.resources("Command").items()}
    stack.config["resources"] = [
        local("a", "echo other", update="echo updated"),
        local("b", "echo other"),
    ]
    done = await stack.up()
    assert sorted(done.steps) == [("update", "a"), ("update", "b")]
    found = stack.resources("Command")
    assert found["a"]["outputs"]["stdout"] == "updated"
    assert found["b"]["outputs"]["stdout"] == "other"
    assert {name: r["id"] for name, r in found.items()} == ids
    event = next(e["resourcePreEvent"]["metadata"] for e in done.events if _is(e, "update", "a"))
    assert event["diffs"] == ["create"]
    assert event["detailedDiff"] == {"create": {"diffKind": "update", "inputDiff": False}}


def _is(event: dict, op: str, name: str) -> bool:  # type: ignore[type-arg]
    m = event.get("resourcePreEvent", {}).get("metadata", {})
    return bool(m) and m["op"] == op and m["urn"].endswith(f"::{name}")


async def test_replace_creates_first_and_deletes_at_the_end(stack: Stack, log: Path) -> None:
    def resources(trigger: str) -> None:
        shell = {"create": f"echo +a{trigger} >> {log}", "delete": f"echo -a{trigger} >> {log}"}
        stack.config["resources"] = [
            local("a", triggers=[trigger], **shell),
            local("b", f"echo b{trigger} >> {log}", depends_on=["a"]),
        ]

    resources("1")
    await stack.up()
    resources("2")
    done = await stack.up()
    assert order(log) == ["+a1", "b1", "+a2", "b2", "-a1"]
    assert done.steps == [
        *(("create-replacement", "a"), ("replace", "a")),
        *(("update", "b"), ("delete-replaced", "a")),
    ]
    assert done.result.changes == {"same": 1, "replace": 1, "update": 1}
    assert len([r for r in stack.document["resources"] if r["urn"].endswith("::a")]) == 1  # type: ignore[index]


async def test_delete_before_replace_takes_dependents_along(stack: Stack, log: Path) -> None:
    def resources(trigger: str) -> None:
        stack.config["resources"] = [
            local(
                *("a", f"echo +a{trigger} >> {log}; echo {trigger}"),
                delete=f"echo -a{trigger} >> {log}",
                triggers=[trigger],
                delete_before_replace=True,
            ),
            local(
                *("b", f"echo +b{trigger} >> {log}"),
                delete=f"echo -b{trigger} >> {log}",
                triggers=["${a.stdout}"],
            ),
            local("c", f"echo c{trigger} >> {log}", depends_on=["a"]),
        ]

    resources("1")
    await stack.up()
    log.unlink()
    resources("2")
    done = await stack.up()
    assert order(log)[:3] == ["-b1", "-a1", "+a2"]
    assert sorted(order(log)[3:]) == ["+b2", "c2"]
    ops = [s for s in done.steps if s[1] == "a"]
    assert ops == [("delete-replaced", "a"), ("replace", "a"), ("create-replacement", "a")]
    assert done.result.changes == {"same": 1, "replace": 2, "update": 1}
    assert all("pendingReplacement" not in r for r in stack.resources().values())


async def test_a_dependent_gone_from_the_program_is_gone_after_its_early_delete(
    stack: Stack, log: Path
) -> None:
    a: dict[str, Any] = {"delete": f"echo -a >> {log}", "delete_before_replace": True}
    b = local("b", delete=f"echo -b >> {log}", triggers=["${a.stdout}"])
    stack.config["resources"] = [local("a", triggers=["1"], **a), b]
    await stack.up()
    stack.config["resources"] = [local("a", triggers=["2"], **a)]
    await stack.up()
    assert order(log) == ["-b", "-a"]
    assert "b" not in stack.resources()


async def test_deletes_go_dependents_first(stack: Stack, log: Path) -> None:
    def item(name: str, **rest: Any) -> dict[str, Any]:
        return local(name, delete=f"sleep 0.05; echo {name} >> {log}", **rest)

    stack.config["resources"] = [
        item("a"),
        item("b", depends_on=["a"]),
        item("c", environment={"B": "${b.stdout}"}),
        {"name": "g", "kind": "group"},
        item("d", parent="g", deleted_with="a"),
        item("keep"),
    ]
    await stack.up()
    stack.config["resources"] = [item("keep")]
    done = await stack.up()
    assert order(log) == ["c", "b", "a"]  # d goes with a, without a command of its own
    assert done.result.changes == {"same": 2, "delete": 5}
    gone = await stack.destroy()
    assert order(log)[-1] == "keep"
    assert gone.result.changes == {"delete": 2}
    assert stack.document["resources"] == []  # type: ignore[index]


async def test_steps_go_in_parallel_up_to_the_limit(stack: Stack, server: object) -> None:
    stack.config["resources"] = [remote(f"r{i}", f"sleep 0.2; echo {i}") for i in range(6)]
    await stack.up(parallel=3)
    assert server.most_running == 3  # type: ignore[attr-defined]
    assert server.connections == 1  # type: ignore[attr-defined]


async def test_protect_refuses_delete_and_replace(stack: Stack, log: Path) -> None:
    shell = {"delete": f"echo deleted >> {log}"}
    stack.config["resources"] = [local("a", triggers=["1"], protect=True, **shell)]
    await stack.up()
    stack.config["resources"] = [local("a", triggers=["2"], protect=True, **shell)]
    replaced = await stack.up()
    assert replaced.result.result == "failed"
    assert "marked for protection" in replaced.failures[0]
    stack.config["resources"] = []
    deleted = await stack.up()
    assert deleted.result.result == "failed"
    assert "cannot be deleted" in deleted.failures[0]
    assert "a" in stack.resources()
    assert order(log) == []
    stack.config["resources"] = [local("a", triggers=["1"], **shell)]
    await stack.up()
    assert "protect" not in stack.resources()["a"]
    await stack.destroy()
    assert order(log) == ["deleted"]


async def test_retain_on_delete_forgets_without_deleting(stack: Stack, log: Path) -> None:
    item = local("a", delete=f"echo deleted >> {log}", retain_on_delete=True)
    stack.config["resources"] = [item]
    await stack.up()
    assert (await stack.destroy()).result.changes == {"delete": 2}
    assert order(log) == []


async def test_aliases_keep_a_renamed_resource_and_its_children(stack: Stack) -> None:
    stack.config["resources"] = [
        {"name": "old", "kind": "group"},
        local("old-child", parent="old"),
        local("user", environment={"C": "${old-child.stdout}"}),
    ]
    await stack.up()
    before = stack.resources()
    stack.config["resources"] = [
        {"name": "new", "kind": "group", "options": {"aliases": [{"name": "old"}]}},
        local("new-child", "echo old-child", parent="new"),
        local("user", environment={"C": "${new-child.stdout}"}),
    ]
    done = await stack.up()
    assert done.steps == []
    after = stack.resources()
    assert after["new-child"]["id"] == before["old-child"]["id"]
    assert after["user"]["dependencies"] == [after["new-child"]["urn"]]
    assert "old" not in after
    assert "old-child" not in after


async def test_ignore_changes_and_replace_on_changes(stack: Stack) -> None:
    def item(text: str, **options: Any) -> None:
        stack.config["resources"] = [local("a", environment={"A": text, "B": "1"}, **options)]

    item("1")
    await stack.up()
    item("2", ignore_changes=["environment.A"])
    assert (await stack.up()).steps == []
    assert stack.resources()["a"]["inputs"]["environment"]["A"] == "1"
    item("3", replace_on_changes=["environment"])
    done = await stack.up()
    assert ("replace", "a") in done.steps


async def test_targets_touch_only_what_they_name(stack: Stack) -> None:
    stack.config["resources"] = [local("a"), local("b"), local("c")]
    await stack.up()
    urn = stack.resources()["a"]["urn"]
    stack.config["resources"] = [local("a", "echo 2"), local("b", "echo 2"), local("new")]
    done = await stack.up(targets=(urn,))
    assert done.steps == [("update", "a")]
    found = stack.resources("Command")
    assert sorted(found) == ["a", "b", "c"]
    assert found["b"]["inputs"]["create"] == "echo b"
    unknown = await stack.up(targets=("urn:pulumi:test::graph::no:such:Type::x",))
    assert "could not be found in the stack" in unknown.failures[0]
    gone = await stack.destroy(targets=("**Command::c",))
    assert gone.steps == [("delete", "c")]


async def test_target_whose_dependency_is_not_created(stack: Stack) -> None:
    stack.config["resources"] = [local("a"), local("b", depends_on=["a"])]
    done = await stack.up(targets=("**::b",))
    assert done.result.result == "failed"
    assert "not specified in --target list" in done.failures[0]
    assert "b" not in stack.resources()


async def test_destroying_a_target_with_dependents_needs_them_named(stack: Stack) -> None:
    stack.config["resources"] = [local("a"), local("b", depends_on=["a"])]
    await stack.up()
    refused = await stack.destroy(targets=("**::a",))
    assert refused.result.result == "failed"
    assert "--target-dependents" in refused.failures[0]
    done = await stack.destroy(targets=("**::a",), target_dependents=True)
    assert done.steps == [("delete", "b"), ("delete", "a")]


async def test_target_dependents_follow_dependencies_not_the_stack(stack: Stack) -> None:
    def resources(text: str) -> list[Json]:
        return [
            local("a", f"echo {text}"),
            local("by-output", environment={"A": "${a.stdout}", "B": text}),
            local("by-order", f"echo {text}", depends_on=["by-output"]),
            {"name": "group", "kind": "group"},
            local("child", f"echo {text}", parent="group"),
            local("other", f"echo {text}"),
        ]

    stack.config["resources"] = resources("1")
    await stack.up()
    stack.config["resources"] = resources("2")
    done = await stack.up(targets=("**::a",), target_dependents=True)
    assert sorted(done.steps) == [("update", n) for n in ("a", "by-order", "by-output")]
    done = await stack.up(targets=("**::group",), target_dependents=True)
    assert done.steps == [("update", "child")]


async def test_what_is_out_of_target_keeps_its_urn_and_provider(stack: Stack) -> None:
    provider = {"name": "p", "kind": "provider"}
    stack.config["resources"] = [provider, local("a"), local("t"), local("of-a", depends_on=["a"])]
    await stack.up()
    before = stack.resources()
    renamed = local("b", aliases=[{"name": "a"}], provider="p", depends_on=["t"])
    stack.config["resources"] = [
        *(provider, local("t", "echo 2"), renamed, local("of-a", "echo 2", depends_on=["b"])),
    ]
    done = await stack.up(targets=("**::t",))
    assert done.steps == [("update", "t")]
    assert {n: r for n, r in stack.resources().items() if n != "t"} == {
        n: r for n, r in before.items() if n != "t"
    }


async def test_out_of_target_without_its_provider(stack: Stack) -> None:
    provider = {"name": "p", "kind": "provider"}
    stack.config["resources"] = [provider, local("a", provider="p"), local("t")]
    await stack.up()
    before = stack.resources()
    stack.config["resources"] = [local("a"), local("t", "echo 2", depends_on=["a"])]
    for dry_run in (True, False):
        done = await stack.operate(dry_run=dry_run, targets=("**::t",))
        assert done.result.result == "failed"
        assert "due to a change of providers mixed with --target" in done.failures[0]
        assert ("update", "t") not in done.steps
    assert stack.resources() == before


async def test_out_of_target_keeps_what_it_depends_on(stack: Stack) -> None:
    """Also what is a target and gone from the program."""
    stack.config["resources"] = [local("gone"), local("kept", depends_on=["gone"]), local("t")]
    await stack.up()
    stack.config["resources"] = [local("kept"), local("t", "echo 2")]
    done = await stack.up(targets=("**::t", "**::gone"))
    assert done.steps == [("update", "t")]
    assert stack.resources("Command").keys() == {"gone", "kept", "t"}


async def test_replace_and_its_targets(stack: Stack) -> None:
    stack.config["resources"] = [
        local("a", "echo 1", ignore_changes=["create"]),
        local("b", environment={"A": "${a.stdout}"}),
        local("c"),
    ]
    await stack.up()
    stack.config["resources"][0]["args"]["create"] = "echo 2"
    stack.config["resources"][2]["args"]["create"] = "echo 2"
    done = await stack.up(replace=("**::a",), targets=("**::a",))
    replaced = [("create-replacement", "a"), ("replace", "a"), ("delete-replaced", "a")]
    assert done.steps == replaced
    # What is made anew has nothing that a change could be ignored of.
    assert stack.resources()["a"]["inputs"]["create"] == "echo 2"
    done = await stack.up(replace=("**::a",))
    assert sorted(done.steps) == sorted([*replaced, ("update", "b"), ("update", "c")])
    done = await stack.up(replace=("urn:pulumi:test::graph::no:such:Type::x",))
    assert done.steps == []
    assert done.failures == [
        "Target 'urn:pulumi:test::graph::no:such:Type::x' could not be found in the stack. Did you "
        "forget to escape $ in your shell?\n"
    ]


async def test_update_after_a_refresh(stack: Stack) -> None:
    stack.config["resources"] = [local("a"), local("b")]
    await stack.up()
    stack.config["resources"][1]["args"]["create"] = "echo 2"
    done = await stack.up(refresh=True)
    refreshed = [("refresh", r["urn"].rsplit("::", 1)[1]) for r in stack.resources().values()]
    assert sorted(done.steps) == sorted([*refreshed, ("update", "b")])
    assert done.result.changes == {"same": 2, "update": 1}


async def test_refresh_finds_everything_as_it_was(stack: Stack) -> None:
    stack.config["resources"] = [local("a"), remote("b")]
    await stack.up()
    before = stack.resources()
    for resource in before.values():  # a refresh keeps no list that is empty, as Pulumi's
        assert not any(resource.pop("propertyDependencies", {}).values())
    done = await stack.operate(operation="refresh")
    assert done.result.changes == {"same": 3}
    assert stack.resources() == before


async def test_custom_timeouts_bound_a_step(stack: Stack) -> None:
    stack.config["resources"] = [local("a", "sleep 30", custom_timeouts={"create": "1s"})]
    done = await stack.up()
    assert "customTimeouts.create of 1 s" in done.failures[0]


async def test_explicit_provider_of_a_component_is_kept_in_state(stack: Stack) -> None:
    stack.config["resources"] = [
        {"name": "p", "kind": "password", "args": {"length": 8}},
        local("a"),
    ]
    await stack.up()
    found = stack.resources()
    providers = {r["urn"]: r["id"] for r in stack.resources("pulumi:providers").values()}
    assert len(providers) == 2
    assert found["a"]["provider"].rpartition("::")[2] in providers.values()
