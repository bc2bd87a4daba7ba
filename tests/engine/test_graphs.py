"""Random small graphs, edited and failing at random, against a model of what runs, in which order,
and what is left. ENGINE_GRAPHS says how many (15 without it)."""

from __future__ import annotations

import asyncio
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.engine.conftest import Json, Stack, local

GRAPHS = int(os.environ.get("ENGINE_GRAPHS", "15"))
NAMES = [f"n{i}" for i in range(5)]


@dataclass(frozen=True)
class Wanted:
    """One resource of the program: a command that notes that it ran and prints its value, which
    those that depend on it get."""

    value: int
    trigger: int
    needs: frozenset[str]
    fails: bool

    def item(self, name: str, log: Path) -> Json:
        create = f"echo +{name} >> {log}; echo {self.value}"
        return local(
            *(name, f"echo {self.value} refused; exit 1" if self.fails else create),
            delete=f"echo -{name} >> {log}",
            triggers=[self.trigger],
            environment={need: f"${{{need}.stdout}}" for need in sorted(self.needs)},
        )


Graph = dict[str, Wanted]


@st.composite
def graphs(draw: Any) -> Graph:
    found: Graph = {}
    for name in NAMES:
        if draw(st.integers(0, 3)):
            needs = frozenset(draw(st.sets(st.sampled_from(list(found)))) if found else ())
            fails = draw(st.integers(0, 5)) == 5
            found[name] = Wanted(draw(st.integers(0, 2)), draw(st.integers(0, 1)), needs, fails)
    return found


def hurt(graph: Graph) -> set[str]:
    """Those that fail, and those that need them, however far."""
    found: set[str] = set()
    for name, wanted in graph.items():
        if wanted.fails or wanted.needs & found:
            found.add(name)
    return found


@dataclass(frozen=True)
class Held:
    """What the state says of a command."""

    id: str
    value: int
    trigger: int
    needs: dict[str, int]


def held(stack: Stack) -> tuple[dict[str, Held], list[str]]:
    """What is there, and the names of what was made anew and could not be deleted yet."""
    found, doomed = {}, []
    assert stack.document
    for r in stack.document.get("resources", []):
        if "local:Command" not in r["type"]:
            continue
        name = r["urn"].rsplit("::", 1)[1]
        if r.get("delete"):
            doomed.append(name)
            continue
        inputs = r["inputs"]
        needs = {need: int(value) for need, value in inputs.get("environment", {}).items()}
        value = int(r["outputs"]["stdout"])
        found[name] = Held(r["id"], value, int(inputs["triggers"][0]), needs)
        assert {urn.rsplit("::", 1)[1] for urn in r.get("dependencies", [])} == set(needs)
    return found, doomed


def check(
    before: dict[str, Held], doomed: list[str], goal: Graph, now: dict[str, Held], log: list[str]
) -> None:
    ran = [entry[1:] for entry in log if entry[0] == "+"]
    gone = [entry[1:] for entry in log if entry[0] == "-"]
    assert len(set(ran)) == len(ran)
    assert not set(ran) & hurt(goal)
    for name in ran:
        # What it needs had its turn before, and it got its value.
        wanted = goal[name]
        assert not set(ran[ran.index(name) :]) & wanted.needs
        needs = {need: now[need].value for need in wanted.needs}
        assert (now[name].value, now[name].trigger) == (wanted.value, wanted.trigger)
        assert now[name].needs == needs
        old = before.get(name)
        if old:
            assert old != now[name] or needs != old.needs, "it ran without need"
            # Another trigger makes it anew; all else is done to the one that is there.
            assert (old.id != now[name].id) == (old.trigger != wanted.trigger)
    for name, old in before.items():
        if name not in ran and name not in gone:
            assert now[name] == old
    for name in gone:
        if name in doomed:
            continue
        assert name not in goal or before[name].trigger != goal[name].trigger
        # Those that needed it went first.
        if name not in goal:
            later = set(gone[gone.index(name) + 1 :]) - set(goal) - set(doomed)
            assert not {other for other in later if name in before[other].needs}


def reached(before: dict[str, Held], goal: Graph, now: dict[str, Held]) -> None:
    """All that can be had is there, and no more."""
    sound = set(goal) - hurt(goal)
    for name in sound:
        assert (now[name].value, now[name].trigger) == (goal[name].value, goal[name].trigger)
    assert set(now) - set(before) <= sound
    if not hurt(goal):
        assert set(now) == set(goal)


async def play(folder: Path, steps: list[tuple[Graph, bool]]) -> None:
    log = folder / "log"
    stack = Stack("graph", folder)
    before: dict[str, Held] = {}
    doomed: list[str] = []
    for goal, goes_on in steps:
        log.write_text("")
        stack.config["resources"] = [wanted.item(name, log) for name, wanted in goal.items()]
        done = await stack.up(continue_on_error=goes_on)
        assert "pending_operations" not in (stack.document or {})
        failing = any(wanted.fails for wanted in goal.values())
        assert done.result.result == ("failed" if failing else "succeeded")
        now, left = held(stack)
        assert failing or not left
        check(before, doomed, goal, now, log.read_text().split())
        if goes_on or not failing:
            reached(before, goal, now)
        before, doomed = now, left
    if not any(wanted.fails for wanted in goal.values()):
        again = await stack.up()
        assert again.steps == []


# A failure is shown as it was found: to make it smaller would take many minutes.
@settings(
    max_examples=GRAPHS, deadline=None, suppress_health_check=[HealthCheck.too_slow],
    database=None, phases=[Phase.generate],
)  # fmt: skip
@given(st.lists(st.tuples(graphs(), st.booleans()), min_size=2, max_size=4))
def test_random_graphs(steps: list[tuple[Graph, bool]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(play(Path(folder), steps))
