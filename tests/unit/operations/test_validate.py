"""What `slurmstack validate` makes of the tests' words, and the table of the tasks' criteria."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from operations import documents, validate_text
from operations.validate import Validation, Word, keep, last, slower, waiting, words
from templates.rendering import render

PROJECT = Path(__file__).parents[3]


def run(*found: Word) -> Validation:
    return Validation("2026-01-01T00:00:00Z", "anna@admin", "full", ["cn01", "cn02"], {}, [*found])


def copy(node: str, figure: float) -> Word:
    return Word("copy", node, "stand-in", "", figure, "GB/s")


def test_words_of_the_tests_are_read() -> None:
    told = "version slurm 24.11.5\nword srun|cn01|proven||| \nword copy|cn02|stand-in|12.5|GB/s|\n"
    assert words(told) == [Word("srun", "cn01", "proven"), copy("cn02", 12.5)]


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


def test_only_the_last_runs_are_kept(tmp_path: Path) -> None:
    for number in range(25):
        keep(tmp_path, run(copy("cn01", number)))
    assert [it.words[0].figure for it in last(tmp_path)] == list(range(5, 25))
    (tmp_path / "validations.json").write_text("[{")
    assert last(tmp_path) == []


def test_the_last_run_waits_for_somebody_where_it_failed(tmp_path: Path) -> None:
    assert waiting(tmp_path) == []
    keep(tmp_path, run(Word("srun", "cn02", "failed", "no")))
    assert waiting(tmp_path) == ["cn02: srun failed at slurmstack validate, 2026-01-01T00:00:00Z"]
    keep(tmp_path, run(Word("srun", "cn02", "proven")))
    assert waiting(tmp_path) == []


def test_nodes_of_one_word_stand_on_one_line() -> None:
    found = run(Word("srun", "cn01", "proven"), Word("srun", "cn02", "proven"), copy("cn01", 5))
    lines = list(validate_text.lines(found))
    assert lines[1:] == ["  proven    srun: cn[01-02]", "  stand-in  copy: cn01 5 GB/s",
        "2 proven, 1 stand-in"]  # fmt: skip


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("whole", [True, False])
def test_the_script_is_read_by_the_shell(level: int, whole: bool) -> None:
    text = render(
        "operations/validate.sh",
        reservation="slurmstack-validate-1", lock="/run/x", nodes=["cn01", "cn02"],
        hostlist="cn[01-02]", level=level, rest=whole, accounting=whole, container=whole,
        cgroup=whole, partitions={"cn01": "a", "cn02": "b"}, together="a" if whole else None,
        gres={"cn01": ("gpu:h100", 4)} if whole else {},
    )  # fmt: skip
    done = subprocess.run(["sh", "-n"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_task_has_its_criteria_and_no_test_is_named_that_is_not_there() -> None:
    rows = documents.rows()
    assert [f"{number:03}" for number in range(1, 21)] == sorted({row.task[:3] for row in rows})
    assert {row.verdict for row in rows} == {"proven", "stand-in", "not here"}
    named = {path for row in rows for path in re.findall(r"\b(?:tests|docs)/[\w/.]+\w", row.how)}
    assert len(named) > 8
    assert [path for path in sorted(named) if not (PROJECT / path).exists()] == []
