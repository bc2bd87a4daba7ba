"""What slurmctld runs by against its file; scontrol's words are recorded from 24.11."""

# Recorded lines are as long as they are.
# ruff: noqa: E501

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from on_node import cluster_drift
from settings.hostlist import expand

FILE = """\
# slurm.conf of cluster lab
AccountingStorageTRES=gres/gpu
AuthAltParameters=jwks=/etc/slurm/slurm.jwks,jwt_key=/etc/slurm/jwt.key
DebugFlags=GLOB_SILENCE
MessageTimeout=30
PrologFlags=Contain
SelectTypeParameters=CR_Core_Memory
SlurmUser=slurm
SlurmctldDebug=info
SlurmctldHost=ctl(10.73.150.10)
NodeName=cn01 NodeAddr=10.73.150.21 \\
    CPUs=2 \\
    Boards=1 \\
    SocketsPerBoard=1 \\
    CoresPerSocket=2 \\
    ThreadsPerCore=1 \\
    RealMemory=24105 \\
    Features=dgx,ib \\
    Weight=10 \\
    Gres=gpu:h100:4
PartitionName=main Nodes=ALL Default=YES MaxTime=1-00:00:00
"""
CONFIG = """\
Configuration data as of 2026-11-25T21:31:09
AccountingStorageTRES   = cpu,mem,energy,node,billing,fs/disk,vmem,pages,gres/gpu,gres/gpumem,gres/gpuutil
AuthAltParameters       = jwks=/etc/slurm/slurm.jwks,jwt_key=/etc/slurm/jwt.key
DebugFlags              = GLOB_SILENCE
HASH_VAL                = Match
MessageTimeout          = 30 sec
PrologFlags             = Alloc,Contain
SelectTypeParameters    = CR_CORE_MEMORY
SlurmUser               = slurm(64030)
SlurmctldDebug          = info
SlurmctldHost[0]        = ctl(10.73.150.10)
"""
OTHER_HASH = CONFIG.replace("= Match", "= Different Ours=0x1 Slurmctld=0x2")
NODE = "NodeName=cn01 Arch=x86_64 CoresPerSocket=2  CPUAlloc=0 CPUEfctv=2 CPUTot=2 CPULoad=17.04 AvailableFeatures=ib,dgx ActiveFeatures=ib,dgx Gres=gpu:h100:4(S:0) NodeAddr=10.73.150.21 NodeHostName=cn01 Version=24.11.5 RealMemory=24105 AllocMem=0 FreeMem=11343 Sockets=1 Boards=1 State=IDLE ThreadsPerCore=1 TmpDisk=0 Weight=10 Owner=N/A MCS_label=N/A Partitions=main\n"
PARTITION = "PartitionName=main AllowGroups=ALL AllowAccounts=ALL Default=YES QoS=N/A MaxNodes=UNLIMITED MaxTime=1-00:00:00 MinNodes=0 NodeSets=ALL Nodes=cn01 State=DOWN TotalCPUs=4\n"


def told(differences: object) -> list[tuple[str, str, str]]:
    return [(one["name"], one["found"], one["command"]) for one in differences]  # type: ignore[attr-defined]


def test_slurm_spells_what_the_file_says_in_its_own_way() -> None:
    assert told(cluster_drift.of_parameters(FILE, CONFIG)) == []
    assert told(cluster_drift.of_nodes(FILE, NODE, expand)) == []
    # The state of a partition is people's to decide.
    assert told(cluster_drift.of_partitions(FILE, PARTITION, expand)) == []


@pytest.mark.parametrize(
    ("name", "wanted", "running"),
    [
        ("prioritycalcperiod", "5", "00:05:00"),
        ("prioritydecayhalflife", "7-0", "7-00:00:00"),
        ("suspendtime", "INFINITE", "UNLIMITED"),
        ("killonbadexit", "yes", "1"),
        ("slurmctlddebug", "5", "debug"),
        ("propagateresourcelimitsexcept", "NOFILE,MEMLOCK", "MEMLOCK,NOFILE"),
        ("accountingstorageenforce", "safe", "associations,limits,safe"),
        ("maxtime", "UNLIMITED", "UNLIMITED"),
        ("mpiparams", "ports=12000-12999", "ports=12000-12999"),
    ],
)
def test_the_same_in_two_spellings(name: str, wanted: str, running: str) -> None:
    assert cluster_drift.same(name, wanted, running)


@pytest.mark.parametrize(
    ("name", "wanted", "running"),
    [
        ("messagetimeout", "30", "60 sec"),
        ("maxtime", "1-00:00:00", "UNLIMITED"),
        ("schedulerparameters", "bf_continue", "bf_continue,defer"),
        ("accountingstoragetres", "gres/gpu", "cpu,mem"),
        ("prologflags", "Contain,X11", "Alloc,Contain"),
    ],
)
def test_two_values(name: str, wanted: str, running: str) -> None:
    assert not cluster_drift.same(name, wanted, running)


def test_another_version_of_the_file_is_named_with_what_is_other_in_it() -> None:
    running = OTHER_HASH.replace("30 sec", "60 sec")
    assert told(cluster_drift.of_parameters(FILE, running)) == [
        ("slurm.conf", "slurmctld runs with another version of it", "scontrol reconfigure"),
        ("MessageTimeout", "60 sec, not 30", "scontrol reconfigure"),
    ]


def test_of_the_same_version_only_what_is_set_while_it_runs_can_differ() -> None:
    running = CONFIG.replace("= info", "= debug2").replace("30 sec", "however it is spelt")
    assert told(cluster_drift.of_parameters(FILE, running)) == [
        ("SlurmctldDebug", "debug2, not info", "scontrol reconfigure")
    ]


def test_nodes() -> None:
    running = NODE.replace("Weight=10", "Weight=77").replace("AvailableFeatures=ib,dgx", "AvailableFeatures=dgx")  # fmt: skip
    running = running.replace("Gres=gpu:h100:4(S:0)", "Gres=gpu:h100:2").replace("=24105", "=100")
    assert told(cluster_drift.of_nodes(FILE, running, expand)) == [
        ("cn01", "RealMemory 100, not 24105", "scontrol reconfigure"),
        ("cn01", "Features dgx, not dgx,ib", "scontrol update NodeName=cn01 AvailableFeatures=dgx,ib ActiveFeatures=dgx,ib"),
        ("cn01", "Weight 77, not 10", "scontrol update NodeName=cn01 Weight=10"),
        ("cn01", "Gres gpu:h100:2, not gpu:h100:4", "scontrol update NodeName=cn01 Gres=gpu:h100:4"),
    ]  # fmt: skip
    assert told(cluster_drift.of_nodes(FILE, "", expand)) == [
        ("cn01", "slurmctld does not know it", "scontrol reconfigure")
    ]


def test_partitions() -> None:
    running = PARTITION.replace("1-00:00:00", "00:05:00").replace("Nodes=cn01", "Nodes=(null)")
    assert told(cluster_drift.of_partitions(FILE, running, expand)) == [
        ("main", "Nodes (null), not ALL", "scontrol update PartitionName=main Nodes=ALL"),
        ("main", "MaxTime 00:05:00, not 1-00:00:00", "scontrol update PartitionName=main MaxTime=1-00:00:00"),
    ]  # fmt: skip


def test_a_file_that_changed_after_slurmctld_read_it(tmp_path: Path) -> None:
    booted = time.time() - 100
    for name, age in (("gres.conf", 50), ("topology.conf", 200), ("slurmdbd.conf", 50)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(booted))
    assert told(cluster_drift.of_files(tmp_path, stamp)) == [
        ("gres.conf", "changed after slurmctld read it", "scontrol reconfigure")
    ]


def test_objects_of_accounting(tmp_path: Path) -> None:
    program = tmp_path / "reconcile"
    program.write_text(
        "#!/bin/sh\n"
        "echo 'make qos high: sacctmgr --immediate add qos name=high'\n"
        "echo 'change association ann physics -: sacctmgr --immediate modify user'\n"
        "exit 3\n"
    )
    program.chmod(0o755)
    assert told(cluster_drift.of_accounting(str(program))) == [
        ("qos high", "missing", "sacctmgr --immediate add qos name=high"),
        ("association ann physics -", "is not as declared", "sacctmgr --immediate modify user"),
    ]
    program.write_text("#!/bin/sh\necho slurmdbd does not answer >&2; exit 1\n")
    with pytest.raises(RuntimeError, match="slurmdbd does not answer"):
        told(cluster_drift.of_accounting(str(program)))


def test_several_lines_of_one_parameter_are_compared_each() -> None:
    file = "Epilog=/a\nEpilog=/b\n"
    shown = "Epilog[0] = /a\nEpilog[1] = /b\nHASH_VAL = Different Ours=0x1 Slurmctld=0x2\n"
    names = [name for name, _, _ in told(cluster_drift.of_parameters(file, shown))]
    assert names == ["slurm.conf"]
    other = told(cluster_drift.of_parameters(file, shown.replace("/b", "/c")))
    assert ("Epilog", "/c, not /b", "scontrol reconfigure") in other
