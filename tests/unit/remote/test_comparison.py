"""What a node answers when it compares, as the program reads it."""

from __future__ import annotations

import pytest

from remote.answer import AnswerError
from remote.comparison import Difference, answered, parse_comparison, read_comparison

ANSWER = """\
time 2026-01-31T12:00:00Z
node cn01
role slurmd
differs file /etc/a b: content, mode 0600
  --- deployed
  +++ there
   same
  -one
differs unit slurmd.service inactive, not active
role munge-key
role node
failed read bundle: not understood
later version"""


def framed(text: str) -> str:
    return f"Welcome\nnode cn99\nslurmstack-answer 1\n{text}\nslurmstack-answer end\nlogout\n"


def test_each_role_has_what_differs_in_it_with_its_lines() -> None:
    found = parse_comparison(framed(ANSWER))
    assert (found.node, found.time) == ("cn01", "2026-01-31T12:00:00Z")
    lines = ("--- deployed", "+++ there", " same", "-one")
    file = Difference("slurmd", "file", "/etc/a", "b: content, mode 0600", lines)
    unit = Difference("slurmd", "unit", "slurmd.service", "inactive, not active")
    assert found.roles == {"slurmd": [file, unit], "munge-key": [], "node": []}
    assert found.differences == [file, unit]
    assert found.failed == {"node": "read bundle: not understood"}


def test_lines_that_belong_to_nothing_are_passed_over() -> None:
    found = read_comparison("  of nothing\ndiffers file /etc/a content\nnode cn01\nrole r\n  of r")
    assert (found.node, found.time) == ("cn01", "")
    assert found.roles == {"r": []}
    assert found.failed == {}


@pytest.mark.parametrize(
    ("stdout", "message"),
    [
        ("last login: today\n", "no answer in its output, which ends in 'last login: today'"),
        (framed(ANSWER).replace("slurmstack-answer end", ""), "its answer is cut off"),
        (framed(ANSWER.replace("node cn01\n", "")), "answer not understood: it names no node"),
    ],
)
def test_what_is_no_answer(stdout: str, message: str) -> None:
    with pytest.raises(AnswerError) as error:
        parse_comparison(stdout)
    assert str(error.value) == message


def test_what_a_script_prints_after_an_answer_is_none_of_it() -> None:
    text = f"{ANSWER}\nslurmstack-answer end\nrole other\nnode cn02\nslurmstack-answer end\n"
    assert answered(text) == (ANSWER, "role other\nnode cn02\nslurmstack-answer end\n")
    assert answered(ANSWER) == (ANSWER, "")
    assert read_comparison(text) == read_comparison(ANSWER)
