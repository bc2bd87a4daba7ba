"""Which jobs a new slurm.conf would end or strand; scontrol's words are recorded from 24.11."""

# Recorded lines are as long as they are.
# ruff: noqa: E501

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from on_node import job_guard, job_harm, job_hold, job_start, slurm_state
from on_node.slurm_state import Config, Job
from settings.hostlist import expand

NODES = """\
NodeName=cn01 Arch=x86_64 CoresPerSocket=2  CPUAlloc=1 CPUEfctv=4 CPUTot=4 CPULoad=0.1 AvailableFeatures=dgx,ib ActiveFeatures=dgx,ib Gres=gpu:h100:4,shard:8 GresDrain=N/A GresUsed=gpu:h100:2(IDX:0-1) NodeAddr=10.0.0.21 NodeHostName=cn01 Version=24.11.5 OS=Linux 6.1 #1 SMP @0  RealMemory=8000 AllocMem=100 FreeMem=1 Sockets=2 Boards=1 MemSpecLimit=500 State=MIXED ThreadsPerCore=1 TmpDisk=0 Weight=10 Owner=N/A MCS_label=N/A Partitions=gpu,main  BootTime=2026-11-25T17:42:25 CfgTRES=cpu=2,mem=24105M,billing=2 CurrentWatts=0 AveWatts=0
NodeName=cn02 Arch=x86_64 CoresPerSocket=2  CPUAlloc=1 CPUEfctv=4 CPUTot=4 CPULoad=0.1 AvailableFeatures=(null) ActiveFeatures=(null) Gres=(null) GresDrain=N/A NodeAddr=10.0.0.22 NodeHostName=cn02 RealMemory=8000 AllocMem=100 Sockets=2 Boards=1 State=ALLOCATED ThreadsPerCore=1
NodeName=cn03 CoresPerSocket=2  CPUAlloc=0 CPUTot=4 AvailableFeatures=(null) Gres=(null) NodeAddr=10.0.0.23 RealMemory=8000 Sockets=2 Boards=1 State=DOWN*+DRAIN ThreadsPerCore=1 Reason=fan=Dead CPUTot=99 [root@2026-11-25T18:00:27]
"""
PARTITIONS = """\
PartitionName=gpu AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL Default=NO MaxNodes=UNLIMITED MaxTime=UNLIMITED MinNodes=0 Nodes=cn01 State=UP
PartitionName=main AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL Default=YES MaxNodes=UNLIMITED MaxTime=1-00:00:00 MinNodes=0 NodeSets=ALL Nodes=cn[01-03] State=UP
"""
CONF = """\
# slurm.conf of cluster lab
ClusterName=lab
SlurmdSpoolDir=/var/spool/slurmd
NodeName=cn01 NodeAddr=10.0.0.21 CPUs=4 Boards=1 SocketsPerBoard=2 CoresPerSocket=2 ThreadsPerCore=1 RealMemory=8000 MemSpecLimit=500 Features=dgx,ib Gres=gpu:h100:4,shard:8
NodeName=cn02 NodeAddr=10.0.0.22 CPUs=4 Boards=1 SocketsPerBoard=2 CoresPerSocket=2 ThreadsPerCore=1 RealMemory=8000
NodeName=cn03 NodeAddr=10.0.0.23 CPUs=4 Boards=1 SocketsPerBoard=2 CoresPerSocket=2 ThreadsPerCore=1 RealMemory=8000
PartitionName=gpu Nodes=cn01 Default=NO MaxTime=UNLIMITED
PartitionName=main Nodes=ALL Default=YES MaxTime=1-00:00:00
"""
RUNNING = (
    "JobId=2 JobName=x Partition=a Nodes=cn09 UserId=ann(5001) GroupId=ann(5001) Account=physics "
    "QOS=normal JobState=RUNNING Reason=None TimeLimit=00:30:00 Partition=gpu "
    "AllocNode:Sid=ctl:1 ReqNodeList=cn01 ExcNodeList=(null) NodeList=cn01 NumNodes=1 NumCPUs=1 "
    "JOB_GRES=gpu:h100:2   Nodes=cn01 CPU_IDs=0-1 Mem=3000 GRES=gpu:h100:2(IDX:0-1) "
    "MinCPUsNode=2 MinMemoryNode=3000M Features=(null) TresPerNode=gres/gpu:h100:2 "
)
WAITING = (
    "JobId=4 ArrayJobId=4 ArrayTaskId=1-3 JobName=wrap UserId=ann(5001) Account=physics QOS=high "
    "JobState=PENDING TimeLimit=02:00:00 Partition=main,gpu ReqNodeList=(null) NodeList= "
    "NumNodes=1-1 NumCPUs=2 MinCPUsNode=2 MinMemoryCPU=1G Features=dgx|plain TresPerNode=gres/gpu:2 "
)
ACROSS = (
    "JobId=5 JobName=mpi UserId=bob(5002) Account=physics QOS=normal JobState=SUSPENDED "
    "TimeLimit=1-00:00:00 Partition=main ReqNodeList=(null) NodeList=cn[01-02] NumNodes=2 "
    "JOB_GRES=(null)   Nodes=cn[01-02] CPU_IDs=2-3 Mem=4000 GRES= MinCPUsNode=1 MinMemoryNode=0 "
)


def old() -> Config:
    return slurm_state.config_of_scontrol(NODES, PARTITIONS, "SlurmdSpoolDir = /x\n", expand)


def harm(conf: str, *jobs: str) -> dict[str, list[str]]:
    new = slurm_state.config_of_text(conf, expand)
    found = job_harm.all_harm(read(*jobs), old(), new, [], lambda user: frozenset(["users"]))
    return {what: [job.id for job in jobs] for what, jobs in found.items()}


def read(*jobs: str) -> list[Job]:
    return slurm_state.jobs_of_scontrol("\n".join(jobs), expand)


def test_a_line_may_be_continued() -> None:
    continued = CONF.replace(" CPUs=", " \\\n    CPUs=").replace(" Default", " \\\n    Default")
    assert slurm_state.config_of_text(continued, expand) == slurm_state.config_of_text(CONF, expand)


def test_what_slurmctld_says_and_what_a_file_says_are_the_same() -> None:
    conf = slurm_state.config_of_text(CONF, expand)
    shown = old()
    assert [(one.cores, one.cpus, one.memory, one.gres) for one in shown.nodes.values()] == [
        (4, 4, 7500, {"gpu": {"h100": 4}, "shard": {"": 8}}), (4, 4, 8000, {}), (4, 4, 8000, {}),
    ]  # fmt: skip
    for name, node in conf.nodes.items():
        other = shown.nodes[name]
        assert (node.address, node.cores, node.cpus, node.memory, node.gres, node.features) == (
            other.address, other.cores, other.cpus, other.memory, other.gres, other.features,
        )  # fmt: skip
    assert conf.partitions == shown.partitions
    assert not shown.nodes["cn03"].answers


def test_a_job_is_read_whatever_its_name_says() -> None:
    job = read(RUNNING)[0]
    assert (job.id, job.user, job.partitions, job.nodes) == ("2", "ann", ("gpu",), ("cn01",))
    assert job.held["cn01"] == slurm_state.Held(2, 3000, (("gpu", "h100", 2, True),))
    waiting = read(WAITING)[0]
    assert (waiting.id, waiting.time_limit) == ("4_[1-3]", 7200)
    assert (waiting.cpus_per_node, waiting.memory_per_node) == (2, 2048)
    assert waiting.gres_per_node == (("gpu", "", 2),)


def test_nothing_changes() -> None:
    assert harm(CONF, RUNNING, WAITING, ACROSS) == {}


@pytest.mark.parametrize(
    ("was", "now", "what"),
    [
        ("PartitionName=gpu ", "PartitionName=gpus ", {"partition gpu goes": ["2", "4_[1-3]"]}),
        ("NodeName=cn02 ", "NodeName=cn12 ", {"node cn02 leaves the cluster": ["5"]}),
        ("gpu:h100:4", "gpu:h100:3", {"node cn01 has 3 gres/gpu, not 4": ["2"]}),
        ("gpu:h100:4", "gpu:h100:8", {"node cn01 has 8 gres/gpu, not 4": ["2"]}),
        ("gpu:h100:4", "gpu:h200:4", {"node cn01 has no gres/gpu:h100": ["2"]}),
        (
            "RealMemory=8000 MemSpecLimit=500", "RealMemory=7000 MemSpecLimit=500",
            {"node cn01 offers 6500 MiB, 7000 are held": ["2", "5"]},
        ),
        ("CoresPerSocket=2 ThreadsPerCore=1 RealMemory=8000\nNodeName=cn03",
         "CoresPerSocket=4 ThreadsPerCore=1 RealMemory=8000\nNodeName=cn03",
         {"node cn02 has 8 cores, not 4": ["5"]}),
        ("10.0.0.22", "10.0.0.99", {"node cn02 is another machine (10.0.0.99, not 10.0.0.22)": ["5"]}),
        ("Nodes=ALL", "Nodes=cn[01,03]", {"node cn02 leaves partition main": ["5"]}),
        ("MaxTime=1-00", "MaxTime=0-23", {"MaxTime of partition main is below their time limit": ["5"]}),
        ("MaxTime=UNLIMITED", "MaxTime=29", {
            "MaxTime of partition gpu is below their time limit": ["2"]}),
        # A node that does not answer has nothing left to lose.
        ("NodeName=cn03", "NodeName=cn13", {}),
        ("Weight=1", "Weight=2", {}),
    ],
)  # fmt: skip
def test_a_change_and_who_suffers(was: str, now: str, what: dict[str, list[str]]) -> None:
    assert harm(CONF.replace(was, now), RUNNING, WAITING, ACROSS) == what


NOWHERE = {"no partition is left in which these can start": ["4_[1-3]"]}


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ({"MaxTime=UNLIMITED": "MaxTime=1:00:00"}, {}),  # main still takes it
        ({"MaxTime=UNLIMITED": "MaxTime=1:00:00", "1-00:00:00": "1:00:00"}, NOWHERE),
        ({"Features=dgx,ib": "Features=ib"}, NOWHERE),
        ({"Features=dgx,ib": "Features=plain"}, {}),
        ({"gpu:h100:4": "gpu:h100:1"}, NOWHERE),
        ({"RealMemory=8000 MemSpecLimit=500": "RealMemory=2500 MemSpecLimit=500"}, NOWHERE),
        ({"CPUs=4": "CPUs=1"}, NOWHERE),
        ({"Default=NO": "AllowAccounts=physics", "Default=YES": "AllowQos=normal"}, {}),
        ({"Default=NO": "DenyQos=high", "Default=YES": "AllowQos=normal"}, NOWHERE),
        ({"Default=NO": "AllowGroups=users", "Default=YES": "AllowGroups=adm"}, {}),
        ({"Default=NO": "AllowGroups=adm", "Default=YES": "AllowGroups=adm"}, NOWHERE),
        ({"Default=NO": "MaxNodes=0", "Default=YES": "MaxNodes=0"}, NOWHERE),
    ],
)
def test_a_waiting_job_needs_one_place(changes: dict[str, str], left: dict[str, list[str]]) -> None:
    conf = CONF
    for was, now in changes.items():
        conf = conf.replace(was, now)
    assert harm(conf, WAITING) == left


def test_who_could_not_start_before_stops_nothing() -> None:
    hopeless = WAITING.replace("Features=dgx|plain", "Features=none")
    assert harm(CONF.replace("Features=dgx,ib", "Features=other"), hopeless) == {}


@pytest.mark.parametrize(
    ("wanted", "met"),
    [
        ("dgx", True), ("dgx&ib", True), ("plain&dgx", False), ("plain|dgx", True),
        ("[dgx*1&big*1]", True), ("dgx&big", False), ("none", False), ("", True),
    ],
)  # fmt: skip
def test_constraints(wanted: str, met: bool) -> None:
    nodes = [
        slurm_state.Node(name, "", 1, 1, 1, features=frozenset(features))
        for name, features in {"a": ["dgx", "ib"], "b": ["big"]}.items()
    ]
    assert job_start.has_features(nodes, wanted) is met


@pytest.mark.parametrize(
    ("licenses", "left"),
    [
        ("matlab:4,fluent", {}),
        ("matlab:3", {}),
        ("fluent", {"license matlab goes": ["2", "5"]}),
        ("matlab:2", {
            "there are 2 licenses matlab, 3 are wanted at once": ["5"],
        }),
        ("matlab:1", {
            "there are 1 licenses matlab, 3 are wanted at once": ["5"],
            "there are 1 licenses matlab, 2 are held": ["2"],
        }),
    ],
)  # fmt: skip
def test_licenses_that_jobs_hold_or_want(licenses: str, left: dict[str, list[str]]) -> None:
    running = RUNNING.replace("MinCPUsNode=2", "Licenses=matlab:2,flexlm@there:1 MinCPUsNode=2")
    waiting = ACROSS.replace("SUSPENDED", "PENDING").replace(
        "NumNodes=2", "NumNodes=2 Licenses=matlab:3"
    )
    now = replace(old(), parameters={"licenses": "matlab:4,fluent:1"})
    new = slurm_state.config_of_text(f"Licenses={licenses}\n{CONF}", expand)
    found = job_harm.all_harm(read(running, waiting), now, new, [], lambda user: frozenset())
    assert {what: [job.id for job in jobs] for what, jobs in found.items()} == left


def test_nodes_that_no_switch_joins_take_no_job_together() -> None:
    top = "SwitchName=s1 Nodes=cn01\nSwitchName=s2 Nodes=cn0[2-3]\nSwitchName=top Switches=s[1-2]\n"
    assert slurm_state.apart(top, expand) == ()
    assert slurm_state.apart("BlockName=b1 Nodes=cn01\n", expand) == ()
    apart = slurm_state.apart(top.replace("s[1-2]", "s1"), expand)
    assert [*map(set, apart)] == [{"cn02", "cn03"}, {"cn01"}]
    across = ACROSS.replace("SUSPENDED", "PENDING").replace("NodeList=cn[01-02]", "NodeList=")
    new = replace(slurm_state.config_of_text(CONF, expand), apart=apart)

    def left(*jobs: str) -> list[list[str]]:
        found = job_harm.all_harm(read(*jobs), old(), new, [], lambda user: frozenset())
        return [[job.id for job in jobs] for jobs in found.values()]

    # Two nodes there are on one side; with the one that it demands, there are not.
    assert left(across) == []
    assert left(across.replace("ReqNodeList=(null)", "ReqNodeList=cn01")) == [["5"]]
    assert left(across.replace("NumNodes=2", "NumNodes=3")) == [["5"]]
    # One that runs keeps its nodes.
    assert left(ACROSS) == []


def test_a_max_job_count_with_which_slurmctld_would_forget_jobs() -> None:
    finished = RUNNING.replace("RUNNING", "COMPLETED")
    count = slurm_state.count_of_jobs("\n".join([finished, WAITING, ACROSS]))
    assert count == 5
    assert slurm_state.count_of_jobs(WAITING.replace("=1-3 ", "=0-10:5,20%2 ")) == 4

    def against(limit: str) -> list[str]:
        new = slurm_state.config_of_text(f"MaxJobCount={limit}\n{CONF}", expand)
        return [*job_harm.too_many(count, old(), new)]

    assert against("6") == []
    assert "keeps 5 jobs" in against("5")[0]
    # What it runs by already is its own business.
    few = replace(old(), parameters={"maxjobcount": "4"})
    assert [*job_harm.too_many(count, few, few)] == []


def test_reservations_of_what_goes() -> None:
    new = slurm_state.config_of_text(CONF.replace("PartitionName=gpu ", "PartitionName=g "), expand)
    shown = [{"ReservationName": "r", "PartitionName": "gpu", "Nodes": "(null)"},
             {"ReservationName": "s", "PartitionName": "(null)", "Nodes": "(null)"}]  # fmt: skip
    assert [*job_harm.lost_reservations(shown, new)] == [
        "reservation r is of partition gpu, which goes"
    ]


def test_only_nodes_that_lose_something_are_closed_for_the_change() -> None:
    conf = CONF.replace("gpu:h100:4", "gpu:h100:2").replace("Nodes=ALL", "Nodes=cn[01-02]")
    assert job_hold.affected(old(), slurm_state.config_of_text(conf, expand)) == ["cn01", "cn03"]
    assert job_hold.affected(old(), slurm_state.config_of_text(CONF, expand)) == []


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 1800), ("1:30", 90), ("1:00:00", 3600), ("1-0", 86400), ("2-01:30", 178200),
     ("1-00:00:00", 86400), ("UNLIMITED", float("inf")), ("", float("inf"))],
)  # fmt: skip
def test_times(text: str, seconds: float) -> None:
    assert slurm_state.seconds(text) == seconds


def test_a_file_of_a_bundle() -> None:
    bundle = (
        "slurmstack-bundle 1\nfile /a root:root 0644\n  x\n\n    y\nfile /b root:root 0644\nend\n"
    )
    assert slurm_state.file_of_bundle(bundle, "/a") == "x\n\n  y\n"
    assert slurm_state.file_of_bundle(bundle, "/c") is None


def test_a_slurmctld_that_says_nothing_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not the last line of Python's account of it."""

    def silent(*words: str, seconds: int = 20) -> str:
        raise RuntimeError(f"{' '.join(words)}: timed out after {seconds} seconds")

    monkeypatch.setattr(slurm_state, "command", silent)
    held = tmp_path / "held"
    held.write_text("cn01\n")
    monkeypatch.setattr(job_hold, "HELD", held)
    assert job_guard.main(["release"]) == 1
    assert capsys.readouterr().err == (
        "slurmctld does not say how nodes are, and those that were closed for this change stay so "
        "until the next run: scontrol show node: timed out after 20 seconds\n"
    )
    assert held.exists()
