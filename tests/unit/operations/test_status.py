"""`slurmstack status`: what is made of the controller's words, and what waits for somebody."""

from __future__ import annotations

from pathlib import Path

from operations import last_drift
from operations.operation import operation
from operations.status import NodesAlike, Status, Thing, _beside_the_program, _of_controller
from operations.validations import Validation, Word, keep
from tests.unit.operations.slurmctld import NODES, cluster

TOLD = f"""\
Welcome to ctl
== version
slurm 24.11.5
== units
slurmctld active
slurmdbd failed
== nodes
{NODES.replace("ThreadsPerCore", "Version=24.11.5 ThreadsPerCore")}== jobs
RUNNING|None
PENDING|Resources
PENDING|Priority
PENDING|Resources
== held
cn07
== keys
munge|1700000000||
REST|Nov 25 18:00:00 2025 GMT|Nov 25 18:00:00 2026 GMT|made anew
odd|soon
== dumps
a|1700000000.5
"""


def of(text: str) -> Status:
    found = Status("x", "x", "ctl", "2026-11-25T21:00:00Z")
    _of_controller(found, text)
    return found


def test_what_the_controller_says() -> None:
    it = of(TOLD)
    assert it.versions == {"slurm": "24.11.5", "slurmd": "24.11.5 on 4"}
    assert it.daemons == {"slurmctld": "active", "slurmdbd": "failed"}
    assert it.nodes == [
        NodesAlike("cn01", 1, "idle"),
        NodesAlike("cn02", 1, "drain+mixed", "fan", "bob@admin"),
        NodesAlike("cn03", 1, "down+drain*", "Not responding", "slurm"),
        NodesAlike("cn04", 1, "drain+idle", "excluded: disk", "anna@admin"),
    ]
    assert (it.jobs, it.waiting) == (
        {"pending": 3, "running": 1}, {"Resources": 2, "Priority": 1},
    )  # fmt: skip
    assert it.keys == [
        Thing("munge", 1700000000.0),
        Thing("REST", 1764093600.0, 1795629600.0, "made anew"),
        Thing("odd"),
    ]
    assert it.dumps == [Thing("a", 1700000000.5)]
    assert it.waits == [
        "ctl: slurmdbd is failed; journalctl -u slurmdbd there",
        "nodes that a change of slurm.conf holds: cn07",
    ]


def test_a_slurmctld_that_does_not_answer_is_told() -> None:
    it = of("== version\nslurm 24.11.5\n== units\nslurmctld failed\n== nodes\n== jobs\n")
    assert it.waits[0] == "ctl: slurmctld does not answer"
    assert (it.nodes, it.jobs) == ([], {})


def test_nodes_of_which_there_are_most_come_first() -> None:
    states = {"cn01": "DOWN", "cn02": "IDLE", "cn03": "IDLE"}
    nodes = "".join(f"NodeName={name}\n   State={state}\n" for name, state in states.items())
    assert [it.nodes for it in of(f"== nodes\n{nodes}").nodes] == ["cn[02-03]", "cn01"]


def test_an_operation_that_was_killed_waits_for_somebody(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.yaml").write_text("name: slurmstack\nruntime: python\n")
    it, found = cluster(tmp_path), Status("x", "x", "ctl", "")
    it.place.mkdir(parents=True)
    (it.place / "operation.json").write_text(
        '{"what": "node add cn09", "by": "bob", "since": "T", "pid": 1, "finish": "F"}'
    )
    _beside_the_program(found, it)
    assert found.waits == [
        "unfinished: node add cn09 (by bob, pid 1, since T); so far: nothing was changed; "
        "finish it with `F`"
    ]


def test_what_is_kept_beside_the_program(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.yaml").write_text("name: slurmstack\nruntime: python\n")
    it, found = cluster(tmp_path), Status("x", "x", "ctl", "")
    _beside_the_program(found, it)
    assert (found.drift, found.validated, found.waits) == (None, None, [])
    last_drift.keep(it.place, {"cn01": 2, "cn02": 0})
    words = [Word("copy", "cn01", "failed"), Word("copy", "cn02", "proven")]
    nodes = ["cn01", "cn02", "gone09"]
    keep(it.place, Validation("2026-01-01T00:00:00Z", "a", "quick", nodes, words=words))
    with operation(it.place, "node exclude cn03", "FINISH") as running:
        running.did("drained cn03")
        _beside_the_program(found, it)
    assert found.drift is not None
    assert found.drift["nodes"] == {"cn01": 2}
    # Of nodes that the settings have no more, nobody asks.
    assert found.validated == {"nodes": 2, "failed": ["cn01"], "time": "2026-01-01T00:00:00Z"}
    first, second = found.waits
    assert first.startswith("being done: node exclude cn03 (by ")
    assert second.startswith("cn01: copy failed at slurmstack validate")
