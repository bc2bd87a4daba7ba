"""Public reports of failed trainings, against what was expected of each before it was run.

`expect` is the cause as a reader names it. `held-back` reports were found and judged by reading
when the rules were done; `first-run` is what the rules named then, where it was another cause: what
they taught is in the rules since, so that only the first run counts for them (docs/diagnose.md).
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from on_node.diagnosis.judge import judge
from on_node.diagnosis.rules import RULES
from tests.unit.on_node.diagnosis.cases import Case, reports

REPORTS = {report.name: report for report in reports()}
SEEN = [it for it in REPORTS.values() if "held-back" not in it.head]
HELD_BACK = [it for it in REPORTS.values() if "held-back" in it.head]
PAGE = Path(__file__).parents[4] / "docs" / "diagnose.md"
#: Reports that are known not to be named as expected.
NOT_NAMED = {"instructglm-26": "bus-error", "megatron-516": "bus-error"}


def cause(report: Case) -> str:
    found = judge(report.lines).cause
    return found.rule.id if found else "none"


def of_last_error_line(report: Case) -> str:
    """What one finds who looks for the last line that speaks of an error."""
    speaks = re.compile(r"error|exception|fail|fatal|killed|abort|cancel|warn", re.I)
    lines = [line for line in report.lines if speaks.search(line.text)]
    found = judge(lines[-1:]).cause
    return found.rule.id if found else "none"


@pytest.mark.parametrize("name", REPORTS)
def test_the_expected_cause_is_named(name: str) -> None:
    report = REPORTS[name]
    assert report.head["expect"] in {rule.id for rule in RULES}
    assert cause(report) == NOT_NAMED.get(name, report.head["expect"])


def test_the_figures_of_the_page_are_these() -> None:
    assert len(SEEN) >= 25
    assert len(HELD_BACK) >= 8
    seen = sum(cause(it) == it.head["expect"] for it in SEEN)
    held_back = sum("first-run" not in it.head for it in HELD_BACK)
    page = PAGE.read_text()
    for reports_, named in ((SEEN, seen), (HELD_BACK, held_back)):
        plain = sum(of_last_error_line(it) == it.head["expect"] for it in reports_)
        assert named > plain
        assert f"| {len(reports_)} | {named} | {plain} |" in page
    for report in REPORTS.values():
        assert f"({report.head['source']})" in page, report.name
        first = report.head.get("first-run", report.head["expect"])
        mark = "" if first == report.head["expect"] else f" (named: `{first}`)"
        assert f"`{report.head['expect']}`{mark}" in page, report.name
