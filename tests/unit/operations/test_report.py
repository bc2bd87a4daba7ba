"""`slurmstack report`: what is read from Slurm's answers, and a page that holds it all."""

from __future__ import annotations

import html.parser
import json
from dataclasses import replace
from typing import Any

import pytest

from operations.figures import read
from operations.past import Deed
from operations.refused import Refused
from operations.report import (
    Group,
    Report,
    Share,
    _ago,
    _short,
    fabric,
    holdings,
    jobs,
    nodes,
    page,
)
from operations.validations import Standing
from settings import parse
from tests.unit.operations.test_status_text import found as a_status
from tests.unit.settings.test_settings import lab

#: As `scontrol --oneliner show node` of Slurm 24.11.5 prints it, shortened by fields.
NODES = """\
node NodeName=cn01 Arch=x86_64 CPUAlloc=64 CPUEfctv=224 CPUTot=224 Gres=gpu:h100:8 \
NodeAddr=cn01 NodeHostName=cn01 Version=24.11.5 RealMemory=2000000 AllocMem=512000 \
State=MIXED ThreadsPerCore=2 SlurmdStartTime=2026-11-25T20:41:22 \
CfgTRES=cpu=224,mem=2000000M,billing=224,gres/gpu=8,gres/gpu:h100=8 \
AllocTRES=cpu=64,mem=500G,gres/gpu=3,gres/gpu:h100=3 CurrentWatts=0 AveWatts=0
node NodeName=cn02 CPUAlloc=0 CPUTot=224 State=IDLE+DRAIN SlurmdStartTime=2026-11-25T20:41:22 \
CfgTRES=cpu=224,gres/gpu=8 AllocTRES= CurrentWatts=0 \
Reason=fan CPUTot=9 State=<b>up</b> (by anna@admin01) [root@2026-11-25T20:44:01]
node NodeName=cn03 CPUAlloc=0 CPUTot=224 State=IDLE+NOT_RESPONDING CfgTRES=cpu=224 AllocTRES=
node NodeName=cn04 CPUAlloc=0 CPUTot=224 State=DOWN* CfgTRES=cpu=224 Reason=Not responding \
[slurm@2026-11-25T20:44:01]
job 17|alice|science|main|2|1:02:03|2-00:00:00|cn[01-02]|gres/gpu:2|a|b<script>
"""


#: As Prometheus 2.53 answers a range query; slurmctld did not answer for a while.
ANSWER = "jobs " + json.dumps(
    {
        "status": "success",
        "data": {
            "resultType": "matrix",
            "result": [
                {
                    "metric": {"state": "RUNNING"},
                    "values": [[1000, "2"], [1060, "4"], [1300, "4"], [1360, "3"]],
                },
                {"metric": {"state": "PENDING"}, "values": [[1060, "16"], [1360, "7"]]},
            ],
        },
    }
)


class Page(html.parser.HTMLParser):
    """What a page shows, its elements, and what it refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.tags, self.refers = "", [], []  # type: tuple[str, list[str], list[str]]
        self.titles: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.refers += [str(value) for name, value in attrs if name in ("src", "href", "action")]
        self.titles += [str(value) for name, value in attrs if name == "title"]

    def handle_data(self, data: str) -> None:
        self.text += data


def a_report() -> Report:
    status = replace(a_status(3), nodes=[])
    status.drift = None
    return Report(
        status,
        nodes=list(nodes(NODES)),
        jobs=list(jobs(NODES)),
        deeds=[Deed("2026-11-25T20:00:00Z", "pulumi up", "anna@admin01", "done", ["cn01: <i>"])],
        standings={
            "cn01": Standing(
                "2026-11-25", "full", ("HPL, class",), {"HPL": "9 GFLOPS"}, {"kernel": "6.<1>"}
            )
        },
        holdings=holdings({"cn01": {"keys": {"munge": "a" * 64}}, "ctl": {}}),
        drawings=list(read(ANSWER, 1200, 60)),
        seconds=1200,
    )


def test_nodes_are_read() -> None:
    read = {node.name: node for node in nodes(NODES)}
    assert {name: node.kind for name, node in read.items()} == {
        "cn01": "busy", "cn02": "drained", "cn03": "silent", "cn04": "down",
    }  # fmt: skip
    assert (read["cn01"].cpus, read["cn01"].gpus) == (Share(64, 224), Share(3, 8))
    assert (read["cn02"].cpus, read["cn02"].gpus) == (Share(0, 224), Share(0, 8))
    assert read["cn02"].reason == "fan CPUTot=9 State=<b>up</b>"
    assert read["cn02"].by == "anna@admin01"
    assert a_report().gpus == Share(3, 16)


def test_states_are_counted_and_shown_as_slurm_has_them() -> None:
    told = {node.name: (node.state, node.reason, node.by) for node in nodes(NODES)}
    assert told["cn01"] == ("mixed", "", "")
    assert told["cn02"][0] == "drain+idle"
    assert told["cn03"] == ("idle, not responding", "", "")
    assert told["cn04"] == ("down, not responding", "Not responding", "slurm")
    kinds = a_report().kinds
    assert {kind: number for kind, number in kinds.items() if number} == {
        "busy": 1, "drained": 1, "silent": 1, "down": 1,
    }  # fmt: skip
    assert [Share(64, 224).percent, Share(0, 8).percent, Share(0, 0).percent] == [29, 0, 0]


@pytest.mark.parametrize(
    ("state", "wanted"),
    [
        ("IDLE", "idle"), ("IDLE+RESERVED", "idle"), ("ALLOCATED", "busy"), ("COMPLETING", "busy"),
        ("MIXED+DRAIN", "drained"), ("UNKNOWN", "unknown"), ("UNKNOWN*", "silent"),
        ("DOWN+DRAIN", "down"), ("FAIL", "down"), ("ERROR", "down"), ("IDLE+INVALID_REG", "down"),
    ],
)  # fmt: skip
def test_what_a_node_s_state_comes_to(state: str, wanted: str) -> None:
    (node,) = nodes(f"node NodeName=cn01 State={state} CPUTot=4\n")
    assert node.kind == wanted


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(5400, "90 min"), (7200, "2 h"), (86400, "24 h"), (2 * 86400, "2 days")],
)
def test_how_long(seconds: int, told: str) -> None:
    assert _ago(seconds) == told


@pytest.mark.parametrize(
    ("value", "told"),
    [(950, "950"), (2.25, "2.2"), (9999, "9999"), (12500, "12.5k"), (2e6, "2.0M"), (3.1e9, "3.1G"),
     (4e12, "4.0T")],
)  # fmt: skip
def test_figures_in_few_characters(value: float, told: str) -> None:
    assert _short(value) == told


def test_a_job_may_have_any_name() -> None:
    (job,) = jobs(NODES)
    assert (job.number, job.nodes, job.name) == ("17", "cn[01-02]", "a|b<script>")


def test_holdings_that_differ_stand_first() -> None:
    held = holdings(
        {
            "cn01": {"keys": {"munge": "a" * 64}, "files": {"/b": "1" * 64, "/a": "2" * 64}},
            "cn02": {"keys": {"munge": "a" * 64}, "files": {"/b": "3" * 64, "/a": "2" * 64}},
            "ctl": {"lost": True},
        }
    )
    assert [(it.what, it.varies) for it in held] == [
        ("key munge", False), ("/b", True), ("/a", False),
    ]  # fmt: skip
    assert held[0].by_hash == {"a" * 12: "cn[01-02]"}
    assert held[1].by_hash == {"1" * 12: "cn01", "3" * 12: "cn02"}


def test_the_fabric_is_a_tree_of_switches() -> None:
    read = {node.name: node for node in nodes(NODES)}
    switches = {
        "spine": {"Switches": "leaf[1-2]"}, "leaf1": {"Nodes": "cn01"}, "leaf2": {"Nodes": "cn02"},
    }  # fmt: skip
    declared = parse(lab() | {"topology": {"plugin": "tree", "switches": switches}}, stack="lab")
    (top,) = fabric(declared, read)
    assert top.name == "spine"
    assert [(it.name, [node.name for node in it.nodes]) for it in top.below] == [
        ("leaf1", ["cn01"]), ("leaf2", ["cn02"]),
    ]  # fmt: skip
    # One that slurmctld does not know (yet) is in no picture of what it says.
    (alone,) = fabric(declared, {"cn02": read["cn02"]})
    assert [len(it.nodes) for it in alone.below] == [0, 1]


def answered(word: str, label: str, *series: tuple[str, list[list[Any]]]) -> str:
    result = [{"metric": {label: name}, "values": values} for name, values in series]
    return f"{word} {json.dumps({'data': {'result': result}})}"


def test_figures_that_are_no_parts_of_a_sum_are_lines() -> None:
    """A node in two states is not two nodes: lines beside each other, on one scale."""
    text = answered(
        "nodes", "state", ("idle", [[1300, "4"], [1360, "4"]]), ("drain", [[1360, "2"]])
    )
    (drawing,) = read(text, 600, 60)
    idle, drain = drawing.lines
    assert (drawing.top, drawing.stacked) == (4, False)
    assert [run.split() for run in idle.runs] == [["480.0,0.0", "540.0,0.0", "600.0,0.0"]]
    assert [run.split() for run in drain.runs] == [["540.0,75.0", "600.0,75.0"]]


def test_what_are_too_many_lines_is_one() -> None:
    def drawn(number: int) -> list[tuple[str, float | None]]:
        many = [(f"r{it}", [[1360, str(100 - it)]]) for it in range(number)]
        (drawing,) = read(answered("reasons", "reason", *many), 600, 60)
        return [(line.name, line.last) for line in drawing.lines]

    assert drawn(8)[-1] == ("r7", 93)
    assert drawn(10)[-2:] == [("r6", 94), ("others", 93 + 92 + 91)]
    alone = answered("reasons", "reason", ("r", [[1360, "0"]]))
    (nothing,) = read(alone, 600, 60)
    assert nothing.top == 1


def test_what_was_not_seen_is_not_drawn() -> None:
    (drawing,) = read(ANSWER, 1200, 60)
    pending, running = drawing.lines
    # The larger one lies below, and the scale is that of both.
    assert (pending.name, running.name, drawing.top) == ("PENDING", "RUNNING", 20)
    assert (pending.last, running.last) == (7, 3)
    first, second = running.runs
    # 1360 is now, and a twentieth of the width is a minute.
    assert first.split() == [
        "390.0,135.0", "420.0,135.0", "450.0,0.0", "450.0,30.0", "420.0,150.0", "390.0,150.0",
    ]  # fmt: skip
    assert second.split()[2] == "600.0,75.0"
    # Lines of curl's own that are no answer.
    assert len(list(read(f"warning\n{ANSWER}", 1200, 60))) == 1
    assert list(read("jobs {}\nnodes " + json.dumps({"data": {"result": []}}), 1200, 60)) == []
    with pytest.raises(Refused, match="no JSON for jobs"):
        list(read("jobs <html>", 1200, 60))


def test_too_many_lines_are_one() -> None:
    found = [{"metric": {"device": f"mlx5_{n}"}, "values": [[60, str(n)]]} for n in range(1, 13)]
    (drawing,) = read("fabric " + json.dumps({"data": {"result": found}}), 600, 60)
    assert [line.name for line in drawing.lines][::7] == ["mlx5_12", "others"]
    assert drawing.lines[-1].last == sum(range(1, 6))
    # Of a time at which one of them was not there, it counts as nothing.
    found[0]["values"] = [[60, "1"], [120, "1"]]
    (drawing,) = read("fabric " + json.dumps({"data": {"result": found}}), 600, 60)
    assert drawing.lines[-1].last == 1


@pytest.mark.parametrize("empty", [False, True])
def test_the_page_needs_nothing_else_and_runs_nothing(empty: bool) -> None:
    report = Report(replace(a_status(0), drift=None)) if empty else a_report()
    shown = Page(page(report))
    assert shown.refers == []
    assert not {"script", "link", "img", "iframe", "object", "form"} & set(shown.tags)
    assert ("polygon" in shown.tags) is not empty
    if not empty:
        assert "PENDING 7" in shown.text
        report.fabric = [Group("leaf1", report.nodes[:1])]
        shown = Page(page(report))
        for text in ("a|b<script>", "cn01: <i>", "fan CPUTot=9 State=<b>up</b>", "a" * 12, "leaf1",
                     "HPL, class", "9 GFLOPS", "kernel 6.<1>"):  # fmt: skip
            assert text in shown.text
        assert "a" * 13 not in shown.text
        assert any("anna@admin01" in title for title in shown.titles)
        assert "3 of 16" in shown.text
