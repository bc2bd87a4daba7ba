"""Node classes, login nodes, and what jobs find on a node; on real nodes."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.lab.conftest import RunningLab, await_that

pytestmark = pytest.mark.lab


def srun(lab: RunningLab, options: str, script: str, *, check: bool = True) -> str:
    done = lab.ssh("ctl", f"cd / && timeout 240 srun {options} sh -c '{script}'", check=check)
    return (done.stdout + ("" if check else done.stderr)).strip()


def test_classes_differ(lab: RunningLab) -> None:
    shown = lab.ssh("ctl", "sinfo --noheader -N -p main -o '%N %f %w %G'").stdout.splitlines()
    # Slurm goes on telling the socket of GPUs that once had Cores, `(S:0)`, as another test gives
    # them, until its state is made anew.
    assert [re.sub(r"\(S:[-,0-9]+\)$", "", line).split() for line in shown] == [
        ["cn01", "dgx", "10", "gpu:h100:4"],
        ["cn02", "plain", "5", "(null)"],
    ]


def test_gpus_are_counted_and_given_by_number(lab: RunningLab) -> None:
    assert srun(lab, "--gres=gpu:h100:3", "hostname; echo $SLURM_GPUS_ON_NODE").split() == [
        "cn01", "3",
    ]  # fmt: skip
    refused = srun(lab, "--gres=gpu:h100:5", "true", check=False)
    assert "Requested node configuration is not available" in refused


def test_jobs_have_the_environment_and_keep_their_own(lab: RunningLab) -> None:
    assert srun(lab, "-w cn01", "echo $UCX_TLS") == "rc,ud,self,sm"
    assert srun(lab, "-w cn02", "echo $NOTE") == 'it\'s "fine" $HOME'
    assert srun(lab, "-w cn01 --export=ALL,UCX_TLS=tcp", "echo $UCX_TLS") == "tcp"


def test_a_job_has_its_own_tmp(lab: RunningLab) -> None:
    lab.ssh("cn01", "touch /tmp/of-the-node")
    # PMIx keeps a folder of its own there while a step runs.
    seen = srun(lab, "-w cn01", "touch /tmp/mine; ls /tmp | grep -v ^spmix_appdir_")
    assert seen == "mine"
    assert lab.ssh("cn01", "ls /tmp/mine", check=False).returncode != 0


def test_pmix_is_the_default(lab: RunningLab) -> None:
    assert int(srun(lab, "-N2", "env | grep -c ^PMIX_").split()[0]) > 3
    assert "MpiParams               = ports=12000-12999" in config(lab)


def test_the_fabric_is_known(lab: RunningLab) -> None:
    shown = lab.ssh("ctl", "scontrol show topology").stdout
    assert "SwitchName=top Level=1" in shown
    assert "Nodes=cn[01-02] Switches=leaf[1-2]" in shown


def test_a_fabric_of_blocks_and_shards_of_gpus(restored: RunningLab) -> None:
    lab = restored

    def change(settings: dict[str, Any]) -> None:
        blocks = {"b1": {"Nodes": "cn01"}, "b2": {"Nodes": "cn02"}}
        settings["topology"] = {"plugin": "block", "blocks": blocks, "BlockSizes": [1, 2]}
        settings["nodes"][0]["Gres"].append({"Name": "shard", "Count": 8})

    lab.change(change)
    lab.up()
    shown = lab.ssh("ctl", "scontrol show topology").stdout
    assert "BlockName=b2 BlockIndex=1 Nodes=cn02 BlockSize=1" in shown
    assert "AggregatedBlock=b[1-2] BlockIndex=2 Nodes=cn[01-02] BlockSize=2" in shown
    assert sorted(srun(lab, "-N2", "hostname").split()) == ["cn01", "cn02"]
    script = "hostname; echo $SLURM_SHARDS_ON_NODE"
    assert srun(lab, "--gres=shard:2", script).split() == ["cn01", "2"]
    assert "not available" in srun(lab, "--gres=shard:9", "true", check=False)


#: The real NHC where a folder with it is given; else a stand-in that knows one kind of rule.
NHC = r"""#!/bin/sh
for path in $(sed -n 's/^[*] || check_file_test -f //p' /etc/nhc/nhc.conf); do
  if [ ! -e "$path" ]; then
    exec scontrol update "nodename=$(hostname)" state=drain "reason=NHC: -f $path"
  fi
done
if sinfo -h -n "$(hostname)" -o %E | grep -q '^NHC: '; then
  scontrol update "nodename=$(hostname)" state=resume
fi
"""


def test_a_node_that_fails_its_health_check_gets_no_jobs(restored: RunningLab) -> None:
    lab, given = restored, os.environ.get("SLURMSTACK_TEST_ARTIFACTS")
    packages = sorted(Path(given).glob("*nhc_*.deb")) if given else []
    content, command = NHC.encode(), "cat >/usr/sbin/nhc && chmod 755 /usr/sbin/nhc"
    if packages:
        content, command = packages[-1].read_bytes(), "cat >/tmp/n.deb && dpkg -i /tmp/n.deb"
    for node in ("cn01", "cn02"):
        lab.send(node, f"touch /etc/fit; {command}", content)
    rule = "* || check_file_test -f /etc/fit"
    lab.set(healthCheck={"interval": 60, "rules": [rule]})
    lab.up()

    assert lab.shown("cn01", "%T %E") == "idle none"
    # slurmd runs it when it starts, and then at each interval.
    lab.ssh("cn02", "rm /etc/fit; systemctl restart slurmd")
    await_that(lambda: lab.shown("cn02", "%T %E").startswith("drained NHC: "))
    assert lab.shown("cn01", "%T %E") == "idle none"
    lab.ssh("cn02", "touch /etc/fit; systemctl restart slurmd")
    await_that(lambda: lab.shown("cn02", "%T %E") == "idle none")


def config(lab: RunningLab, node: str = "ctl") -> str:
    return lab.ssh(node, "scontrol show config").stdout


def test_slurmd_and_its_jobs_have_the_limits(lab: RunningLab) -> None:
    assert srun(lab, "-w cn01", "ulimit -n") == "16384"


def test_a_job_from_the_login_node(lab: RunningLab) -> None:
    shown = lab.ssh("login01", "cd / && timeout 240 srun -N2 hostname").stdout
    assert sorted(shown.split()) == ["cn01", "cn02"]


def test_a_login_node_that_the_controller_does_not_know(restored: RunningLab) -> None:
    lab = restored
    before = lab.ssh("ctl", "cat /etc/slurm/slurm.conf").stdout
    lab.ssh("ctl", "cp -p /etc/hosts /etc/hosts.kept; sed -i '/ login01$/d' /etc/hosts")
    try:
        lab.change(lambda it: it["slurm"].update(MessageTimeout=48))
        said = lab.up(check=False)
    finally:
        lab.ssh("ctl", "mv /etc/hosts.kept /etc/hosts")
    assert "slurmstack: ctl: guard login-nodes-resolve" in said
    assert "cannot resolve login01" in said
    assert "/etc/hosts" in said
    assert lab.ssh("ctl", "cat /etc/slurm/slurm.conf").stdout == before


def test_the_login_node_holds_no_slurm_conf_and_hears_of_changes(restored: RunningLab) -> None:
    lab = restored
    assert lab.ssh("login01", "ls /etc/slurm/slurm.conf", check=False).returncode != 0
    assert "cn[01-02]" in lab.ssh("login01", "sinfo --noheader -p main").stdout
    lab.change(lambda it: it["slurm"].update(MessageTimeout=47))
    lab.up()
    await_that(lambda: "MessageTimeout          = 47" in config(lab, "login01"))


def test_a_user_loads_a_module(users: RunningLab) -> None:
    for node in ("login01", "cn01"):
        shown = users.ssh(node, "su - worker -c 'module load fabric && echo $UCX_TLS $PATH'")
        assert shown.stdout.startswith("self,sm /opt/fabric/bin:")


def test_gpus_that_are_not_there(kept: RunningLab) -> None:
    gpus = {"Type": "h100", "File": "/dev/nvidia[0-3]"}
    kept.change(lambda it: it["nodes"][0].update(Gres=[gpus]))
    done = kept.pulumi("preview", check=False)
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "gpu:h100:4 with /dev/nvidia0, /dev/nvidia1" in said
    assert "on cn01: no GPU" in said


def test_an_unfit_node_is_stopped_before_it_is_changed(restored: RunningLab) -> None:
    lab = restored
    before = lab.ssh("cn01", "cat /var/lib/slurmstack/system/manifest").stdout
    lab.set(precheck={"freeDisk": 10**9}, limits={"nofile": 4096})
    said = lab.up(check=False)
    assert "slurmstack: cn01: guard precheck" in said
    assert "1000000000 needed: free space" in said
    assert lab.ssh("cn01", "cat /var/lib/slurmstack/system/manifest").stdout == before
    assert "16384" in lab.ssh("cn01", "cat /etc/security/limits.d/90-slurmstack.conf").stdout


def test_check_says_what_each_host_is(kept: RunningLab) -> None:
    lab = kept
    done = lab.run("slurmstack", "check", "--stack", lab.name, "--json")
    found = json.loads(done.stdout)
    assert set(found) == {"ctl", "login01", "cn01", "cn02"}
    for name, one in found.items():
        assert one["node"] == name
        assert one["fails"] == []
        assert "Debian" in one["os"]
    lab.set(cgroup={"CgroupPlugin": "cgroup/v2"})
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
