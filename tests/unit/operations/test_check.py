"""What `slurmstack check` makes of a host's report; the report itself, run here."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

import operations.check
from components.host.precheck import guard, precheck
from operations.check import HostReport, judge, table
from operations.check import _disagreements as disagreements
from operations.check import _facts as facts
from remote.contact import ContactError, Reply
from remote.host import Host
from settings import Settings, parse
from tests.unit.settings.test_settings import lab

SETTINGS = parse(
    {
        **lab(),
        "slurm": {},
        "nodes": [{"hosts": "cn[01-02]", "Gres": [{"Count": 8, "AutoDetect": "nvml"}]}],
        "precheck": {"infinibandPorts": 2, "infinibandRate": 400},
    }
)
FIT = {
    "node": "cn01", "os": "Ubuntu 22.04.5 LTS", "kernel": "5.15", "packages": "apt",
    "init": "systemd", "clock": "1000", "synchronized": "yes", "free_root": "90000",
    "free_var": "90000", "resolves": "10.73.0.21", "cgroup": "v2",
    "cgroup_controllers": "cpuset cpu io memory", "driver": "570.1", "gpu_devices": "8",
    "devices": "/dev/null /dev/nvidia0 /dev/nvidia1", "gpu_bus": "8", "dcgm": "4.2",
    "ib_ports": "2",
}  # fmt: skip
PORTS = "ib mlx5_0/1 ACTIVE 400 InfiniBand\nib mlx5_3/1 ACTIVE 400 InfiniBand\n"


def reporting(script: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run a script here as if the host reported this."""
    assert script.count("found=$(report)\n") == 1
    lines = "".join(f"{key} {value}\n" for key, value in {**FIT, **changes}.items())
    return subprocess.run(
        ["sh", "-c", script.replace("found=$(report)\n", "found=$(cat)\n")],
        input=lines,
        capture_output=True,
        text=True,
        check=False,
    )


def said(
    ports: str = PORTS, settings: Settings = SETTINGS, /, **changes: str
) -> tuple[list[str], list[str]]:
    text = reporting(precheck("cn01", settings), **changes).stdout
    found = judge("cn01", text + ports, settings, 999.5, 1000.5)
    assert table({"cn01": found}).row_count == 1
    return found.fails, found.warns


def guarded(settings: Settings = SETTINGS, /, **changes: str) -> tuple[int, str]:
    """Exit code of the guard, which stops `up`, where the report says this; and what it says."""
    done = reporting(guard("cn01", settings).script, **changes)
    return done.returncode, done.stdout


def test_a_fit_node() -> None:
    assert said() == ([], [])
    assert guarded() == (0, "")


def test_a_host_whose_own_name_has_a_domain() -> None:
    assert said(node="cn01.site.example") == ([], [])
    assert guarded(node="cn01.site.example") == (0, "")
    (fail,), _ = said(node="cn012.site.example")
    assert "hostnamectl hostname cn01" in fail
    assert guarded(node="cn012.site.example")[0] == 1


def with_gres(*gres: dict[str, Any]) -> Settings:
    return parse({**lab(), "nodes": [{"hosts": "cn[01-02]", "Gres": list(gres)}]})


WHOLE = {"Type": "a100", "Count": 2, "AutoDetect": "nvml"}
SLICES = {"profile": "1g.10gb", "Count": 14, "AutoDetect": "nvml"}


@pytest.mark.parametrize(
    ("gres", "changes", "says"),
    [
        # The other cards are cut into instances.
        ((WHOLE, SLICES), {"gpu_devices": "4"}, None),
        ((WHOLE, SLICES), {"gpu_devices": "1"}, "2 GPUs declared, 1 device files"),
        # Some of the node's cards, by name.
        (({"File": "/dev/nvidia[0-1]"},), {"gpu_devices": "8"}, None),
        (({"File": "/dev/nvidia[1-2]"},), {}, "Gres names /dev/nvidia2, no such device"),
        (({"File": "/dev/dri/renderD128", "AutoDetect": "off"},), {}, "/dev/dri/renderD128"),
        (
            ({"File": "/dev/dri/renderD128"},),
            {"devices": "/dev/dri/renderD128", "gpu_devices": "0"},
            None,
        ),
        # AMD's cards have no file that is counted here.
        (({"Count": 8, "AutoDetect": "rsmi"},), {"gpu_devices": "0"}, None),
    ],
)
def test_gpus_as_declared(
    gres: tuple[dict[str, Any], ...], changes: dict[str, str], says: str | None
) -> None:
    settings = with_gres(*gres)
    fails, _ = said(PORTS, settings, **changes)
    status, stopped = guarded(settings, **changes)
    if says is None:
        assert (fails, status) == ([], 0)
    else:
        (fail,) = fails
        assert says in fail
        assert (status, says in stopped) == (1, True)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"node": "localhost"}, "hostnamectl hostname cn01"),
        ({"packages": "none"}, "no apt-get"),
        ({"init": "other"}, "systemd does not run"),
        ({"free_var": "100"}, "100 MiB free on /var, 2048 needed"),
        ({"cgroup": "v1"}, "cgroups are v1, not v2"),
        ({"cgroup_controllers": "cpuset cpu"}, "no memory controller"),
        ({"gpu_devices": "7"}, "8 GPUs declared, 7 device files and 8 cards on the bus"),
        ({"clock": "1400"}, "its clock is 400 s off"),
        ({"clock": "500"}, "its clock is 498 s off"),
    ],
)
def test_what_would_fail(changes: dict[str, str], says: str) -> None:
    fails, _ = said(**changes)
    (fail,) = fails
    assert says in fail
    # munge's own check on the node is what stops for a clock.
    if "clock" not in changes:
        status, stopped = guarded(**changes)
        assert status == 1
        assert says in stopped


@pytest.mark.parametrize(
    ("ports", "changes", "says"),
    [
        ("ib mlx5_0/1 ACTIVE 400 InfiniBand\n", {}, "1 InfiniBand ports are active, not 2"),
        (PORTS.replace("mlx5_3/1 ACTIVE 400", "mlx5_3/1 ACTIVE 100"), {}, "slower than 400 Gb/s"),
        (PORTS.replace("mlx5_3/1 ACTIVE 400 InfiniBand", "mlx5_3/1 ACTIVE"), {}, "1 InfiniBand po"),
        # A driver that tells no rate leaves the next word in its place.
        (PORTS.replace("mlx5_3/1 ACTIVE 400", "mlx5_3/1 ACTIVE"), {}, "can be read of: mlx5_3/1"),
        (PORTS, {"clock": "1090"}, "its clock is 90 s off"),
        (PORTS, {"synchronized": "no"}, "not synchronised"),
        (PORTS, {"resolves": ""}, "does not resolve"),
        (PORTS, {"dcgm": "none"}, "no DCGM"),
    ],
)
def test_what_deserves_a_look_stops_nothing(ports: str, changes: dict[str, str], says: str) -> None:
    fails, warns = said(ports, **changes)
    assert not fails
    assert says in " ".join(warns)


def test_the_report_runs_here_and_says_everything() -> None:
    done = subprocess.run(
        ["sh"], input=precheck("cn01", SETTINGS), capture_output=True, text=True, check=True
    )
    keys = {line.split(" ", 1)[0] for line in done.stdout.splitlines()}
    assert keys >= set(FIT) - {"cgroup_controllers"}


@pytest.mark.parametrize(
    ("clock", "fails", "warns"),
    [
        (1060, False, False),
        (1061, False, True),
        (1299, False, True),
        (1300, True, False),
        # Of a clock that is behind: it is read in whole seconds.
        (939, False, False),
        (938, False, True),
        (700, False, True),
        (699, True, False),
    ],
)
def test_how_far_a_clock_may_be_off(clock: int, fails: bool, warns: bool) -> None:
    """precheck.clockSkew is 60; munge(7): a credential lives 300 s."""
    text = "".join(f"{key} {value}\n" for key, value in {**FIT, "clock": str(clock)}.items())
    report = judge("cn01", text + PORTS, SETTINGS, 1000.0, 1000.0)
    assert (bool(report.fails), bool(report.warns)) == (fails, warns)


def test_a_clock_that_is_right_is_shown_as_such() -> None:
    text = "".join(f"{key} {value}\n" for key, value in FIT.items())
    assert judge("cn01", text, SETTINGS, 1000.0, 1000.0).values["skew"] == "0"


def test_a_node_without_gpus_needs_no_dcgm() -> None:
    plain = parse({**lab(), "nodes": [{"hosts": "cn[01-02]", "Gres": []}]})
    assert said("", plain, gpu_devices="0", gpu_bus="0", dcgm="none", driver="none") == ([], [])


def told(**users: str) -> str:
    """A fit host's report with the numbers of users."""
    lines = {**FIT, **{f"user {name}": uid for name, uid in users.items()}}
    return "".join(f"{key} {value}\n" for key, value in lines.items()) + PORTS


def compared(settings: Settings, **texts: str) -> dict[str, HostReport]:
    reports = {name: judge(name, text, settings, 1000.0, 1000.0) for name, text in texts.items()}
    disagreements(reports, settings)
    return reports


def with_people(**changes: Any) -> Settings:
    accounting = {"accounts": {"a": {}}, "users": {"dora": {"Accounts": ["a"]}}}
    return parse({**lab(), "slurm": {}, "accounting": accounting, **changes})


def test_a_user_has_one_number_everywhere() -> None:
    """Jobs run by the number that their user has where they were submitted."""
    same = told(slurm="64030", munge="105", dora="1000")
    reports = compared(with_people(), ctl=same, cn01=same)
    assert [report.fails + report.warns for report in reports.values()] == [[], []]
    reports = compared(with_people(), ctl=same, cn01=told(slurm="64031", munge="106", dora="1001"))
    assert (reports["ctl"].fails, reports["ctl"].warns) == ([], [])
    assert reports["cn01"].warns == ["user munge has the number 106, and 105 on ctl"]
    assert reports["cn01"].fails == [
        "user dora has the number 1001, and 1000 on ctl: their jobs run as somebody else; "
        "give it one number"
    ]


def test_a_user_that_a_host_does_not_have_yet_is_no_disagreement() -> None:
    reports = compared(with_people(), ctl=told(slurm="64030", dora="1000"), cn01=told())
    assert [report.fails + report.warns for report in reports.values()] == [[], []]


def test_a_declared_user_needs_a_login_on_the_controller() -> None:
    reports = compared(with_people(), ctl=told(), cn01=told(dora="1000"))
    assert reports["ctl"].warns == ["no login of declared users: dora; Slurm refuses their jobs"]
    assert reports["cn01"].warns == []


def test_a_number_of_the_settings_is_compared_on_the_node_itself() -> None:
    """That of slurm always is one (settings.identities)."""
    texts = {"ctl": told(munge="105", dora="1000"), "cn01": told(munge="106", dora="1000")}
    assert len(compared(with_people(), **texts)["cn01"].warns) == 1
    read = with_people(identities={"munge": {"uid": 105}})
    assert compared(read, **texts)["cn01"].warns == []


def test_nothing_is_compared_with_a_controller_that_did_not_answer() -> None:
    reports = {
        "ctl": HostReport(fails=["connection: refused; see that it is up"]),
        "cn01": judge("cn01", told(slurm="1"), with_people(), 1000.0, 1000.0),
    }
    disagreements(reports, with_people())
    assert reports["ctl"].warns == []
    assert reports["cn01"].fails == []


def test_a_host_that_does_not_answer_fails_and_a_lost_one_is_not_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hosts = {
        "ctl": Host("ctl", "10.73.0.10", ""), "cn01": Host("cn01", "10.73.0.21", ""),
        "cn02": Host("cn02", "10.73.0.22", "", lost=True),
    }  # fmt: skip

    async def run(asked: list[Host], script: Any, **_: Any) -> dict[str, Any]:
        assert [host.name for host in asked] == ["ctl", "cn01"]
        assert "cn01" in script(hosts["cn01"])
        refused = ContactError(hosts["cn01"], "connect", "refused", "see that it is up")
        return {"ctl": Reply(told(), "", 0), "cn01": refused}

    monkeypatch.setattr(operations.check, "run_on_hosts", run)
    found = operations.check.check(SETTINGS, hosts)
    assert found["cn01"].fails == ["connect: refused; see that it is up"]
    assert found["ctl"].values["kernel"] == "5.15"
    assert set(found) == {"ctl", "cn01"}


def test_people_whose_numbers_are_taken_fail_a_host() -> None:
    """daemon is a group of every Debian, and its number is 1."""
    people = {"users": {"root-of-all": {"uid": 7001}}, "groups": {"daemon": {"gid": 7002}}}
    settings = parse({**lab(), "directory": {"local": people}})
    script = operations.check._script("cn01", settings, [])
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    (line,) = (it for it in done.stdout.splitlines() if "7002 in the settings" in it)
    assert line.startswith("fails group daemon has the number ")
    assert "7001" not in done.stdout


def test_a_host_in_a_few_lines() -> None:
    values = {
        **FIT, "gpu_models": "8 × NVIDIA H100", "ofed": "24.10", "skew": "3", "dcgm": "4.2",
    }  # fmt: skip
    assert facts(HostReport(values, infiniband=["mlx5_0/1 ACTIVE 400", "mlx5_3/1 DOWN 10"])) == [
        "Ubuntu 22.04.5 LTS, 5.15",
        "8 × NVIDIA H100, driver 570.1, DCGM 4.2",
        "MOFED 24.10, mlx5_0/1 ACTIVE 400, mlx5_3/1 DOWN 10",
        "clock 3 s off, cgroup v2",
        "free / 90000, /var 90000 MiB",
        "resolves to 10.73.0.21",
    ]
    bare = facts(HostReport({"node": "cn01", "gpu_devices": "2"}))
    assert bare == [
        "?, ?", "2 GPUs, driver ?, DCGM ?", "MOFED ?, no InfiniBand", "clock ? s off, cgroup ?",
        "free / ?, /var ? MiB", "resolves to nothing",
    ]  # fmt: skip
    assert facts(HostReport({"node": "cn01"}))[1] == "? GPUs, driver ?, DCGM ?"
    assert facts(HostReport()) == []


def test_hosts_come_by_name_with_their_verdict() -> None:
    reports = {
        "cn02": HostReport({"os": "x"}, fails=["broken", "and more"], warns=["odd"]),
        "cn01": HostReport({"os": "x"}),
    }
    cells = [list(column.cells) for column in table(reports).columns]
    assert cells[0] == ["cn01", "cn02"]
    assert cells[2] == ["fit", "FAILS: broken\nFAILS: and more\nnote: odd"]


def test_as_json_a_report_has_all_of_it() -> None:
    report = HostReport({"os": "x"}, ["mlx5_0/1 ACTIVE 400"], {"slurm": 1}, ["f"], ["w"])
    assert report.as_dict() == {
        "os": "x", "infiniband": ["mlx5_0/1 ACTIVE 400"], "users": {"slurm": 1}, "fails": ["f"],
        "warns": ["w"],
    }  # fmt: skip
