"""Held against the real engine: each goes on where the other stopped, and says the same."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.api import Event
from engine.state import Snapshot
from tests.engine.conftest import Json, Real, Reversible, Stack, local, remote

GRAPH: list[Json] = [
    {"name": "g", "kind": "group", "args": {"n": 1, "t": "x"}, "outputs": {"out": "${a.stdout}"}},
    remote("a", "cat", stdin="one\ntwo\n", delete="true", parent="g", triggers=["1", 2]),
    remote("s", "cat", stdin="${secret:s3cret}", logging="none", depends_on=["g"],
           additional_secret_outputs=["stdout"]),
    local("b", "echo $A; echo err >&2", environment={"A": "${a.stdout}", "B.c": "1"}),
    local("c", update="echo upd", protect=True, ignore_changes=["environment"],
          custom_timeouts={"create": "5m"}),
    local("d", delete="true", retain_on_delete=True, deleted_with="b"),
]  # fmt: skip
EXPORTS = {"a": "${a.stdout}", "s": "${s.stdout}", "list": [1, 2.5, None, True, {"k": "v"}]}
NOISE = {"manifest", "created", "modified", "stackTrace", "sourcePosition", "secrets_providers"}


def normal(value: Any, ids: dict[str, str]) -> Any:
    """A checkpoint or event without what differs from run to run; ids by order of appearance."""
    if isinstance(value, dict):
        return {k: normal(v, ids) for k, v in sorted(value.items()) if k not in NOISE}
    if isinstance(value, list):
        return [normal(v, ids) for v in value]
    if isinstance(value, str):
        for identity, name in ids.items():
            value = value.replace(identity, name)
    return value


def identities(resources: list[Json]) -> dict[str, str]:
    return {r["id"]: f"id of {r['urn']}" for r in resources if r.get("id", "none") != "none"}


def normal_state(deployment: Json) -> Json:
    resources = sorted(deployment["resources"], key=lambda r: (r["urn"], r.get("delete", False)))
    found: Json = normal({"resources": resources}, identities(resources))
    for r in found["resources"]:
        for key in ("dependencies", "additionalSecretOutputs"):
            r[key] = sorted(r.get(key, []))
        r["propertyDependencies"] = {
            k: sorted(v) for k, v in r.get("propertyDependencies", {}).items()
        }
    return found


def normal_events(events: list[Event]) -> list[str]:
    """Steps as text, sorted: what runs in parallel has no order."""
    found = []
    for event in events:
        for kind in ("resourcePreEvent", "resOutputsEvent", "resOpFailedEvent"):
            if kind in event:
                m = json.loads(json.dumps(event[kind]))
                ids = {}
                for side in ("old", "new"):
                    state = m["metadata"][side]
                    if state and len(state["id"]) > 8:
                        ids[state["id"]] = f"ID {side}"
                    if state and state["provider"]:
                        ids[state["provider"].rpartition("::")[2]] = "PROVIDER"
                if m["metadata"].get("diffs"):
                    m["metadata"]["diffs"].sort()
                found.append(kind + json.dumps(normal(m, ids), sort_keys=True))
        if "summaryEvent" in event:
            summary = {k: v for k, v in event["summaryEvent"].items() if k != "durationSeconds"}
            found.append(json.dumps(summary, sort_keys=True))
    return sorted(found)


def assert_same(mine: list[Event], theirs: list[Event]) -> None:
    ours, others = normal_events(mine), normal_events(theirs)
    differing = [f"+ {e}" for e in ours if e not in others]
    differing += [f"- {e}" for e in others if e not in ours]
    assert not differing, "\n".join(differing)
    assert ours == others


def take(stack: Stack, deployment: Json) -> None:
    """Go on from a state of the real engine."""
    stack.document = Snapshot.load(deployment, Reversible()).dump(Reversible())


def plain(stack: Stack) -> Json:
    return Snapshot.load(stack.document, Reversible()).dump(None)


@pytest.fixture
def graph(stack: Stack) -> Stack:
    stack.config |= {"resources": json.loads(json.dumps(GRAPH)), "exports": EXPORTS}
    return stack


async def test_create_is_the_same(graph: Stack, real: Real) -> None:
    assert normal_events((await graph.preview()).events) == normal_events(real.preview())
    assert normal_events((await graph.up()).events) == normal_events(real.up())
    assert normal_state(plain(graph)) == normal_state(real.export())


async def test_the_real_engine_goes_on_without_a_change(graph: Stack, real: Real) -> None:
    graph.config["resources"].append({"name": "late", "kind": "group"})
    await graph.up()
    real.take(Snapshot.load(graph.document, Reversible()))
    events = real.operate("preview", "--expect-no-changes")
    summary = next(e["summaryEvent"] for e in events if "summaryEvent" in e)
    assert set(summary["resourceChanges"]) == {"same"}
    real.operate("up", "--yes", "--skip-preview", "--expect-no-changes")
    assert normal_state(plain(graph)) == normal_state(real.export())


async def test_this_engine_goes_on_from_the_real_one_without_a_change(
    graph: Stack, real: Real
) -> None:
    real.up()
    take(graph, real.export())
    done = await graph.up()
    assert done.steps == []
    assert normal_state(plain(graph)) == normal_state(real.export())


CHANGES: dict[str, Any] = {
    "update stdin": lambda r: r[1]["args"].update(stdin="one\n2\n"),
    "update of an update command only": lambda r: r[4]["args"].update(update="echo other"),
    "replace by trigger": lambda r: r[1]["args"].update(triggers=["1", 3]),
    "first trigger": lambda r: r[3]["args"].update(triggers=["x"]),
    "delete before replace": lambda r: (
        r[1]["args"].update(triggers=[]),
        r[1]["options"].update(delete_before_replace=True),
    ),
    "component's own input": lambda r: r[0]["args"].update(n=2),
    "ignored change": lambda r: r[4]["args"].update(environment={"X": "1"}),
    "map key added and removed": lambda r: r[3]["args"].update(environment={"B.c": "1", "N": "2"}),
    "secret changed": lambda r: r[2]["args"].update(stdin="${secret:other}"),
    "resource gone": lambda r: r.pop(5),
    "options only": lambda r: r[4]["options"].update(protect=False),
    "alias": lambda r: r[5].update(
        name="renamed", options=r[5]["options"] | {"aliases": [{"name": "d"}]}
    ),
    "replace on changes": lambda r: (
        r[3]["args"].update(environment={"A": "now", "B.c": "2"}),
        r[3]["options"].update(replace_on_changes=["environment"]),
    ),
    "failing update": lambda r: r[3]["args"].update(create="echo $A; exit 3"),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_is_the_same(graph: Stack, real: Real, change: str) -> None:
    real.up()
    take(graph, real.export())
    CHANGES[change](graph.config["resources"])
    assert normal_events((await graph.preview()).events) == normal_events(real.preview())
    mine = await graph.up()
    theirs = real.up(check=False)
    if change != "failing update":  # how far the others came is a matter of time
        assert_same(mine.events, theirs)
        assert normal_state(plain(graph)) == normal_state(real.export())
    else:
        assert [e["summaryEvent"]["result"] for e in theirs if "summaryEvent" in e] == ["failed"]
        assert mine.result.result == "failed"
        assert mine.failures[0] in [e.get("diagnosticEvent", {}).get("message") for e in theirs]


async def test_destroy_and_refresh_are_the_same(graph: Stack, real: Real) -> None:
    graph.config["resources"][4]["options"]["protect"] = False
    real.up()
    take(graph, real.export())
    refreshed = await graph.operate(operation="refresh")
    assert_same(refreshed.events, real.operate("refresh", "--yes", "--skip-preview"))
    gone = await graph.destroy()
    assert_same(gone.events, real.operate("destroy", "--yes", "--skip-preview"))
    assert (graph.document or {})["resources"] == []


async def test_targets_are_the_same(graph: Stack, real: Real) -> None:
    real.up()
    take(graph, real.export())
    graph.config["resources"][1]["args"]["stdin"] = "changed\n"
    graph.config["resources"][3]["args"]["create"] = "echo changed"
    graph.config["resources"].pop(5)
    graph.config["resources"].append(local("new"))
    mine = await graph.up(targets=("**Command::a", "**Command::d"))
    theirs = real.operate(
        *("up", "--yes", "--skip-preview", "--target", "**Command::a", "--target", "**Command::d")
    )
    assert_same(mine.events, theirs)
    assert normal_state(plain(graph)) == normal_state(real.export())
    gone = await graph.destroy(targets=("**Command::a",), target_dependents=True)
    theirs = real.operate(
        *("destroy", "--yes", "--skip-preview", "--target", "**Command::a", "--target-dependents")
    )
    assert_same(gone.events, theirs)
    assert normal_state(plain(graph)) == normal_state(real.export())


TARGETED: dict[str, tuple[str, ...]] = {
    "dependents": ("--target", "**::a", "--target-dependents"),
    "alias": ("--target", "**::new"),
    "of a child": ("--target", "**::c", "--target-dependents"),
    "replace": ("--replace", "**::b"),
    "target-replace": ("--target-replace", "**::a"),
    "replace none": ("--replace", "urn:pulumi:test::graph::no:such:Type::x"),
    "refresh": ("--refresh",),
    "refresh of a target": ("--refresh", "--target", "**::b"),
}


@pytest.mark.parametrize("case", TARGETED)
async def test_targets_reach_as_far(graph: Stack, real: Real, case: str) -> None:
    real.up()
    take(graph, real.export())
    resources = graph.config["resources"]
    CHANGES["update stdin"](resources)
    CHANGES["update of an update command only"](resources)
    CHANGES["alias"](resources)
    resources.append(local("new"))
    flags = TARGETED[case]
    pairs = list(zip(flags, [*flags[1:], ""], strict=True))
    both = tuple(v for f, v in pairs if f == "--target-replace")
    mine = await graph.up(
        targets=tuple(v for f, v in pairs if f == "--target") + both,
        replace=tuple(v for f, v in pairs if f == "--replace") + both,
        target_dependents="--target-dependents" in flags,
        refresh="--refresh" in flags,
    )
    theirs = real.operate("up", "--yes", "--skip-preview", *flags, check=False)
    assert_same(mine.events, theirs)
    assert normal_state(plain(graph)) == normal_state(real.export())


async def test_what_is_made_anew_is_made_of_all_that_is_wished(graph: Stack, real: Real) -> None:
    real.up()
    take(graph, real.export())
    CHANGES["ignored change"](graph.config["resources"])
    CHANGES["options only"](graph.config["resources"])  # no protection any more
    mine = await graph.up(replace=("**::c",))
    assert_same(mine.events, real.operate("up", "--yes", "--skip-preview", "--replace", "**::c"))
    assert normal_state(plain(graph)) == normal_state(real.export())


async def test_going_on_after_an_error_is_the_same(graph: Stack, real: Real) -> None:
    graph.config["exports"] = {}
    graph.config["resources"] = [
        local("bad", "echo no; exit 3"),
        local("dependent", depends_on=["bad"]),
        remote("good"),
        local("after-good", environment={"A": "${good.stdout}"}),
    ]
    mine = await graph.up(continue_on_error=True)
    theirs = real.operate("up", "--yes", "--skip-preview", "--continue-on-error", check=False)
    assert mine.result.result == "failed"
    assert_same(mine.events, theirs)
    assert normal_state(plain(graph)) == normal_state(real.export())
