"""Each rule fires on its own fixture and is named there, whatever else fires."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from on_node.diagnosis.judge import judge
from on_node.diagnosis.rule import LEVELS, SOURCES
from on_node.diagnosis.rules import RULES
from tests.unit.on_node.diagnosis.cases import HERE, Case, case

FIXTURES = {
    name: case(name, text)
    for name, text in re.findall(
        r"^=== (\S+)\n(.*?)(?=^=== |\Z)",
        (Path(__file__).parent / "fixtures.txt").read_text(),
        re.M | re.S,
    )
}


def test_every_rule_has_a_fixture() -> None:
    assert {rule.id for rule in RULES} == FIXTURES.keys()
    assert len({rule.id for rule in RULES}) == len(RULES) >= 40


@pytest.mark.parametrize("name", FIXTURES)
def test_a_rule_fires_and_no_other_wins(name: str) -> None:
    found = judge(FIXTURES[name].lines)
    assert found.cause is not None
    told = [(it.rule.id, it.follows) for it in found.findings]
    assert found.cause.rule.id == name, told
    assert found.cause.follows is None, told


@pytest.mark.parametrize("name", FIXTURES)
def test_a_fixture_without_its_evidence_names_another_cause(name: str) -> None:
    """What fires is the lines that the rule takes, not the rest of the fixture."""
    fixture = FIXTURES[name]
    of_rule = {
        id(line) for it in judge(fixture.lines).findings if it.rule.id == name for line in it.lines
    }
    rest = judge([line for line in fixture.lines if id(line) not in of_rule])
    assert rest.cause is None or rest.cause.rule.id != name


def test_rules_are_well_formed() -> None:
    known = {rule.id for rule in RULES}
    for rule in RULES:
        assert rule.level in LEVELS, rule.id
        assert set(rule.patterns) <= set(SOURCES), rule.id
        assert set(rule.explained_by) <= known - {rule.id}, rule.id
        assert 0 < rule.confidence < 1, rule.id
        assert rule.owner in ("user", "operator", "hardware"), rule.id
        assert all((rule.says, rule.remedy, rule.source)), rule.id


XIDS = ("13", "31", "48", "63", "74", "79", "94", "119")


@pytest.mark.parametrize("number", XIDS)
def test_an_xid_is_not_taken_for_another(number: str) -> None:
    line = f"[kernel cn01]\nNVRM: Xid (PCI:0000:44:00): {number}, pid=1, text\n"
    found = judge(case("", line).lines)
    assert [it.rule.id for it in found.findings] == [f"xid-{number}"]
    other = judge(case("", line.replace(f"{number},", f"{number}7,")).lines)
    assert f"xid-{number}" not in [it.rule.id for it in other.findings]


def test_cudas_words_for_a_bad_address_alone_are_known() -> None:
    """As PyTorch told them of a real GPU, where nobody has the kernel's log beside them."""
    recorded = (HERE / "recorded/torch-illegal.txt").read_text().partition("[kernel")[0]
    found = judge(case("", recorded).lines).cause
    assert found is not None
    assert found.rule.id == "illegal-memory"


def test_a_task_that_was_about_to_begin_does_not_tell_why_the_step_was_ended() -> None:
    """A rank was killed while another one was still in its TaskProlog, which was ended with it."""
    found = judge(
        case(
            "",
            """[output cn01]
srun: error: cn02: task 1: Killed
srun: Terminating StepId=31.0
slurmstepd-cn01: error: *** STEP 31.0 ON cn01 CANCELLED AT 2026-11-26T14:38:12 ***
slurmstepd-cn01: error: slurm task_prolog did not exit normally. reason:
slurmstepd-cn01: error: TaskProlog failed status=1
srun: error: cn01: task 0: Exited with exit code 1
[slurmd cn01]
[2026-11-26T14:38:12.253] [31.0] error: TaskProlog failed status=1
""",
        ).lines
    )
    assert found.cause is not None
    assert found.cause.rule.id == "killed"
    assert "prolog" not in {it.rule.id for it in found.findings}


def test_what_pyxis_says_is_why_the_launch_failed() -> None:
    """As Slurm 24.11 told of a step whose plugin failed (tests/lab/test_containers.py)."""
    found = judge(
        case(
            "",
            """[output cn01]
slurmstepd-cn01: error: pyxis: failed to create container filesystem
slurmstepd-cn01: error: pyxis:     [ERROR] No such file or directory: /srv/nosuch.sqsh
srun: error: task 0 launch failed: Slurmd could not execve job
srun: error: cn01: task 0: Exited with exit code 1
""",
        ).lines
    )
    told = {it.rule.id: it.follows for it in found.findings}
    assert found.cause is not None
    assert found.cause.rule.id == "image-bad", told
    assert told["launch-fail"] == "image-bad"


def culprit(text: str) -> tuple[object, object]:
    found = judge(case("", text).lines).culprit
    return found.rank, found.node


def test_the_first_failing_rank_is_found() -> None:
    """Rank 1 on cn02 raised; the others were killed by the watchdog, half an hour later."""
    died_first = """[output]
1: ValueError: step 7 has no data
srun: error: cn02: task 1: Exited with exit code 1
0: [rank0]:[E ProcessGroupNCCL.cpp:607] [Rank 0] Watchdog caught collective operation timeout: Work
srun: error: cn01: task 0: Aborted (core dumped)
"""
    assert culprit(died_first) == (1, "cn02")
    torchrun = """[output]
[rank0]:[E ProcessGroupNCCL.cpp:607] [Rank 0] Watchdog caught collective operation timeout: WorkNC
Root Cause (first observed failure):
[0]:
  time      : 2026-11-25_14:02:11
  host      : cn07
  rank      : 13 (local_rank: 5)
  exitcode  : -9 (pid: 8156)
"""
    assert culprit(torchrun) == (13, "cn07")
    terminated = """[output]
srun: error: cn01: task 0: Terminated
srun: error: cn03: task 2: Segmentation fault
"""
    assert culprit(terminated) == (2, "cn03")
    # A shell that outlived its child by a moment.
    for code in (137, 143):
        lines = ("cn02: task 1: Killed", f"cn01: task 0: Exited with exit code {code}")
        text = "[output]\n" + "".join(f"srun: error: {line}\n" for line in lines)
        assert culprit(text) == (1, "cn02")
    # As Slurm 24.11.5 wrote it of a rank that had not begun when the other one failed.
    before_its_start = """[output]
srun: error: cn02: task 1: Killed
srun: Terminating StepId=4.0
slurmstepd-cn01: error: *** STEP 4.0 ON cn01 CANCELLED AT 2026-11-26T21:13:53 ***
slurmstepd-cn01: error: slurm task_prolog did not exit normally. reason:
slurmstepd-cn01: error: TaskProlog failed status=1
srun: error: cn01: task 0: Exited with exit code 1
srun: Force Terminated StepId=4.0
"""
    assert culprit(before_its_start) == (1, "cn02")
    assert culprit("[output]\nloss 0.3\n") == (None, None)


def test_the_watchdog_follows_from_what_was_before_it() -> None:
    timeout = (
        "[rank0]:[E x] [Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=1)"
    )
    memory = "[rank1]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."

    def named(*lines: str) -> dict[str, str | None]:
        found = judge(case("", "[output]\n" + "\n".join(lines)).lines)
        return {it.rule.id: it.follows for it in found.findings}

    assert named(memory, timeout) == {"gpu-oom": None, "collective-timeout": "gpu-oom"}
    # What begins after all had waited in vain is no reason for the waiting.
    assert named(timeout, memory) == {
        "collective-timeout": None, "gpu-oom": "collective-timeout",
    }  # fmt: skip


def test_a_log_without_a_failure_has_no_cause() -> None:
    assert judge(case("", "[output]\nepoch 1 loss 0.3\nsaved\n").lines).cause is None


def named(found: Case) -> str | None:
    cause = judge(found.lines).cause
    return cause.rule.id if cause else None
