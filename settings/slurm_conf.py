"""The slurm.conf parameters that are settings of their own, by Slurm's own names.

What their values may be is in Slurm's parameter table (``parameters.toml``). A parameter left out
is not written, so Slurm's own default holds. Any parameter not listed here goes through ``extra``;
one listed here may not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

from pydantic import Field, ValidationInfo, field_validator

from settings.base import SlurmObject
from settings.parameters import SLURM_CONF, find
from settings.slurm_value import Value, checked, extra_of, file_text


class Section(StrEnum):
    """The parts of slurm.conf, by their titles there."""

    ACCOUNTING = "Accounting"
    AUTHENTICATION = "Authentication"
    CLUSTER = "Cluster"
    COMMUNICATION = "Communication"
    LIMITS = "Limits"
    LOGGING = "Logging"
    NODES = "Nodes and power"
    OTHER = "Other parameters, as the settings give them"
    SCHEDULING = "Scheduling and selection"
    TASKS = "Processes and tasks"
    TIMERS = "Timers"


@dataclass(frozen=True)
class Line:
    """One parameter of slurm.conf; some may be there several times (SlurmctldHost)."""

    section: Section
    name: str
    value: Value

    @property
    def text(self) -> str:
        """The value as the file has it."""
        return file_text(self.value)


#: Parameters that follow from other settings, so that they can be set in one place only.
WRITTEN_ELSEWHERE = {
    "clustername": "slurmstack:cluster name",
    "slurmctldhost": "slurmstack:roles controller",
    "controlmachine": "slurmstack:roles controller",
    "controladdr": "slurmstack:roles controller",
    "backupcontroller": "slurmstack:roles controller",
    "backupaddr": "slurmstack:roles controller",
    "nodename": "slurmstack:nodes",
    "partitionname": "slurmstack:partitions",
    "slurmuser": "the packages' own user",
    "include": "parameters written out",
}


def _in(section: Section, default: str | None = None) -> Any:
    return Field(default=default, json_schema_extra={"section": section})


class SlurmConf(SlurmObject):
    """Cluster-wide parameters of slurm.conf, each as its text."""

    file: ClassVar[str] = SLURM_CONF

    CommunicationParameters: str | None = _in(Section.COMMUNICATION)
    SlurmctldParameters: str | None = _in(Section.COMMUNICATION)
    SlurmctldPort: str = _in(Section.COMMUNICATION, "6817")
    SlurmdParameters: str | None = _in(Section.COMMUNICATION)
    SlurmdPort: str = _in(Section.COMMUNICATION, "6818")
    SrunPortRange: str | None = _in(Section.COMMUNICATION)
    TreeWidth: str | None = _in(Section.COMMUNICATION)
    TopologyPlugin: str | None = _in(Section.COMMUNICATION)
    TopologyParam: str | None = _in(Section.COMMUNICATION)

    AuthType: str = _in(Section.AUTHENTICATION, "auth/munge")
    AuthInfo: str | None = _in(Section.AUTHENTICATION)
    AuthAltTypes: str | None = _in(Section.AUTHENTICATION)
    AuthAltParameters: str | None = _in(Section.AUTHENTICATION)
    PrivateData: str | None = _in(Section.AUTHENTICATION)

    SchedulerType: str = _in(Section.SCHEDULING, "sched/backfill")
    SchedulerParameters: str | None = _in(Section.SCHEDULING)
    SelectType: str = _in(Section.SCHEDULING, "select/cons_tres")
    SelectTypeParameters: str = _in(Section.SCHEDULING, "CR_Core_Memory")
    GresTypes: str | None = _in(Section.SCHEDULING)
    PriorityType: str | None = _in(Section.SCHEDULING)
    PriorityWeightAge: str | None = _in(Section.SCHEDULING)
    PriorityWeightFairshare: str | None = _in(Section.SCHEDULING)
    PriorityWeightJobSize: str | None = _in(Section.SCHEDULING)
    PriorityWeightPartition: str | None = _in(Section.SCHEDULING)
    PriorityWeightQOS: str | None = _in(Section.SCHEDULING)
    PriorityDecayHalfLife: str | None = _in(Section.SCHEDULING)
    PriorityMaxAge: str | None = _in(Section.SCHEDULING)
    DefMemPerCPU: str | None = _in(Section.SCHEDULING)
    EnforcePartLimits: str | None = _in(Section.SCHEDULING)

    MaxArraySize: str | None = _in(Section.LIMITS)
    MaxJobCount: str | None = _in(Section.LIMITS)
    MaxStepCount: str | None = _in(Section.LIMITS)
    MaxTasksPerNode: str | None = _in(Section.LIMITS)
    PropagateResourceLimits: str | None = _in(Section.LIMITS)
    PropagateResourceLimitsExcept: str | None = _in(Section.LIMITS)

    BatchStartTimeout: str | None = _in(Section.TIMERS)
    CompleteWait: str | None = _in(Section.TIMERS)
    InactiveLimit: str | None = _in(Section.TIMERS)
    KillWait: str | None = _in(Section.TIMERS)
    MessageTimeout: str | None = _in(Section.TIMERS)
    MinJobAge: str | None = _in(Section.TIMERS)
    OverTimeLimit: str | None = _in(Section.TIMERS)
    PrologEpilogTimeout: str | None = _in(Section.TIMERS)
    ResumeTimeout: str | None = _in(Section.TIMERS)
    SlurmctldTimeout: str | None = _in(Section.TIMERS)
    SlurmdTimeout: str | None = _in(Section.TIMERS)
    SuspendTimeout: str | None = _in(Section.TIMERS)
    TCPTimeout: str | None = _in(Section.TIMERS)
    UnkillableStepTimeout: str | None = _in(Section.TIMERS)
    WaitTime: str | None = _in(Section.TIMERS)

    Epilog: str | None = _in(Section.TASKS)
    JobContainerType: str | None = _in(Section.TASKS)
    LaunchParameters: str | None = _in(Section.TASKS)
    MpiDefault: str | None = _in(Section.TASKS)
    MpiParams: str | None = _in(Section.TASKS)
    ProctrackType: str = _in(Section.TASKS, "proctrack/cgroup")
    Prolog: str | None = _in(Section.TASKS)
    PrologFlags: str | None = _in(Section.TASKS)
    SwitchType: str | None = _in(Section.TASKS)
    TaskPlugin: str = _in(Section.TASKS, "task/cgroup,task/affinity")
    TaskPluginParam: str | None = _in(Section.TASKS)

    AccountingStorageEnforce: str | None = _in(Section.ACCOUNTING)
    AccountingStorageTRES: str | None = _in(Section.ACCOUNTING)
    AccountingStorageType: str | None = _in(Section.ACCOUNTING)
    JobAcctGatherFrequency: str | None = _in(Section.ACCOUNTING)
    JobAcctGatherParams: str | None = _in(Section.ACCOUNTING)
    JobAcctGatherType: str | None = _in(Section.ACCOUNTING)
    JobCompType: str | None = _in(Section.ACCOUNTING)

    DebugFlags: str | None = _in(Section.LOGGING)
    SlurmctldDebug: str | None = _in(Section.LOGGING)
    SlurmctldLogFile: str = _in(Section.LOGGING, "/var/log/slurm/slurmctld.log")
    SlurmdDebug: str | None = _in(Section.LOGGING)
    SlurmdLogFile: str = _in(Section.LOGGING, "/var/log/slurm/slurmd.log")

    HealthCheckInterval: str | None = _in(Section.NODES)
    HealthCheckNodeState: str | None = _in(Section.NODES)
    HealthCheckProgram: str | None = _in(Section.NODES)
    RebootProgram: str | None = _in(Section.NODES)
    #: A partition that a person set DOWN stays so when slurmctld reads slurm.conf again; a State
    #: that the settings change is set by the controller's bundle (on_node/node_states.py).
    ReconfigFlags: str | None = _in(Section.NODES)
    #: 2 lets a node that a person set DOWN return with its next registration.
    ReturnToService: str = _in(Section.NODES, "1")
    SlurmdSpoolDir: str = _in(Section.NODES, "/var/spool/slurmd")
    StateSaveLocation: str = _in(Section.NODES, "/var/spool/slurmctld")

    extra: dict[str, str] = Field(default_factory=dict)

    @field_validator("*", mode="before")
    @classmethod
    def _as_slurm_reads_it(cls, value: Any, info: ValidationInfo) -> Any:
        parameter = find(SLURM_CONF, info.field_name or "")
        if parameter is None:
            return value
        if value is None and cls.model_fields[parameter.name].default is None:
            return None
        return checked(parameter, value)

    @field_validator("extra", mode="wrap")
    @classmethod
    def _extra(cls, value: Any, handler: Any) -> Any:
        return extra_of(SLURM_CONF, cls.model_fields, WRITTEN_ELSEWHERE)(value)

    @property
    def slurmctld_port(self) -> int:
        """The (first) port of slurmctld."""
        return int(self.SlurmctldPort.partition("-")[0])


def lines(conf: SlurmConf, derived: Iterable[Line]) -> list[Line]:
    """Every cluster-wide line, by section and name; what is unset is left out.

    Args:
        conf: the settings' own parameters.
        derived: what follows from other settings; it stands in the place of a setting's own.
    """
    derived = list(derived)
    names = {line.name for line in derived}
    lines = [*derived]
    for name, info in type(conf).model_fields.items():
        extra = info.json_schema_extra
        value = getattr(conf, name)
        if isinstance(extra, dict) and value is not None and name not in names:
            lines.append(Line(Section(str(extra["section"])), name, value))
    assert not names & {*conf.extra}, "settings refuse an extra that follows from others"
    lines += [Line(Section.OTHER, name, value) for name, value in conf.extra.items()]
    return sorted(lines, key=lambda line: (line.section, line.name))
