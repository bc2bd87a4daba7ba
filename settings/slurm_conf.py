"""The slurm.conf parameters that slurmstack types, by Slurm's own names.

Types, units and defaults are those of slurm.conf(5) of Slurm 24.11 and 25.05. A parameter
left out is not written, so Slurm's own default holds. Any parameter not listed here goes
through ``extra``; one listed here may not.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from settings.base import SlurmObject

Seconds = Annotated[int, Field(ge=0, le=65533)]
Port = Annotated[int, Field(ge=1, le=65535)]
Count = Annotated[int, Field(ge=0)]
Scalar = bool | int | float | str
#: Slurm writes lists of options with commas: ``SelectTypeParameters=CR_Core_Memory,CR_LLN``.
Options = str | list[str]


def _section(title: str, default: Any = None) -> Any:
    return Field(default=default, json_schema_extra={"section": title})


_COMMUNICATION = "Communication"
_AUTHENTICATION = "Authentication"
_SCHEDULING = "Scheduling and selection"
_LIMITS = "Limits"
_TIMERS = "Timers"
_TASKS = "Processes and tasks"
_ACCOUNTING = "Accounting"
_LOGGING = "Logging"
_NODES = "Nodes and power"


class SlurmConf(SlurmObject):
    """Cluster-wide parameters of slurm.conf. Times are seconds unless Slurm says otherwise."""

    CommunicationParameters: Options | None = _section(_COMMUNICATION)
    SlurmctldParameters: Options | None = _section(_COMMUNICATION)
    SlurmctldPort: Port = _section(_COMMUNICATION, 6817)
    SlurmdParameters: Options | None = _section(_COMMUNICATION)
    SlurmdPort: Port = _section(_COMMUNICATION, 6818)
    SrunPortRange: str | None = _section(_COMMUNICATION)
    TreeWidth: Count | None = _section(_COMMUNICATION)
    TopologyPlugin: (
        Literal["topology/default", "topology/flat", "topology/tree", "topology/block"] | None
    ) = _section(_COMMUNICATION)
    TopologyParam: Options | None = _section(_COMMUNICATION)

    AuthType: Literal["auth/munge", "auth/slurm"] = _section(_AUTHENTICATION, "auth/munge")
    AuthInfo: Options | None = _section(_AUTHENTICATION)
    AuthAltTypes: Options | None = _section(_AUTHENTICATION)
    AuthAltParameters: Options | None = _section(_AUTHENTICATION)
    PrivateData: Options | None = _section(_AUTHENTICATION)

    SchedulerType: Literal["sched/backfill", "sched/builtin"] = _section(
        _SCHEDULING, "sched/backfill"
    )
    SchedulerParameters: Options | None = _section(_SCHEDULING)
    SelectType: Literal["select/cons_tres", "select/linear"] = _section(
        _SCHEDULING, "select/cons_tres"
    )
    SelectTypeParameters: Options = _section(_SCHEDULING, "CR_Core_Memory")
    GresTypes: Options | None = _section(_SCHEDULING)
    PriorityType: Literal["priority/basic", "priority/multifactor"] | None = _section(_SCHEDULING)
    PriorityWeightAge: Count | None = _section(_SCHEDULING)
    PriorityWeightFairshare: Count | None = _section(_SCHEDULING)
    PriorityWeightJobSize: Count | None = _section(_SCHEDULING)
    PriorityWeightPartition: Count | None = _section(_SCHEDULING)
    PriorityWeightQOS: Count | None = _section(_SCHEDULING)
    PriorityDecayHalfLife: str | None = _section(_SCHEDULING)
    PriorityMaxAge: str | None = _section(_SCHEDULING)
    DefMemPerCPU: Count | None = _section(_SCHEDULING)
    EnforcePartLimits: Literal["ALL", "ANY", "NO"] | None = _section(_SCHEDULING)

    MaxArraySize: Annotated[int, Field(ge=0, le=4_000_001)] | None = _section(_LIMITS)
    MaxJobCount: Count | None = _section(_LIMITS)
    MaxStepCount: Count | None = _section(_LIMITS)
    MaxTasksPerNode: Annotated[int, Field(ge=1, le=65533)] | None = _section(_LIMITS)
    PropagateResourceLimits: Options | None = _section(_LIMITS)
    PropagateResourceLimitsExcept: Options | None = _section(_LIMITS)

    BatchStartTimeout: Seconds | None = _section(_TIMERS)
    CompleteWait: Seconds | None = _section(_TIMERS)
    InactiveLimit: Seconds | None = _section(_TIMERS)
    KillWait: Seconds | None = _section(_TIMERS)
    MessageTimeout: Annotated[int, Field(ge=1, le=65533)] | None = _section(_TIMERS)
    MinJobAge: Seconds | None = _section(_TIMERS)
    OverTimeLimit: Seconds | None = _section(_TIMERS)
    PrologEpilogTimeout: Seconds | None = _section(_TIMERS)
    ResumeTimeout: Seconds | None = _section(_TIMERS)
    SlurmctldTimeout: Seconds | None = _section(_TIMERS)
    SlurmdTimeout: Seconds | None = _section(_TIMERS)
    SuspendTimeout: Seconds | None = _section(_TIMERS)
    TCPTimeout: Seconds | None = _section(_TIMERS)
    UnkillableStepTimeout: Seconds | None = _section(_TIMERS)
    WaitTime: Seconds | None = _section(_TIMERS)

    Epilog: str | None = _section(_TASKS)
    JobContainerType: Literal["job_container/tmpfs"] | None = _section(_TASKS)
    LaunchParameters: Options | None = _section(_TASKS)
    MpiDefault: Literal["none", "pmi2", "pmix", "cray_shasta"] | None = _section(_TASKS)
    MpiParams: str | None = _section(_TASKS)
    ProctrackType: Literal["proctrack/cgroup", "proctrack/linuxproc", "proctrack/pgid"] = _section(
        _TASKS, "proctrack/cgroup"
    )
    Prolog: str | None = _section(_TASKS)
    PrologFlags: Options | None = _section(_TASKS)
    SwitchType: Literal["switch/hpe_slingshot", "switch/nvidia_imex"] | None = _section(_TASKS)
    TaskPlugin: Options = _section(_TASKS, "task/cgroup,task/affinity")
    TaskPluginParam: Options | None = _section(_TASKS)

    AccountingStorageEnforce: Options | None = _section(_ACCOUNTING)
    AccountingStorageTRES: Options | None = _section(_ACCOUNTING)
    AccountingStorageType: Literal["accounting_storage/slurmdbd"] | None = _section(_ACCOUNTING)
    JobAcctGatherFrequency: str | int | None = _section(_ACCOUNTING)
    JobAcctGatherParams: Options | None = _section(_ACCOUNTING)
    JobAcctGatherType: Literal["jobacct_gather/cgroup", "jobacct_gather/linux"] | None = _section(
        _ACCOUNTING
    )
    JobCompType: str | None = _section(_ACCOUNTING)

    DebugFlags: Options | None = _section(_LOGGING)
    SlurmctldDebug: str | None = _section(_LOGGING)
    SlurmctldLogFile: str = _section(_LOGGING, "/var/log/slurm/slurmctld.log")
    SlurmdDebug: str | None = _section(_LOGGING)
    SlurmdLogFile: str = _section(_LOGGING, "/var/log/slurm/slurmd.log")

    HealthCheckInterval: Seconds | None = _section(_NODES)
    HealthCheckNodeState: Options | None = _section(_NODES)
    HealthCheckProgram: str | None = _section(_NODES)
    RebootProgram: str | None = _section(_NODES)
    #: 2 lets a node that a person set DOWN return with its next registration.
    ReturnToService: Literal[0, 1, 2] = _section(_NODES, 1)
    SlurmdSpoolDir: str = _section(_NODES, "/var/spool/slurmd")
    StateSaveLocation: str = _section(_NODES, "/var/spool/slurmctld")

    extra: dict[str, Scalar | list[Scalar]] = Field(default_factory=dict)

    @field_validator("extra")
    @classmethod
    def _extra_is_extra(
        cls, value: dict[str, Scalar | list[Scalar]]
    ) -> dict[str, Scalar | list[Scalar]]:
        """Names of slurm.conf(5)'s shape that nothing else in the settings writes."""
        known = {name.lower(): name for name in cls.model_fields}
        for name, found in value.items():
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9]*", name):
                raise ValueError(f"a slurm.conf parameter name, not {name!r}")
            if name.lower() in known:
                raise ValueError(f"{known[name.lower()]} one level up, where it is typed")
            if name.lower() in WRITTEN_ELSEWHERE:
                raise ValueError(f"{WRITTEN_ELSEWHERE[name.lower()]} instead of {name}")
            if any("\n" in str(item) for item in (found if isinstance(found, list) else [found])):
                raise ValueError(f"one line as the value of {name}")
        return value


#: Parameters that follow from other settings, so that they can be said in one place only.
WRITTEN_ELSEWHERE = {
    "clustername": "slurmstack:cluster name",
    "slurmctldhost": "slurmstack:roles controller",
    "nodename": "slurmstack:nodes",
    "partitionname": "slurmstack:partitions",
    "slurmuser": "the packages' own user",
    "include": "parameters written out",
}


def sections(conf: SlurmConf, derived: dict[str, tuple[str, Any]]) -> dict[str, dict[str, str]]:
    """Section title → parameter → text, both sorted; what is unset is left out.

    Args:
        conf: the typed parameters.
        derived: parameter → (section title, value) that follow from other settings.
    """
    found: dict[str, dict[str, str]] = {}
    for name, info in type(conf).model_fields.items():
        extra = info.json_schema_extra
        if isinstance(extra, dict):
            value = getattr(conf, name)
            if value is not None:
                found.setdefault(str(extra["section"]), {})[name] = text(value)
    for name, (title, value) in derived.items():
        found.setdefault(title, {})[name] = text(value)
    if conf.extra:
        found["Other parameters, as the settings give them"] = {
            name: text(value) for name, value in conf.extra.items()
        }
    return {title: dict(sorted(found[title].items())) for title in sorted(found)}


def text(value: Any) -> str:
    """A value as slurm.conf writes it: lists with commas, booleans as YES and NO."""
    if isinstance(value, bool):
        return "YES" if value else "NO"
    if isinstance(value, list | tuple):
        return ",".join(text(item) for item in value)
    return str(value)
