"""Lines of slurm.conf files as sites have published them, hosts and names replaced."""

from __future__ import annotations

import re
from typing import Any

import pytest

from components.configuration.slurm_conf import slurm_conf
from settings import parse
from settings.slurm_conf import SlurmConf
from tests.unit.components.configuration.test_slurm_conf import DGX
from tests.unit.settings.test_settings import lab, mistakes

#: Each is written again as it is.
CLUSTER_WIDE = """
AccountingStorageEnforce=associations,qos
AccountingStorageEnforce=associations,limits,qos,safe
AccountingStorageTRES=gres/gpu,gres/gpu:a100,gres/gpu:v100
AccountingStorageType=accounting_storage/none
AccountingStoreFlags=job_comment
AccountingStoreFlags=job_comment,job_env,job_script
AcctGatherEnergyType=acct_gather_energy/none
AcctGatherNodeFreq=30
AuthInfo=cred_expire=120
BatchStartTimeout=600
BcastParameters=Compression=lz4
CommunicationParameters=NoAddrCache
CompleteWait=0
CredType=cred/munge
CpuFreqGovernors=OnDemand,Performance
DebugFlags=Power
DebugFlags=NO_CONF_HASH
DefMemPerCPU=2000
DefMemPerNode=UNLIMITED
DependencyParameters=kill_invalid_depend
DisableRootJobs=YES
EnforcePartLimits=ALL
EnforcePartLimits=NO
Epilog=/etc/slurm/epilog.d/logout_user.sh
EpilogMsgTime=2000
EpilogSlurmctld=/etc/slurm/scripts/epilogctld.sh
FairShareDampeningFactor=5
FirstJobId=1
GpuFreqDef=high,memory=high
GresTypes=gpu,mps
GroupUpdateForce=0
GroupUpdateTime=600
HealthCheckInterval=300
HealthCheckNodeState=ANY,CYCLE
HealthCheckProgram=/usr/sbin/nhc
InactiveLimit=0
InteractiveStepOptions="--interactive --preserve-env --pty $SHELL"
JobAcctGatherFrequency=30
JobAcctGatherFrequency=task=30,energy=60,network=30,filesystem=30
JobAcctGatherType=jobacct_gather/none
JobAcctGatherType=jobacct_gather/cgroup
JobAcctGatherParams=UsePss,OverMemoryKill
JobCompLoc=/var/log/slurm/jobcomp.log
JobCompType=jobcomp/none
JobCompType=jobcomp/filetxt
JobFileAppend=0
JobRequeue=0
JobSubmitPlugins=lua
KillOnBadExit=0
KillWait=30
LaunchParameters=use_interactive_step,enable_nss_slurm
Licenses=matlab:20,ansys:5
LogTimeFormat=iso8601_ms
MailProg=/usr/bin/mail
MaxArraySize=1001
MaxJobCount=500000
MaxJobId=999999
MaxNodeCount=64000
MaxStepCount=40000
MaxTasksPerNode=128
MaxMemPerNode=UNLIMITED
MCSPlugin=mcs/none
MessageTimeout=600
MinJobAge=345600
MpiDefault=none
MpiParams=ports=12000-12999
OverTimeLimit=0
OverTimeLimit=UNLIMITED
PlugStackConfig=/etc/slurm/plugstack.conf
PluginDir=/usr/lib64/slurm
PreemptMode=REQUEUE
PreemptMode=SUSPEND,GANG
PreemptMode=OFF
PreemptType=preempt/partition_prio
PreemptType=preempt/none
PriorityCalcPeriod=5
PriorityDecayHalfLife=14-0
PriorityDecayHalfLife=7-00:00:00
PriorityFavorSmall=NO
PriorityFlags=MAX_TRES,NO_FAIR_TREE
PriorityFlags=SMALL_RELATIVE_TO_TIME,CALCULATE_RUNNING
PriorityMaxAge=1-0
PriorityType=priority/multifactor
PriorityUsageResetPeriod=NONE
PriorityUsageResetPeriod=QUARTERLY
PriorityWeightAge=1000
PriorityWeightFairshare=100000
PriorityWeightTRES=CPU=1000,Mem=2000,GRES/gpu=3000
PrivateData=cloud
PrivateData=accounts,jobs,usage,users
Prolog=/etc/slurm/prolog.d/*
PrologEpilogTimeout=600
PrologFlags=Alloc,Contain,X11
PrologSlurmctld=/opt/cloud/slurm/prolog.sh
PropagateResourceLimits=ALL
PropagateResourceLimits=NONE
PropagateResourceLimitsExcept=MEMLOCK
PropagateResourceLimitsExcept=RLIMIT_MEMLOCK,RLIMIT_NOFILE
RebootProgram=/sbin/reboot
ResumeFailProgram=/opt/cloud/slurm/resume_fail_program.sh
ResumeProgram=/opt/cloud/slurm/resume_program.sh
ResumeRate=0
ResumeTimeout=1800
ReturnToService=0
ReturnToService=1
SchedulerParameters=max_switch_wait=24:00:00
SchedulerParameters=bf_continue,defer,batch_sched_delay=3,bf_max_job_start=0
SchedulerParameters=bf_max_job_user=10,bf_max_job_test=500,bf_resolution=600
SchedulerParameters=nohold_on_prolog_fail
SchedulerParameters=salloc_wait_nodes,bf_window=2880
SchedulerTimeSlice=30
SchedulerType=sched/backfill
SelectType=select/linear
SelectTypeParameters=CR_LLN,CR_Core_Memory
SelectTypeParameters=CR_CPU_Memory
SlurmctldDebug=3
SlurmctldDebug=debug5
SlurmctldParameters=idle_on_node_suspend,enable_configless
SlurmctldPort=6820-6830
SlurmctldTimeout=120
SlurmdDebug=info
SlurmdLogFile=/var/log/slurm/slurmd-%n.log
SlurmdParameters=config_overrides
SlurmdSpoolDir=/var/spool/slurm/d/%n
SlurmdTimeout=300
SrunPortRange=60001-63000
SuspendExcNodes=login01
SuspendExcParts=debug,long
SuspendProgram=/opt/cloud/slurm/suspend_program.sh
SuspendRate=0
SuspendTime=300
SuspendTime=INFINITE
SuspendTimeout=600
SwitchType=switch/none
TaskEpilog=/etc/slurm/task_epilog.sh
TaskPlugin=task/affinity,task/cgroup
TaskPluginParam=Threads
TmpFS=/local/scratch
TopologyParam=SwitchAsNodeRank,RouteTree
TopologyPlugin=topology/none
TrackWCKey=no
TreeWidth=65533
UnkillableStepTimeout=180
UsePAM=1
WaitTime=0
X11Parameters=home_xauthority
"""
PARTITIONS = """
AllowGroups=staff,users DefaultTime=00:05:00 OverSubscribe=NO
DefMemPerCPU=1792 MaxMemPerNode=UNLIMITED TRESBillingWeights=CPU=1.0,Mem=0.25G
DefaultTime=01:00:00 ExclusiveUser=NO GraceTime=0 Hidden=NO LLN=NO
DenyQos=qos_gpu,qos_bigmem MaxCPUsPerNode=128 PriorityTier=2
MaxNodes=1 MinNodes=1 OverSubscribe=YES:4 PreemptMode=OFF
MaxMemPerCPU=4000 MaxNodes=UNLIMITED OverTimeLimit=NONE RootOnly=NO
OverSubscribe=FORCE:1 PriorityJobFactor=1 ReqResv=NO
OverSubscribe=EXCLUSIVE PreemptMode=REQUEUE PriorityTier=1
SelectTypeParameters=CR_Core SuspendTime=INFINITE
"""
NODES = """
CoreSpecCount=2 State=UNKNOWN TmpDisk=500000
CpuBind=none Port=7001
MemSpecLimit=4096 State=CLOUD
Reason="to be tested" State=DOWN
State=FUTURE
"""
#: What sites still have in their files, and Slurm reads as an error, or as nothing.
OUTDATED = {
    "AccountingStorageLoc=/var/log/slurm": "slurmdbd has the database",
    "AccountingStoreJobComment=YES": "it is AccountingStoreFlags=job_comment",
    "AccountingStorageType=accounting_storage/filetxt": "accounting_storage/slurmdbd",
    "BackupController=ctl2": "slurmstack:roles controller",
    "CacheGroups=0": "it is GroupUpdateForce and GroupUpdateTime",
    "CheckpointType=checkpoint/none": "Slurm has no more after 20.11",
    "ControlMachine=ctl": "slurmstack:roles controller",
    "CryptoType=crypto/munge": "it is CredType",
    "FastSchedule=1": "it is SlurmdParameters=config_overrides",
    "JobCheckpointDir=/var/spool/slurm/checkpoint": "Slurm has no more after 20.11",
    "JobCredentialPrivateKey=/var/spool/slurm/cred_priv.pem": "CredType says who signs",
    "LaunchType=launch/slurm": "there is one way to launch",
    "MpiDefault=openmpi4": "a plugin that Slurm has",
    "PreemptMode=CHECKPOINT": "words of OFF, CANCEL",
    "ProctrackType=proctrack/lua": "proctrack/cgroup",
    "SallocDefaultCommand=srun --pty $SHELL": "it is LaunchParameters=use_interactive_step",
    "SchedulerPort=7321": "Slurm has no more after 20.11",
    "SelectType=select/cons_res": "(select/cons_tres?)",
    "SelectTypeParameters=CR_Native": "words of CR_CPU",
    "SlurmDebug=debug": "SlurmdDebug, the nearest",
    "SlurmctldLogfile=": "leave the parameter out",
    "Prolog=prolog.sh": "the whole path of a program",
    "TaskPlugin=task/none,task/cray": "task/affinity",
    "TaskPluginParam=Sched": "words of Autobind",
    "VSizeFactors=0": "VSizeFactor, the nearest",
}


#: Of the lab's settings, those from which no parameter follows that could be here, too.
BARE = {"cluster", "ssh", "hosts", "roles", "nodes", "partitions"}


def changes(name: str, value: str) -> dict[str, Any]:
    typed = {it.lower(): it for it in SlurmConf.model_fields}
    if name.lower() in typed:
        return {"slurm": {typed[name.lower()]: value}}
    return {"slurm": {"extra": {name: value}}}


def rendered(given: dict[str, Any]) -> str:
    settings = parse({**{key: it for key, it in lab().items() if key in BARE}, **given})
    return slurm_conf(settings, dict.fromkeys(settings.compute, DGX)).replace("\\\n", "")


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]


@pytest.mark.parametrize("line", lines(CLUSTER_WIDE))
def test_a_line_is_taken_and_written_again(line: str) -> None:
    name, _, value = line.partition("=")
    text = rendered(changes(name, value))
    assert line.lower() in text.lower().splitlines()


@pytest.mark.parametrize(
    ("where", "line"),
    [("PartitionName", line) for line in lines(PARTITIONS)]
    + [("NodeName", line) for line in lines(NODES)],
)
def test_parameters_of_a_line_are_taken_and_written_again(where: str, line: str) -> None:
    words = re.findall(r'(\w+)=("[^"]*"|\S+)', line)
    extra = dict(words)
    given: dict[str, Any]
    if where == "PartitionName":
        given = {"partitions": {"main": {"Nodes": "ALL", "extra": extra}}}
    else:
        own = {name: int(extra.pop(name)) for name in ("MemSpecLimit",) if name in extra}
        given = {"nodes": [{"hosts": "cn[01-02]", **own, "extra": extra}]}
    text = rendered(given)
    for name, value in words:
        assert f" {name}={value}" in text


@pytest.mark.parametrize("line", OUTDATED)
def test_a_line_of_the_past_is_refused_with_what_there_is_now(line: str) -> None:
    name, _, value = line.partition("=")
    others = dict.fromkeys({*lab()} - BARE)
    found = mistakes({**others, **changes(name, value)})
    assert len(found) == 1
    assert OUTDATED[line] in next(iter(found.values())), found
