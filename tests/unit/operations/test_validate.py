"""What `slurmstack validate` makes of the tests' words, and the table of the tasks' criteria."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from operations import documents, validate_text
from operations.documents import Row
from operations.validations import (
    Pair,
    Validation,
    Word,
    keep,
    last,
    outliers,
    paired,
    pairs,
    rounds,
    slower,
    standings,
    waiting,
    words,
)
from settings.acceptance import Stress
from settings.jobs import Cgroup
from templates.rendering import render

PROJECT = Path(__file__).parents[3]
SHELLCHECK = Path(sys.executable).with_name("shellcheck")


def run(*found: Word, new_baseline: bool = False) -> Validation:
    nodes = ["cn01", "cn02"]
    return Validation(
        "2026-01-01T00:00:00Z", "anna@admin", "full", nodes, {}, [*found], {}, new_baseline
    )


def copy(node: str, figure: float) -> Word:
    return Word("copy", node, "proven", "", figure, "GB/s")


def test_words_of_the_tests_are_read() -> None:
    told = (
        "version slurm 24.11.5\nword srun|cn01|proven||| \nword copy|cn02|proven|12.5|GB/s|\n"
        "reduced all-reduce|stand-in|1.5e+02|GB/s|2 ranks\npair bw|cn01|cn02|stand-in|9|MB/s|\n"
        "pair bw|cn01|cn03|failed||MB/s|no route\n"
    )
    assert [*words(told)] == [
        Word("srun", "cn01", "proven"),
        copy("cn02", 12.5),
        Word("all-reduce", "", "stand-in", "2 ranks", 150, "GB/s"),
    ]
    assert pairs(told) == [
        Pair("bw", ("cn01", "cn02"), "stand-in", 9, "MB/s"),
        Pair("bw", ("cn01", "cn03"), "failed", None, "MB/s", "no route"),
    ]


def test_words_may_hold_what_separates_them() -> None:
    told = "word srun|cn01|failed|||a | b\npair bw|cn01|cn02|failed||MB/s|a | b | c\n"
    told += "of this || no || line || is || read || pair\n"
    assert [it.words for it in words(told)] == ["a | b"]
    assert [it.words for it in pairs(told)] == ["a | b | c"]
    # A verdict that nobody knows is no proof.
    assert [it.verdict for it in words("word srun|cn01|fine|||\n")] == ["failed"]


def test_a_node_is_compared_with_its_own_best(tmp_path: Path) -> None:
    assert slower(run(copy("cn01", 5)), last(tmp_path)) == []
    for figure in (10, 9):
        keep(tmp_path, run(copy("cn01", figure), copy("cn02", 4)))
    assert slower(run(copy("cn01", 8.1), copy("cn02", 4)), last(tmp_path)) == []
    (found,) = slower(run(copy("cn01", 7.9), copy("cn02", 4)), last(tmp_path))
    assert (found.node, found.verdict, found.words) == (
        "cn01",
        "failed",
        "7.9 GB/s, its best was 10",
    )
    # Only the half of what stands in for something; of times less is better.
    rough = Word("copy", "cn01", "stand-in", "", 5.1, "GB/s")
    assert slower(run(rough), last(tmp_path)) == []
    latency = [Word("latency", "cn01", "proven", "", figure, "us") for figure in (2, 2.4, 2.6)]
    assert slower(run(latency[1]), [run(latency[0])]) == []
    assert len(slower(run(latency[2]), [run(latency[0]), run(latency[1])])) == 1


def test_a_new_baseline_forgets_what_was(tmp_path: Path) -> None:
    before = [run(copy("cn01", 10))]
    anew = run(copy("cn01", 5), new_baseline=True)
    assert slower(anew, before) == []
    assert slower(run(copy("cn01", 5)), [*before, anew]) == []
    assert len(slower(run(copy("cn01", 3)), [*before, anew])) == 1


def test_a_node_is_compared_with_its_class() -> None:
    classes = {"cn01": "a", "cn02": "a", "cn03": "b"}
    before = [run(copy("cn02", 10), copy("cn03", 100))]
    assert outliers(run(copy("cn01", 8.1)), before, classes) == []
    (found,) = outliers(run(copy("cn01", 7.9)), before, classes)
    assert (found.test, found.node, found.words) == (
        "copy, class",
        "cn01",
        "7.9 GB/s, its class has 10 (median)",
    )
    # What belongs to no one node, and what is between two, is compared with nothing.
    alone = run(Word("copy", "", "proven", "", 1, "GB/s"), Word("copy", "cn01", "failed"))
    assert outliers(alone, before, classes) == []
    two = [run(Word("pair bw", "cn02", "proven", "", 10, "GB/s"))]
    assert outliers(run(Word("pair bw", "cn01", "proven", "", 1, "GB/s")), two, classes) == []
    # Figures of another test are others' figures.
    other = [run(Word("triad", "cn02", "proven", "", 100, "GB/s"), Word("copy", "cn02", "failed"))]
    assert outliers(run(copy("cn01", 7.9)), other, classes) == []
    # What the others show now counts, not what they showed before.
    assert outliers(run(copy("cn01", 7.9), copy("cn02", 8)), before, classes) == []


@pytest.mark.parametrize("number", [2, 3, 4, 7, 8, 64])
def test_pairs_are_new_in_each_round(number: int) -> None:
    nodes = [f"cn{it:02}" for it in range(number)]
    found = rounds(nodes, 3)
    assert len(found) == min(3, number - 1 + number % 2)
    for one in found:
        met = [node for pair in one for node in pair]
        assert len(met) == len({*met}) == number - number % 2
    every = [frozenset(pair) for one in found for pair in one]
    assert len(every) == len({*every})


@pytest.mark.parametrize("number", [3, 4, 8, 33])
@pytest.mark.parametrize("unit", ["MB/s", "us"])
def test_the_sick_node_is_named_and_its_partners_are_not(number: int, unit: str) -> None:
    nodes = [f"cn{it:02}" for it in range(number)]
    good, bad = (100.0, 20.0) if unit == "MB/s" else (2.0, 10.0)
    found = [
        Pair("net", pair, "stand-in", bad if "cn01" in pair else good, unit)
        for one in rounds(nodes, 3)
        for pair in one
    ]
    assert [it.node for it in paired(found, nodes, 0.8) if it.verdict == "failed"] == ["cn01"]
    dead = [Pair(it.test, it.nodes, "failed", None, unit) if "cn01" in it.nodes else it
            for it in found]  # fmt: skip
    assert [it.node for it in paired(dead, nodes, 0.8) if it.verdict == "failed"] == ["cn01"]
    healthy = [Pair(it.test, it.nodes, it.verdict, good, unit) for it in found]
    assert [it for it in paired(healthy, nodes, 0.8) if it.verdict == "failed"] == []


def test_of_two_nodes_none_can_be_told_from_the_other() -> None:
    found = [Pair("net", ("cn01", "cn02"), "proven", 1.0, "MB/s")]
    assert [it.verdict for it in paired(found, ["cn01", "cn02"], 0.8)] == ["proven"] * 2


def test_whom_a_node_met_is_told() -> None:
    found = [
        Pair("net", ("cn01", "cn02"), "proven", 9.0, "MB/s"),
        Pair("net", ("cn03", "cn04"), "proven", 9.0, "MB/s"),
        Pair("net", ("cn01", "cn03"), "failed", None, "MB/s"),
        Pair("net", ("cn02", "cn05"), "failed", None, "MB/s"),
    ]
    told = {it.node: it.words for it in paired(found, ["cn05", "cn01", "cn02", "cn09"], 0.8)}
    assert told == {
        "cn05": "no figure with cn02", "cn01": "with cn[02-03]", "cn02": "with cn[01,05]",
    }  # fmt: skip


def test_only_the_last_runs_are_kept_and_the_last_of_each_node(tmp_path: Path) -> None:
    tmp_path /= "stack/not-made-yet"
    keep(tmp_path, Validation("2025", "anna@admin", "quick", ["cn09"]))
    for number in range(25):
        keep(tmp_path, run(copy("cn01", number)))
    kept = last(tmp_path)
    assert [it.words[0].figure for it in kept[1:]] == list(range(5, 25))
    assert kept[0].nodes == ["cn09"]
    (tmp_path / "validations.json").write_text("[{")
    assert last(tmp_path) == []


def test_the_last_run_of_a_node_waits_for_somebody_where_it_failed(tmp_path: Path) -> None:
    assert waiting(tmp_path) == []
    keep(tmp_path, run(Word("srun", "cn02", "failed", "no"), Word("scancel", "", "failed")))
    told = "failed at slurmstack validate, 2026-01-01T00:00:00Z"
    assert waiting(tmp_path) == [f"cn02: srun {told}", f"cn[01-02]: scancel {told}"]
    # Of another node nothing is said by this one.
    keep(tmp_path, Validation("2027", "anna@admin", "quick", ["cn01"]))
    assert waiting(tmp_path) == [f"cn02: srun {told}"]
    keep(tmp_path, run(Word("srun", "cn02", "proven")))
    assert waiting(tmp_path) == []


def test_a_node_stands_as_its_last_run_left_it(tmp_path: Path) -> None:
    one = run(copy("cn01", 7))
    one.versions, one.of_nodes = {"slurm": "24.11.5"}, {"cn01": {"kernel": "6.1"}}
    keep(tmp_path, one)
    standing = standings(tmp_path)["cn01"]
    assert (standing.failed, standing.figures) == ((), {"copy": "7 GB/s"})
    assert standing.versions == {"slurm": "24.11.5", "kernel": "6.1"}


def test_nodes_of_one_word_stand_on_one_line() -> None:
    found = run(Word("srun", "cn01", "proven"), Word("srun", "cn02", "proven"), copy("cn01", 5))
    lines = list(validate_text.lines(found))
    assert lines[1:] == ["  proven    srun: cn[01-02]", "  proven    copy: cn01 5 GB/s",
        "3 proven"]  # fmt: skip


def test_figures_of_nodes_and_versions_stand_on_one_line() -> None:
    found = run(copy("cn01", 5), copy("cn02", 7.5))
    found.versions = {"slurm": "24.11.5", "kernel": "6.1"}
    first, second, _ = validate_text.lines(found)
    assert first.endswith(", level full, slurm 24.11.5, kernel 6.1")
    assert second == "  proven    copy: cn01 5 GB/s, cn02 7.5 GB/s"


def test_the_criteria_of_documents_are_counted() -> None:
    rows = [
        Row("1", "a", "proven", "x"), Row("1", "b", "proven", "y"), Row("2", "c", "not here", "z"),
    ]  # fmt: skip
    assert list(validate_text.of_documents(rows)) == [
        "Task 1", "  proven    a: x", "  proven    b: y", "Task 2", "  not here  c: z",
        "2 proven, 1 not here",
    ]  # fmt: skip


def test_what_is_said_of_no_node_and_why_one_failed() -> None:
    found = run(
        Word("scancel", "", "failed"), Word("slurmrestd", "", "failed", "401"),
        Word("srun", "cn02", "failed", "no route"), Word("srun", "cn01", "proven"),
    )  # fmt: skip
    assert list(validate_text.lines(found))[1:] == [
        "  failed    scancel", "  failed    slurmrestd: 401", "  failed    srun: cn02; no route",
        "  proven    srun: cn01", "3 failed, 1 proven",
    ]  # fmt: skip


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("whole", [True, False])
def test_the_script_is_read_by_the_shell(level: int, whole: bool) -> None:
    rest = {"url": "https://ctl:6820", "verify": "--insecure", "token": "/t", "user": "slurmrestd"}
    words: dict[str, Any] = {
        "reservation": "slurmstack-validate-1", "nodes": ["cn01", "cn02"], "hostlist": "cn[01-02]",
        "partitions": {"cn01": "a", "cn02": "b"}, "together": "a" if whole else None,
        "level": level, "minutes": 10, "jwt": whole, "rest": rest if whole else None,
        "accounting": whole, "container": whole, "containers": whole,
        "image": "/srv/a.sqsh" if whole else None, "nccl": "all_reduce_perf" if whole else None,
        "stress": Stress(), "cgroup": Cgroup() if whole else None,
        "gres": {"cn01": ("gpu:h100", 4, False)} if whole else {},
        "addresses": {"cn01": "192.0.2.1", "cn02": "192.0.2.2"},
        "rounds": [[("cn01", "cn02")]], "port": 27431, "program": "print('it')", "verb": "node",
        "configs": {"cn01": "'{}'", "cn02": "'{}'"},
    }  # fmt: skip
    text = render("operations/validate.sh", **words)
    done = subprocess.run(["sh", "-n"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    checker = [str(SHELLCHECK), "--shell=sh", "--severity=warning", "-"]
    done = subprocess.run(checker, input=text, capture_output=True, text=True, check=False)
    # SC2034: what a part sets that only another level reads.
    assert [it for it in done.stdout.splitlines() if "^-- SC" in it and "SC2034" not in it] == []


@pytest.mark.parametrize("template", ["hold-nodes.sh", "take-back.sh"])
def test_the_guard_is_read_by_the_shell(template: str) -> None:
    values = {"reservation": "slurmstack-validate-1", "hostlist": "cn[01-02]", "minutes": 10,
              "lock": "/run/x"}  # fmt: skip
    text = render(f"operations/{template}", **values)
    done = subprocess.run(["sh", "-n"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_task_has_its_criteria_and_no_test_is_named_that_is_not_there() -> None:
    rows = documents.rows()
    assert [f"{number:03}" for number in range(1, 21)] == sorted({row.task[:3] for row in rows})
    assert Counter(row.task for row in rows) == dict.fromkeys([row.task for row in rows], 4)
    assert {row.verdict for row in rows} == {"proven", "stand-in", "not here"}
    named = {path for row in rows for path in re.findall(r"\b(?:tests|docs)/[\w/.]+\w", row.how)}
    assert len(named) > 8
    assert [path for path in sorted(named) if not (PROJECT / path).exists()] == []
