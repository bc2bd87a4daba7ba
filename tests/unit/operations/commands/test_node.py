"""`slurmstack node …`: words, exit codes (docs/verbs.md), and what is told at the end."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from components import history
from operations.host_keys import NewKey
from operations.operation import Operation, Waits
from operations.refused import Refused
from operations.up import NotDone
from remote.host import Host
from tests.unit.operations.commands.console import Controller, Pulumi, Slurmstack, Standing
from tests.unit.operations.pulumi_command import KEY

#: As sinfo prints two nodes.
SINFO = "    NODELIST        STATE       USER REASON\n        cn01         idle    Unknown none\n"


@pytest.fixture(autouse=True)
def answers(controller: Controller, monkeypatch: pytest.MonkeyPatch) -> Controller:
    answer = controller.answer

    def with_sinfo(of: Any, script: str, what: str, seconds: float = 30) -> str:
        told = answer(of, script, what, seconds)
        return SINFO if "sinfo" in script else told

    monkeypatch.setattr(controller, "answer", with_sinfo)
    return controller


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Whoever waits lets time pass, and none of the test's."""
    passed = [0.0]

    def sleep(seconds: float) -> None:
        passed.append(passed[-1] + seconds)

    waited = SimpleNamespace(monotonic=lambda: passed[-1], sleep=sleep)
    monkeypatch.setattr("operations.drain.time", waited)
    return passed


def changes(controller: Controller) -> list[str]:
    return [script for script in controller.changes if "sinfo" not in script]


def noted(pulumi: Pulumi) -> list[tuple[str, str, list[str]]]:
    entries = history.entries(history.folder(pulumi.project, "x"))
    return [(it["what"], it["result"], it["deeds"]) for it in entries]


def test_a_drain_says_what_was_done_and_what_sinfo_says(
    slurmstack: Slurmstack, controller: Controller, pulumi: Pulumi
) -> None:
    controller.jobs = ""
    done = slurmstack("node", "drain", "cn01", "--reason", "fan")
    assert done.stdout == f"cn01: drained\n{SINFO}"
    assert done.stderr == ""
    assert changes(controller) == [
        "scontrol update NodeName=cn01 State=DRAIN Reason='fan (by anna@admin)'"
    ]
    assert noted(pulumi) == [("node drain cn01", "done", ["cn01: drained"])]


def test_a_drain_for_programs(slurmstack: Slurmstack, controller: Controller) -> None:
    controller.jobs = ""
    told = slurmstack.json("node", "drain", "cn01,cn[03-04]", "--reason", "fan")
    assert (told["verb"], told["hosts"]) == ("drain", ["cn01", "cn03", "cn04"])
    assert told["did"][-1] == "cn[01,03]: drained"
    assert told["nodes"]["cn01"] == {"state": ["IDLE"], "answers": True, "reason": "", "by": ""}
    assert told["nodes"]["cn03"]["answers"] is False
    assert told["nodes"]["cn04"] == {
        "state": ["DRAIN", "IDLE"], "answers": True, "by": "anna@admin",
        "reason": "excluded: disk (by anna@admin)",
    }  # fmt: skip


def test_jobs_that_a_drain_does_not_wait_for_are_told(slurmstack: Slurmstack) -> None:
    done = slurmstack("node", "drain", "cn01", "--reason", "fan")
    assert done.stdout.splitlines()[:3] == [
        "cn01: drained", "still runs: job 7 (al, main, running on cn02)",
        "still runs: job 8 (bo, gpu, completing on gpu[1-2])",
    ]  # fmt: skip


def test_jobs_that_outlast_the_wait_are_exit_code_3(
    slurmstack: Slurmstack, pulumi: Pulumi, clock: list[float]
) -> None:
    done = slurmstack("node", "drain", "cn01", "--reason", "fan", "--wait", "2h", code=3)
    assert clock[-1] == 7200
    assert done.stderr.startswith("slurmstack: jobs still run: 7 (al, main, running on cn02), 8 (")
    # What was done stands, and is told and noted.
    assert done.stdout == f"cn01: drained\n{SINFO}"
    assert noted(pulumi) == [("node drain cn01", "done", ["cn01: drained"])]


@pytest.mark.parametrize("verb", ["drain", "reboot", "exclude"])
def test_a_reason_is_demanded(verb: str, slurmstack: Slurmstack, controller: Controller) -> None:
    done = slurmstack("node", verb, "cn01", code=2)
    assert "Missing option '--reason'" in done.stderr
    line = slurmstack.refused("node", verb, "cn01", "--reason", " ")
    assert line.startswith("--reason: expected one line without double quotes; found")
    assert controller.asked == []


@pytest.mark.parametrize(
    ("verb", "hosts", "line"),
    [
        ("drain", "cn09", "cn09: no host with a role in the settings; there are cn[01-04],ctl,"),
        ("drain", "cn01,ctl", "ctl: not for this verb; it is for cn[01-04],gpu[1-3]"),
        ("resume", "cn[01", "cn[01: expected "),
        ("reboot", "@nosuch", "@nosuch: no such partition in the settings; there are: @all, @gpu"),
        ("exclude", "", "an empty host list"),
        ("return", "ctl", "ctl: not for this verb"),
        ("remove", "ctl", "ctl: not for this verb"),
        ("replace", "spare", "spare: no host with a role"),
    ],
)
def test_a_host_list_that_is_none_touches_nothing(
    verb: str, hosts: str, line: str, slurmstack: Slurmstack, controller: Controller
) -> None:
    reason = ["--reason", "fan"] if verb in ("drain", "reboot", "exclude") else []
    assert slurmstack.refused("node", verb, hosts, *reason).startswith(line)
    assert controller.asked == []


@pytest.mark.parametrize("verb", ["drain", "reboot", "exclude"])
def test_a_time_that_is_none(verb: str, slurmstack: Slurmstack, controller: Controller) -> None:
    done = slurmstack("node", verb, "cn01", "--reason", "fan", "--wait", "soon", code=2)
    assert "--wait" in done.stderr
    assert "expected" in done.stderr
    assert controller.asked == []


def test_another_s_drain_is_ended_only_with_force(
    slurmstack: Slurmstack, controller: Controller
) -> None:
    line = slurmstack.refused("node", "resume", "cn02")
    assert line.startswith("cn02: drain+mixed, 'fan (by bob@admin)', by bob@admin.")
    assert "--force" in line
    assert changes(controller) == []
    done = slurmstack("node", "resume", "cn02", "--force")
    assert "cn02: resumed" in done.stdout
    assert changes(controller) == [
        "scontrol update NodeName=cn02 State=RESUME Reason='given back by slurmstack'"
    ]


def test_a_node_that_slurm_does_not_know_is_told_at_the_end(
    slurmstack: Slurmstack, instead: Standing
) -> None:
    instead("operations.membership.come_back", ["gpu[1-2]: in the settings"])
    done = slurmstack("node", "return", "cn01,gpu[1-2]", "--yes")
    assert done.stdout == f"gpu[1-2]: in the settings\n{SINFO}gpu[1-2]: not in slurm.conf\n"
    done = slurmstack("node", "return", "gpu1", "--yes")
    assert done.stdout == "gpu[1-2]: in the settings\ngpu1: not in slurm.conf\n"


def test_a_reboot_waits_until_nodes_are_back(
    slurmstack: Slurmstack, controller: Controller, clock: list[float]
) -> None:
    words = ("node", "reboot", "cn01", "--reason", "kernel", "--wait", "20m")
    assert slurmstack(*words).stdout == f"cn01: rebooted by Slurm after its jobs\n{SINFO}"
    assert clock == [0]
    controller.nodes = controller.nodes.replace("State=IDLE ", "State=IDLE+REBOOT_ISSUED ", 1)
    done = slurmstack(*words, code=3)
    assert done.stderr == "slurmstack: cn01: not back yet\n"
    assert clock[-1] == 1200
    assert "cn01: rebooted by Slurm" in done.stdout
    # Without --wait nobody waits.
    controller.asked.clear()
    slurmstack(*words[:-2])
    assert [it for it in controller.asked if "show node" in it] == [
        "timeout 20 scontrol show node"
    ] * 2  # before, and what is told at the end


def test_an_exclusion_is_given_its_words(
    slurmstack: Slurmstack, instead: Standing, pulumi: Pulumi
) -> None:
    made = instead("operations.membership.exclude", ["cn01: excluded"])
    slurmstack("node", "exclude", "cn01", "--reason", " bad memory ", "--wait", "2h", "--yes")
    slurmstack("node", "exclude", "cn[01-02]", "-r", "x", "--stack", "y")
    assert made.calls == [
        ("x", ["cn01"], "bad memory", 7200.0, True), ("y", ["cn01", "cn02"], "x", 0.0, False),
    ]  # fmt: skip
    # Operations that change the settings write the history themselves.
    assert noted(pulumi) == []


@pytest.mark.parametrize(
    ("error", "code", "deeds"),
    [
        (Waits("cn01: jobs still run: 7", ["cn01: drained"]), 3, ["cn01: drained"]),
        (NotDone("pulumi up ended with 255: see above"), 4, []),
    ],
)
def test_what_is_begun_and_not_done_has_its_exit_code(
    error: Exception, code: int, deeds: list[str], slurmstack: Slurmstack, instead: Standing
) -> None:
    instead("operations.membership.exclude", error)
    words = ("node", "exclude", "cn01", "--reason", "x")
    done = slurmstack(*words, code=code)
    assert done.stderr == f"slurmstack: {error}\n"
    assert done.stdout == "".join(f"{deed}\n" for deed in deeds) + SINFO
    done = slurmstack(*words, "--json", code=code)
    assert json.loads(done.stdout)["did"] == deeds
    assert done.stderr == f"slurmstack: {error}\n"


def test_what_is_refused_shows_no_nodes(slurmstack: Slurmstack, instead: Standing) -> None:
    instead("operations.membership.remove", Refused("another operation is being done"))
    assert slurmstack.refused("node", "remove", "cn01") == "another operation is being done"


def test_excluded_nodes_are_taken_by_the_verbs_that_bring_them_back(
    slurmstack: Slurmstack, instead: Standing, pulumi: Pulumi
) -> None:
    pulumi.config["excluded"] = {"cn02": "fan"}
    for verb in ("come_back", "remove"):
        instead(f"operations.membership.{verb}", ["done"])
    made = instead("operations.membership.exclude", ["done"])
    slurmstack("node", "return", "cn02")
    slurmstack("node", "remove", "cn02")
    slurmstack("node", "exclude", "cn02", "--reason", "still")
    assert made.calls[0][1] == ["cn02"]
    for verb in ("drain", "reboot"):
        line = slurmstack.refused("node", verb, "cn02", "--reason", "x")
        assert line == "cn02: excluded; slurmstack node return cn02 takes it back"


def test_a_removal_that_ended_early_is_gone_on_with(
    slurmstack: Slurmstack, instead: Standing, pulumi: Pulumi
) -> None:
    """Its nodes stand in the settings no more."""
    made = instead("operations.membership.remove", ["cn[08-09]: removed"])
    assert slurmstack.refused("node", "remove", "cn[08-09]").startswith("cn08: no host with a role")
    place = history.folder(pulumi.project, "x")
    place.mkdir(parents=True)
    left = Operation("node remove cn[08-09]", "anna@admin", "2026-11-25T18:00:27Z", 1, "finish")
    (place / "operation.json").write_text(json.dumps(vars(left)))
    slurmstack("node", "remove", "cn08,cn09", "--yes")
    assert made.calls == [("x", ["cn08", "cn09"], True)]
    assert slurmstack.refused("node", "remove", "cn08").startswith("cn08: no host with a role")


def test_new_nodes_are_named_at_the_end(slurmstack: Slurmstack, instead: Standing) -> None:
    made = instead("operations.membership.add", ["cn05: in the settings"])
    words = ("--address", "10.0.0.15", "--like", "cn04")
    done = slurmstack("node", "add", "cn05", *words, "--yes")
    assert done.stdout == "cn05: in the settings\ncn05: not in slurm.conf\n"
    ((*told, agreed, yes),) = made.calls
    assert (told, yes) == (["x", "cn05", "10.0.0.15", "cn04"], True)
    assert callable(agreed)
    for missing in ("--address", "--like"):
        rest = [word for at, word in enumerate(words) if missing not in (word, words[at - 1])]
        assert missing in slurmstack("node", "add", "cn05", *rest, code=2).stderr


def test_a_replacement_takes_any_host(slurmstack: Slurmstack, instead: Standing) -> None:
    made = instead("operations.commands.node.replaced", ["ctl: replaced"])
    slurmstack("node", "replace", "ctl,cn01", "--yes")
    slurmstack("node", "replace", "cn01", "--reason", " new board")
    assert [(*it[:3], it[4]) for it in made.calls] == [
        ("x", ["ctl", "cn01"], "installed anew", True), ("x", ["cn01"], "new board", False),
    ]  # fmt: skip


NEW = NewKey(Host("cn01", "10.0.0.11", ""), KEY)


@pytest.mark.parametrize(
    ("words", "answer", "pinned"),
    [([], "y\n", True), ([], "n\n", False), ([], "", False), (["--accept-new-host-key"], "", True)],
)
def test_a_new_host_key_is_pinned_by_a_person_s_word(
    words: list[str], answer: str, pinned: bool, slurmstack: Slurmstack, instead: Standing,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    did = []

    def replace(_: Any, names: list[str], reason: str, agreed: Any, yes: bool) -> list[str]:
        assert agreed([NEW])
        did.append(names)
        return ["cn01: pinned"]

    monkeypatch.setattr("operations.commands.node.replaced", replace)
    done = slurmstack("node", "replace", "cn01", *words, stdin=answer, code=0 if pinned else 1)
    # On stderr: what programs read is on stdout.
    assert f"{NEW}: compare with the machine's console\n" in done.stderr
    assert ("Pin these keys?" in done.stderr) is not bool(words)
    assert did == ([["cn01"]] if pinned else [])
