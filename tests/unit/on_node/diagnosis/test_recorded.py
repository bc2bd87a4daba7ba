"""Failures that were made on a machine with a real GPU, as its tools, its kernel and the programs
told of them (their head says of which GPU, driver and libraries), against what was expected before.

`first-run` is what the rules named at the first run, where it was another cause. Backtraces of C++
and lines of progress are left out; paths, serial numbers and UUIDs are not those of the machine.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from on_node.diagnosis.judge import judge
from on_node.diagnosis.rules import RULES
from tests.unit.on_node.diagnosis.cases import HERE, case

RECORDED = {it.stem: case(it.stem, it.read_text()) for it in (HERE / "recorded").glob("*.txt")}
PAGE = Path(__file__).parents[4] / "docs" / "diagnose.md"


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_the_expected_cause_is_named(name: str) -> None:
    recorded = RECORDED[name]
    assert recorded.head["expect"] in {rule.id for rule in RULES}
    found = judge(recorded.lines)
    told = [(it.rule.id, it.follows) for it in found.findings]
    assert found.cause is not None
    assert found.cause.rule.id == recorded.head["expect"], told
    if "rank" in recorded.head:
        assert found.culprit.rank == int(recorded.head["rank"]), found.culprit


def test_the_figures_of_the_page_are_these() -> None:
    named = sum("first-run" not in it.head for it in RECORDED.values())
    page = PAGE.read_text()
    figures = rf"{len(RECORDED)} failures.{{0,400}}first run named {named} of them"
    assert re.search(figures, page, re.DOTALL)
    for name, recorded in RECORDED.items():
        if "first-run" in recorded.head:
            expected, first = recorded.head["expect"], recorded.head["first-run"]
            assert f"| `{name}` | `{expected}` | `{first}` |" in page


def test_they_say_what_they_were_recorded_on() -> None:
    for recorded in RECORDED.values():
        assert re.match(r"NVIDIA H\d00, driver \d+\.\d+", recorded.head["recorded"])
        assert "/work/" not in str(recorded.lines)
