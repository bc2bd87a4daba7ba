"""What slurmstack:acceptance puts on nodes, and when a node is measured before it takes jobs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from components.compute.compute_node import compute_bundle
from components.compute.node_accepted import accepted_bundle
from components.compute.service import server
from components.health.node_acceptance import acceptance_bundle, config
from remote.bundle import Bundle, Command, File, Package, Withdrawal
from settings import Settings, parse
from settings.problems import SettingsError
from tests.unit.components.test_cluster import HARDWARE, bare

SHELLCHECK = Path(sys.executable).with_name("shellcheck")


def settings(**acceptance: Any) -> Settings:
    nodes = [{"name": "a", "hosts": "cn01"}, {"name": "b", "hosts": "cn02"}]
    shares = {"scratch": {"server": "192.0.2.9", "path": "/scratch", "clients": "cn01"}}
    return parse({**bare(), "nodes": nodes, "storage": shares, "acceptance": acceptance})


def slurmd(found: Settings) -> Bundle:
    return compute_bundle("cn01", found, {"cn01": HARDWARE, "cn02": HARDWARE})


def test_a_node_is_measured_as_its_class_and_mounts_say() -> None:
    found = settings(least={"a": {"hpl": 9}}, storage=["/var/tmp"], hpl="hpcc")
    assert config("cn01", found) == {
        "stream": None, "hpl": "hpcc", "hplSize": 10000, "storage": ["/scratch", "/var/tmp"],
        "storageSize": 1024, "tolerance": 0.8, "least": {"hpl": 9},
    }  # fmt: skip
    other = config("cn02", found)
    assert (other["storage"], other["least"]) == (["/var/tmp"], {})


def test_a_node_has_the_program_and_the_packages() -> None:
    deb = {"url": "https://mirror.site/nccl-tests_2.13_amd64.deb", "sha256": "ab" * 32}
    found = acceptance_bundle("cn01", settings(packages=["hpcc"], packageFiles=[deb]))
    packages = [(it.name, it.version) for it in found.parts if isinstance(it, Package)]
    assert packages == [("python3", None), ("hpcc", None), ("nccl-tests", "2.13")]
    files = {it.path: str(it.content) for it in found.parts if isinstance(it, File)}
    assert json.loads(files["/etc/slurmstack/acceptance.json"])["tolerance"] == 0.8
    for name in ("__main__", "figures", "alone", "versions", "pairs", "reduced"):
        assert f"/usr/local/lib/slurmstack-acceptance/on_node/acceptance/{name}.py" in files


@pytest.mark.parametrize("gate", [[], ["new"], ["rollout"], ["new", "rollout"]])
def test_a_gate_measures_instead_of_a_job_of_one_second(gate: list[str]) -> None:
    parts = slurmd(settings(gate=gate)).parts
    (withdrawal,) = [it for it in parts if isinstance(it, Withdrawal)]
    assert ("on_node.acceptance gate" in withdrawal.script) == ("rollout" in gate)
    assert ("work='sleep 1'" in withdrawal.script) == ("rollout" not in gate)
    withheld = [it for it in parts if isinstance(it, Command) and it.name == "withheld"]
    assert bool(withheld) == ("new" in gate)


def test_a_new_node_is_given_to_jobs_by_what_measures_it() -> None:
    (command,) = accepted_bundle("cn01", settings(gate=["new"])).parts
    assert isinstance(command, Command)
    assert command.script.startswith("SLURMSTACK_SERVICE=back\n")
    assert "on_node.acceptance gate" in command.script
    assert server(settings()) in command.script


@pytest.mark.parametrize("gate", ["new", "rollout"])
def test_scripts_pass_shellcheck(gate: str, tmp_path: Path) -> None:
    found = settings(gate=[gate])
    parts = [*slurmd(found).parts, *accepted_bundle("cn01", found).parts]
    scripts = [
        it.script
        for it in parts
        if isinstance(it, Withdrawal)
        or (isinstance(it, Command) and it.name in ("withheld", "accepted"))
    ]
    assert len(scripts) >= 2
    for number, script in enumerate(scripts):
        file = tmp_path / f"{number}.sh"
        file.write_text(f"#!/bin/sh\n{script}")
        words = [str(SHELLCHECK), "--severity=warning", str(file)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "wrong",
    [{"tolerance": 1.5}, {"gate": ["always"]}, {"hpl": "a\nb"}, {"least": {"a": {"gpu": 1}}}],
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="slurmstack:acceptance"):
        settings(**wrong)
