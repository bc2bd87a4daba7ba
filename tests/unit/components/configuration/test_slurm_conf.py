"""slurm.conf as rendered, read back by slurmutils."""

from __future__ import annotations

import re
from typing import Any

import pytest
from slurmutils import slurmconfig

from components.configuration.slurm_conf import RESTART_SLURMCTLD, restart_keys, slurm_conf
from settings import parse
from settings.model import Hardware
from tests.unit.settings.test_settings import lab

DGX = Hardware(CPUs=224, SocketsPerBoard=2, CoresPerSocket=56, ThreadsPerCore=2, RealMemory=2063937)


def rendered(**changes: Any) -> str:
    settings = parse({**lab(), **changes})
    return slurm_conf(settings, dict.fromkeys(settings.compute, DGX))


def read_back(text: str) -> dict[str, Any]:
    """As slurmutils 1.3 reads it, which takes enumerated values in lower case only and
    booleans as Python's True and False; slurm.conf(5) spells both in capitals."""
    text = re.sub(r"=\S+", lambda it: it[0].lower(), text)
    text = re.sub(r"=(yes|no)\b", lambda it: f"={it[1] == 'yes'}", text)
    found: dict[str, Any] = slurmconfig.loads(text).dict()
    return {name.lower(): value for name, value in found.items()}


def test_slurmutils_reads_what_was_meant() -> None:
    conf = read_back(rendered())
    assert conf["clustername"] == "lab"
    assert conf["slurmctldhost"] == ["ctl(10.73.0.10)"]
    assert conf["messagetimeout"] == 30
    node = conf["nodes"]["cn02"]
    assert node["nodeaddr"] == "10.73.0.22"
    assert (node["cpus"], node["realmemory"]) == (224, 2063937)
    assert conf["partitions"]["main"]["maxtime"] == "1-00:00:00"


def test_configless_is_always_on() -> None:
    slurm: dict[str, Any] = {"SlurmctldParameters": ["idle_on_node_suspend"]}
    assert "SlurmctldParameters=idle_on_node_suspend,enable_configless" in rendered(slurm=slurm)
    slurm = {"SlurmctldParameters": "enable_configless"}
    assert "SlurmctldParameters=enable_configless\n" in rendered(slurm=slurm)


def test_sections_are_titled_and_sorted() -> None:
    lines = rendered(slurm={"MessageTimeout": 5, "KillWait": 3, "extra": {"Zz": 1, "Aa": True}})
    titles = [line for line in lines.splitlines() if line.startswith("# ")][2:]
    assert titles[:-2] == sorted(titles[:-2])
    assert titles[-2:] == ["# Compute nodes", "# Partitions"]
    timers = lines.split("# Timers\n")[1].split("\n\n")[0]
    assert timers == "KillWait=3\nMessageTimeout=5"
    assert "as the settings give them\nAa=YES\nZz=1\n" in lines


def test_one_value_is_one_line() -> None:
    before = rendered(slurm={"MessageTimeout": 30}).splitlines()
    after = rendered(slurm={"MessageTimeout": 60}).splitlines()
    assert [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]] == [
        ("MessageTimeout=30", "MessageTimeout=60")
    ]


def test_one_more_node_is_one_more_line() -> None:
    more = {
        "hosts": {"ctl": "10.73.0.10", "cn[01-03]": "10.73.0.[21-23]"},
        "nodes": [{**lab()["nodes"][0], "hosts": "cn[01-03]"}],
    }
    added = set(rendered(**more).splitlines()) - set(rendered().splitlines())
    assert [line.split()[:2] for line in added] == [["NodeName=cn03", "NodeAddr=10.73.0.23"]]


@pytest.mark.parametrize(
    ("slurm", "changes"),
    [
        ({"MessageTimeout": 60}, False),
        ({"extra": {"JobRequeue": 0}}, False),
        ({"SlurmctldPort": 7000}, True),
        ({"SlurmdPort": 7001}, True),
        ({"StateSaveLocation": "/srv/slurmctld"}, True),
        ({"AuthInfo": "ttl=60"}, True),
    ],
)
def test_what_restarts_slurmctld(slurm: dict[str, Any], changes: bool) -> None:
    before = restart_keys(parse({**lab(), "slurm": {}}), RESTART_SLURMCTLD)
    after = restart_keys(parse({**lab(), "slurm": slurm}), RESTART_SLURMCTLD)
    assert (before != after) is changes
