"""`slurmstack diagnose`: whom it asks, what is said of nodes that do not answer, what is kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from on_node.diagnosis.job import Job
from operations import diagnose
from operations.cluster import Cluster
from operations.diagnose import Told
from operations.refused import Refused
from remote.contact import ContactError, Reply
from remote.host import Host
from tests.unit.operations.slurmctld import cluster

JOB = Job(
    id=12, name="train", user="al", uid=5001, gid=5001, partition="all", state="FAILED",
    exit_code="1:0", reason="NonZeroExitCode", nodes=("cn01", "cn02", "cn09"), start=100, end=200,
    work_dir="/home/al", outputs=("/home/al/slurm-12.out",),
)  # fmt: skip
#: As a node's kernel logs it.
XID = "NVRM: Xid (PCI:0000:1b:00): 79, pid=4711, GPU has fallen off the bus."


class Nodes:
    """What the controller and the nodes answer, and the programs that they were sent."""

    def __init__(self) -> None:
        self.job, self.neighbours = JOB, {"cn02": [9, 10]}
        self.lines: dict[str, list[list[Any]]] = {"cn02": [["kernel", XID, "cn02", 3]]}
        self.replies: dict[str, Reply | ContactError] = {}
        self.keeping: str | Refused = json.dumps({"kept": "/var/log/slurm/debug/12"})
        self.controller = ""
        self.asked: list[list[str]] = []
        self.scripts: list[tuple[str, str]] = []

    def ask(self, script: str, what: str) -> str:
        self.scripts.append((what, script))
        if what == "keep":
            if isinstance(self.keeping, Refused):
                raise self.keeping
            return self.keeping
        if self.controller:
            return self.controller
        lines = [["sacct", "State=FAILED ExitCode=1:0 Reason=NonZeroExitCode", "", 0]]
        found = {"job": self.job.as_dict(), "lines": lines, "neighbours": self.neighbours}
        return json.dumps(found)

    def run(self, names: list[str], script: str) -> dict[str, Reply | ContactError]:
        self.asked.append(names)
        self.scripts.append(("node", script))
        told = {name: json.dumps({"lines": self.lines.get(name, [])}) for name in names}
        return {name: self.replies.get(name, Reply(told[name], "", 0)) for name in names}

    def words(self, of: str) -> list[str]:
        """What the program was called with that was sent for this."""
        (script,) = [script for what, script in self.scripts if what == of]
        # The last text of the program is its words, JSON in a string of Python.
        text, _ = json.JSONDecoder().raw_decode(script.rsplit("main(json.loads(", 1)[1])
        words: list[str] = json.loads(text)
        return words


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Nodes:
    made = Nodes()
    monkeypatch.setattr(Cluster, "ask", lambda _, script, what, *more: made.ask(script, what))
    monkeypatch.setattr(Cluster, "run", lambda _, names, script, more: made.run(names, script))
    return made


def told(folder: Path, **settings: Any) -> Told:
    return diagnose.diagnose(cluster(folder, **settings), "12")


def test_the_cause_is_named_from_the_nodes_evidence(nodes: Nodes, tmp_path: Path) -> None:
    found = told(tmp_path)
    assert nodes.asked == [["cn01", "cn02"]]
    assert found.report["cause"] == "xid-79"
    assert found.report["asked"] == ["cn01", "cn02"]
    assert found.report["missing"] == {"cn09": "it is in this cluster no more"}
    assert found.report["neighbours"] == {"cn02": [9, 10]}
    assert XID in found.page
    assert found.kept == "ctl:/var/log/slurm/debug/12"
    verb, job, log = nodes.words("node")
    assert (verb, Job.of(json.loads(job)), log) == ("node", JOB, "/var/log/slurm/slurmd.log")
    verb, job, uid, text, *_ = nodes.words("keep")
    assert (verb, job, uid) == ("keep", "12", "5001")
    files = json.loads(text)
    assert json.loads(files["report.json"]) == json.loads(json.dumps(found.report))
    assert files["report.txt"] == found.page


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (Reply("", "sh: 1: python3: not found", 127),
         "python3 is not there; slurmstack:diagnosis brings it"),
        (Reply("", "Traceback\n\nOSError: no space\n", 1), "OSError: no space"),
        (Reply("", "", 124), "exit 124"),
        (ContactError(Host("cn02", "10.0.0.12", "ssh-ed25519 A"), "connect", "no route", "look"),
         "connect: no route; look"),
    ],
)  # fmt: skip
def test_a_node_that_does_not_answer_is_missing_by_its_reason(
    nodes: Nodes, tmp_path: Path, reply: Reply | ContactError, why: str
) -> None:
    nodes.replies["cn01"] = reply
    found = told(tmp_path)
    assert found.report["missing"]["cn01"] == why
    assert found.report["asked"] == ["cn02"]
    assert why in found.page


def test_of_many_nodes_those_of_the_beginning_and_the_last_are_asked(
    nodes: Nodes, tmp_path: Path
) -> None:
    names = [f"n{number:03}" for number in range(1, 201)]
    hosts = {"ctl": "10.0.0.1", "n[001-200]": "10.0.1.[1-200]"}
    nodes.job = replace(JOB, nodes=tuple(names))
    told(
        tmp_path,
        hosts=hosts,
        nodes=[{"name": "plain", "hosts": "n[001-200]"}],
        partitions={"all": {"Nodes": "ALL"}},
    )
    (asked,) = nodes.asked
    assert asked == [*names[:127], "n200"]


def test_a_job_without_a_node_asks_none(nodes: Nodes, tmp_path: Path) -> None:
    nodes.job = replace(JOB, nodes=())
    assert told(tmp_path).report["asked"] == []
    assert nodes.asked == []


def test_a_report_that_cannot_be_kept_is_told_all_the_same(nodes: Nodes, tmp_path: Path) -> None:
    nodes.keeping = Refused("ctl: keep: OSError: No space left on device")
    assert told(tmp_path).kept == "not kept: ctl: keep: OSError: No space left on device"
    nodes.keeping = "Traceback: something 'else'"
    kept = told(tmp_path).kept
    assert kept.startswith("not kept: not understood: ")


@pytest.mark.parametrize("wanted", ["", "train", "12.batch", "12_", "-1", "12;reboot", "１２"])
def test_what_is_no_job_is_refused_before_anybody_is_asked(
    nodes: Nodes, tmp_path: Path, wanted: str
) -> None:
    with pytest.raises(Refused, match="not a job's number such as 12 or 12_3"):
        diagnose.diagnose(cluster(tmp_path), wanted)
    assert nodes.scripts == []


def test_a_job_that_slurm_does_not_know(nodes: Nodes, tmp_path: Path) -> None:
    nodes.controller = json.dumps({"error": "job 12: neither slurmctld nor accounting knows it"})
    with pytest.raises(Refused, match=r"^ctl: job 12: neither"):
        told(tmp_path)
    assert nodes.asked == []


def test_nodes_look_at_the_logs_of_the_settings(nodes: Nodes, tmp_path: Path) -> None:
    slurm = {"SlurmdLogFile": "/var/log/other/%n.log", "SlurmctldLogFile": "/var/log/other/ctl"}
    told(tmp_path, slurm=slurm, diagnosis={"keepDays": 3, "keepMegabytes": 44})
    assert nodes.words("job") == ["job", "12", "/var/log/other/ctl"]
    assert nodes.words("node")[2] == "/var/log/other/%n.log"
    assert nodes.words("keep")[4:] == ["3", "44"]


def test_a_log_that_is_not_there_is_named() -> None:
    with pytest.raises(Refused, match="No such file or directory: '/nowhere/log'"):
        diagnose.of_logs(["/nowhere/log"])
