"""What `slurmstack check` makes of a host's report; the report itself, run here."""

from __future__ import annotations

import subprocess

import pytest

from components.host.precheck import guard, report
from operations.check import judge, table
from settings import parse
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
    "gpu_bus": "8", "dcgm": "4.2", "ib_ports": "2",
}  # fmt: skip
PORTS = "ib mlx5_0/1 ACTIVE 400 InfiniBand\nib mlx5_3/1 ACTIVE 400 InfiniBand\n"


def said(ports: str = PORTS, **changes: str) -> tuple[list[str], list[str]]:
    lines = "".join(f"{key} {value}\n" for key, value in {**FIT, **changes}.items())
    found = judge("cn01", lines + ports, SETTINGS, 999.5, 1000.5)
    assert table({"cn01": found}).row_count == 1
    return found.fails, found.warns


def guarded(**changes: str) -> tuple[int, str]:
    """Exit code of the guard, which stops `up`, where the report says this; and what it says."""
    script = guard("cn01", SETTINGS).script
    assert script.count("found=$(report)\n") == 1
    lines = "".join(f"{key} {value}\n" for key, value in {**FIT, **changes}.items())
    done = subprocess.run(
        ["sh", "-c", script.replace("found=$(report)\n", "found=$(cat)\n")],
        input=lines + PORTS,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def test_a_fit_node() -> None:
    assert said() == ([], [])
    assert guarded() == (0, "")


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
    done = subprocess.run(["sh"], input=report(), capture_output=True, text=True, check=True)
    keys = {line.split(" ", 1)[0] for line in done.stdout.splitlines()}
    assert keys >= set(FIT) - {"cgroup_controllers"}
