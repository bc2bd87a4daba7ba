"""`slurmstack validate`: which nodes, how, and its exit code (docs/validate.md)."""

from __future__ import annotations

import pytest

from operations.validations import Validation, Word
from tests.unit.operations.commands.console import Calls, Slurmstack, Standing

FAILED = Word("copy", "cn02", "failed", "below 12", 9.0, "GB/s")


@pytest.fixture
def validated(instead: Standing) -> Calls:
    found = Validation(
        "2026-11-25T18:00:27Z", "anna@admin", "quick", ["cn01", "cn02"], {"slurm": "24.11.5"},
        [Word("srun", "cn01", "proven"), Word("srun", "cn02", "proven")],
    )  # fmt: skip
    return instead("operations.commands.validate.validated", found)


def test_a_run_in_which_a_test_fails_ends_with_1(slurmstack: Slurmstack, validated: Calls) -> None:
    assert slurmstack("validate", "cn[01-02]").stdout.splitlines() == [
        "cn[01-02], level quick, slurm 24.11.5", "  proven    srun: cn[01-02]", "2 proven",
    ]  # fmt: skip
    validated.result.words.append(FAILED)
    assert "cn02 9 GB/s; below 12" in slurmstack("validate", "cn[01-02]", code=1).stdout
    told = slurmstack.json("validate", "cn[01-02]", code=1)
    assert told["words"][-1] == {
        "test": "copy", "node": "cn02", "verdict": "failed", "words": "below 12", "figure": 9.0,
        "unit": "GB/s",
    }  # fmt: skip
    assert (told["level"], told["nodes"]) == ("quick", ["cn01", "cn02"])


def test_what_is_asked_for_is_what_is_run(slurmstack: Slurmstack, validated: Calls) -> None:
    slurmstack("validate")
    slurmstack("validate", "@gpu", "--level", "burnin", "--wait", "2h", "--new-baseline")
    every = ["cn01", "cn02", "cn03", "cn04", "gpu1", "gpu2", "gpu3"]
    (all_nodes, some) = ((*words[:4], words[5]) for words in validated.calls)
    assert all_nodes == ("x", every, "quick", 0, False)
    assert some == ("x", ["gpu1", "gpu2", "gpu3"], "burnin", 7200, True)


def test_how_far_it_is_stands_beside_what_is_told(slurmstack: Slurmstack, validated: Calls) -> None:
    result = validated.result

    def validate(*words: object) -> Validation:
        say = words[4]
        assert callable(say)
        say("job 7 runs")
        assert isinstance(result, Validation)
        return result

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("operations.commands.validate.validated", validate)
        done = slurmstack("validate", "--json")
    assert done.stderr == "job 7 runs\n"
    assert done.stdout.startswith("{")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--level", "fast"], "--level: expected quick, full, burnin; found 'fast'"),
        (["ctl"], "ctl: not for this verb; it is for cn[01-04],gpu[1-3]"),
        (["cn09"], "cn09: no host with a role"),
    ],
)
def test_what_is_refused_runs_nothing(
    words: list[str], line: str, slurmstack: Slurmstack, validated: Calls
) -> None:
    assert slurmstack.refused("validate", *words).startswith(line)
    assert validated.calls == []


def test_a_time_that_is_none(slurmstack: Slurmstack, validated: Calls) -> None:
    assert "--wait" in slurmstack("validate", "--wait", "soon", code=2).stderr
    assert validated.calls == []


def test_the_documents_need_no_stack(slurmstack: Slurmstack, validated: Calls) -> None:
    page = slurmstack("validate", "--documents").stdout
    assert page.startswith("Task ")
    rows = slurmstack.json("validate", "--documents")
    assert {*rows[0]} == {"task", "criterion", "verdict", "how"}
    assert len(rows) > len({row["task"] for row in rows})
    for row in rows:
        assert f"  {row['verdict']:<9} {row['criterion']}: {row['how']}\n" in page
    assert slurmstack.pulumi.asked == []
    assert validated.calls == []
