"""A saved plan: what it says, when it is refused, and how its run is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pulumi import automation
from pulumi.automation._cmd import CommandResult

from operations import apply, plan
from operations.plan import NoPlan, Planned, load, refuse_if_moved, save
from operations.planned import Plan
from settings import parse
from tests.unit.operations.test_hosts import RAW

DIGESTS = {"settings": "1", "state": "2", "steps": "3"}


def planned(**changes: Any) -> Planned:
    made = Plan("prod", (), (), digests=DIGESTS, any=True)
    return Planned(replace(made, **changes), parse(RAW), Path(), "prod")


def saved(folder: Path, only: str | None = None) -> Path:
    file = folder / "plan.json"
    save(planned(), file, only)
    return file


def test_what_was_saved_is_what_is_loaded(tmp_path: Path) -> None:
    told = load(saved(tmp_path, "cn01"))
    assert (told["stack"], told["only"], told["digests"]) == ("prod", "cn01", DIGESTS)
    refuse_if_moved(told, planned(), tmp_path / "plan.json")
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


@pytest.mark.parametrize(
    ("moved", "says"),
    [("settings", r"Pulumi\.prod\.yaml\) have changed"), ("state", "has been deployed to"),
     ("steps", "what would be done is not what was planned")],
)  # fmt: skip
def test_what_has_moved_since_is_named(tmp_path: Path, moved: str, says: str) -> None:
    file = saved(tmp_path)
    now = planned(digests={**DIGESTS, moved: "other"})
    with pytest.raises(NoPlan, match=says):
        refuse_if_moved(load(file), now, file)


def test_a_plan_of_another_stack_is_refused(tmp_path: Path) -> None:
    file = saved(tmp_path)
    with pytest.raises(NoPlan, match="is a plan of stack prod, not of lab"):
        refuse_if_moved(load(file), replace(planned(), stack="lab"), file)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is no plan"),
        ("[]", "is no plan"),
        ("{}", "is no plan"),
        ('{"format": "slurmstack-plan", "version": 99}', "is a plan of version 99"),
    ],
)
def test_what_is_no_plan_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(NoPlan, match=says):
        load(tmp_path / "plan.json")


def test_a_file_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(NoPlan, match="cannot be read: No such file"):
        load(tmp_path / "nothing")
    with pytest.raises(NoPlan, match="cannot be written: No such file"):
        save(planned(), tmp_path / "no/such/folder", None)


def test_each_file_of_the_settings_counts(tmp_path: Path) -> None:
    found = {plan._of_settings(tmp_path, "prod")}
    for name, text in (
        ("Pulumi.prod.yaml", "a"), ("Pulumi.prod.yaml", "b"), ("Pulumi.yaml", "a"),
    ):  # fmt: skip
        (tmp_path / name).write_text(text)
        found.add(plan._of_settings(tmp_path, "prod"))
    assert len(found) == 4
    (tmp_path / "Pulumi.lab.yaml").write_text("of another stack")
    assert plan._of_settings(tmp_path, "prod") in found


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the plan was made anew of; planning itself asks the engine."""
    asked: list[tuple[Any, ...]] = []

    def make(*words: Any) -> Planned:
        asked.append(words)
        return planned(refused=("ctl: job 7 runs",) if words[0] == "refusing" else ())

    monkeypatch.setattr(plan, "make", make)
    return asked


def test_a_saved_plan_is_applied_as_it_was_saved(tmp_path: Path, made: list[Any]) -> None:
    file = saved(tmp_path, "cn01")
    for name, only in ((None, None), ("prod", "cn01")):
        apply.planned(name, tmp_path, file, only, True)
    apply.planned("lab", tmp_path, None, "cn02")
    assert made == [("prod", tmp_path, "cn01", True)] * 2 + [("lab", tmp_path, "cn02", False)]


def test_a_saved_plan_is_for_its_nodes_and_its_stack(tmp_path: Path, made: list[Any]) -> None:
    file = saved(tmp_path, "cn01")
    with pytest.raises(NoPlan, match="is a plan for cn01, not for cn02"):
        apply.planned(None, tmp_path, file, "cn02")
    with pytest.raises(NoPlan, match="is a plan of stack prod, not of lab"):
        apply.planned("lab", tmp_path, file, None)
    with pytest.raises(NoPlan, match="is a plan for all nodes, not for cn02"):
        apply.planned(None, tmp_path, saved(tmp_path), "cn02")
    assert made == []


def test_what_a_guard_would_refuse_is_not_begun(tmp_path: Path, made: list[Any]) -> None:
    with pytest.raises(NoPlan, match="ctl: job 7 runs"):
        apply.planned("refusing", tmp_path, None, None)


def event(**kind: Any) -> Any:
    kinds = ("res_outputs_event", "res_op_failed_event", "policy_event", "diagnostic_event")
    return SimpleNamespace(**{**dict.fromkeys(kinds), **kind})


def of(urn: str) -> Any:
    return SimpleNamespace(metadata=SimpleNamespace(urn=urn))


def said(text: str, severity: str = "info", ephemeral: bool = False) -> Any:
    found = SimpleNamespace(message=text, severity=severity, ephemeral=ephemeral)
    return event(diagnostic_event=found)


def test_progress_is_told_by_role_and_nodes() -> None:
    lines: list[str] = []
    targets = {
        name: (f"urn:pulumi:prod::slurmstack::command:remote:Command::{name}-slurmd",)
        for name in ("cn01", "cn02", "cn03")
    }
    watch = apply.Progress(targets, lines.append)
    for name in ("cn01", "cn01", "cn02"):
        watch(
            event(
                res_outputs_event=of(
                    f"urn:pulumi:prod::slurmstack::command:remote:Command::{name}-slurmd"
                )
            )
        )
    watch(
        event(
            res_outputs_event=of(
                "urn:pulumi:prod::slurmstack::command:remote:Command::slurmstack-prod"
            )
        )
    )
    assert not watch.failed
    watch(
        event(
            res_op_failed_event=of(
                "urn:pulumi:prod::slurmstack::command:remote:Command::cn03-slurmd"
            )
        )
    )
    assert watch.failed
    watch(
        event(
            res_outputs_event=of("urn:pulumi:prod::slurmstack::command:remote:Command::cn03-slurmd")
        )
    )
    assert lines[0] == "slurmd: 1 of 3 nodes done (cn01)"
    assert lines[-2:] == ["slurmd: cn03 failed", "slurmd: 3 of 3 nodes done (cn[01-03])"]


def test_what_the_engine_says_is_passed_on_and_its_noise_is_not() -> None:
    lines: list[str] = []
    watch = apply.Progress({}, lines.append)
    for one in (
        said("passing", ephemeral=True), said("inside", "debug"), said(" \n"), said("cn01: done\n"),
        said("old", "warning"), said("from a program", "info#err"),
    ):  # fmt: skip
        watch(one)
    assert (lines, watch.failed) == (
        ["cn01: done", "warning: old", "from a program"],
        False,
    )
    watch(said("cn01: slurmd: why", "error"))
    assert (lines[-1], watch.failed) == ("error: cn01: slurmd: why", True)
    watch(
        event(res_op_failed_event=of("urn:pulumi:prod::slurmstack::command:remote:Command::nobody"))
    )
    assert len(lines) == 4


@pytest.mark.parametrize(("level", "failed"), [("mandatory", True), ("advisory", False)])
def test_a_rule_that_is_broken_is_named(level: str, failed: bool) -> None:
    lines: list[str] = []
    watch = apply.Progress({}, lines.append)
    broken = SimpleNamespace(
        policy_name="keys-pinned", message="cn01:\n  none", enforcement_level=level
    )
    watch(event(policy_event=broken))
    assert (lines, watch.failed) == (["keys-pinned: cn01: none"], failed)


def test_who_holds_a_lock() -> None:
    text = "error: the stack is currently locked\n  file:///s: created by anna@ctl (pid 7)\n"
    assert apply._lock(text) == "file:///s: created by anna@ctl (pid 7)"
    assert apply._lock("error: something else") == "something else"


@pytest.mark.parametrize("confined", [True, False])
def test_a_plan_for_some_nodes_does_nothing_for_others(
    confined: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[dict[str, Any]] = []
    stack = SimpleNamespace(up=lambda **words: ran.append(words))
    monkeypatch.setattr(automation.Stack, "select", lambda *_: stack)
    monkeypatch.setattr(apply, "_Workspace", lambda **_: None)
    what = replace(planned(targets={"cn01": ("urn:a", "urn:b"), "cn02": ("urn:c",)}))
    apply.up(replace(what, confined=confined), lambda _: None)
    (words,) = ran
    assert words["target"] == (["urn:a", "urn:b", "urn:c"] if confined else None)
    assert words["show_secrets"] is False


def test_a_run_that_failed_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What went wrong where was said when it did."""

    def fails(said: bool) -> Any:
        def up(on_event: Any, **_: Any) -> None:
            if said:
                on_event(
                    event(
                        res_op_failed_event=of(
                            "urn:pulumi:prod::slurmstack::command:remote:Command::cn01-slurmd"
                        )
                    )
                )
            result = CommandResult("", "error: the engine's own words\n", 255)
            raise automation.CommandError(result)

        return SimpleNamespace(up=up)

    monkeypatch.setattr(apply, "_Workspace", lambda **_: None)
    for said, wanted in ((True, "not all of it was done"), (False, "the engine's own words")):
        stack = fails(said)
        monkeypatch.setattr(automation.Stack, "select", lambda *_, it=stack: it)
        with pytest.raises(apply.NotApplied) as error:
            apply.up(
                planned(
                    targets={
                        "cn01": (
                            "urn:pulumi:prod::slurmstack::command:remote:Command::cn01-slurmd",
                        )
                    }
                ),
                lambda _: None,
            )
        assert str(error.value).endswith(wanted)


def test_a_locked_stack_is_not_taken_for_one_that_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    def up(**_: Any) -> None:
        text = "error: [409] Conflict: the stack is currently locked by 1 lock(s)\n"
        text += "  file:///s/.pulumi/locks/1.json: created by anna@ctl (pid 7) at T\n"
        raise automation.ConcurrentUpdateError(CommandResult("", text, 255))

    monkeypatch.setattr(apply, "_Workspace", lambda **_: None)
    monkeypatch.setattr(automation.Stack, "select", lambda *_: SimpleNamespace(up=up))
    with pytest.raises(apply.NotApplied, match=r"stack prod is locked: file.*created by anna@ctl"):
        apply.up(planned(targets={}), lambda _: None)
