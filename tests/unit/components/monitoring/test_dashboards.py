"""Dashboards ask for nothing that no exporter tells, and are what Grafana imports."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from components.monitoring.dashboards.files import files
from templates.monitoring import slurm_exporter

TEMPLATES = Path(__file__).parents[4] / "templates"
#: Told by others: node-exporter, DCGM's exporter, Prometheus and Alertmanager.
OTHERS = r"(node|DCGM_FI|prometheus|alertmanager)_\w+|up|ALERTS|scrape_duration_seconds"
#: Told beside those of HELP: a histogram and a counter.
EVENTS = {"slurm_job_wait_seconds_bucket", "slurm_jobs_failed_total"}


def panels() -> list[tuple[str, dict[str, Any]]]:
    return [(name, it) for name, text in files().items() for it in json.loads(text)["panels"]]


def expressions() -> list[tuple[str, str]]:
    return [(name, it["expr"]) for name, panel in panels() for it in panel.get("targets", ())]


def test_there_is_one_for_each_concern() -> None:
    assert sorted(files()) == [
        "Hardware/fabric.json", "Hardware/gpu.json", "Slurm/cluster.json", "Slurm/job.json",
        "Slurm/node.json", "Slurm/queue.json", "slurmstack/slurmstack.json",
    ]  # fmt: skip


@pytest.mark.parametrize("name", files())
def test_grafana_tells_panels_and_variables_apart(name: str) -> None:
    found = json.loads(files()[name])
    ids = [panel["id"] for panel in found["panels"]]
    assert len({*ids}) == len(ids)
    assert found["uid"] == f"slurmstack-{Path(name).stem}"
    known = {variable["name"] for variable in found["templating"]["list"]}
    assert {"datasource", "cluster"} <= known
    used = re.findall(r"\$\{?(\w+)", json.dumps(found["panels"]))
    assert {*used} == known


@pytest.mark.parametrize(("name", "expression"), expressions())
def test_each_metric_is_told_by_an_exporter(name: str, expression: str) -> None:
    # Of a matcher, only that it is there; what is left are names, functions and labels.
    told = (TEMPLATES / "monitoring/host-metrics.sh.j2").read_text()
    told += (TEMPLATES / "host/drift-check.sh.j2").read_text()
    metrics = re.findall(r"(\w+)\{", expression)
    assert metrics or expression == "vector(0)"
    for metric in metrics:
        if metric.startswith("slurmstack_"):
            assert f"# HELP {metric} " in told or f"head {metric} " in told
        elif metric.startswith("slurm_"):
            assert metric in slurm_exporter.HELP or metric in EVENTS
        else:
            assert re.fullmatch(OTHERS, metric)
    # Another cluster's figures are not among these.
    assert len(re.findall(r"\{cluster=\"\$cluster\"|,cluster=\"\$cluster\"", expression)) == len(
        metrics
    )


def test_a_metric_of_slurm_that_is_told_is_shown() -> None:
    shown = " ".join(expression for _, expression in expressions())
    left_out = {"slurm_exporter_timestamp_seconds", "slurm_backfill_last_timestamp_seconds",
                "slurm_reservation_start_timestamp_seconds"}  # fmt: skip
    assert [
        name for name in slurm_exporter.HELP if name not in shown and name not in left_out
    ] == []
