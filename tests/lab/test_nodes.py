"""Node classes, login nodes, what jobs find on a node, and how a node leaves; on real nodes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from lab import lifecycle
from tests.lab.conftest import RunningLab, lab_command, own_name, why_not

pytestmark = [pytest.mark.lab, pytest.mark.components]

#: Stands on cn02 before slurmstack comes, in the place of a file that it writes.
BEFORE = "# a tree of the site\n/srv/modules\n"


def change(lab: RunningLab, edit: Callable[[dict[str, Any]], None]) -> None:
    """Edit the stack's settings, keys without the project's name."""
    content = yaml.safe_load(lab.settings.read_text())
    config = {key.removeprefix("slurmstack:"): value for key, value in content["config"].items()}
    edit(config)
    content["config"] = {f"slurmstack:{key}": value for key, value in config.items()}
    lab.settings.write_text(yaml.safe_dump(content, sort_keys=False))


@pytest.fixture
def restored(cluster: RunningLab) -> Iterator[RunningLab]:
    """The cluster; its settings are as before afterwards."""
    before = cluster.settings.read_text()
    yield cluster
    cluster.settings.write_text(before)


@pytest.fixture(scope="module")
def cluster() -> Iterator[RunningLab]:
    """Two classes of one node each, a login node, and all that needs no special hardware."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    name = own_name("n")
    try:
        lab_command(name, "up", "--machines-only", "--nodes", "ctl,login,cn01,cn02")
        lab = RunningLab(lifecycle.require(name))
        lab.ssh("cn02", f"mkdir -p /etc/lmod; printf '%s' '{BEFORE}' >/etc/lmod/.modulespath")

        def whole(config: dict[str, Any]) -> None:
            config["hosts"]["login"] = lab.address("login")
            config["roles"]["login"] = "login"
            gpus = {"Name": "gpu", "Type": "h100", "Count": 4, "standIn": True}
            config["nodes"] = [
                {"hosts": "cn01", "Features": ["dgx"], "Weight": 10, "Gres": [gpus]},
                {"hosts": "cn02", "Features": ["plain"], "Weight": 5},
            ]
            config["partitions"]["gpu"] = {"Nodes": "cn01"}
            switches = {
                "leaf1": {"Nodes": "cn01"},
                "leaf2": {"Nodes": "cn02"},
                "top": {"Switches": "leaf[1-2]"},
            }
            config["topology"] = {"plugin": "tree", "switches": switches}
            config["mpi"] = {}
            config["limits"] = {"nofile": 16384}
            config["jobContainer"] = {"BasePath": "/var/lib/slurm-tmp"}
            config["jobEnvironment"] = {"UCX_TLS": "rc,ud,self,sm", "NOTE": 'it\'s "fine" $HOME'}
            config["modules"] = {
                "tree": {
                    "fabric/1.0": {
                        "description": "UCX on the fabric",
                        "setEnv": {"UCX_TLS": "self,sm"},
                        "prependPath": {"PATH": "/opt/fabric/bin"},
                        "default": True,
                    }
                }
            }

        change(lab, whole)
        lab_command(name, "up", "--nodes", "ctl,login,cn01,cn02")
        yield lab
    finally:
        lab_command(name, "down")


def srun(lab: RunningLab, options: str, script: str, *, check: bool = True) -> str:
    done = lab.ssh("ctl", f"cd / && timeout 60 srun {options} sh -c '{script}'", check=check)
    return (done.stdout + ("" if check else done.stderr)).strip()


def test_classes_differ(cluster: RunningLab) -> None:
    shown = cluster.ssh("ctl", "sinfo --noheader -N -p main -o '%N %f %w %G'").stdout.splitlines()
    assert [line.split() for line in shown] == [
        ["cn01", "dgx", "10", "gpu:h100:4"],
        ["cn02", "plain", "5", "(null)"],
    ]


def test_gpus_are_counted_and_given_by_number(cluster: RunningLab) -> None:
    assert srun(cluster, "--gres=gpu:h100:3", "hostname; echo $SLURM_GPUS_ON_NODE").split() == [
        "cn01", "3",
    ]  # fmt: skip
    refused = srun(cluster, "--gres=gpu:h100:5", "true", check=False)
    assert "Requested node configuration is not available" in refused


def test_jobs_have_the_environment_and_keep_their_own(cluster: RunningLab) -> None:
    assert srun(cluster, "-w cn01", "echo $UCX_TLS") == "rc,ud,self,sm"
    assert srun(cluster, "-w cn02", "echo $NOTE") == 'it\'s "fine" $HOME'
    assert srun(cluster, "-w cn01 --export=ALL,UCX_TLS=tcp", "echo $UCX_TLS") == "tcp"


def test_a_job_has_its_own_tmp(cluster: RunningLab) -> None:
    cluster.ssh("cn01", "touch /tmp/of-the-node")
    assert srun(cluster, "-w cn01", "touch /tmp/mine; ls /tmp") == "mine"
    assert cluster.ssh("cn01", "ls /tmp/mine", check=False).returncode != 0


def test_pmix_is_the_default(cluster: RunningLab) -> None:
    assert int(srun(cluster, "-N2", "env | grep -c ^PMIX_").split()[0]) > 3
    assert "MpiParams               = ports=12000-12999" in config(cluster)


def test_the_fabric_is_known(cluster: RunningLab) -> None:
    shown = cluster.ssh("ctl", "scontrol show topology").stdout
    assert "SwitchName=top Level=1" in shown
    assert "Nodes=cn[01-02] Switches=leaf[1-2]" in shown


def config(lab: RunningLab, node: str = "ctl") -> str:
    return lab.ssh(node, "scontrol show config").stdout


def test_slurmd_and_its_jobs_have_the_limits(cluster: RunningLab) -> None:
    assert srun(cluster, "-w cn01", "ulimit -n") == "16384"


def test_the_login_node_holds_no_slurm_conf_and_hears_of_changes(restored: RunningLab) -> None:
    lab = restored
    assert lab.ssh("login", "ls /etc/slurm/slurm.conf", check=False).returncode != 0
    assert "cn[01-02]" in lab.ssh("login", "sinfo --noheader -p main").stdout
    change(lab, lambda it: it["slurm"].update(MessageTimeout=47))
    lab.pulumi("up", "--yes", "--skip-preview")
    await_that(lambda: "MessageTimeout          = 47" in config(lab, "login"))


def test_a_user_loads_a_module(cluster: RunningLab) -> None:
    for node in ("login", "cn01"):
        cluster.ssh(node, "id -u worker >/dev/null 2>&1 || useradd -m -s /bin/bash worker")
        shown = cluster.ssh(node, "su - worker -c 'module load fabric && echo $UCX_TLS $PATH'")
        assert shown.stdout.startswith("self,sm /opt/fabric/bin:")


def test_gpus_that_are_not_there(restored: RunningLab) -> None:
    gpus = {"Type": "h100", "File": "/dev/nvidia[0-3]"}
    change(restored, lambda it: it["nodes"][0].update(Gres=[gpus]))
    done = restored.pulumi("preview", check=False)
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "gpu:h100:4 with /dev/nvidia0, /dev/nvidia1" in said
    assert "on cn01: no GPU" in said


def test_an_unfit_node_is_stopped_before_it_is_changed(restored: RunningLab) -> None:
    lab = restored
    before = lab.ssh("cn01", "cat /var/lib/slurmstack/system/manifest").stdout
    change(lab, lambda it: it.update(precheck={"freeDisk": 10**9}, limits={"nofile": 4096}))
    done = lab.pulumi("up", "--yes", "--skip-preview", check=False)
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "slurmstack: cn01: guard precheck" in said
    assert "1000000000 needed: free space" in said
    assert lab.ssh("cn01", "cat /var/lib/slurmstack/system/manifest").stdout == before
    assert "16384" in lab.ssh("cn01", "cat /etc/security/limits.d/90-slurmstack.conf").stdout


def test_check_says_what_each_host_is(restored: RunningLab) -> None:
    lab = restored
    done = lab.run("slurmstack", "check", "--stack", lab.name, "--json")
    found = json.loads(done.stdout)
    assert set(found) == {"ctl", "login", "cn01", "cn02"}
    for name, one in found.items():
        assert one["node"] == name
        assert one["fails"] == []
        assert "Debian" in one["os"]
    change(lab, lambda it: it.update(cgroup={"CgroupPlugin": "cgroup/v2"}))
    lab.ssh("cn02", "hostname astray")
    try:
        done = lab.run("slurmstack", "check", "--stack", lab.name, "--json", check=False)
    finally:
        lab.ssh("cn02", "hostname cn02")
    found = json.loads(done.stdout)
    assert done.returncode == 1
    assert any("cgroups are" in text for text in found["cn01"]["fails"])
    assert any("hostnamectl hostname cn02" in text for text in found["cn02"]["fails"])
    assert found["ctl"]["fails"] == []


def test_a_node_leaves(cluster: RunningLab) -> None:
    """Last here: drained while it works, gone when it is done, and as it was before."""
    lab = cluster
    lab.pulumi("up", "--yes", "--skip-preview")
    job = lab.ssh("ctl", "cd / && sbatch --parsable -w cn02 --wrap 'sleep 600'").stdout.strip()
    await_that(lambda: "RUNNING" in lab.ssh("ctl", f"squeue -h -j {job} -o %T").stdout)

    def without(config: dict[str, Any]) -> None:
        config["hosts"].pop("cn[01-02]")
        config["hosts"]["cn01"] = lab.address("cn01")
        config["nodes"].pop()
        config["topology"]["switches"] = {"leaf1": {"Nodes": "cn01"}}

    change(lab, without)
    refused = lab.pulumi("up", "--yes", "--skip-preview", check=False)
    assert refused.returncode != 0
    assert f"still at work: cn02 (jobs {job})" in refused.stdout + refused.stderr
    assert "drain" in lab.ssh("ctl", "sinfo -h -N -n cn02 -o %T").stdout
    assert "RUNNING" in lab.ssh("ctl", f"squeue -h -j {job} -o %T").stdout
    assert lab.ssh("cn02", "systemctl is-active slurmd").stdout.strip() == "active"

    lab.ssh("ctl", f"scancel {job}")
    await_that(lambda: not lab.ssh("ctl", "squeue -h -w cn02").stdout.strip())
    lab.pulumi("up", "--yes", "--skip-preview")
    assert "cn02" not in lab.ssh("ctl", "cat /etc/slurm/*.conf; sinfo -N").stdout
    left = lab.ssh("cn02", "dpkg-query -W -f '${Package} ' 'slurm*' munge lmod", check=False)
    assert left.stdout.strip() == ""
    assert lab.ssh("cn02", "systemctl is-active slurmd munge", check=False).returncode != 0
    assert lab.ssh("cn02", "cat /etc/lmod/.modulespath").stdout == BEFORE
    gone = "/etc/slurmstack /etc/munge/munge.key /var/lib/slurmstack /usr/local/lib/slurmstack"
    assert lab.ssh("cn02", f"ls -d {gone}", check=False).stdout == ""
    assert "cn02" not in json.loads(lab.pulumi("stack", "output", "--json").stdout)["inventory"]
    assert srun(lab, "-w cn01", "hostname") == "cn01"


def await_that(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.2)
