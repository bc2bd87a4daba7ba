"""The look that each host takes by itself: its lines and metrics, from what `compare` answers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from components.host.drift_check import drift_check_bundle
from settings import parse
from settings.problems import SettingsError
from templates.rendering import render
from tests.unit.components.test_cluster import bare

ANSWER = """\

slurmstack-answer 1
time 2026-01-31T12:00:00Z
node cn01
role munge-key
role slurmd
differs file /etc/x content
  -role of a line of the file
  +differs
differs file /etc/y missing
differs unit slurmd.service is older than its program
role jwt
failed bundle: not understood; correct it
slurmstack-answer end
"""
CLUSTER = "differs node cn01\\tWeight 77, not 10\\tscontrol update NodeName=cn01 Weight=10"


def looked(
    tmp_path: Path, answer: str, cluster: str = "", begun: tuple[str, ...] = ()
) -> tuple[list[str], list[str]]:
    (tmp_path / "answer").write_text(answer)
    for role in ("slurmd", "applied-before-hashes-were-kept"):
        (tmp_path / "state" / role).mkdir(parents=True)
        (tmp_path / "state" / role / "manifest").touch()
    (tmp_path / "state/slurmd/applied").touch()
    for role in begun:
        (tmp_path / "state" / role).mkdir()
        for name in ("manifest", "pending"):
            (tmp_path / "state" / role / name).touch()
    text = render(
        "host/drift-check.sh",
        applier=f"cat {tmp_path}/answer; : ",
        state=tmp_path / "state",
        folder=tmp_path,
        cluster=cluster,
    )
    done = subprocess.run(["sh"], input=text, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    metrics = (tmp_path / "slurmstack_drift.prom").read_text().splitlines()
    return done.stdout.splitlines(), [line for line in metrics if not line.startswith("#")]


def test_what_differs_is_counted_by_role_and_kind(tmp_path: Path) -> None:
    said, metrics = looked(tmp_path, ANSWER, f"printf '{CLUSTER}\\n'")
    assert said == [
        "slurmd: file /etc/x content",
        "slurmd: file /etc/y missing",
        "slurmd: unit slurmd.service is older than its program",
        "jwt: cannot be compared: bundle: not understood; correct it",
        "cluster: node cn01 Weight 77, not 10 scontrol update NodeName=cn01 Weight=10",
    ]
    differences = {line for line in metrics if line.startswith("slurmstack_drift_differences")}
    assert differences == {
        'slurmstack_drift_differences{role="munge-key",kind=""} 0',
        'slurmstack_drift_differences{role="slurmd",kind="file"} 2',
        'slurmstack_drift_differences{role="slurmd",kind="unit"} 1',
        'slurmstack_drift_differences{role="jwt",kind=""} 0',
        'slurmstack_drift_differences{role="cluster",kind="node"} 1',
    }
    assert "slurmstack_drift_unknown_roles 1" in metrics
    assert 'slurmstack_drift_failed{role="jwt"} 1' in metrics
    assert 'slurmstack_drift_failed{role="slurmd"} 0' in metrics


def test_a_role_that_never_came_to_its_end_differs(tmp_path: Path) -> None:
    said, metrics = looked(tmp_path, ANSWER, begun=("package-host",))
    assert said[-1] == "package-host: role package-host was begun, and not applied to the end"
    assert 'slurmstack_drift_differences{role="package-host",kind="role"} 1' in metrics
    assert "slurmstack_drift_unknown_roles 1" in metrics


def test_nothing_differs_is_one_line(tmp_path: Path) -> None:
    answer = "slurmstack-answer 1\nnode cn01\nrole slurmd\nslurmstack-answer end\n"
    said, metrics = looked(tmp_path, answer)
    assert said == ["nothing differs from what was applied"]
    assert 'slurmstack_drift_differences{role="slurmd",kind=""} 0' in metrics


def test_only_the_controller_asks_for_the_cluster() -> None:
    settings = parse({**bare(), "driftCheck": {"onCalendar": "*:0/15"}})
    head = settings.roles.controller
    assert "cluster_drift" in drift_check_bundle(head, settings).render()
    text = drift_check_bundle("cn01", settings).render()
    assert "cluster_drift" not in text
    assert "\n  OnCalendar=*:0/15\n" in text


def test_a_time_that_is_none_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"slurmstack:driftCheck\.onCalendar"):
        parse({**bare(), "driftCheck": {"onCalendar": "daily\nExecStart=x"}})
