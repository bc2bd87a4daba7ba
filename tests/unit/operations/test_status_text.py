"""`slurmstack status` is one screen, however much there is to tell."""

from __future__ import annotations

import pytest

from operations.status import NodesAlike, Status, Thing
from operations.status_text import _ago, lines

NOW = "2026-11-25T21:00:00Z"
AT = 1795640400.0  # date -u -d 2026-11-25T21:00:00Z +%s


def found(many: int) -> Status:
    """A cluster of which there is as much to tell as `many` says."""
    status = Status("x", "prod", "sm02", NOW)
    status.versions = {"slurmstack": "0.1.0", "slurm": "24.11.5", "slurmd": "24.11.5 on 64"}
    status.daemons = dict.fromkeys(("slurmctld", "slurmdbd", "haproxy"), "active")
    status.nodes = [
        NodesAlike(f"cn{n:02}", 1, "drain+idle", f"reason {n} " * 9, "anna@admin01")
        for n in range(many)
    ]
    status.excluded = {f"ex{n:02}": "memory " * 20 for n in range(many)}
    status.jobs = {"running": 60, "pending": 1000}
    status.waiting = {f"Reason{n}": n for n in range(many)}
    status.keys = [Thing(f"key {n}", AT - 86400 * n, AT + 86400 * n) for n in range(1, many)]
    status.dumps = [Thing(f"d{n}", AT - 3600 * n) for n in range(1, many)]
    status.last = {
        "what": "node drain " + "cn01," * many,
        "by": "anna",
        "time": NOW,
        "result": "done",
    }
    status.drift = {"time": NOW, "by": "bob", "nodes": {f"cn{n:02}": n for n in range(1, many)}}
    status.validated = {"nodes": many, "failed": [f"cn{n:02}" for n in range(many)], "time": NOW}
    status.waits = [f"somebody should look at {n} " * 9 for n in range(many)]
    return status


@pytest.mark.parametrize("many", [0, 1, 2, 8, 9, 64, 256])
def test_it_is_one_screen(many: int) -> None:
    screen = lines(found(many))
    assert max(map(len, screen)) <= 80
    assert len(screen) <= 30
    labels = [line.split()[0] for line in screen if not line.startswith(" ")]
    wanted = ["cluster", "versions", "daemons", "nodes", "excluded", "jobs", "keys", "dumps"]
    wanted += ["last", "drift", "validated", "waits"]
    assert labels == [label for label in wanted if many or label != "excluded"]


def test_what_does_not_fit_is_counted() -> None:
    screen = "\n".join(lines(found(64)))
    assert "and 57 more: slurmstack status --json" in screen


def test_ages_and_ends() -> None:
    status = found(0)
    status.keys = [
        Thing("munge", AT - 3 * 86400),
        Thing("REST", AT - 7200, AT + 10 * 86400, "made anew"),
        Thing("old", AT - 2 * 86400, AT - 60),
    ]
    status.dumps = [Thing("a", AT - 90000), Thing("b", AT - 300)]
    screen = "\n".join(lines(status))
    assert "munge: 3 d old, no end" in screen
    assert "REST: 2 h old, ends 2026-12-05 (in 10 d), made anew" in screen
    assert "old: 2 d old, ENDED 2026-11-25" in screen
    assert "2 of the database, the newest 5 min old" in screen


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(-3, "0 s"), (59, "59 s"), (60, "1 min"), (3599, "59 min"), (3600, "1 h"), (86400, "1 d")],
)
def test_an_age_is_in_the_longest_unit_that_fits(seconds: int, told: str) -> None:
    assert _ago(seconds) == told


def said(status: Status) -> dict[str, str]:
    """Label → its text, of a screen on which each has one line."""
    return {line[:10].strip(): line[10:].strip() for line in lines(status)}


def test_what_is_down_comes_first_and_loud() -> None:
    status = found(0)
    status.daemons = {"slurmctld": "active", "slurmdbd": "failed", "haproxy": "active"}
    assert said(status)["daemons"] == "SLURMDBD FAILED; slurmctld, haproxy"
    status.daemons = {"slurmctld": "inactive"}
    assert said(status)["daemons"] == "SLURMCTLD INACTIVE"
    status.daemons = {}
    assert said(status)["daemons"] == "not known"


def test_versions_are_told_of_whom() -> None:
    status = found(0)
    assert said(status)["versions"] == (
        "slurmstack 0.1.0, Slurm 24.11.5 on sm02, slurmd 24.11.5 on 64 nodes"
    )
    status.versions = {"slurmstack": "0.1.0"}
    assert said(status)["versions"] == "slurmstack 0.1.0"


def test_who_did_what_last_and_what_was_seen() -> None:
    status = found(0)
    hours = {"time": "2026-11-25T19:00:00Z", "by": "bob"}
    status.last = {"what": "node drain cn01", "by": "anna", "time": NOW, "result": "stopped: x"}
    status.drift = {**hours, "nodes": {"cn01": 1, "cn02": 2}}
    status.validated = {**hours, "nodes": 3, "failed": ["cn01", "cn03"]}
    told = said(status)
    assert told["last"] == "node drain cn01 by anna, 0 s ago: stopped: x"
    assert told["drift"] == "3 things on cn[01-02], 2 h ago (by bob)"
    assert told["validated"] == "3 nodes, cn[01,03] failed, last 2 h ago"
    status.last, status.validated = {}, {**hours, "nodes": 3, "failed": []}
    status.drift = {**hours, "nodes": {}}
    told = said(status)
    assert told["last"] == "nothing was noted"
    assert told["drift"].startswith("nothing differs, 2 h ago")
    assert "all well" in told["validated"]
    status.drift, status.validated = None, None
    assert "nobody has looked" in said(status)["drift"]
    assert "validated" not in said(status)


def test_nodes_and_jobs_with_their_reasons() -> None:
    status = found(0)
    status.nodes = [
        NodesAlike("cn01", 1, "drain", "fan", "anna@admin01"), NodesAlike("cn02", 1, "down", "x"),
        NodesAlike("cn[03-64]", 62, "idle", "", "nobody"),
    ]  # fmt: skip
    screen = lines(status)
    at = next(number for number, line in enumerate(screen) if line.startswith("nodes"))
    assert [line[10:].strip() for line in screen[at : at + 3]] == [
        "1 drain  cn01: fan (anna@admin01)", "1 down  cn02: x", "62 idle  cn[03-64]",
    ]  # fmt: skip
    status.waiting = {"Resources": 1000}
    assert said(status)["jobs"] == "60 running, 1000 pending; waiting for: 1000 Resources"
    status.waiting = {}
    assert said(status)["jobs"] == "60 running, 1000 pending"
    status.jobs = {}
    assert said(status)["jobs"] == "none"


def test_a_key_or_a_dump_of_a_time_that_is_not_known() -> None:
    status = found(0)
    status.keys = [Thing("munge")]
    status.dumps = [Thing("a"), Thing("b", AT - 300)]
    told = said(status)
    assert told["keys"] == "munge: of a time not known, no end"
    assert told["dumps"] == "1 of the database, the newest 5 min old"
    status.keys, status.dumps = [], [Thing("a")]
    assert (said(status)["keys"], said(status)["dumps"]) == ("not known", "none of the database")
