"""`slurmstack drift`: exit codes (docs/drift.md), what is kept, and when nothing is put right."""

from __future__ import annotations

from typing import Any

import pytest

from components import history
from operations.drift import Finding, Report
from operations.last_drift import last
from operations.up import NotDone
from tests.unit.operations.commands.console import Pulumi, Slurmstack, Standing

FILE = Finding("cn01", "file", "/etc/x", "content", "slurmd", diff=("--- a", "+++ b", "@@", "+c"))
USER = Finding("cn02", "user", "al", "exists with 7", command="usermod -u 5 al", where="cn02")
SILENT = {"cn03": "connect: no answer; see"}


def kept(pulumi: Pulumi) -> dict[str, int] | None:
    drift = last(history.folder(pulumi.project, "x"))
    return None if drift is None else drift.nodes


@pytest.mark.parametrize(
    ("report", "code", "said"),
    [
        (Report(["cn01"]), 0, "1 hosts compared, nothing differs"),
        (Report(["cn01"], [FILE]), 2, "--fix (slurmd)"),
        (Report([], [], SILENT), 1, "cn03: not asked: connect: no answer; see"),
        (Report(["cn01"], [], {}, ["cn01: slurmd: x"]), 1, "not compared: cn01: slurmd: x"),
        (Report(["cn01"], [FILE], SILENT), 2, "1 differences on 1, 1 not asked"),
    ],
)
def test_exit_codes_tell_what_was_seen(
    report: Report, code: int, said: str, slurmstack: Slurmstack, instead: Standing
) -> None:
    instead("operations.drift.look", report)
    done = slurmstack("drift", code=code)
    assert said in done.stdout
    assert slurmstack.json("drift", code=code)["failed"] == report.failed


def test_for_programs(slurmstack: Slurmstack, instead: Standing) -> None:
    instead("operations.drift.look", Report(["cn02", "cn01"], [FILE, USER], SILENT, ["cn01: y"]))
    told = slurmstack.json("drift", code=2)
    assert told["compared"] == ["cn01", "cn02"]
    assert told["unreachable"] == SILENT
    assert told["differs"] == [
        {
            "node": "cn01", "kind": "file", "name": "/etc/x", "found": "content",
            "role": "slurmd", "command": None, "on": None, "diff": ["--- a", "+++ b", "@@", "+c"],
        },
        {
            "node": "cn02", "kind": "user", "name": "al", "found": "exists with 7",
            "role": None, "command": "usermod -u 5 al", "on": "cn02", "diff": [],
        },
    ]  # fmt: skip


def test_only_a_look_at_all_hosts_is_the_last_one(
    slurmstack: Slurmstack, instead: Standing, pulumi: Pulumi
) -> None:
    look = instead("operations.drift.look", Report(["cn01"], [FILE, FILE, USER]))
    slurmstack("drift", "cn01", code=2)
    assert kept(pulumi) is None
    slurmstack("drift", code=2)
    assert kept(pulumi) == {"cn01": 2, "cn02": 1}
    assert [words[-1] for words in look.calls] == [["cn01"], None]
    look.result = Report(["cn01"])
    slurmstack("drift")
    assert kept(pulumi) == {}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["cn09"], "cn09: no host with a role"),
        (["--json", "--fix"], "--json tells and --fix changes"),
        (["--what", "file"], "--what file: expected some of packages, users, "),
        (["--fix", "--what", "files,nosuch"], "--what nosuch: expected some of"),
        (["--what", ","], "--what names nothing; expected some of"),
    ],
)
def test_what_is_refused_is_refused_before_anybody_is_asked(
    words: list[str], line: str, slurmstack: Slurmstack, instead: Standing
) -> None:
    look = instead("operations.drift.look")
    assert slurmstack.refused("drift", *words).startswith(line)
    assert look.calls == []


@pytest.fixture
def fixed(instead: Standing, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Differences that are there until they are fixed; what was fixed, in which stack, unasked."""
    done: list[Any] = []

    def fix(findings: list[Finding], _: Any, cluster: Any, yes: bool) -> None:
        done.append(([one.name for one in findings], cluster.stack, yes))

    def look(*_: Any) -> Report:
        return Report(["cn01"], [USER] if done else [FILE, USER])

    monkeypatch.setattr("operations.drift.look", look)
    monkeypatch.setattr("operations.drift.fix", fix)
    return done


def test_what_bundles_put_right_is_and_the_rest_is_told(
    slurmstack: Slurmstack, fixed: list[Any]
) -> None:
    done = slurmstack("drift", "--fix", "--yes", code=2)
    assert fixed == [(["/etc/x"], "x", True)]
    before, after = done.stdout.split("2 differences on 2")
    assert "/etc/x" in before
    assert "/etc/x" not in after
    assert "on cn02: usermod -u 5 al" in after
    fixed.clear()
    slurmstack("drift", "cn01", "--fix", "--what", "files", "--stack", "y", code=2)
    assert fixed == [(["/etc/x"], "y", False)]


def test_what_is_not_asked_for_is_left(slurmstack: Slurmstack, fixed: list[Any]) -> None:
    done = slurmstack("drift", "--fix", "--what", "units,packages", code=2)
    assert fixed == []
    assert done.stdout.count("hosts compared") == 1
    slurmstack("drift", "--what", "files", code=2)
    assert fixed == []


def test_a_named_node_that_is_silent_is_in_the_way_of_a_fix(
    slurmstack: Slurmstack, instead: Standing
) -> None:
    fix = instead("operations.drift.fix")
    instead("operations.drift.look", Report(["cn01"], [FILE], SILENT))
    line = slurmstack.refused("drift", "--fix", "cn[01,03]")
    assert line == "nothing was changed: cn03: connect: no answer; see"
    assert fix.calls == []
    # Of all hosts there is always one.
    slurmstack("drift", "--fix", code=2)
    assert len(fix.calls) == 1


def test_a_fix_that_fails_is_told(slurmstack: Slurmstack, instead: Standing) -> None:
    instead("operations.drift.look", Report(["cn01"], [FILE]))
    instead("operations.drift.fix", NotDone("pulumi up ended with 255: see above"))
    done = slurmstack("drift", "--fix", code=1)
    assert done.stderr == "slurmstack: pulumi up ended with 255: see above\n"
    assert "/etc/x" in done.stdout
