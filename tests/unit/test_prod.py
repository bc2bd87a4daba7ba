"""Production's settings: every file that they lead to, read by what reads it."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

from settings.artifact import OPEN
from settings.containers import ENROOT_DEFAULTS
from settings.hostlist import expand
from tests.prod import (
    ON_NODE,
    Entry,
    binary_files,
    entries,
    files,
    hardware,
    on_node,
    prod,
    scripts,
    text,
)
from tests.unit.components.configuration.test_slurm_conf import joined, read_back
from tests.unit.components.packages.test_packages import read_enroot
from tests.unit.slurm_readers import cgroupconfig, slurmdbdconfig

WORKERS = expand("cn[01-64]")
SHELLCHECK = Path(sys.executable).with_name("shellcheck")


def conf() -> dict[str, Any]:
    return read_slurm_conf(text("/etc/slurm/slurm.conf"))


@cache
def read_slurm_conf(content: str) -> dict[str, Any]:
    """slurmutils 1.3 takes TopologyPlugin for a list, which it is not."""
    kept = [line for line in joined(content).splitlines() if not line.startswith("TopologyPlugin=")]
    return read_back("\n".join(kept) + "\n")


def pairs(content: str) -> list[dict[str, str]]:
    """Lines of Key=Value, as Slurm's files have them."""
    return [dict(word.split("=", 1) for word in line.split()) for line in lines(content)]


def shell(content: str) -> None:
    assert content.startswith("#!/bin/sh\n")
    script(content)


def script(content: str) -> None:
    # A loop may have one turn here; of each template, its own test asks for more.
    command = [str(SHELLCHECK), "--shell=sh", "--severity=warning", "--exclude=SC2043", "-"]
    done = subprocess.run(command, input=content, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def defaults(content: str) -> None:
    """A unit's EnvironmentFile: assignments, quoted as for a shell (systemd.exec(5))."""
    for word in shlex.split(content, comments=True):
        assert re.fullmatch(r"[A-Z_]+=.*", word), word


def limits(content: str) -> None:
    """limits.conf(5)."""
    for line in lines(content):
        domain, kind, item, value = line.split()
        assert (domain, kind) == ("*", "-")
        assert item in {"memlock", "nofile", "stack"}
        assert re.fullmatch(r"unlimited|\d+", value)


def plugstack(content: str) -> None:
    """spank(7)."""
    for line in lines(content):
        assert re.fullmatch(r"include /\S+|(required|optional) /\S+\.so( (\w+=)?\S+)*", line), line


def kernel_modules(content: str) -> None:
    """modules-load.d(5)."""
    for line in lines(content):
        assert re.fullmatch(r"[a-z0-9_-]+", line), line


def grub(content: str) -> None:
    """What update-grub reads, as shell, with what files before it have set."""
    script = f'GRUB_CMDLINE_LINUX=quiet\n{content}\nprintf %s "$GRUB_CMDLINE_LINUX"\n'
    done = subprocess.run(["sh", "-eu"], input=script, capture_output=True, text=True, check=True)
    assert done.stdout == "quiet iommu=pt pci=realloc=off"


def nhc_rules(content: str) -> list[str]:
    """nhc.conf: TARGET || CHECK, the check a line of bash."""
    rules = lines(content)
    for rule in rules:
        assert re.fullmatch(r"\S+ \|\| (check_\w+|export \w+=).*", rule), rule
        check = rule.partition("||")[2]
        subprocess.run(["bash", "-n"], input=check, text=True, check=True)
    return rules


def gres(content: str) -> None:
    """gres.conf(5). slurmutils knows no line that begins with NodeName."""
    for pair in pairs(content):
        assert set(pair) <= {
            "AutoDetect", "Cores", "Count", "File", "Flags", "Links", "MultipleFiles", "Name",
            "NodeName", "Type",
        }  # fmt: skip
        assert set(expand(pair["NodeName"])) <= set(WORKERS)


def job_container(content: str) -> None:
    """job_container.conf(5)."""
    for pair in pairs(content):
        assert set(pair) <= {"AutoBasePath", "BasePath", "Dirs", "EntireStepInNS", "Shared"}


def topology(content: str) -> None:
    """topology.conf(5), of a tree."""
    for switch in pairs(content):
        assert set(switch) - {"LinkSpeed"} in ({"SwitchName", "Nodes"}, {"SwitchName", "Switches"})
        expand(switch.get("Nodes") or switch["Switches"])
        # slurmctld ends with a fatal error where this is no number.
        assert int(switch.get("LinkSpeed", 1)) > 0


def spank_source(content: str) -> None:
    """spank(7). tests/lab/test_containers.py compiles it against the deployed Slurm."""
    assert re.search(r"^SPANK_PLUGIN\(\w+, 1\);$", content, re.M)
    assert content.count("{") == content.count("}") > 0


def job_environment(content: str) -> dict[str, str]:
    """What the plugin `environment` reads: NAME=value, without quotes."""
    found = dict(line.split("=", 1) for line in lines(content))
    assert all(re.fullmatch(r"[A-Za-z_]\w*", name) for name in found)
    return found


def objects(content: str) -> None:
    """What accounting's own `reconcile` reads."""
    for line in lines(content):
        assert re.fullmatch(r"(qos|account|user|association|cluster) \S.*|  \w+=.*", line), line


#: Path → what reads the file as the program does that it is for; see also ON_NODE.
READERS: dict[str, Callable[[str], object]] = {
    r"/etc/default/\w+": defaults,
    r"/etc/default/grub\.d/.*": grub,
    r"/etc/enroot/enroot\.conf": read_enroot,
    r"/etc/modules-load\.d/.*": kernel_modules,
    r"/etc/nhc/nhc\.conf": nhc_rules,
    r"/etc/security/limits\.d/.*": limits,
    r"/etc/slurm/cgroup\.conf": cgroupconfig.loads,
    r"/etc/slurm/gres\.conf": gres,
    r"/etc/slurm/job-environment": job_environment,
    r"/etc/slurm/job_container\.conf": job_container,
    r"/etc/slurm/jwt/trusted": lambda content: [json.loads(line) for line in lines(content)],
    r"/etc/slurm/plugstack\.conf(\.d/.*)?": plugstack,
    # Read by nobody: where it is another, the node is booted.
    r"/etc/slurmstack/kernel-parameters": lambda content: [it.split() for it in lines(content)],
    r"/etc/slurm/slurm\.conf|.*/accounting/slurm\.conf": read_slurm_conf,
    r"/etc/slurm/slurmdbd\.conf": slurmdbdconfig.loads,
    r"/etc/slurm/topology\.conf": topology,
    r"/usr/local/lib/slurmstack-packages/\w+\.c": spank_source,
    r"/usr/local/lib/slurmstack/accounting/objects": objects,
    # The oldest Python of the distributions that the hosts may have.
    r"/usr/local/lib/slurmstack/on_node/\w+\.py": partial(ast.parse, feature_version=(3, 9)),
    r"/usr/local/lib/slurmstack/accounting/reconcile": lambda content: compile(content, "", "exec"),
    r"/usr/local/lib/slurmstack/accounting/reconcile\.json": json.loads,
    r"/etc/slurmstack/(stop-slurmd|scripts/\w+)": shell,
    r"/usr/local/lib/slurmstack(-packages)?/(accounting/)?[a-z-]+": shell,
}


def lines(content: str) -> list[str]:
    """Without comments and empty lines."""
    return [line for line in content.splitlines() if line and not line.startswith("#")]


@pytest.mark.slow
def test_every_file_is_read_by_what_reads_it() -> None:
    """One without a reader is a mistake: it is given one here or in ON_NODE."""
    read = set()
    for file in alike(files()):
        found = next((it for name, it in READERS.items() if re.fullmatch(name, file.name)), None)
        assert found is not None or on_node(file.name), f"{file.name}: what reads it?"
        if found is not None:
            try:
                found(file.block)
            except Exception as error:
                raise AssertionError(f"{file.name} ({file.node}): {error}") from error
        read.add(file.name)
    for name in (*READERS, *ON_NODE):
        assert any(re.fullmatch(name, path) for path in read), f"{name} reads no file"
    assert {path: len(content) for path, content in binary_files().items()} == {
        "/etc/munge/munge.key": 1024,
        "/etc/munge/munge.key.staged": 1024,
    }


def alike(found: list[Entry]) -> list[Entry]:
    """One for each text that differs by more than the node's name: 64 nodes have the same."""
    return [*{(e.role, e.name, e.block.replace(e.node, "NODE")): e for e in found}.values()]


@pytest.mark.slow
def test_every_script_is_sh() -> None:
    found = scripts()
    assert {entry.kind for entry in found} == {"guard", "validate", "command", "check"}
    for entry in alike(found):
        try:
            script(entry.block)
        except AssertionError as error:
            raise AssertionError(f"{entry.role}: {entry.kind} {entry.name}: {error}") from error


def test_slurm_is_the_one_that_was_built_and_no_other() -> None:
    packages = {entry.words[1:] for entry in entries() if entry.kind == "package"}
    release = prod().packages.release
    assert release is not None
    assert release.startswith("25.05.1-1+slurmstack.")
    slurm = {words for words in packages if "slurm" in words[0] or words[0] == "sackd"}
    built = {words for words in slurm if words[0].startswith("slurm-smd")}
    assert {version for _, version in built} == {release}
    assert {name for name, _ in slurm - built} == {"slurmstack-pyxis"}
    assert {name.removeprefix("slurm-smd-") for name, _ in built} == {
        "slurm-smd", "client", "sackd", "slurmctld", "slurmd", "slurmdbd", "slurmrestd",
    }  # fmt: skip


def test_the_build_as_the_plan_wants_it() -> None:
    (build,) = (entry for entry in scripts() if entry.name == "build-slurm")
    assert "'http,hwloc,jwt,nvml,pmix'" in build.block
    assert "'25.05.1-1'" in build.block
    assert ("libnvidia-ml-dev",) in {entry.words[1:] for entry in entries()}


def test_containers_as_the_plan_wants_them() -> None:
    options = text("/etc/slurm/plugstack.conf.d/pyxis.conf").split()
    assert options[2:] == [
        "runtime_path=/run/pyxis",
        "container_scope=job",
        "execute_entrypoint=true",
        "sbatch_support=true",
    ]
    assert set(read_enroot(text("/etc/enroot/enroot.conf"))) == set(ENROOT_DEFAULTS)
    # Where jobs run, and where users submit them.
    having = {entry.role for entry in files() if entry.name.endswith("/pyxis.conf")}
    assert having == {"slurmctld", "slurmd", "login"}


def test_a_sum_that_nobody_knows_is_open_and_not_invented() -> None:
    containers = prod().enroot_pyxis
    assert containers is not None
    assert {file.sha256 for file in containers.enroot.packages} == {OPEN}
    assert containers.pyxis.archive.sha256 != OPEN
    fetched = [entry.block for entry in scripts() if entry.name.startswith("fetch-enroot")]
    assert len(fetched) == 2
    assert all(f"'{OPEN}'" in block for block in fetched)


def test_the_cluster_of_the_plan() -> None:
    settings = prod()
    assert tuple(settings.compute) == WORKERS
    assert settings.roles.controller == "sm02"
    assert settings.login == ("sm03",)


def test_slurm_conf() -> None:
    found, content = conf(), text("/etc/slurm/slurm.conf")
    assert found["slurmctldhost"] == ["sm02(10.10.0.2)"]
    assert found["schedulertype"] == "sched/backfill"
    assert found["selecttype"] == "select/cons_tres"
    assert found["grestypes"] == ["gpu"]
    assert found["mpidefault"] == "pmix"
    assert (found["messagetimeout"], found["resumetimeout"]) == (60, 300)
    assert "\nTopologyPlugin=topology/tree\n" in content
    nodes = re.findall(r"^NodeName=(\S+) NodeAddr=(\S+) (.*)", content, re.MULTILINE)
    assert [(name, address) for name, address, _ in nodes] == [
        (f"cn{number:02}", f"10.10.1.{number}") for number in range(1, 65)
    ]
    assert len({rest for _, _, rest in nodes}) == 1
    node = found["nodes"]["cn64"]
    assert (node["cpus"], node["socketsperboard"], node["corespersocket"]) == (224, 2, 56)
    assert node["realmemory"] < hardware()["cn64"].RealMemory
    assert "gpu:h100:8" in str(node["gres"])
    # GPUs are accounted: without it, limits of gres/gpu do not hold.
    assert conf()["accountingstoragetres"] == ["gres/gpu"]
    # slurm.conf(5): MaxJobCount should be much larger than MaxArraySize, which ends at 4,000,001.
    assert 10 * (found["maxarraysize"] - 1) <= found["maxjobcount"]
    assert found["maxarraysize"] <= 4_000_001


def of_role(role: str, kind: str) -> dict[str, tuple[str, ...]]:
    """Name → further words, of what a role has on its nodes, which have the same."""
    found = [it for it in entries() if (it.role, it.kind) == (role, kind)]
    return {entry.name: entry.words[2:] for entry in found}


def test_drivers_of_a_dgx_h100() -> None:
    packages = {name: words[0] for name, words in of_role("nvidia", "package").items()}
    of_driver = {name: it for name, it in packages.items() if "570" in name}
    assert len(of_driver) == 10
    assert {it.partition("-")[0] for it in of_driver.values()} == {"570.211.01"}
    assert {"nvidia-dkms-570-server-open", "nvidia-fabricmanager-570"} <= {*of_driver}
    assert {"libnvidia-container-tools", "datacenter-gpu-manager-4-cuda12"} <= {*packages}
    assert list(of_role("nvidia", "unit")) == [
        "nvidia-persistenced.service", "nvidia-fabricmanager.service", "nvidia-dcgm.service",
    ]  # fmt: skip
    modules = lines(text("/etc/modules-load.d/slurmstack-nvidia.conf"))
    assert modules == ["nvidia", "nvidia-uvm", "nvidia-peermem"]
    (whole,) = {it.block for it in scripts() if it.name == "driver-is-whole"}
    assert "expected 8" in whole
    assert of_role("fabric", "package") == {}


def test_a_node_is_booted_for_its_words_and_a_driver_that_was_held() -> None:
    assert [it.split() for it in lines(text("/etc/slurmstack/kernel-parameters"))] == [
        ["any", "iommu=pt"], ["any", "pci=realloc=off"], ["module", "nvidia", "570.211.01"],
    ]  # fmt: skip
    assert {"slurmstack-acs.service", "slurmstack-cpu-governor.service"} == {
        *of_role("tuning", "unit")
    }
    assert "hugepages" not in text("/etc/default/grub.d/90-slurmstack.cfg")


def test_partitions() -> None:
    found = conf()["partitions"]
    assert [name for name, one in found.items() if one["default"]] == ["main"]
    # An hour, not the 3,600 minutes that YAML makes of an unquoted 1:00:00.
    assert found["debug"]["maxtime"] == "1:00:00"
    for one in found.values():
        # A job that takes all GPUs must find the memory that comes with them.
        assert one["defmempergpu"] * 8 <= conf()["nodes"]["cn01"]["realmemory"]


def test_gres_conf_and_cgroup_conf() -> None:
    assert pairs(text("/etc/slurm/gres.conf")) == [{"NodeName": "cn[01-64]", "AutoDetect": "nvml"}]
    read = cgroupconfig.loads(text("/etc/slurm/cgroup.conf")).dict()
    for name, value in read.items():
        if name.lower().startswith("constrain"):
            assert value is True, name


def test_every_node_hangs_on_one_switch_below_one_top() -> None:
    switches = pairs(text("/etc/slurm/topology.conf"))
    nodes = [node for one in switches if "Nodes" in one for node in expand(one["Nodes"])]
    assert sorted(nodes) == sorted(WORKERS)
    below = {name for one in switches if "Switches" in one for name in expand(one["Switches"])}
    assert [one["SwitchName"] for one in switches if one["SwitchName"] not in below] == ["spine"]


def test_a_private_tmp_is_none_of_the_shared_places() -> None:
    (path, *others) = pairs(text("/etc/slurm/job_container.conf"))
    assert path == {"BasePath": "/raid/slurm"}
    assert {"AutoBasePath": "yes"} in others
    assert "contain" in str(conf()["prologflags"]).lower()


def test_the_fabrics_environment() -> None:
    said = job_environment(text("/etc/slurm/job-environment"))
    # UCX needs `self` for messages of a process to itself; eight compute HCAs; no RoCE settings.
    assert "self" in said["UCX_TLS"].split(",")
    adapters = [entry.split(":")[0] for entry in said["UCX_NET_DEVICES"].split(",")]
    assert len(adapters) == len(set(adapters)) == 8
    assert said["NCCL_IB_HCA"] == "=" + ",".join(adapters)
    assert not [name for name in said if "GID_INDEX" in name]


def test_nhc_conf_has_a_check_behind_each_target() -> None:
    rules = nhc_rules(text("/etc/nhc/nhc.conf"))
    assert "* || check_hw_cpuinfo 2 112 224" in rules
    assert "* || check_hw_ib 400" in rules
