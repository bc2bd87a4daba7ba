"""Hardware: the script that asks a node, its answer, and what is remembered of it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from discovery import facts
from remote.contact import ContactError, Reply
from remote.host import Host
from settings import SettingsError, parse
from templates.rendering import render
from tests.unit.settings.test_settings import lab

SLURMD = """\
NodeName=cn01 CPUs=224 Boards=1 SocketsPerBoard=2 CoresPerSocket=56 ThreadsPerCore=2 \
RealMemory=2063937
UpTime=3-01:02:03
"""
#: Two sockets, two cores each, two threads a core, as lscpu numbers them.
LSCPU = "# CPU,Core,Socket\n" + "".join(f"{cpu},{cpu % 4},{cpu % 4 // 2}\n" for cpu in range(8))


def ask(tmp_path: Path, **tools: str) -> str:
    """The script's answer on a machine where these tools print this."""
    for name, says in tools.items():
        tool = tmp_path / name
        tool.write_text(f"#!/bin/sh\ncat <<'END'\n{says}END\n")
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    done = subprocess.run(
        ["sh", "-s"],
        input=render("discovery/facts.sh"),
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_slurmd_says_it(tmp_path: Path) -> None:
    found = facts.parse(ask(tmp_path, slurmd=SLURMD))
    assert (found.CPUs, found.SocketsPerBoard, found.CoresPerSocket) == (224, 2, 56)
    assert (found.ThreadsPerCore, found.RealMemory) == (2, 2063937)


def test_before_slurmd_is_there_the_kernel_says_it(tmp_path: Path) -> None:
    found = facts.parse(ask(tmp_path, lscpu=LSCPU))
    assert (found.CPUs, found.SocketsPerBoard, found.CoresPerSocket) == (8, 2, 2)
    assert found.ThreadsPerCore == 2
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
    assert found.RealMemory == total


def test_gpus_in_the_order_of_their_numbers() -> None:
    devices = "".join(f"gpu=/dev/nvidia{number}\n" for number in (0, 1, 10, 2))
    found = facts.parse(SLURMD.replace(" ", "\n") + devices)
    assert found.gpus.files == ("/dev/nvidia0", "/dev/nvidia1", "/dev/nvidia2", "/dev/nvidia10")


@pytest.mark.parametrize("missing", ["CPUs", "RealMemory", "CoresPerSocket"])
def test_nothing_is_guessed(missing: str) -> None:
    lines = [line for line in SLURMD.split() if not line.startswith(missing)]
    with pytest.raises(ValidationError, match=missing):
        facts.parse("\n".join(lines))


class Nodes:
    """Stands for the SSH connections; answers or fails by node name, and counts who was asked."""

    def __init__(self, **failing: str) -> None:
        self.asked: list[str] = []
        self.failing = failing

    async def run(
        self, hosts: Sequence[Host], script: str, *, seconds: float
    ) -> dict[str, Reply | ContactError]:
        self.asked += [host.name for host in hosts]
        return {
            host.name: ContactError(host, "connect", self.failing[host.name], "bring it up")
            if host.name in self.failing
            else Reply(SLURMD.replace(" ", "\n"), "", 0)
            for host in hosts
        }


def hardware(asked: Nodes, memory: Path, patch: pytest.MonkeyPatch, **changes: Any) -> Any:
    patch.setattr(facts, "run_on_hosts", asked.run)
    settings = parse({**lab(), **changes})
    hosts = {name: Host(name, one.address, "") for name, one in settings.hosts.items()}
    return facts.hardware(settings, hosts, memory, "lab")


def test_a_node_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes, memory = Nodes(), tmp_path / "lab" / "facts.json"
    first = hardware(nodes, memory, monkeypatch)
    again = hardware(nodes, memory, monkeypatch)
    assert nodes.asked == ["cn01", "cn02"]
    assert first == again
    assert json.loads(memory.read_text())["cn02"]["CPUs"] == 224


def test_declared_hardware_is_not_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = dict(pair.split("=") for pair in SLURMD.splitlines()[0].split()[1:])
    nodes = Nodes()
    found = hardware(
        nodes,
        tmp_path / "facts.json",
        monkeypatch,
        nodes=[{"hosts": "cn[01-02]", "hardware": declared}],
    )
    assert nodes.asked == []
    assert found["cn01"].RealMemory == 2063937


def test_a_node_that_does_not_answer_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = tmp_path / "facts.json"
    with pytest.raises(facts.FactsError, match="cn02: connect: no route"):
        hardware(Nodes(cn02="no route"), memory, monkeypatch)
    # What is remembered does not depend on the node being up.
    hardware(Nodes(), memory, monkeypatch)
    assert list(hardware(Nodes(cn02="no route"), memory, monkeypatch)) == ["cn01", "cn02"]


def test_more_memory_than_the_node_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"nodes\[0\].RealMemory: expected at most the 2063937"):
        hardware(
            Nodes(),
            tmp_path / "facts.json",
            monkeypatch,
            nodes=[{"hosts": "cn[01-02]", "RealMemory": 2063938}],
        )


def test_a_memory_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "facts.json").write_text("{")
    with pytest.raises(facts.FactsError, match=r"facts.json cannot be read"):
        hardware(Nodes(), tmp_path / "facts.json", monkeypatch)
