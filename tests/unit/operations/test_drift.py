"""`slurmstack drift`: what hosts say, judged and shown."""

from __future__ import annotations

import hashlib
import io
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from components.accounting.slurmdbd import RECONCILE
from operations import drift, drift_report
from operations.cluster import Cluster
from operations.drift import Finding, NotFixed, Report, chosen, judge, script
from operations.stack import Applied
from remote.bundle import Bundle, Directory, File
from remote.contact import ContactError, Reply
from remote.host import Host
from settings import parse
from settings.hostlist import fold
from templates.rendering import render
from tests.unit.components.test_cluster import bare

APPLIER = "the applier\n"
SUM = hashlib.sha256(APPLIER.encode()).hexdigest()
ANSWER = "slurmstack-answer 1\nnode cn01\nrole node\nfact machine-id abc\nslurmstack-answer end\n"
HELD = [
    Applied("urn:a", "cn01", "node", APPLIER, ANSWER),
    Applied("urn:b", "cn01", "slurmd", "x", ""),
]
FACTS = f"fact machine-id abc\nfact state 6\nfact applier {SUM}\nfact munge MUNGE:x:\n"


def said(*differences: str, facts: str = FACTS) -> list[Finding]:
    lines = "".join(f"{line}\n" for line in differences)
    text = f"time 2026-01-31T12:00:00Z\nnode cn01\nrole slurmd\n{lines}slurmstack-answer end\n"
    report = Report()
    judge("cn01", HELD, text + facts, report)
    assert report.compared == ["cn01"]
    return report.findings


def test_nothing_differs() -> None:
    assert said() == []


def test_what_a_bundle_puts_right_is_its_role_s() -> None:
    (one,) = said("differs file /etc/x content", "  --- deployed", "  +++ cn01", "  -a", "  +b")
    assert (one.kind, one.name, one.role, one.command) == ("file", "/etc/x", "slurmd", None)
    assert one.diff[2:] == ("-a", "+b")


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("unit munge.service is masked", "systemctl unmask munge.service"),
        ("user slurm exists with uid 5, not 64030", "usermod -u 64030 slurm"),
        ("group slurm exists with gid 5, not 64030", "groupmod -g 64030 slurm"),
        (
            "unit slurmd.service is older than /etc/y, its program",
            "systemctl daemon-reload; systemctl restart slurmd.service",
        ),
    ],
)
def test_what_no_bundle_puts_right_has_its_command(line: str, command: str) -> None:
    (one,) = said(f"differs {line}")
    assert (one.role, one.command, one.where) == (None, command, "cn01")


def test_a_daemon_takes_up_the_file_that_is_put_back() -> None:
    found = said("differs file /etc/x content", "differs unit a.service is older than /etc/x")
    assert [one.role for one in found] == ["slurmd", "slurmd"]


def test_a_machine_that_was_installed_anew_is_one_finding() -> None:
    (one,) = said("differs file /etc/x missing", facts="fact machine-id abc\nfact state 0\n")
    assert (one.kind, one.command) == ("machine", "slurmstack node replace cn01")
    assert "installed anew" in one.found
    (one,) = said(facts=FACTS.replace("machine-id abc", "machine-id def"))
    assert one.found == "is another machine: its id is def, not abc"


def test_a_role_that_no_bundle_names_has_the_way_back() -> None:
    (one,) = said(facts=f"{FACTS}role slurmd\nrole package-host\n")
    assert (one.kind, one.name, one.role, one.where) == ("role", "package-host", None, "cn01")
    assert one.command is not None
    bundle, _, applied_by = one.command.partition(" | ")
    assert applied_by == "/usr/local/lib/slurmstack/apply remove"
    printed = subprocess.run(["sh", "-c", bundle], capture_output=True, text=True, check=True)
    assert printed.stdout == "slurmstack-bundle 1\nnode cn01\nrole package-host\nend\n"


def test_another_applier() -> None:
    (one,) = said(facts=FACTS.replace(SUM, "0" * 64))
    assert (one.name, one.found, one.role) == ("/usr/local/lib/slurmstack/apply", "content", "node")
    (one,) = said(facts=FACTS.replace(f"fact applier {SUM}\n", ""))
    assert (one.found, one.role) == ("missing", "node")


def test_what_else_a_host_says() -> None:
    more = "hand-made /etc/slurm/slurm.conf (copy)\nhand-made /etc/systemd/system/a.service.d/b\n"
    more += "failed slurmctld is down\n"
    more += "differs accounting qos high\tis not as declared\tsacctmgr modify\n"
    more += "not-decoded cn02 Invalid credential\n"
    report = Report()
    judge("cn01", HELD, f"node cn01\nslurmstack-answer end\n{FACTS}{more}", report)
    assert [(one.node, one.kind, one.command) for one in report.findings] == [
        ("cn01", "hand-made", "rm '/etc/slurm/slurm.conf (copy)'"),
        (
            "cn01",
            "hand-made",
            "rm /etc/systemd/system/a.service.d/b; systemctl daemon-reload; "
            "systemctl restart a.service",
        ),
        ("cn01", "accounting", "sacctmgr modify"),
        ("cn02", "munge", "timedatectl; systemctl restart munge"),
    ]
    assert report.failed == ["cn01: slurmctld and slurmdbd: slurmctld is down"]


def test_exit_codes() -> None:
    one = Finding("cn01", "file", "/etc/x", "missing", "slurmd")
    assert Report().exit_code == 0
    assert Report(unreachable={"cn01": "connect"}).exit_code == 1
    assert Report(failed=["cn01: slurmd: why"]).exit_code == 1
    assert Report(findings=[one], unreachable={"cn02": "connect"}).exit_code == 2


def test_only_what_was_chosen_is_put_right() -> None:
    kinds = ("file", "package", "unit", "user", "hand-made")
    report = Report(findings=[Finding("cn01", kind, kind, "", "r") for kind in kinds[:-1]])
    report.findings.append(Finding("cn01", "hand-made", "x", "", command="rm x"))
    assert [one.kind for one in chosen(report, ())] == list(kinds[:-1])
    assert [one.kind for one in chosen(report, drift.kinds("files,units"))] == ["file", "unit"]
    for words in ("", ",", "files,daemons"):
        with pytest.raises(NotFixed, match="expected some of packages, users, "):
            drift.kinds(words)


def test_only_their_bundles_are_applied_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = [
        Applied("urn:a", "cn01", "slurmd", "", ""), Applied("urn:b", "cn01", "system", "", ""),
        Applied("urn:c", "cn02", "slurmd", "", ""),
    ]  # fmt: skip
    (tmp_path / "Pulumi.lab.yaml").write_text("config: {}\n")
    ran: list[Any] = []
    monkeypatch.setattr(drift, "wish", lambda names, _: ran.append(names))
    monkeypatch.setattr(drift, "up", lambda _, yes, urns: ran.append((yes, urns)))
    monkeypatch.setattr(Cluster, "file", lambda _: None)
    findings = [Finding("cn01", "file", name, "missing", "slurmd") for name in ("/a", "/b")]
    drift.fix(findings, held, Cluster(settings(), tmp_path, "lab"), True)
    assert ran == [["slurmd@cn01"], (True, ["urn:a"])]


def test_who_is_asked_and_the_controller_last(monkeypatch: pytest.MonkeyPatch) -> None:
    held = [Applied(f"urn:{name}", name, "slurmd", "", "") for name in ("ctl", "cn01", "cn02")]
    hosts = {
        "ctl": Host("ctl", "10.0.0.1", ""), "cn01": Host("cn01", "10.0.0.2", ""),
        "cn02": Host("cn02", "10.0.0.3", "", lost=True), "cn03": Host("cn03", "10.0.0.4", ""),
    }  # fmt: skip
    asked: list[list[str]] = []

    def ask(wanted: list[Host], text: Any, report: Report) -> dict[str, str]:
        asked.append([host.name for host in wanted])
        if wanted and wanted[0].name == "ctl":
            # It is shown what the others' munged encoded.
            assert "\ncn01 MUNGE:x:\n" in text(wanted[0])
        answer = "time T\nnode {}\nslurmstack-answer end\nfact state 6\nfact munge MUNGE:x:\n"
        return {host.name: answer.format(host.name) for host in wanted}

    monkeypatch.setattr(drift, "_ask", ask)
    report = drift.look(settings(), hosts, held)
    assert asked == [["cn01"], ["ctl"]]
    assert report.failed == ["cn03: not deployed yet; pulumi up deploys it"]
    assert report.compared == ["cn01", "ctl"]
    asked.clear()
    drift.look(settings(), hosts, held, ["cn01"])
    assert asked == [["cn01"], []]


def shown(report: Report, width: int = 100) -> str:
    sink = io.StringIO()
    Console(file=sink, width=width).print(drift_report.table(report))
    return sink.getvalue()


def test_nodes_on_which_the_same_differs_are_one_row() -> None:
    def on(node: str) -> list[Finding]:
        diff = ("--- deployed", f"+++ {node}", "@@ -1 +1 @@", "-a", "+[b]")
        return [
            Finding(node, "file", "/etc/x", "content", "slurmd", diff=diff),
            Finding(node, "hand-made", "/etc/y", "nobody's", command="rm /etc/y", where=node),
            Finding(node, "machine", node, "anew", command=f"slurmstack node replace {node}"),
            Finding(node, "served", "a", "other", command="scontrol reconfigure", where="ctl"),
        ]

    nodes = [f"cn{number:02}" for number in range(1, 65)]
    dead = {"cn65": "connect: refused; see", "cn66": "connect: refused; see"}
    report = Report(nodes, [one for node in nodes for one in on(node)], dead)
    text = shown(report)
    assert text.count("cn[01-64]") == 8
    assert "--fix (slurmd)" in text
    assert "on cn[01-64]: rm /etc/y" in text
    assert "on ctl: scontrol reconfigure" in text
    assert "slurmstack node replace cn[01-64]" in text
    assert "-a\n+[b]\n" in text
    assert "cn[65-66]: not asked: connect: refused; see" in text
    assert "64 hosts compared, 256 differences on 64, 2 not asked" in text
    assert max(map(len, text.splitlines())) <= 100


def test_what_differs_otherwise_is_a_row_of_its_own() -> None:
    def rows(*findings: Finding) -> list[str]:
        return [fold(nodes) for _, nodes in drift_report.alike(list(findings))]

    diffs = [("--- deployed", "+++ NODE", "@@ -1 +1 @@", "-a", line) for line in ("+b", "+c")]
    first = Finding("cn01", "file", "/etc/x", "content", "slurmd", diff=diffs[0])
    same = replace(first, node="cn02")
    assert rows(first, same) == ["cn[01-02]"]
    for other in (
        replace(same, name="/etc/y"), replace(same, kind="link"), replace(same, found="missing"),
        replace(same, role="login"), replace(same, diff=diffs[1]),
    ):  # fmt: skip
        assert rows(first, other) == ["cn01", "cn02"]
    # The controller's own words about each of two nodes.
    resumes = [
        Finding(node, "node", node, "DOWN", command=f"scontrol update {node}", where="ctl")
        for node in ("cn01", "cn02")
    ]
    assert rows(*resumes) == ["cn01", "cn02"]


def test_nothing_differs_is_one_line() -> None:
    assert shown(Report(["cn01"])) == "1 hosts compared, nothing differs\n"


def settings() -> Any:
    return parse(bare())


def test_a_host_s_script_is_one_that_a_shell_reads(tmp_path: Path) -> None:
    text = Bundle("cn01", "slurmd", [File("/etc/x", "it's $HOME `id`\nEND\n")]).render()
    held = [
        Applied("urn", "cn01", "node", "the applier's own text", ""),
        Applied("urn", "cn01", "slurmd", text, ""),
    ]
    for credentials in (None, {"cn01": "MUNGE:x:"}):
        whole = script("cn01", held, settings(), credentials)
        done = subprocess.run(["sh", "-n"], input=whole, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr
        assert text in whole
        # The controller's alone asks slurmctld, and looks into what the others' munged encoded.
        for words in ("python3 -B", "\ncn01 MUNGE:x:\n", "def lines_of("):
            assert (words in whole) == (credentials is not None), words
        assert "the applier's own text" not in whole
    accounting = parse({**bare(), "accounting": {}})
    assert RECONCILE not in script("cn01", held, settings(), {})
    assert RECONCILE in script("cn01", held, accounting, {})


def test_a_folder_is_ours_where_only_ours_can_lie() -> None:
    folders = ("/etc/slurm/plugstack.conf.d", "/etc/security/limits.d", "/etc/slurm/jwt",
               "/etc/systemd/system/slurmd.service.d")  # fmt: skip
    parts = [Directory(folder) for folder in (*folders, "/etc/slurmstack")]
    files = [File(f"{folder}/x", "") for folder in folders]
    text = Bundle("cn01", "slurmd", [*parts, *files]).render()
    assert drift._folders([text]) == [
        "/etc/slurm",
        "/etc/slurm/plugstack.conf.d",
        "/etc/systemd/system/slurmd.service.d",
        "/usr/local/lib/slurmstack",
    ]


def test_what_daemons_were_served_is_held_against_what_was_deployed() -> None:
    deployed = Bundle("ctl", "slurmctld", [File("/etc/slurm/slurm.conf", "a\n")]).render()
    right, by_hand = (hashlib.sha256(text).hexdigest() for text in (b"a\n", b"b\n"))
    head = {"served slurm.conf": by_hand, "served cgroup.conf": "1"}
    told = {
        "cn01": {"served slurm.conf": right, "served cgroup.conf": "1", "served x.conf": "3"},
        "cn02": {"served slurm.conf": by_hand, "served cgroup.conf": "2"},
    }
    report = Report()
    drift._served(told, head, [Applied("u", "ctl", "slurmctld", deployed, "")], report, "ctl")
    assert [(one.node, one.name, one.where) for one in report.findings] == [
        ("cn02", "slurm.conf", "ctl"),
        ("cn02", "cgroup.conf", "ctl"),
    ]


def test_a_host_that_cannot_compare_is_told_with_its_own_words() -> None:
    refusal = "slurmstack: cn01: start: runs as admin, not as root; connect as root\n"
    host = Host("cn02", "192.0.2.2", "")
    replies: dict[str, Reply | ContactError] = {
        "cn01": Reply("fact state 1\n", f"some words\n{refusal}", 0),
        "cn02": ContactError(host, "host key", "shows another", "compare it"),
        "cn03": Reply("time x\nnode cn03\nslurmstack-answer end\nfact state 1", refusal, 0),
    }
    report = Report()
    assert list(drift.sort_replies(replies, report)) == ["cn03"]
    assert report.unreachable == {
        "cn01": "start: runs as admin, not as root; connect as root",
        "cn02": "host key: shows another; compare it; then slurmstack node replace cn02",
    }


def test_what_a_role_made_and_leaves_until_it_goes_is_not_by_hand(tmp_path: Path) -> None:
    """A script that jobs may still run is lasting: its role stays the one who made it."""
    state, folder = tmp_path / "state", tmp_path / "scripts"
    (state / "programs").mkdir(parents=True)
    folder.mkdir()
    for name in ("held", "left", "by-hand"):
        (folder / name).touch()
    (state / "programs/manifest").write_text(f"lasting {folder}/held\n")
    (state / "programs/created").write_text(f"path {folder}/held\npath {folder}/left\n")
    script = render(
        "drift/node.sh", state=state, applier="/none", served="/none", controller=False,
        folders=[str(folder)], made=["/none"],
    )  # fmt: skip
    done = subprocess.run(["sh", "-s"], input=script, capture_output=True, text=True, check=True)
    told = [line for line in done.stdout.splitlines() if line.startswith("hand-made")]
    assert told == [f"hand-made {folder}/by-hand"]
