"""`slurmstack plan` and `apply`: exit codes and files (docs/plan.md), and who is asked before."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from operations.apply import NotApplied
from operations.plan import NoPlan, Planned
from operations.planned import Change, Plan
from settings import parse
from settings.parameters import Needs
from tests.unit.operations.commands.console import Calls, Slurmstack, Standing
from tests.unit.operations.test_hosts import RAW

CHANGE = Change(
    ("cn01", "cn02"), "parameter", "slurm.conf MessageTimeout", "30", "61", Needs.RECONFIGURE,
    "reconfigure, jobs keep running",
)  # fmt: skip
PLAN = Plan(
    "x", (CHANGE,), (), any=True, targets={"cn01": ("urn:1",), "cn02": ("urn:2",)},
    digests={"settings": "1", "state": "2", "steps": "3"},
)  # fmt: skip
NOTHING = Plan("x", (), ())


def planned(plan: Plan) -> Planned:
    return Planned(plan, parse(RAW), Path("/nowhere"), "x")


@pytest.fixture
def made(instead: Standing) -> Calls:
    """Planning itself asks the engine."""
    return instead("operations.plan.make", planned(PLAN))


@pytest.fixture
def up(instead: Standing) -> Calls:
    return instead("operations.apply.up")


def test_a_plan_is_told_and_its_exit_code_says_whether_there_is_one(
    slurmstack: Slurmstack, made: Calls
) -> None:
    done = slurmstack("plan", code=2)
    assert "cn[01-02]" in done.stdout
    assert "MessageTimeout 30 → 61" in done.stdout
    made.result = planned(NOTHING)
    assert "no change" in slurmstack("plan").stdout
    # Also where no node is sent anything: an output that changes is an `up` that does something.
    made.result = planned(replace(NOTHING, any=True))
    slurmstack("plan", code=2)
    folder = slurmstack.pulumi.project
    assert made.calls == [(None, folder, None, False)] * 3


def test_what_is_asked_for_is_what_is_planned(slurmstack: Slurmstack, made: Calls) -> None:
    slurmstack("plan", "--stack", "y", "--only", "cn01", "--offline", code=2)
    assert made.calls == [("y", slurmstack.pulumi.project, "cn01", True)]


def test_a_plan_for_programs_and_for_a_comment(slurmstack: Slurmstack, made: Calls) -> None:
    told = slurmstack.json("plan", code=2)
    assert (told["version"], told["stack"], told["nodes"]) == (1, "x", "cn[01-02]")
    assert told["changes"] == [
        {"nodes": "cn[01-02]", "kind": "parameter", "what": "slurm.conf MessageTimeout",
         "old": "30", "new": "61", "needs": "reconfigure",
         "effect": "reconfigure, jobs keep running"},
    ]  # fmt: skip
    page = slurmstack("plan", "--markdown", code=2).stdout
    assert "| slurm.conf MessageTimeout 30 → 61 |" in page
    assert not page.endswith("\n\n")


def test_a_plan_is_saved_for_apply(slurmstack: Slurmstack, made: Calls, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    slurmstack("plan", "--save", str(file), "--only", "cn01", code=2)
    saved = json.loads(file.read_text())
    assert (saved["format"], saved["only"]) == ("slurmstack-plan", "cn01")
    assert saved["digests"] == {"settings": "1", "state": "2", "steps": "3"}
    line = slurmstack.refused("plan", "--save", str(tmp_path / "none" / "plan.json"))
    assert line.endswith("none/plan.json cannot be written: No such file or directory")


def test_what_cannot_be_planned_is_an_error(slurmstack: Slurmstack, instead: Standing) -> None:
    instead("operations.plan.make", NoPlan("cn09: no host"))
    assert slurmstack.refused("plan") == "cn09: no host"
    assert slurmstack.refused("apply", "--yes") == "cn09: no host"


def test_an_apply_shows_the_plan_and_does_it(
    slurmstack: Slurmstack, made: Calls, up: Calls
) -> None:
    done = slurmstack("apply", "--yes", "--only", "cn01", "--offline", "--stack", "y")
    assert "MessageTimeout 30 → 61" in done.stdout
    assert made.calls == [("y", slurmstack.pulumi.project, "cn01", True)]
    ((what, _),) = up.calls
    assert what == "x"  # the stack of the plan


def test_where_nothing_changes_nothing_is_done(
    slurmstack: Slurmstack, made: Calls, up: Calls
) -> None:
    made.result = planned(NOTHING)
    assert "no change" in slurmstack("apply").stdout
    assert up.calls == []


def test_without_a_terminal_it_is_asked_for_a_word(
    slurmstack: Slurmstack, made: Calls, up: Calls
) -> None:
    done = slurmstack("apply", code=1, stdin="y\n")
    assert done.stderr == (
        "slurmstack: nobody can be asked here: look at the plan, then say --yes\n"
    )
    assert "MessageTimeout 30 → 61" in done.stdout
    assert up.calls == []


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1), ("\n", 1), ("", 1)])
def test_on_a_terminal_a_person_is_asked(
    answer: str, code: int, slurmstack: Slurmstack, made: Calls, up: Calls,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    terminal: Any = SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("operations.commands.apply.sys", terminal)
    done = slurmstack("apply", stdin=answer, code=code)
    assert "Do it?" in done.stdout
    assert len(up.calls) == (code == 0)


def test_a_saved_plan_that_is_none_is_refused(
    slurmstack: Slurmstack, made: Calls, up: Calls, tmp_path: Path
) -> None:
    file = tmp_path / "plan.json"
    file.write_text("{}")
    line = slurmstack.refused("apply", str(file), "--yes")
    assert line == f"{file} is no plan; slurmstack plan --save {file} makes one"
    slurmstack("plan", "--save", str(file), code=2)
    slurmstack("apply", str(file), "--yes")
    assert len(up.calls) == 1


def test_a_run_that_ended_early_is_exit_code_1(
    slurmstack: Slurmstack, made: Calls, up: Calls
) -> None:
    up.result = NotApplied("stack x: not all of it was done")
    done = slurmstack("apply", "--yes", code=1)
    assert done.stderr == "slurmstack: stack x: not all of it was done\n"
