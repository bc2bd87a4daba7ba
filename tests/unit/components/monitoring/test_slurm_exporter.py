"""What the exporter makes of what Slurm's commands say; the lab has the commands themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from templates.monitoring import slurm_exporter
from templates.monitoring.slurm_exporter import (
    HELP,
    Away,
    Events,
    Job,
    Sample,
    ask,
    gpus,
    of_jobs,
    of_nodes,
    of_shares,
    read_jobs,
    short,
    when,
)

LINES = """\
7|RUNNING|main|2026-11-26T10:00:00|2026-11-26T10:05:00|cn01|None
8_1|PENDING|main|2026-11-26T10:00:00|N/A||Resources
8_2|PENDING|main|2026-11-26T11:00:00|N/A||ReqNodeNotAvail, UnavailableNodes:cn[01-02]
9|PENDING|gpu|2026-11-26T11:59:00|N/A||a|b
"""
NOW = when("2026-11-26T12:00:00")


def values(samples: list[Sample], name: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(sample.labels.values()): sample.value for sample in samples if sample.name == name
    }


def test_the_queue_by_state_reason_and_wait() -> None:
    assert NOW is not None
    found = list(of_jobs(read_jobs(LINES), NOW))
    assert values(found, "slurm_jobs") == {
        ("main", "RUNNING"): 1, ("main", "PENDING"): 2, ("gpu", "PENDING"): 1,
    }  # fmt: skip
    # One reason may name every node of a cluster; it is one series all the same.
    assert values(found, "slurm_jobs_pending") == {
        ("main", "Resources"): 1, ("main", "ReqNodeNotAvail"): 1, ("gpu", "a|b"): 1,
    }  # fmt: skip
    assert values(found, "slurm_queue_wait_max_seconds") == {("main",): 7200, ("gpu",): 60}
    assert values(found, "slurm_queue_wait_median_seconds")["main",] == 5400


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("gpu:h100:4", {"h100": 4}),
        ("gpu:h100:8(S:0-1)", {"h100": 8}),
        ("gpu:8(S:0,1),shard:16", {"": 8}),
        ("gpu:a100:2(IDX:0-1),gpu:h100:1(IDX:4,6)", {"a100": 2, "h100": 1}),
        ("gpu:h100:0(IDX:N/A)", {"h100": 0}),
        ("tmpdisk:100,nic:2", {}),
        ("", {}),
    ],
)
def test_gpus_as_slurm_writes_them(text: str, counts: dict[str, int]) -> None:
    assert gpus(text) == counts


def test_nodes_their_drains_and_their_gpus() -> None:
    nodes = [
        {"name": "cn01", "state": ["MIXED"], "gres": "gpu:h100:4",
         "gres_used": "gpu:h100:3(IDX:0-2)", "alloc_cpus": 6, "alloc_idle_cpus": 2},
        {"name": "cn02", "state": ["IDLE", "DRAIN"], "gres": "gpu:h100:4",
         "gres_used": "gpu:h100:0", "reason": "fan", "reason_set_by_user": "ada",
         "alloc_cpus": 0, "alloc_idle_cpus": 8,
         "reason_changed_at": {"set": True, "infinite": False, "number": 1000}},
    ]  # fmt: skip
    found = list(of_nodes(nodes))
    assert values(found, "slurm_nodes") == {("MIXED",): 1, ("IDLE",): 1, ("DRAIN",): 1}
    assert values(found, "slurm_gpus") == {
        ("h100", "allocated"): 3, ("h100", "idle"): 1, ("h100", "drained"): 4,
    }  # fmt: skip
    drains = values(found, "slurm_node_drain_timestamp_seconds")
    assert drains == {("cn02", "ada", "fan"): 1000}
    assert values(found, "slurm_cpus") == {("allocated",): 6, ("idle",): 10}


def test_shares_of_users() -> None:
    found = list(of_shares("root||||\n physics|alice|0.250000|0.5\n"))
    assert values(found, "slurm_fairshare") == {("physics", "alice"): 0.25}
    assert values(found, "slurm_share_usage") == {("physics", "alice"): 0.5}


def job(id_: str, state: str, nodes: str = "cn01") -> Job:
    return Job(id_, state, "main", 100.0, 130.0, nodes, "None")


def test_what_was_before_the_first_look_is_no_event() -> None:
    events = Events()
    assert events.look([job("1", "RUNNING"), job("2", "FAILED")]) == ([], [])
    begun, failed = events.look(
        [job("1", "FAILED"), job("2", "FAILED"), job("3", "RUNNING"), job("4", "COMPLETED")]
    )
    # The fourth was over before it was seen to run.
    assert begun == [("main", 30.0), ("main", 30.0)]
    assert [one.id for one in failed] == ["1"]
    # Each once, as long as slurmctld tells of it.
    assert events.look([job("1", "FAILED"), job("3", "RUNNING")]) == ([], [])


def test_who_does_not_answer_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {"hangs": "exec sleep 30", "fails": "echo no >&2; exit 1"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(slurm_exporter, "PATIENCE", 0.3)
    with pytest.raises(Away, match="has not answered"):
        ask(str(tmp_path / "hangs"))
    with pytest.raises(Away, match="ended with 1: no"):
        ask(str(tmp_path / "fails"))
    with pytest.raises(Away, match="No such file"):
        ask(str(tmp_path / "missing"))


def test_a_reason_is_short() -> None:
    assert short("(null)") == "None"
    assert short("Dependency") == "Dependency"


def test_names_are_those_of_the_rules() -> None:
    """One set of names: a rule that asks for another never fires."""
    import re

    rules = Path(__file__).parents[4] / "templates" / "monitoring" / "rules"
    asked = set(re.findall(r"\bslurm_\w+", (rules / "slurm.yml").read_text()))
    assert asked - {"slurm_jobs_failed_total"} <= set(HELP)
