"""What `slurmstack drift` found, for people and for programs."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from operations.drift import Finding, Report
from operations.drift_report import as_dict, table
from operations.hosts import chosen
from tests.unit.operations.test_hosts import read

DIFF = ("--- deployed", "+++ cn01", "@@ -1 +1 @@", "-a", "+[b]", " c")


def shown(report: Report) -> list[str]:
    sink = io.StringIO()
    Console(file=sink, width=120).print(table(report))
    return [line.rstrip() for line in sink.getvalue().splitlines()]


def test_a_name_is_whole_in_few_columns() -> None:
    path = "/etc/systemd/system/slurmd.service.d/slurmstack-memory.conf"
    sink = io.StringIO()
    report = Report([], [Finding("cn01", "file", path, "content", "slurmd")])
    Console(file=sink, width=60).print(table(report))
    lines = [line.split() for line in sink.getvalue().splitlines()[1:]]
    assert (
        "".join(words[2] if words[0] == "cn01" else words[0] for words in lines if words)[
            : len(path)
        ]
        == path
    )


def coloured(report: Report) -> str:
    sink = io.StringIO()
    terminal = Console(
        file=sink, width=120, color_system="standard", force_terminal=True, highlight=False
    )
    terminal.print(table(report))
    return sink.getvalue()


def test_a_row_says_where_what_how_and_who_puts_it_right() -> None:
    lines = shown(Report(["cn01"], [Finding("cn01", "package", "munge", "missing", "munge-key")]))
    assert [line.split() for line in lines] == [
        ["nodes", "what", "is", "put", "right", "by"],
        ["cn01", "package", "munge", "missing", "--fix", "(munge-key)"],
        [],
        ["1", "hosts", "compared,", "1", "differences", "on", "1"],
    ]


@pytest.mark.parametrize(
    ("finding", "mend"),
    [
        (Finding("cn01", "user", "al", "x", command="usermod al", where="cn01"),
         "on cn01: usermod al"),
        (Finding("cn01", "node", "cn01", "x", command="scontrol update cn01", where="ctl"),
         "on ctl: scontrol update cn01"),
        (Finding("cn01", "machine", "cn01", "x", command="slurmstack node replace cn01"),
         "slurmstack node replace cn01"),
    ],
)  # fmt: skip
def test_a_command_is_named_with_where_it_is_typed(finding: Finding, mend: str) -> None:
    assert shown(Report([], [finding]))[1].endswith(f" {mend}")


def test_a_command_for_many_nodes_is_one_that_takes_them() -> None:
    findings = [
        Finding(node, "machine", node, "anew", command=f"slurmstack node replace {node}")
        for node in ("cn01", "cn02", "cn04")
    ]
    row = shown(Report([], findings))[1]
    assert row.split()[:3] == ["cn[01-02,04]", "machine", "cn[01-02,04]"]
    (hosts,) = [word for word in row.split() if word.startswith("cn")][2:]
    assert chosen(hosts, read()) == ["cn01", "cn02", "cn04"]


def test_the_lines_of_a_file_stand_below_in_their_colours() -> None:
    report = Report([], [Finding("cn01", "file", "/etc/[x]", "content", "slurmd", diff=DIFF)])
    lines = shown(report)
    assert lines[3:8] == ["cn01: /etc/[x]", "@@ -1 +1 @@", "-a", "+[b]", " c"]
    text = coloured(report)
    for colour, line in ((36, "@@ -1 +1 @@"), (31, "-a"), (32, "+[b]")):
        assert f"\n\x1b[{colour}m{line}\x1b[0m\n" in text
    assert "\n c\n" in text


def test_a_long_difference_is_cut_for_people_and_whole_for_programs() -> None:
    long = (*DIFF[:3], *(f"+{number}" for number in range(99)))
    report = Report([], [Finding("cn01", "file", "/etc/x", "content", "slurmd", diff=long)])
    told = [line for line in shown(report) if line.startswith("+")]
    assert (len(told), told[0]) == (37, "+0")
    assert as_dict(report)["differs"][0]["diff"] == [*long]


def test_hosts_that_were_not_asked_stand_together_by_their_reason() -> None:
    report = Report([], [], {"cn01": "down [x]", "cn03": "no route", "cn02": "down [x]"})
    report.failed = ["cn04: slurmd: [y]"]
    assert shown(report) == [
        "cn[01-02]: not asked: down [x]", "cn03: not asked: no route",
        "not compared: cn04: slurmd: [y]", "0 hosts compared, nothing differs, 3 not asked",
    ]  # fmt: skip


def test_what_is_told_is_no_markup() -> None:
    found = Finding("cn01", "file", "/etc/[bold]", "[red]", "slurmd")
    assert shown(Report([], [found]))[1].split() == [
        "cn01", "file", "/etc/[bold]", "[red]", "--fix", "(slurmd)",
    ]  # fmt: skip
