"""Every alert says what is so and what to do, and has a test by promtool in which it fires for what
is bad and not for what is good."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.monitoring.prometheus import RULE_FILES

RULES = Path(__file__).parents[4] / "templates" / "monitoring" / "rules"
TESTS = Path(__file__).parent / "rules"


def alerts() -> list[tuple[str, dict[str, Any]]]:
    return [
        (path.stem, rule)
        for path in sorted(RULES.glob("*.yml"))
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]


def test_every_file_is_deployed() -> None:
    assert sorted(RULE_FILES) == sorted(path.stem for path in RULES.glob("*.yml"))


@pytest.mark.parametrize(("file", "rule"), alerts(), ids=lambda it: str(it)[:40])
def test_an_alert_says_what_to_do(file: str, rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert len(rule["annotations"]["summary"]) > 20
    assert len(rule["annotations"]["description"]) > 40
    # What inhibits others names the cluster, else it would hush another cluster's.
    for name in re.findall(r"by \(([^)]*)\)", rule["expr"]):
        assert "cluster" in name


@pytest.mark.parametrize("file", sorted(RULE_FILES))
def test_every_alert_fires_and_does_not(file: str) -> None:
    severities = {
        (rule["alert"], rule["labels"]["severity"]) for of, rule in alerts() if of == file
    }
    tested = set()
    for test in yaml.safe_load((TESTS / f"{file}.yml").read_text())["tests"]:
        series = " ".join(one["series"] for one in test["input_series"])
        for case in test.get("promql_expr_test", ()):
            (name,) = re.findall(r'alertname="(\w+)"', case["expr"])
            severity = re.findall(r'severity="(\w+)"', case["expr"])
            expected = " ".join(sample["labels"] for sample in case["exp_samples"])
            assert '"bad"' in expected
            assert '"good"' not in expected
            assert '"good"' in series
            tested |= {one for one in severities if one[0] == name and one[1] in (severity or one)}
    assert tested == severities


@pytest.mark.parametrize("file", sorted(RULE_FILES))
def test_promtool_runs_them(file: str) -> None:
    if shutil.which("promtool") is None:
        pytest.skip(
            "promtool is not installed; tests/lab/test_monitoring.py runs these in any case"
        )
    done = subprocess.run(
        ["promtool", "test", "rules", f"{file}.yml"], cwd=TESTS, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
