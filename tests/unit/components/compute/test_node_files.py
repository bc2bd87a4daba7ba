"""What follows from the nodes' settings, rendered and read back by what reads it."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from components.compute.compute_node import compute_bundle
from components.configuration.served_files import served_files, task_prolog
from components.configuration.slurm_conf import slurm_conf
from components.health.nhc import nhc_conf
from components.health.node_health import config, health_bundle
from components.health.with_jobs import with_jobs
from components.host.host_baseline import system_bundle
from components.host.mounts import unit_name
from components.host.storage import storage_bundle
from remote.bundle import File, Guard
from settings import Settings, parse
from settings.hostlist import expand
from settings.model import Hardware
from templates.rendering import render
from tests.unit.components.configuration.test_slurm_conf import joined
from tests.unit.settings.test_settings import PI, lab, mistakes
from tests.unit.slurm_readers import cgroupconfig, gresconfig

HARDWARE = Hardware.model_validate(PI)
HOSTS = {"ctl": "10.73.0.10", "cn[01-02]": "10.73.0.[21-22]", "login": "10.73.0.12"}


def settings(**changes: Any) -> Settings:
    return parse({**lab(), "hosts": HOSTS, "nodes": [{"hosts": "cn[01-02]"}], **changes})


def files(**changes: Any) -> dict[str, str]:
    found = settings(**changes)
    return served_files(found, dict.fromkeys(found.compute, HARDWARE))


def nodes(*gres: dict[str, Any]) -> dict[str, Any]:
    return {"nodes": [{"hosts": "cn[01-02]", "Gres": list(gres)}]}


def test_gpus_by_nvml() -> None:
    found = files(**nodes({"Type": "h100", "Count": 8, "AutoDetect": "nvml"}))
    assert gres_lines(found) == ["NodeName=cn[01-02] AutoDetect=nvml"]


def test_gpus_by_their_places_on_the_bus() -> None:
    """NVIDIA's driver numbers its device files in the order of the bus."""
    cards = {"Type": "rtx", "pci": ["10de:2684", "10de:2684"]}
    assert gres_lines(files(**nodes(cards))) == [
        "NodeName=cn[01-02] Name=gpu Type=rtx File=/dev/nvidia[0-1]"
    ]
    card = {"Type": "rtx", "pci": ["10de:2684"]}
    assert gres_lines(files(**nodes(card))) == [
        "NodeName=cn[01-02] Name=gpu Type=rtx File=/dev/nvidia0"
    ]


def test_stand_ins_are_numbered_through_a_node() -> None:
    found = files(
        **nodes(
            {"Type": "a100", "Count": 1, "standIn": True},
            {"Type": "h100", "Count": 3, "standIn": True},
        )
    )
    folder = "/etc/slurmstack/stand-in"
    assert [line.partition("  #")[0] for line in gres_lines(found)] == [
        f"NodeName=cn[01-02] Name=gpu Type=a100 File={folder}/gpu0",
        f"NodeName=cn[01-02] Name=gpu Type=h100 File={folder}/gpu[1-3]",
    ]


def test_what_detects_gpus_is_said_once_whatever_stands_before() -> None:
    nic = {"Name": "nic", "Count": 2, "AutoDetect": "off"}
    gpu = {"Type": "h100", "Count": 8, "AutoDetect": "nvml"}
    for both in ((nic, gpu), (gpu, nic)):
        assert gres_lines(files(**nodes(*both))) == [
            "NodeName=cn[01-02] AutoDetect=nvml",
            "NodeName=cn[01-02] Name=nic Count=2",
        ]


def test_gpus_by_file_and_shards_of_them() -> None:
    found = files(
        **nodes({"Type": "a100", "File": "/dev/nvidia[0-3]"}, {"Name": "shard", "Count": 16})
    )
    assert gres_lines(found) == [
        "NodeName=cn[01-02] Name=gpu Type=a100 File=/dev/nvidia[0-3]",
        "NodeName=cn[01-02] Name=shard Count=16",
    ]
    assert read_gres(gres_lines(found)) == [("gpu", 4), ("shard", 16)]


def test_a_class_each_its_own_lines() -> None:
    found = files(
        nodes=[
            {"hosts": "cn01", "Gres": [{"Type": "h100", "Count": 2, "standIn": True}]},
            {"hosts": "cn02"},
        ]
    )
    assert gres_lines(found) == [
        "NodeName=cn01 Name=gpu Type=h100 File=/etc/slurmstack/stand-in/gpu[0-1]"
        "  # a stand-in: no device"
    ]


def read_gres(lines: list[str]) -> list[tuple[str, int]]:
    """(Name, Count) as slurmutils 1.3 reads them; it wants Name first where gres.conf(5) wants
    NodeName, and knows no list of files."""
    swapped = [" ".join([*line.split()[1:], line.split()[0]]) for line in lines]
    read = gresconfig.loads("\n".join(swapped) + "\n").dict()["gres"]
    return [
        (entry["name"], entry.get("count") or len(expand(entry["file"])))
        for group in read.values()
        for entry in group
    ]


def gres_lines(found: dict[str, str]) -> list[str]:
    return [line for line in found["/etc/slurm/gres.conf"].splitlines() if line[:1] != "#"]


@pytest.mark.parametrize(
    ("resource", "line"),
    [
        # gres.conf(5): the number of files is the count; a count beside them is of shared devices.
        ({"File": "/dev/nvidia[0-1]", "Count": 2}, "Name=gpu File=/dev/nvidia[0-1]"),
        (
            {"MultipleFiles": "/dev/a,/dev/b", "Count": 1},
            "Name=gpu Count=1 MultipleFiles=/dev/a,/dev/b",
        ),
        ({"Name": "nic", "Count": "2K"}, "Name=nic Count=2K"),
        (
            {"Name": "nic", "Count": 1, "standIn": True},
            "Name=nic Count=1 Flags=CountOnly  # a stand-in: no device",
        ),
        ({"Name": "nic", "Count": 1, "Flags": ["CountOnly"]}, "Name=nic Count=1 Flags=CountOnly"),
        (
            {"File": "/dev/nvidia0", "Cores": "0-1", "Links": "-1"},
            "Name=gpu File=/dev/nvidia0 Cores=0-1 Links=-1",
        ),
        ({"Type": "x", "pci": ["10de:2684"]}, "Name=gpu Type=x File=/dev/nvidia0"),
    ],
)
def test_a_line_of_gres_conf(resource: dict[str, Any], line: str) -> None:
    assert gres_lines(files(**nodes(resource))) == [f"NodeName=cn[01-02] {line}"]


def test_stand_ins_are_files_on_the_node() -> None:
    found = settings(**nodes({"Type": "h100", "Count": 2, "standIn": True}))
    text = compute_bundle("cn01", found, dict.fromkeys(found.compute, HARDWARE)).render()
    assert "file /etc/slurmstack/stand-in/gpu0 " in text
    assert "file /etc/slurmstack/stand-in/gpu1 " in text


def test_no_gres_no_file() -> None:
    assert "/etc/slurm/gres.conf" not in files()


def test_cgroup_conf_where_slurm_asks_for_cgroups() -> None:
    assert "/etc/slurm/cgroup.conf" not in files()
    text = files(slurm={}, cgroup={"ConstrainSwapSpace": True, "AllowedSwapSpace": 10})
    read = cgroupconfig.loads(text["/etc/slurm/cgroup.conf"]).dict()
    read = {name.lower(): value for name, value in read.items()}
    assert read["constraincores"] is True
    assert read["constraindevices"] is True
    assert read["constrainramspace"] is True
    assert read["constrainswapspace"] is True
    assert read["allowedswapspace"] == 10
    assert "/etc/slurm/cgroup.conf" in files(slurm={})


def test_a_tree_and_blocks() -> None:
    switches = {"a": {"Nodes": "cn01"}, "b": {"Nodes": "cn02"}, "t": {"Switches": "a,b"}}
    text = files(topology={"plugin": "tree", "switches": switches})["/etc/slurm/topology.conf"]
    assert text.splitlines()[1:] == [
        "SwitchName=a Nodes=cn01", "SwitchName=b Nodes=cn02", "SwitchName=t Switches=a,b",
    ]  # fmt: skip
    blocks = {"a": {"Nodes": "cn01"}, "b": {"Nodes": "cn02"}}
    block = {"plugin": "block", "blocks": blocks, "BlockSizes": [1, 2]}
    text = files(topology=block)["/etc/slurm/topology.conf"]
    assert text.splitlines()[1:] == [
        "BlockName=a Nodes=cn01", "BlockName=b Nodes=cn02", "BlockSizes=1,2",
    ]  # fmt: skip


def prolog(environment: dict[str, Any], tmp_path: Path, **has: str) -> dict[str, str]:
    text = task_prolog(settings(jobEnvironment=environment))
    assert text is not None
    script = tmp_path / "task-prolog"
    script.write_text(text)
    done = subprocess.run(
        ["sh", str(script)], env={"PATH": "/bin", **has}, capture_output=True, text=True, check=True
    )
    lines = [line.removeprefix("export ") for line in done.stdout.splitlines()]
    return dict(line.split("=", 1) for line in lines)


def test_the_task_prolog_says_what_the_user_has_not(tmp_path: Path) -> None:
    environment = {"UCX_TLS": "rc,self", "NOTE": """it's "$HOME" `id` \\n""", "N": 3}
    assert prolog(environment, tmp_path) == {key: str(value) for key, value in environment.items()}
    assert "UCX_TLS" not in prolog(environment, tmp_path, UCX_TLS="tcp")
    assert "UCX_TLS" not in prolog(environment, tmp_path, UCX_TLS="")


def test_slurm_conf_follows_from_how_jobs_run() -> None:
    found = settings(
        healthCheck={"interval": 120},
        jobContainer={"BasePath": "/raid"},
        jobEnvironment={"A": 1},
        limits={},
        mpi={"conf": {"PMIxTlsUCX": "rc"}},
        nodes=[{"hosts": "cn[01-02]", "Features": ["a"], "MemSpecLimit": 100, "Weight": 7}],
        partitions={"old": {"Nodes": "ALL", "State": "DRAIN"}},
        topology={"plugin": "tree", "switches": {"leaf": {"Nodes": "cn[01-02]"}}},
    )
    hardware = dict.fromkeys(found.compute, HARDWARE)
    lines = joined(slurm_conf(found, hardware)).splitlines()
    wanted = {
        "HealthCheckInterval=120",
        "HealthCheckNodeState=ANY,CYCLE",
        "HealthCheckProgram=/usr/sbin/nhc",
        "JobContainerType=job_container/tmpfs",
        "MpiDefault=pmix",
        "MpiParams=ports=12000-12999",
        "PrologFlags=Contain",
        "PropagateResourceLimitsExcept=MEMLOCK,NOFILE",
        "TaskProlog=/etc/slurmstack/scripts/TaskProlog",
        "TopologyPlugin=topology/tree",
    }
    assert wanted - {*lines} == set()
    (node,) = [line for line in lines if line.startswith("NodeName=cn01 ")]
    assert {"Features=a", "MemSpecLimit=100", "Weight=7"} <= {*node.split()}
    (partition,) = [line for line in lines if line.startswith("PartitionName=old ")]
    assert "State=DRAIN" in partition.split()
    served = served_files(found, hardware)
    assert "PMIxTlsUCX=rc\n" in served["/etc/slurm/mpi.conf"]
    assert "BasePath=/raid\n" in served["/etc/slurm/job_container.conf"]


def test_a_change_of_job_container_restarts_slurmd() -> None:
    def key(path: str) -> str:
        found = settings(jobContainer={"BasePath": path})
        text = compute_bundle("cn01", found, dict.fromkeys(found.compute, HARDWARE)).render()
        return next(line for line in text.splitlines() if "restart-key job_container" in line)

    assert key("/a") != key("/b")


@pytest.mark.parametrize(
    "path", ["/home", "/srv/my-data", "/a_b/c.d", "/.snapshots/a.b", "/X/y:z/", "/größe"]
)
def test_mount_units_are_named_as_systemd_names_them(path: str) -> None:
    done = subprocess.run(
        ["systemd-escape", "--path", "--suffix=mount", path],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert unit_name(path) == done.stdout.strip()


def test_a_mount_point_with_a_hyphen_reaches_the_node() -> None:
    share = {"data": {"server": "ctl", "path": "/srv/my-data"}}
    text = system_bundle("cn01", settings(storage=share)).render()
    assert "\nfile /etc/systemd/system/srv-my\\x2ddata.mount root:root 0644\n" in text
    assert "\nunit srv-my\\x2ddata.mount enabled running " in text


ODD = """It's <a> & "b" \\ c: Größe, 日本"""


def test_a_module_file_has_no_escape_that_lua_does_not_know() -> None:
    module = {"description": ODD, "setEnv": {"NOTE": f"{ODD}\n\t\x7f"}}
    text = module_file(settings(modules={"tree": {"odd/1.0": module}}))
    for literal in re.findall(r'"((?:[^"\\]|\\.)*)"', text):
        # The escapes of Lua's reference manual, 3.1, that are the same in all versions.
        assert re.fullmatch(r'(?:[^\\]|\\[abfnrtv\\"\']|\\[0-9]{3})*', literal)
    assert "Größe, 日本" in text


def module_file(found: Settings) -> str:
    return next(
        str(part.content)
        for part in system_bundle("cn01", found).parts
        if isinstance(part, File) and part.path.endswith("/odd/1.0.lua")
    )


SHARES = {"home": {"server": "ctl", "path": "/srv/home", "mount": "/home", "owner": "root:slurm"}}


def test_a_share_is_exported_and_mounted() -> None:
    found = settings(storage=SHARES, roles={"controller": "ctl", "login": "login"})
    server = storage_bundle("ctl", found).render()
    options = "(rw,sync,no_subtree_check,root_squash)"
    assert f"/srv/home 10.73.0.10{options}" not in server
    assert f"/srv/home 10.73.0.21{options} 10.73.0.22{options} 10.73.0.12{options}" in server
    assert "directory /srv/home root:slurm 0755" in server
    assert "\n  exportfs -r\n" in server
    client = system_bundle("cn01", found).render()
    assert "\npackage nfs-common\n" in client
    assert "What=10.73.0.10:/srv/home" in client
    assert "unit home.mount enabled running" in client
    assert "home.mount" not in system_bundle("ctl", found).render()


def test_a_share_has_the_mode_and_the_folder_that_the_site_gives() -> None:
    home = {**SHARES["home"], "owner": "slurm:slurm", "mode": "1770"}
    bundle = storage_bundle("ctl", settings(storage={"home": home}))
    assert "directory /srv/home slurm:slurm 1770" in bundle.render()
    guard = next(one for one in bundle.parts if isinstance(one, Guard) and "above" in one.name)
    there = run(guard.script.replace("'/srv'", "'/'"))
    assert there == (0, "")
    status, said = run(guard.script.replace("'/srv'", "'/no-such-folder'"))
    assert (status, said) == (
        1,
        "/no-such-folder is not there: make it on ctl, or mount its file system\n",
    )


def run(script: str) -> tuple[int, str]:
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def test_a_share_below_a_shut_folder_is_named() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        script = render("host/can-be-entered.sh", paths=[f"{place}/home"])
        status, said = run(script)
        assert (status, f"chmod o+x {place}" in said) == (1, True)
        Path(place).chmod(0o711)
        assert run(script) == (0, "")


def test_lost_hosts_mount_nothing() -> None:
    hosts = {**HOSTS, "cn03": {"address": "10.73.0.23", "lost": True}}
    home = {**SHARES["home"], "clients": "cn[02-03]"}
    server = storage_bundle("ctl", settings(storage={"home": home}, hosts=hosts)).render()
    assert "10.73.0.22(" in server
    assert "10.73.0.23" not in server


def test_a_share_is_exported_to_those_who_mount_it() -> None:
    def clients(of: str) -> tuple[str, list[str]]:
        found = settings(storage={"home": {"server": "ctl", "path": "/home", "clients": of}})
        (line,) = re.findall("^  (/home .*)$", storage_bundle("ctl", found).render(), re.MULTILINE)
        bundles = {name: system_bundle(name, found).render() for name in found.members}
        return line, [name for name, text in bundles.items() if "home.mount" in text]

    options = "(rw,sync,no_subtree_check,root_squash)"
    line, mounts = clients("cn02")
    assert line == f"/home 10.73.0.22{options}"
    assert mounts == ["cn02"]
    line, mounts = clients("ALL")
    assert line == f"/home 10.73.0.21{options} 10.73.0.22{options}"
    assert mounts == ["cn01", "cn02"]


def test_exports_come_by_path_whatever_they_are_called() -> None:
    """Renaming or sorting shares in the settings changes no exported file."""
    first, second = ({"server": "ctl", "path": path} for path in ("/srv/a", "/srv/b"))

    def lines(**shares: dict[str, Any]) -> list[str]:
        text = storage_bundle("ctl", settings(storage=shares)).render()
        return re.findall("^  (/srv/.) ", text, re.MULTILINE)

    assert lines(x=first, y=second) == lines(x=second, y=first) == ["/srv/a", "/srv/b"]


def test_a_port_of_a_node_restarts_its_slurmd_alone() -> None:
    found = settings(nodes=[{"hosts": "cn01", "extra": {"Port": 7001}}, {"hosts": "cn02"}])
    hardware = dict.fromkeys(found.compute, HARDWARE)
    assert "\n  restart-key Port=7001\n" in compute_bundle("cn01", found, hardware).render()
    assert "Port=7001" not in compute_bundle("cn02", found, hardware).render()


@pytest.mark.parametrize(
    "slurm",
    [
        {"ProctrackType": "proctrack/cgroup"},
        {"JobAcctGatherType": "jobacct_gather/cgroup"},
        {"TaskPlugin": "task/affinity,task/cgroup"},
    ],
)
def test_each_plugin_that_asks_for_cgroups_gets_cgroup_conf(slurm: dict[str, str]) -> None:
    none = {
        "ProctrackType": "proctrack/linuxproc", "JobAcctGatherType": "jobacct_gather/linux",
        "TaskPlugin": "task/none",
    }  # fmt: skip
    assert "/etc/slurm/cgroup.conf" not in files(slurm=none)
    assert "/etc/slurm/cgroup.conf" in files(slurm={**none, **slurm})


def test_health_is_checked_of_cores_and_memory() -> None:
    """Memory: what jobs are offered at the least, what the machine has at the most."""
    hardware = Hardware(
        CPUs=16, SocketsPerBoard=2, CoresPerSocket=4, ThreadsPerCore=2, RealMemory=64000
    )
    found = settings(
        nodes=[{"hosts": "cn01", "RealMemory": 60000}, {"hosts": "cn02"}], healthCheck={}
    )
    assert "* || check_hw_cpuinfo 2 8 16\n" in nhc_conf("cn01", found, hardware)
    assert "* || check_hw_physmem 60000MB 64000MB 3%\n" in nhc_conf("cn01", found, hardware)
    assert "* || check_hw_physmem 64000MB 64000MB 3%\n" in nhc_conf("cn02", found, hardware)


def test_health_is_checked_of_gpus_that_are_no_stand_ins() -> None:
    def rules(**gres: Any) -> str:
        found = settings(**nodes({"Count": 2, **gres}), healthCheck={})
        return nhc_conf("cn01", found, HARDWARE)

    assert "nvidia-smi --query-gpu=uuid" in rules(AutoDetect="nvml")
    assert "nvidia-smi" not in rules(standIn=True)


def test_health_is_checked_of_the_fabric_where_it_is_declared() -> None:
    found = settings(healthCheck={}, precheck={"infinibandRate": 400})
    assert "|| check_hw_ib 400\n" in nhc_conf("cn01", found, HARDWARE)
    assert "check_hw_ib" not in nhc_conf("cn01", settings(healthCheck={}), HARDWARE)


@pytest.mark.parametrize(
    ("gres", "wanted"),
    [
        ([{"Type": "h100", "Count": 8, "AutoDetect": "nvml"}], "h100"),
        # Of two kinds, or of one that a person has typed, a card may have another name.
        ([{"Type": "h100", "Count": 4, "AutoDetect": "nvml"},
          {"Type": "a100", "Count": 4, "AutoDetect": "nvml"}], None),
        ([{"Type": "h100", "File": "/dev/nvidia[0-7]"}], None),
        ([{"Type": "h100", "Count": 8, "AutoDetect": "nvml"},
          {"profile": "1g.10gb", "Count": 8, "AutoDetect": "nvml"}], "h100"),
    ],
)  # fmt: skip
def test_cards_are_compared_by_name_where_the_driver_names_them(
    gres: list[dict[str, Any]], wanted: str | None
) -> None:
    found = settings(**nodes(*gres), healthCheck={"by": "slurmstack"})
    assert config("cn01", found, HARDWARE)["gpus"]["type"] == wanted
    assert config("cn01", found, HARDWARE)["gpus"]["count"] == 8


def test_health_is_checked_of_what_the_node_mounts() -> None:
    found = settings(storage={"home": {**SHARES["home"], "clients": "cn01"}}, healthCheck={})
    rule = "* || check_fs_mount_rw -f /home"
    assert rule in nhc_conf("cn01", found, HARDWARE)
    assert rule not in nhc_conf("cn02", found, HARDWARE)
    shares = {"bound": {"type": "bind", "source": "/a", "mount": "/b", "options": ["ro"]}}
    bound = settings(storage=shares, healthCheck={})
    assert "* || check_fs_mount_ro -f /b" in nhc_conf("cn01", bound, HARDWARE)


def test_growth_changes_no_other_nodes_bundle() -> None:
    before = settings(healthCheck={})
    after = settings(
        healthCheck={},
        hosts={**HOSTS, "cn03": "10.73.0.23"},
        nodes=[{"hosts": "cn[01-03]"}],
    )
    for found in (compute_text, system_text):
        assert found(before) == found(after)


def compute_text(found: Settings) -> str:
    return compute_bundle("cn01", found, dict.fromkeys(found.compute, HARDWARE)).render()


def system_text(found: Settings) -> str:
    return system_bundle("cn01", found).render()


def test_lost_nodes_leave_the_fabric() -> None:
    switches = {
        "leaf1": {"Nodes": "cn01"},
        "leaf2": {"Nodes": "cn02"},
        "row": {"Switches": "leaf2"},
        "top": {"Switches": "leaf1,row"},
    }
    lost = {
        "ctl": "10.73.0.10",
        "cn01": "10.73.0.21",
        "cn02": {"address": "10.73.0.22", "lost": True},
    }
    found = files(hosts=lost, topology={"plugin": "tree", "switches": switches})
    assert found["/etc/slurm/topology.conf"].splitlines()[1:] == [
        "SwitchName=leaf1 Nodes=cn01",
        "SwitchName=top Switches=leaf1",
    ]
    # A switch that goes takes no lost node of another switch back in.
    switches = {
        "leaf1": {"Nodes": "cn[01-02]"},
        "leaf2": {"Nodes": "cn03"},
        "row": {"Switches": "leaf2"},
        "top": {"Switches": "leaf1,row"},
    }
    more = {**lost, "cn03": {"address": "10.73.0.23", "lost": True}}
    found = files(
        hosts=more,
        nodes=[{"hosts": "cn[01-03]"}],
        topology={"plugin": "tree", "switches": switches},
    )
    assert found["/etc/slurm/topology.conf"].splitlines()[1:] == [
        "SwitchName=leaf1 Nodes=cn01",
        "SwitchName=top Switches=leaf1",
    ]
    blocks = {"a": {"Nodes": "cn[01-02]"}}
    found = files(hosts=lost, topology={"plugin": "block", "blocks": blocks})
    assert "BlockName=a Nodes=cn01\n" in found["/etc/slurm/topology.conf"]


def test_slurmd_is_stopped_while_it_hands_over_to_a_new_process(tmp_path: Path) -> None:
    """A stand-in of slurmd whose old process, when it is told to end, has just made way for another
    one (tests/lab/test_scripts.py shows the real one)."""
    main = tmp_path / "main"
    (tmp_path / "systemctl").write_text(f"#!/bin/sh\n[ $1 = stop ] || cat {main}\n")
    (tmp_path / "systemctl").chmod(0o755)
    (tmp_path / "slurmd.sh").write_text(
        f"sleep 60 & new=$!\ntrap 'echo $new >{main}; exit' TERM\necho $$ >{main}\n"
        f"echo ready\nwhile :; do sleep 0.1; done\n"
    )
    script = tmp_path / "stop"
    script.write_text(render("compute/stop-slurmd.sh", port_unit="port"))
    old = subprocess.Popen(
        ["sh", str(tmp_path / "slurmd.sh")],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert old.stdout is not None
    assert old.stdout.readline() == "ready\n"
    # Of this machine's own processes none may be taken for slurmd: those of a lab are among them.
    place = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURMSTACK_PROC": str(tmp_path / "none")}
    stop = subprocess.Popen(["sh", str(script)], env=place)
    assert old.wait(timeout=20) == 0
    new, end = int(main.read_text()), time.monotonic() + 20
    while Path(f"/proc/{new}/stat").exists() and " Z " not in Path(f"/proc/{new}/stat").read_text():
        assert stop.poll() is None, "it ended while the new process was still there"
        assert time.monotonic() < end, "the new process was not told to end"
    main.write_text("0\n")  # as systemd has it when the unit's last process is gone
    assert stop.wait(timeout=20) == 0


@pytest.mark.parametrize("port", ["6817", "6820-6830"])
def test_only_a_controller_that_moves_is_asked_for_jobs(tmp_path: Path, port: str) -> None:
    """Nodes ask the first port of a range; asked or not, there is one word for where it is."""

    def guard(address: str, defaults: str = "") -> tuple[int, str]:
        found = settings(hosts={**HOSTS, "ctl": address}, slurm={"SlurmctldPort": port})
        bundle = compute_bundle("cn01", found, dict.fromkeys(found.compute, HARDWARE))
        (part,) = (it for it in bundle.parts if isinstance(it, Guard) and it.name == "jobs-known")
        (own,) = (str(it.content) for it in bundle.parts
                  if isinstance(it, File) and it.path == "/etc/default/slurmd")  # fmt: skip
        (tmp_path / "defaults").write_text(defaults or own)
        script = part.script.replace("/etc/default/slurmd", str(tmp_path / "defaults"))
        place = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
        done = subprocess.run(["sh", "-c", script], env=place, capture_output=True, text=True)
        return done.returncode, done.stderr

    for name, text in (("ps", "echo 'slurmstepd: [7.batch]'"), ("scontrol", "exit 1")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    assert guard("10.73.0.10") == (0, "")
    assert guard("10.73.0.10", "# not deployed yet\n") == (0, "")
    code, said = guard("10.73.0.10", 'SLURMD_OPTIONS="--conf-server 10.73.0.9:6817"\n')
    first = port.partition("-")[0]
    assert code == 1
    assert f"moves from 10.73.0.9:6817 to 10.73.0.10:{first}, which does not know" in said
    assert "run here: 7." in said


OWN = {"by": "slurmstack", "limits": {"freeDisk": {"/": 100}}, "mounts": ["/data"]}


def test_our_own_checks_take_the_place_of_nhc() -> None:
    found = settings(
        **nodes({"Type": "h100", "Count": 8, "AutoDetect": "nvml"}),
        healthCheck=OWN,
        storage={"home": {**SHARES["home"], "clients": "cn01"}},
        precheck={"infinibandPorts": 8, "infinibandRate": 400},
    )
    bundle = health_bundle("cn01", found, dict.fromkeys(found.compute, HARDWARE))
    placed = {part.path: part.content for part in bundle.parts if isinstance(part, File)}
    has = json.loads(placed["/etc/slurmstack/health.json"])
    assert has["node"] == "cn01"
    assert has["gpus"] == {"count": 8, "type": "h100", "cut": 0, "nvlinks": None}
    assert has["infiniband"] == {"ports": 8, "rate": 400}
    assert has["mounts"] == ["/data", "/home"]
    assert config("cn02", found, HARDWARE)["mounts"] == ["/data"]
    assert has["disk"] == {"/": 100}
    lines = slurm_conf(found, dict.fromkeys(found.compute, HARDWARE)).splitlines()
    assert {
        "HealthCheckProgram=/usr/local/lib/slurmstack/health-check",
        "Prolog=/etc/slurmstack/scripts/Prolog-health",
        "Epilog=/etc/slurmstack/scripts/Epilog-health",
    } <= {*lines}
    assert (
        "nhc" not in compute_bundle("cn01", found, dict.fromkeys(found.compute, HARDWARE)).render()
    )


@pytest.mark.parametrize(
    ("node_class", "count", "cut"),
    [
        # All eight cut, half of them, and as somebody cuts them outside of these settings.
        ({"Gres": [{"profile": "1g.10gb", "Count": 56, "AutoDetect": "nvml"}],
          "mig": {"0-7": {"1g.10gb": 7}}}, 0, 8),
        ({"Gres": [{"Type": "h100", "Count": 4, "AutoDetect": "nvml"},
                   {"profile": "3g.40gb", "Count": 8, "AutoDetect": "nvml"}],
          "mig": {"4-7": {"3g.40gb": 2}}}, 4, 4),
        ({"Gres": [{"profile": "1g.10gb", "Count": 7, "AutoDetect": "nvml"}]}, 0, 1),
    ],
)  # fmt: skip
def test_gpus_that_are_cut_are_checked_too(
    node_class: dict[str, Any], count: int, cut: int
) -> None:
    found = settings(nodes=[{"hosts": "cn[01-02]", **node_class}], healthCheck=OWN)
    has = config("cn01", found, HARDWARE)["gpus"]
    assert (has["count"], has["cut"]) == (count, cut)


def test_our_own_checks_look_as_the_settings_say() -> None:
    limits = {
        "freeDisk": {"/var": 7}, "freeMemory": 11, "zombies": 12, "forkTime": 13, "clockError": 14,
        "linkFlaps": 15, "gpuMemory": 16, "nvlinks": 17, "deadline": 0.5,
    }  # fmt: skip
    changes = {"without": ["fork", "disk"], "mounts": ["/data"], "xids": [79, 48],
               "prolog": False, "epilog": False, "sweep": ["/scratch"]}  # fmt: skip
    found = settings(
        nodes=[{"hosts": "cn01", "Gres": [{"Count": 2, "AutoDetect": "nvml"}]}, {"hosts": "cn02"}],
        healthCheck={"by": "slurmstack", "limits": limits, **changes},
    )
    assert config("cn01", found, HARDWARE) == {
        "node": "cn01", "deadline": 0.5, "disk": {"/var": 7}, "mounts": ["/data"], "memory": 11,
        "zombies": 12, "fork": 13, "clock": 14, "link_flaps": 15, "gpu_memory": 16,
        "gpus": {"count": 2, "type": None, "cut": 0, "nvlinks": 17}, "xids": [48, 79],
        "infiniband": {"ports": None, "rate": None}, "without": ["disk", "fork"],
        "prolog": False, "epilog": False, "sweep": ["/scratch"],
    }  # fmt: skip
    assert config("cn02", found, HARDWARE)["gpus"] is None
    # Neither is asked for: nothing runs before or after jobs.
    assert not [*with_jobs(found)]
    after = settings(healthCheck={"by": "slurmstack", "prolog": False})
    assert [(it.parameter, it.after_site) for it in with_jobs(after)] == [
        ("Prolog", False), ("Epilog", True),
    ]  # fmt: skip
    before = settings(healthCheck={"by": "slurmstack", "epilog": False})
    assert [it.parameter for it in with_jobs(before)] == ["Prolog"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"by": "slurmstack", "rules": ["* || true"]}, "rules with by: nhc only"),
        ({"limits": {"zombies": 1}, "epilog": False}, "epilog, limits with by: slurmstack only"),
    ],
)
def test_what_belongs_to_the_other_program_is_refused(given: dict[str, Any], says: str) -> None:
    assert says in mistakes({"healthCheck": given})["slurmstack:healthCheck"]


def test_what_jobs_left_is_taken_away_at_boot_alone() -> None:
    def lines(**changes: Any) -> list[str]:
        found = settings(**changes)
        bundle = compute_bundle("cn01", found, dict.fromkeys(found.compute, HARDWARE))
        by_path = {part.path: part for part in bundle.parts if isinstance(part, File)}
        text = by_path["/etc/tmpfiles.d/slurmstack-slurmd.conf"].content
        assert isinstance(text, str)
        return [line for line in text.splitlines() if not line.startswith("#")]

    spool = "/var/spool/slurmd"
    known = ["r! {}/stepd.slurm.pmix.*", "R! {}/pmix.*", "r! {}/cred_state*"]
    assert lines() == [line.format(spool) for line in known]
    other = lines(slurm={"SlurmdSpoolDir": "/raid/50%"})
    assert other == [line.format("/raid/50%%") for line in known]
