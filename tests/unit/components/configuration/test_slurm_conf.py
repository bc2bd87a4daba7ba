"""slurm.conf as rendered, read back by slurmutils."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any, get_args

import pytest

from components.compute.nodes_fit import nodes_fit_bundle
from components.configuration import served_files
from components.configuration.plugins import plugin_files, plugins_are_there
from components.configuration.slurm_conf import (
    derived,
    parameters,
    restart_keys,
    slurm_conf,
    together,
)
from components.controller.slurm_controller import controller_bundle
from remote.bundle import Guard, Unit
from settings import SettingsError, parse
from settings.model import Hardware
from settings.parameters import Daemon
from settings.slurm_conf import Line, Section, SlurmConf, lines
from tests.unit.settings.test_settings import lab, whole_lab
from tests.unit.slurm_readers import slurmconfig

DGX = Hardware(CPUs=224, SocketsPerBoard=2, CoresPerSocket=56, ThreadsPerCore=2, RealMemory=2063937)


def rendered(**changes: Any) -> str:
    settings = parse({**lab(), **changes})
    return slurm_conf(settings, dict.fromkeys(settings.compute, DGX))


def joined(text: str) -> str:
    """With the lines put together that slurm.conf(5) continues by a backslash at the end."""
    return text.replace("\\\n", "")


def read_back(text: str) -> dict[str, Any]:
    """As slurmutils 1.3 reads it, which takes enumerated values in lower case only and
    booleans as Python's True and False; slurm.conf(5) spells both in capitals. It does not know
    lines that go on."""
    text = joined(text)
    text = re.sub(r"=\S+", lambda it: it[0].lower(), text)
    text = re.sub(r"=(yes|no)\b", lambda it: f"={it[1] == 'yes'}", text)
    found: dict[str, Any] = slurmconfig.loads(text).dict()
    return {name.lower(): value for name, value in found.items()}


def test_slurmutils_reads_what_was_meant() -> None:
    conf = read_back(rendered())
    assert conf["clustername"] == "lab"
    assert conf["slurmctldhost"] == ["ctl(10.73.0.10)"]
    assert conf["slurmuser"] == "slurm"
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


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (None, "ReconfigFlags=KeepPartState"),
        ("KeepPowerSaveSettings", "ReconfigFlags=KeepPowerSaveSettings,KeepPartState"),
        # slurm.conf(5): KeepPartInfo keeps more, the state with it.
        ("KeepPartInfo", "ReconfigFlags=KeepPartInfo"),
        ("KeepPartState", "ReconfigFlags=KeepPartState"),
    ],
)
def test_a_partition_that_is_down_by_hand_stays_so(flags: str | None, line: str) -> None:
    assert f"\n{line}\n" in rendered(slurm={"ReconfigFlags": flags} if flags else {})


def test_sections_are_titled_and_sorted() -> None:
    lines = rendered(slurm={"MessageTimeout": 5, "KillWait": 3, "extra": {"Zz!": 1, "Aa!": True}})
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


def test_a_changed_parameter_of_a_node_is_one_short_line() -> None:
    """Pulumi's diff ends at the 150th character of a line."""
    accounts = [f"account{number:03}" for number in range(90)]

    def partitions() -> dict[str, Any]:
        return {"main": {"Nodes": "ALL", "extra": {"AllowAccounts": ",".join(accounts)}}}

    before = rendered(partitions=partitions()).splitlines()
    accounts[-1] = "other"
    nodes = [{**lab()["nodes"][0], "Weight": 8, "Features": [f"feature{it}" for it in range(40)]}]
    assert max(map(len, before)) < 150
    after = rendered(partitions=partitions()).splitlines()
    changed = [line for line in after if line not in before]
    assert changed == [line.replace("account089", "other") for line in before if "089" in line]
    weighed = rendered(nodes=nodes).splitlines()
    nodes[0]["Weight"] = 9
    changed = [line for line in rendered(nodes=nodes).splitlines() if line not in weighed]
    assert {line.strip(" \\") for line in changed} == {"Weight=9"}
    assert len(read_back(rendered(nodes=nodes))["nodes"]["cn01"]["features"]) == 40


#: Parameter and value → the daemons that a change to it restarts, beside the reconfigure that every
#: changed slurm.conf brings: scontrol(1), reconfigure, changes neither ports nor authentication.
RESTARTS: list[tuple[dict[str, Any], set[Daemon]]] = [
    ({"MessageTimeout": 60}, set()),
    ({"extra": {"JobRequeue": 0}}, set()),
    ({"SlurmctldPort": 7000}, {"slurmctld", "slurmrestd"}),
    ({"SlurmdPort": 7001}, {"slurmctld", "slurmd", "sackd"}),
    ({"StateSaveLocation": "/srv/slurmctld"}, {"slurmctld"}),
    ({"SlurmdSpoolDir": "/srv/slurmd"}, {"slurmd"}),
    ({"AuthInfo": "ttl=60"}, {"slurmctld", "slurmd", "slurmrestd"}),
    ({"CommunicationParameters": "EnableIPv6"}, {"slurmctld", "slurmd"}),
    ({"extra": {"tlstype": "tls/s2n"}}, {"slurmctld", "slurmd", "slurmdbd", "slurmrestd"}),
]


@pytest.mark.parametrize("daemon", get_args(Daemon))
@pytest.mark.parametrize(("slurm", "daemons"), RESTARTS)
def test_what_restarts_a_daemon(
    slurm: dict[str, Any], daemons: set[Daemon], daemon: Daemon
) -> None:
    before = restart_keys(parse({**lab(), "slurm": {}}), daemon)
    after = restart_keys(parse({**lab(), "slurm": slurm}), daemon)
    assert (before != after) is (daemon in daemons)


def test_an_upgrade_restarts_nothing() -> None:
    """The lines that the applier remembers of the first version: another set is a restart."""
    settings = parse({**lab(), "slurm": {}})
    assert restart_keys(settings, "slurmctld") == (
        "AuthType=auth/munge", "SlurmctldHost=ctl(10.73.0.10)", "SlurmctldPort=6817",
        "SlurmdPort=6818", "StateSaveLocation=/var/spool/slurmctld",
    )  # fmt: skip
    assert restart_keys(settings, "slurmd") == (
        "AuthType=auth/munge", "SlurmdPort=6818", "SlurmdSpoolDir=/var/spool/slurmd",
    )  # fmt: skip
    assert restart_keys(settings, "slurmrestd") == (
        "AccountingStorageHost=10.73.0.10", "AccountingStorageType=accounting_storage/slurmdbd",
        "ClusterName=lab", "SlurmctldHost=ctl(10.73.0.10)", "SlurmctldPort=6817",
    )  # fmt: skip


def test_a_port_of_its_own_restarts_the_node() -> None:
    nodes = [{"hosts": "cn01", "extra": {"Port": 7001}}, {"hosts": "cn02"}]
    settings = parse({**lab(), "slurm": {}, "nodes": nodes})
    common = restart_keys(settings, "slurmd")
    assert restart_keys(settings, "slurmd", "cn01") == (*common, "Port=7001")
    assert restart_keys(settings, "slurmd", "cn02") == common


def test_cores_of_gpus_restart_slurmctld() -> None:
    """gres.conf(5), Cores: slurmctld is to be restarted."""

    def keys(cores: str | None, hosts: str = "cn[01-02]", daemon: Daemon = "slurmctld") -> set[str]:
        gpu = {"Name": "gpu", "Type": "h100", "Count": 1, "standIn": True}
        gpu |= {} if cores is None else {"Cores": cores}
        nodes = [{"hosts": hosts, "Gres": [gpu]}]
        return {*served_files.restart_lines(parse({**lab(), "nodes": nodes}), daemon)}

    (key,) = keys("0-1")
    assert key.startswith("gres.conf Cores=")
    assert keys("0-1") != keys("0")
    # A node that comes to the class is no reason, and slurmd knows its own.
    assert keys("0-1", "cn01") == keys("0-1")
    assert keys(None) == set()
    assert keys("0-1", daemon="slurmd") == keys("0", daemon="slurmd")


def test_a_parameter_may_be_there_several_times() -> None:
    first, second = (Line(Section.CLUSTER, "SlurmctldHost", name) for name in ("ctl2", "ctl1"))
    found = lines(SlurmConf(), [first, second])
    # The first is the primary controller: their order is kept.
    assert [line.value for line in found if line.name == "SlurmctldHost"] == ["ctl2", "ctl1"]
    assert {line.name for line in lines(SlurmConf(TaskPlugin="task/none"), [])} >= {"TaskPlugin"}


def test_what_follows_cannot_be_set_in_extra() -> None:
    """Each line that follows from other settings has a setting of its own, or is refused there."""
    everything = parse({**whole_lab(), "healthCheck": {}})
    hardware = dict.fromkeys(everything.compute, DGX)
    types = served_files.gres_types(everything, hardware)
    for line in derived(everything, types):
        raw = whole_lab() | {"healthCheck": {}}
        raw["slurm"] = {**raw["slurm"], "extra": {line.name.upper(): str(line.value)}}
        with pytest.raises(SettingsError, match=f"(?i)slurm.extra.{line.name}"):
            parse(raw)


def test_a_script_stands_behind_the_base_path_in_job_container_conf() -> None:
    """slurmd does not start with it on a line of its own."""
    container = {"BasePath": "/var/lib/slurm-tmp", "InitScript": "/usr/local/sbin/init"}
    text = served_files.job_container_conf(parse({**lab(), "jobContainer": container}))
    assert text is not None
    assert "\nBasePath=/var/lib/slurm-tmp InitScript=/usr/local/sbin/init\n" in text
    assert "\nInitScript" not in text


def test_plugins_that_slurm_loads_as_files() -> None:
    slurm = {
        "SwitchType": "switch/none",
        "TaskPlugin": "affinity,task/cgroup",
        "extra": {"JobSubmitPlugins!": ["lua", "site_quota"], "MCSPlugin": "mcs/user"},
    }
    files = plugin_files(parameters(parse({**lab(), "slurm": slurm})))
    assert files["JobSubmitPlugins"] == [("job_submit_lua.so",), ("job_submit_site_quota.so",)]
    assert files["TaskPlugin"] == [("task_affinity.so",), ("task_cgroup.so",)]
    assert files["MCSPlugin"] == [("mcs_user.so",)]
    assert files["MpiDefault"] == [("mpi_pmix.so",)]
    assert files["SelectType"] == [("select_cons_tres.so",)]
    assert "SwitchType" not in files


@pytest.mark.parametrize("there", [True, False])
def test_a_plugin_that_is_not_there_is_named(tmp_path: Path, there: bool) -> None:
    slurm = {"extra": {"PluginDir": str(tmp_path), "JobSubmitPlugins!": "site_quota"}}
    found = parameters(parse({**lab(), "slurm": slurm}))
    for names in plugin_files(found).values():
        for name in (own for own, *_ in names):
            if there or "site_quota" not in name:
                (tmp_path / name).touch()
    script = plugins_are_there(found, "/etc/slurm/slurm.conf").script
    done = subprocess.run(["sh"], input=script, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) is there
    if not there:
        assert done.stdout == (
            "slurm.conf: JobSubmitPlugins names a plugin whose file job_submit_site_quota.so is "
            f"not in {tmp_path}; install the package that has it, or take it out\n"
        )


@pytest.mark.parametrize(
    ("has", "ends"), [("job_container_tmpfs.so", 0), ("namespace_tmpfs.so", 0), ("other.so", 1)]
)
def test_a_plugin_may_have_the_name_of_a_later_release(tmp_path: Path, has: str, ends: int) -> None:
    """25.11 calls job_container/tmpfs namespace/tmpfs, and finds it by both names."""
    changes = {
        "slurm": {"extra": {"PluginDir": str(tmp_path)}},
        "jobContainer": {"BasePath": "/var/lib/slurm-tmp"},
    }
    every = parameters(parse({**lab(), **changes}))
    for names in plugin_files(every).values():
        for name, *_ in names:
            if "tmpfs" not in name:
                (tmp_path / name).touch()
    (tmp_path / has).touch()
    script = plugins_are_there(every, "/etc/slurm/slurm.conf").script
    done = subprocess.run(["sh"], input=script, capture_output=True, text=True, check=False)
    assert done.returncode == ends
    assert ("job_container_tmpfs.so or namespace_tmpfs.so is not" in done.stdout) is (ends == 1)


def test_plugins_may_lie_in_any_folder_of_plugin_dir(tmp_path: Path) -> None:
    """slurm.conf(5): colons part the folders."""
    folders = [tmp_path / "site", tmp_path / "slurm"]
    slurm = {"extra": {"PluginDir": ":".join(map(str, folders)), "JobSubmitPlugins!": "quota"}}
    found = parameters(parse({**lab(), "slurm": slurm}))
    for folder in folders:
        folder.mkdir()
    for names in plugin_files(found).values():
        for name in (own for own, *_ in names):
            (folders["quota" not in name] / name).touch()
    script = plugins_are_there(found, "/etc/slurm/slurm.conf").script
    subprocess.run(["sh"], input=script, text=True, check=True)


@pytest.mark.parametrize("packaged", [True, False])
def test_without_plugin_dir_plugins_lie_where_the_packages_have_them(
    tmp_path: Path, packaged: bool
) -> None:
    found = parameters(parse({**lab(), "slurm": {}}))
    dpkg = tmp_path / "dpkg"
    dpkg.write_text(f"#!/bin/sh\necho {tmp_path}/{'auth_munge.so' if packaged else 'x'}\n")
    dpkg.chmod(0o755)
    script = plugins_are_there(found, "/etc/slurm/slurm.conf").script

    def run() -> subprocess.CompletedProcess[str]:
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
        return subprocess.run(["sh"], input=script, env=environment, capture_output=True, text=True)

    # Where Slurm comes from no package, slurmctld itself says what it lacks.
    assert run().returncode == (1 if packaged else 0)
    for names in plugin_files(found).values():
        for name in (own for own, *_ in names):
            (tmp_path / name).touch()
    assert run().returncode == 0


def test_what_slurmctld_and_slurmd_must_be_started_with_alike() -> None:
    def of(**changes: Any) -> str:
        slurm = {**whole_lab()["slurm"], **changes.pop("slurm", {})}
        return together(parse({**whole_lab(), "slurm": slurm, **changes}))

    nodes = whole_lab()["nodes"]
    extra = [{**nodes[0], "extra": {"Port": 7001}}, *nodes[1:]]
    found = [
        of(), of(slurm={"SlurmdPort": "7000"}), of(slurm={"AuthInfo": "ttl=60"}), of(nodes=extra),
    ]  # fmt: skip
    assert len({*found}) == len(found)
    for one in ({"MessageTimeout": 77}, {"SlurmctldParameters": "enable_configless"}):
        assert of(slurm=one) == found[0], one


def test_a_file_of_gres_is_judged_as_lines_of_nodes_are() -> None:
    """Cores of a GPU are no word of slurm.conf, and make a node invalid all the same."""

    def script(cores: str) -> str:
        gpus = [{"Type": "a100", "File": "/dev/nvidia0", "Cores": cores}]
        found = parse({**whole_lab(), "nodes": [{"hosts": "cn[01-02]", "Gres": gpus}]})
        return nodes_fit_bundle("ctl", found, dict.fromkeys(found.compute, DGX)).render()

    assert script("0") != script("0-1")


@pytest.mark.parametrize(
    ("changes", "asked", "waits"),
    [
        ({}, "node_drain", True),
        ({"rollout": {"drain": "never"}}, "job_guard", False),
        ({"guards": {"allowJobLoss": True}}, None, False),
    ],
)
def test_a_change_that_would_end_jobs_waits_is_refused_or_is_done(
    changes: dict[str, Any], asked: str | None, waits: bool
) -> None:
    found = parse({**whole_lab(), **changes})
    parts = controller_bundle("ctl", found, dict.fromkeys(found.compute, DGX)).parts
    guards = [it.script for it in parts if isinstance(it, Guard) and it.name == "jobs-stay"]
    assert [f"on_node.{asked} check" in script for script in guards] == [True] * bool(asked)
    (unit,) = (it for it in parts if isinstance(it, Unit) and it.name == "slurmctld.service")
    assert ("/etc/slurm/slurm.conf" in unit.drain_on) == waits
