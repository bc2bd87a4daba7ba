"""The verbs that look and tell: status, check, inventory, logs, history, explain, report, token,
topology, diagnose."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from components.keys.jwt_key_pair import TOKEN
from operations.check import HostReport
from operations.cluster import Cluster
from operations.diagnose import Told
from operations.past import Deed
from operations.refused import Refused
from operations.report import Node, Report
from operations.status import NodesAlike, Status
from operations.token import NoToken
from remote.contact import ContactError, Reply
from remote.host import Host
from tests.unit.discovery.test_fabric import discovered
from tests.unit.operations.commands.console import Controller, Pulumi, Slurmstack, Standing

GONE = ContactError(Host("ctl", "10.0.0.1", ""), "connect", "no answer", "see that it runs")


def a_status(*nodes: NodesAlike) -> Status:
    status = Status("x", "x", "ctl", "2026-11-25T21:00:00Z", nodes=[*nodes], waits=["look at it"])
    status.versions["slurmstack"] = "0.1.0"
    return status


def test_status_ends_with_1_where_slurmctld_is_silent(
    slurmstack: Slurmstack, instead: Standing
) -> None:
    look = instead("operations.commands.status.looked_at", a_status(NodesAlike("cn01", 1, "idle")))
    assert "cn01" in slurmstack("status").stdout
    told = slurmstack.json("status", "--stack", "y")
    assert told["nodes"] == [{"nodes": "cn01", "count": 1, "state": "idle", "reason": "", "by": ""}]
    assert told["waits"] == ["look at it"]
    assert look.calls == [("x",), ("y",)]
    look.result = a_status()
    assert "look at it" in slurmstack("status", code=1).stdout
    assert slurmstack.json("status", code=1)["controller"] == "ctl"


def test_check_ends_with_1_where_something_would_fail(
    slurmstack: Slurmstack, instead: Standing
) -> None:
    fine, fails = HostReport({"os": "Debian 13"}, warns=["no DCGM"]), HostReport(fails=["no apt"])
    look = instead("operations.check.check", {"cn01": fine})
    assert "no DCGM" in slurmstack("check").stdout
    ((read, hosts),) = look.calls
    assert [*hosts] == [*read.members]
    look.result = {"cn01": fine, "cn02": fails}
    assert "no apt" in slurmstack("check", code=1).stdout
    told = slurmstack.json("check", code=1)
    assert told["cn02"]["fails"] == ["no apt"]
    assert told["cn01"] == {
        "os": "Debian 13", "infiniband": [], "users": {}, "fails": [], "warns": ["no DCGM"],
    }  # fmt: skip


def test_check_asks_nobody_whose_key_is_not_pinned(
    slurmstack: Slurmstack, instead: Standing, pulumi: Pulumi, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = instead("operations.check.check")
    monkeypatch.setattr("discovery.host_keys._shown", lambda host: f"the key of {host.name}")
    (pulumi.project / "known_hosts").write_text("")
    line = slurmstack.refused("check")
    assert "nothing was sent to any host" in line
    assert "- cn01: " in line
    assert line.endswith("it shows the key of gpu3")
    assert look.calls == []


HELD = {
    "roles": ["slurmd"], "applied": {"slurmd": "2026-11-25T21:00:00Z"}, "keys": {"munge": "a" * 64},
    "files": {"/etc/x": "b" * 64}, "packages": {"munge": "1.2"}, "units": {},
}  # fmt: skip


def test_inventory_is_a_line_a_node_or_all_of_one(slurmstack: Slurmstack, pulumi: Pulumi) -> None:
    pulumi.outputs = {"inventory": {"cn01": HELD, "cn02": {"lost": True}}}
    assert "cn02" in slurmstack("inventory").stdout
    shown = slurmstack("inventory", "cn01").stdout
    assert "/etc/x" in shown
    assert "cn02" not in shown
    assert slurmstack.json("inventory") == pulumi.outputs["inventory"]
    assert slurmstack.json("inventory", "cn01") == {"cn01": HELD}
    line = slurmstack.refused("inventory", "cn09")
    assert line == "no node cn09 in the inventory; it has cn01, cn02"


def test_an_inventory_of_a_stack_without_one_is_empty(
    slurmstack: Slurmstack, pulumi: Pulumi
) -> None:
    assert "has no outputs yet; run pulumi up --stack y" in slurmstack.refused(
        "inventory", "--stack", "y"
    )
    pulumi.outputs = {"other": 1}
    assert slurmstack.json("inventory") == {}


def test_logs_name_the_host_where_there_are_several(
    slurmstack: Slurmstack, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[list[str], str]] = []

    def run(_: Cluster, names: list[str], script: str, __: float) -> dict[str, Reply]:
        asked.append((names, script))
        return {name: Reply(f"2026-11-25T21:0{len(name)}:00 of {name}\n", "", 0) for name in names}

    monkeypatch.setattr(Cluster, "run", run)
    assert slurmstack("logs", "cn01").stdout == "2026-11-25T21:04:00 of cn01\n"
    assert slurmstack("logs", "gpu1,ctl").stdout == (
        "ctl 2026-11-25T21:03:00 of ctl\ngpu1 2026-11-25T21:04:00 of gpu1\n"
    )
    told = slurmstack.json("logs", "slurmctld", "--since", "2h", "-n", "7")
    assert told == [{"host": "ctl", "line": "2026-11-25T21:03:00 of ctl"}]
    assert [names for names, _ in asked] == [["cn01"], ["gpu1", "ctl"], ["ctl"]]


def test_logs_of_nobody_and_of_no_time(slurmstack: Slurmstack, instead: Standing) -> None:
    line = slurmstack.refused("logs", "slurmd2")
    assert line.startswith("slurmd2: no host with a role")
    assert line.endswith("roles are slurmctld, slurmd, munge")
    line = slurmstack.refused("logs", "slurmd", "--since", "$(id)")
    assert line == "--since $(id): expected 30m, 2h, or a date"
    assert "'-n'" in slurmstack("logs", "slurmd", "-n", "0", code=2).stderr


def test_logs_are_followed_from_now_on(slurmstack: Slurmstack, instead: Standing) -> None:
    past = instead("operations.logs.logs", [("ctl", "old")])
    follow = instead("operations.logs.follow")
    assert slurmstack("logs", "slurmctld", "--follow").stdout == ""
    assert follow.calls == [("x", "slurmctld")]
    assert past.calls == []


def test_history_tells_who_did_what_where(slurmstack: Slurmstack, instead: Standing) -> None:
    deeds = [
        Deed("2026-11-25T20:05:00Z", "pulumi up", "anna@admin", "done", ["cn01: slurmd started"],
             {"create": 2, "update": 1}),
        Deed("2026-11-25T18:05:00Z", "node drain cn01", "bob@admin", "done"),
    ]  # fmt: skip
    past = instead("operations.commands.history.past", deeds)
    assert slurmstack("history").stdout.splitlines() == [
        "2026-11-25T20:05:00Z  pulumi up  by anna@admin: done",
        "    cn01: slurmd started",
        "    resources: 2 created, 1 updated",
        "2026-11-25T18:05:00Z  node drain cn01  by bob@admin: done",
    ]
    told = slurmstack.json("history", "-n", "3")
    assert told[0]["changes"] == {"create": 2, "update": 1}
    assert told[1] == {
        "time": "2026-11-25T18:05:00Z", "what": "node drain cn01", "by": "bob@admin",
        "result": "done", "deeds": [], "changes": {},
    }  # fmt: skip
    assert past.calls == [("x", 10), ("x", 3)]
    assert "--last" in slurmstack("history", "-n", "0", code=2).stderr
    past.result = Refused("pulumi stack history: error: no stack named 'x' found")
    assert slurmstack.refused("history").endswith("no stack named 'x' found")


def test_explain_needs_no_stack_and_tells_the_value_of_one(
    slurmstack: Slurmstack, pulumi: Pulumi
) -> None:
    pulumi.config["slurm"] = {"MessageTimeout": 61}
    # Of several files, each is told.
    told, other = slurmstack("explain", "MessageTimeout").stdout.split("\n\n")
    name, *rows = told.splitlines()
    shown = {row[2:19].rstrip(): row[19:] for row in rows}
    assert (name, shown["file"], shown["this stack"]) == ("MessageTimeout", "slurm.conf", "61")
    assert shown["a change needs"] == "a reconfigure, running jobs go on"
    assert "slurmdbd.conf" in other
    it, _ = slurmstack.json("explain", "MessageTimeout")
    assert (it["name"], it["file"], it["now"]) == ("MessageTimeout", "slurm.conf", "61")
    pulumi.stacks = []
    without = slurmstack("explain", "MessageTimeout").stdout
    assert "slurm.conf" in without
    assert "this stack" not in without


def test_explain_with_mistakes_in_the_settings_tells_all_the_same(
    slurmstack: Slurmstack, pulumi: Pulumi
) -> None:
    pulumi.config["nosuch"] = 1
    assert "slurm.conf" in slurmstack("explain", "MessageTimeout").stdout


def test_explain_has_pages_of_our_settings_and_near_names(slurmstack: Slurmstack) -> None:
    page = slurmstack("explain", "rest.port").stdout
    assert "port" in page
    assert slurmstack.json("explain", "rest.port") == {"text": page.rstrip("\n")}
    assert "MessageTimeout" in slurmstack.refused("explain", "MesageTimeout")


@pytest.fixture
def page(instead: Standing) -> Report:
    report = Report(a_status(NodesAlike("cn01", 1, "idle")), [Node("cn01", "idle", "idle")])
    instead("operations.commands.report.looked_at", report)
    return report


def test_a_report_is_a_file_and_a_line(
    slurmstack: Slurmstack, page: Report, tmp_path: Path
) -> None:
    file = tmp_path / "page.html"
    done = slurmstack("report", str(file))
    assert done.stdout == f"{file}: 1 nodes, as of 2026-11-25T21:00:00Z\n"
    assert "cn01" in file.read_text()
    assert [it.name for it in tmp_path.glob("page*")] == ["page.html"]


def test_a_report_of_a_cluster_that_is_silent_is_written_all_the_same(
    slurmstack: Slurmstack, page: Report, tmp_path: Path
) -> None:
    page.status.nodes = []
    slurmstack("report", str(tmp_path / "page.html"), code=1)
    assert "look at it" in (tmp_path / "page.html").read_text()


def test_a_report_goes_back_as_far_as_asked(
    slurmstack: Slurmstack, instead: Standing, tmp_path: Path
) -> None:
    look = instead("operations.commands.report.looked_at", Report(a_status()))
    file = str(tmp_path / "page.html")
    slurmstack("report", file, code=1)
    slurmstack("report", file, "--since", "7d", "--stack", "y", code=1)
    assert look.calls == [("x", 86400), ("y", 7 * 86400)]
    line = slurmstack.refused("report", file, "--since", "soon")
    assert line == "--since soon: expected 30m, 6h or 7d"
    assert len(look.calls) == 2


def test_a_report_that_cannot_be_written_is_refused(
    slurmstack: Slurmstack, page: Report, tmp_path: Path
) -> None:
    file = tmp_path / "none" / "page.html"
    line = slurmstack.refused("report", str(file))
    assert line == f"{file}: No such file or directory; name another place for the page"


def test_a_token_alone_is_printed(
    slurmstack: Slurmstack, pulumi: Pulumi, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []

    async def run(hosts: list[Host], script: str, seconds: float) -> dict[str, Reply]:
        sent.append(f"{hosts[0].name}: {script.splitlines()[-1]}")
        return {"ctl": Reply("a-token\n", "a warning\n", 0)}

    monkeypatch.setattr("operations.token.run_on_hosts", run)
    pulumi.config["jwt"] = {"defaultLifetime": "30m", "maxLifetime": "2h"}
    done = slurmstack("token", "alice")
    assert (done.stdout, done.stderr) == ("a-token\n", "")
    slurmstack("token", "root", "--lifetime", "1h", "--privileged")
    assert sent == [f"ctl: exec {TOKEN} alice 1800", f"ctl: exec {TOKEN} root 3600 privileged"]
    line = slurmstack.refused("token", "alice", "--lifetime", "3h")
    assert line.startswith("--lifetime: expected at most 2h")


@pytest.mark.parametrize("error", [NoToken("ctl: token: root may not"), GONE])
def test_a_token_that_was_not_issued_is_told(
    error: Exception, slurmstack: Slurmstack, instead: Standing
) -> None:
    instead("operations.commands.token.issue", error)
    assert slurmstack.refused("token", "root") == str(error)


def test_the_fabric_s_settings_are_printed(
    slurmstack: Slurmstack, pulumi: Pulumi, tmp_path: Path
) -> None:
    nodes = ["cn01", "cn02", "cn03", "cn04", "gpu1", "gpu2", "gpu3"]
    seen = tmp_path / "seen"
    seen.write_text(discovered({"a": []}, {name: ["a"] for name in nodes}))
    done = slurmstack("topology", str(seen))
    assert done.stdout.splitlines() == [
        "slurmstack:topology:", "  plugin: tree", "  switches:", "    leaf1:",
        "      Nodes: cn[01-04],gpu[1-3]",
    ]  # fmt: skip
    seen.write_text(discovered({"a": []}, {"cn01": ["a"]}))
    assert slurmstack.refused("topology", str(seen)).startswith("no link of cn[02-04],gpu[1-3] in")
    assert "topology" in slurmstack("topology", str(tmp_path / "none"), code=2).stderr


def test_a_job_is_diagnosed_and_where_the_report_is_kept(
    slurmstack: Slurmstack, instead: Standing
) -> None:
    told = Told({"job": 12}, "cause: a GPU is gone", "ctl:/var/log/slurm/debug/12")
    look = instead("operations.diagnose.diagnose", told)
    assert slurmstack("diagnose", "12").stdout == (
        "cause: a GPU is gone\nreport: ctl:/var/log/slurm/debug/12\n"
    )
    assert slurmstack.json("diagnose", "12_3", "--stack", "y") == {"job": 12}
    assert look.calls == [("x", "12"), ("y", "12_3")]
    look.result = GONE
    assert slurmstack.refused("diagnose", "12") == str(GONE)


def test_a_job_or_logs_are_diagnosed_and_not_both(
    slurmstack: Slurmstack, pulumi: Pulumi, tmp_path: Path
) -> None:
    log = tmp_path / "out"
    log.write_text("Traceback (most recent call last):\nImportError: No module named torch\n")
    page = slurmstack("diagnose", "--log", str(log)).stdout
    assert "No module named torch" in page
    assert not page.endswith("\n\n")
    assert "No module named torch" in json.dumps(slurmstack.json("diagnose", "--log", str(log)))
    # Logs that are here are of no stack.
    assert pulumi.asked == []
    for words in ([], ["12", "--log", str(log)]):
        assert slurmstack.refused("diagnose", *words) == "a job's number, or --log FILE"
    assert "none" in slurmstack.refused("diagnose", "--log", str(tmp_path / "none"))


@pytest.mark.parametrize(
    "words",
    [["status"], ["history"], ["logs", "slurmd"], ["report"], ["diagnose", "7"], ["drift"],
     ["node", "drain", "cn01", "-r", "x"], ["job", "show", "7"], ["image", "ls"], ["validate"]],
    ids=" ".join,
)  # fmt: skip
def test_a_stack_that_is_not_there_is_one_line(
    words: list[str], slurmstack: Slurmstack, pulumi: Pulumi, controller: Controller
) -> None:
    pulumi.error = "error: no stack named 'z' found"
    line = slurmstack.refused(*words, "--stack", "z")
    assert line == "stack z cannot be read: no stack named 'z' found"
    assert controller.asked == []
