"""Nodes hear another SlurmdPort before slurmctld speaks to it; nobody is asked without a change."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from components.compute.slurmd_port import refused
from remote.contact import ContactError, Reply
from remote.host import Host
from templates.rendering import render

#: systemctl knows slurmd's process, find its socket, and systemd-run is told.
_TOOLS = {
    "systemctl": 'case $* in *MainPID*) echo "$PID" ;; esac',
    "find": "echo 'socket:[77]'",
    "systemd-run": 'echo "$*" >>"$FOLDER/run"; [ ! -e "$FOLDER/busy" ] || exit 1',
    "journalctl": "echo 'x.socket: Failed to create listening socket: Address already in use'",
}


def run(folder: Path, pid: str) -> tuple[int, str, str]:
    """Exit status, output, and what systemd-run was told."""
    for name, text in _TOOLS.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    # 1AA2 is 6818; the other one listens to something else.
    (folder / "tcp").write_text(
        "sl local st\n0: 0:0016 0:0 0A 0 0 0 0 0 12\n1: 0:1AA2 0:0 0A 0 0 0 0 0 77\n"
    )
    script = render("compute/slurmd-port.sh", unit="unit", port=6918)
    script = script.replace("/proc/net/tcp6", "").replace("/proc/net/tcp", f"{folder}/tcp")
    place = {"PATH": f"{folder}:/usr/bin:/bin", "FOLDER": str(folder), "PID": pid}
    done = subprocess.run(
        ["dash", "-s"], input=script, env=place, capture_output=True, text=True, timeout=60
    )
    told = folder / "run"
    return done.returncode, done.stdout, told.read_text() if told.exists() else ""


@pytest.mark.parametrize(("pid", "asked"), [("4711", True), ("0", False)])
def test_systemd_takes_the_port_for_a_slurmd_that_runs(
    tmp_path: Path, pid: str, asked: bool
) -> None:
    status, said, told = run(tmp_path, pid)
    assert (status, said) == (0, "")
    assert ("ListenStream=6918" in told and told.endswith(" 127.0.0.1:6818\n")) is asked


def test_who_has_the_port_is_told(tmp_path: Path) -> None:
    (tmp_path / "busy").touch()
    status, said, _ = run(tmp_path, "4711")
    assert status == 1
    assert said.startswith("port 6918 cannot be slurmd's: ")
    assert "already in use" in said


def test_a_node_out_of_reach_keeps_nobody() -> None:
    host = Host(name="cn03", address="10.0.0.3", host_key="")
    replies: dict[str, Reply | ContactError] = {
        "cn01": Reply("", "", 0),
        "cn02": Reply("port 1 cannot be slurmd's: x\n", "", 1),
        "cn03": ContactError(host, "connect", "no route", "power it on"),
    }
    assert refused(replies) == ["cn02: port 1 cannot be slurmd's: x"]
