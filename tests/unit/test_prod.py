"""Production's settings: every file that they lead to, read by what reads it."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from slurmutils import cgroupconfig

from components.compute_node import compute_bundle
from components.health import nhc_conf
from components.login import login_bundle
from components.node_conf import served_files, task_prolog
from components.slurm_conf import slurm_conf
from components.slurm_controller import controller_bundle
from components.system import system_bundle
from settings import Settings, parse
from settings.hostlist import expand
from settings.model import Hardware
from tests.unit.components.test_slurm_conf import read_back

STACK = Path(__file__).parents[2] / "Pulumi.prod.yaml"
WORKERS = expand("cn[01-64]")


@cache
def prod() -> Settings:
    config = yaml.safe_load(STACK.read_text())["config"]
    return parse({key.removeprefix("slurmstack:"): value for key, value in config.items()})


def hardware() -> dict[str, Hardware]:
    """As the program takes it: all declared, so that no host is asked."""
    found = {name: one.hardware for name, one in prod().compute.items()}
    assert None not in found.values()
    return {name: one for name, one in found.items() if one is not None}


@cache
def text() -> str:
    return slurm_conf(prod(), hardware())


@cache
def conf() -> dict[str, Any]:
    """slurmutils 1.3 takes TopologyPlugin for a list, which it is not, and half a second for each
    node: of these, which differ by name and address alone, it reads the first and the last."""
    left_out = re.compile(r"TopologyPlugin=|NodeName=cn(?!01|64)")
    lines = [line for line in text().splitlines() if not left_out.match(line)]
    return read_back("\n".join(lines) + "\n")


def pairs(content: str) -> list[dict[str, str]]:
    """Lines of Key=Value, as Slurm's files have them."""
    lines = [line for line in content.splitlines() if line and not line.startswith("#")]
    return [dict(word.split("=", 1) for word in line.split()) for line in lines]


def test_the_cluster_of_the_plan() -> None:
    settings = prod()
    assert tuple(settings.compute) == WORKERS
    assert settings.roles.controller == "sm02"
    assert settings.login == ("sm03",)


def test_slurm_conf() -> None:
    found = conf()
    assert found["slurmctldhost"] == ["sm02(10.10.0.2)"]
    assert found["schedulertype"] == "sched/backfill"
    assert found["selecttype"] == "select/cons_tres"
    assert found["grestypes"] == ["gpu"]
    assert found["mpidefault"] == "pmix"
    assert (found["messagetimeout"], found["resumetimeout"]) == (60, 300)
    assert "\nTopologyPlugin=topology/tree\n" in text()
    nodes = re.findall(r"^NodeName=(\S+) NodeAddr=(\S+) (.*)", text(), re.MULTILINE)
    assert [(name, address) for name, address, _ in nodes] == [
        (f"cn{number:02}", f"10.10.1.{number}") for number in range(1, 65)
    ]
    assert len({rest for _, _, rest in nodes}) == 1
    node = found["nodes"]["cn64"]
    assert (node["cpus"], node["socketsperboard"], node["corespersocket"]) == (224, 2, 56)
    assert node["realmemory"] < hardware()["cn64"].RealMemory
    assert "gpu:h100:8" in str(node["gres"])
    # slurm.conf(5): MaxJobCount should be much larger than MaxArraySize, which ends at 4,000,001.
    assert 10 * (found["maxarraysize"] - 1) <= found["maxjobcount"]
    assert found["maxarraysize"] <= 4_000_001


def test_partitions() -> None:
    found = conf()["partitions"]
    assert [name for name, one in found.items() if one["default"]] == ["main"]
    # An hour, not the 3,600 minutes that YAML makes of an unquoted 1:00:00.
    assert found["debug"]["maxtime"] == "1:00:00"
    for one in found.values():
        # A job that takes all GPUs must find the memory that comes with them.
        assert one["defmempergpu"] * 8 <= conf()["nodes"]["cn01"]["realmemory"]


def test_gres_conf_and_cgroup_conf() -> None:
    files = served_files(prod(), hardware())
    assert pairs(files["/etc/slurm/gres.conf"]) == [{"NodeName": "cn[01-64]", "AutoDetect": "nvml"}]
    read = cgroupconfig.loads(files["/etc/slurm/cgroup.conf"]).dict()
    for name, value in read.items():
        if name.lower().startswith("constrain"):
            assert value is True, name


def test_every_node_hangs_on_one_switch_below_one_top() -> None:
    switches = pairs(served_files(prod(), hardware())["/etc/slurm/topology.conf"])
    nodes = [node for one in switches if "Nodes" in one for node in expand(one["Nodes"])]
    assert sorted(nodes) == sorted(WORKERS)
    below = {name for one in switches if "Switches" in one for name in expand(one["Switches"])}
    assert [one["SwitchName"] for one in switches if one["SwitchName"] not in below] == ["spine"]


def test_a_private_tmp_is_none_of_the_shared_places() -> None:
    (path, *others) = pairs(served_files(prod(), hardware())["/etc/slurm/job_container.conf"])
    assert path == {"BasePath": "/raid/slurm"}
    assert {"AutoBasePath": "yes"} in others
    assert "contain" in str(conf()["prologflags"]).lower()


def test_the_fabrics_environment() -> None:
    script = task_prolog(prod())
    assert script is not None
    done = subprocess.run(["sh"], input=script, capture_output=True, text=True, check=True)
    said = dict(line.removeprefix("export ").split("=", 1) for line in done.stdout.splitlines())
    # UCX needs `self` for messages of a process to itself; eight compute HCAs; no RoCE settings.
    assert "self" in said["UCX_TLS"].split(",")
    adapters = [entry.split(":")[0] for entry in said["UCX_NET_DEVICES"].split(",")]
    assert len(adapters) == len(set(adapters)) == 8
    assert said["NCCL_IB_HCA"] == "=" + ",".join(adapters)
    assert not [name for name in said if "GID_INDEX" in name]


def test_nhc_conf_has_a_check_behind_each_target() -> None:
    content = nhc_conf("cn01", prod(), hardware()["cn01"])
    rules = [line for line in content.splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"\S+ \|\| (check_\w+|export \w+=).*", rule) for rule in rules), rules
    assert "* || check_hw_cpuinfo 2 112 224" in rules
    assert "* || check_hw_ib 400" in rules


def test_every_bundle_is_one_that_the_applier_takes() -> None:
    settings, has = prod(), hardware()
    bundles = [
        controller_bundle("sm02", settings, has),
        login_bundle("sm03", settings),
        *(system_bundle(name, settings) for name in settings.members),
        *(compute_bundle(name, settings, has) for name in WORKERS),
    ]
    for bundle in bundles:
        assert bundle.render().endswith("end\n")


def test_scripts_are_sh() -> None:
    for script in (task_prolog(prod()), *guards()):
        assert script is not None
        subprocess.run(["sh", "-n"], input=script, text=True, check=True)


def guards() -> list[str]:
    from components.precheck import guard

    return [guard("cn01", prod()).script, guard("sm03", prod()).script]
