"""``slurmstack:accounting``: slurmdbd, its database, and what slurmdbd holds.

Names inside Slurm's objects are those of slurmdbd.conf(5) and sacctmgr(1), names of the
database's options those of MariaDB. An option left out is not touched in the database.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from settings.base import CalendarEvent, Model, SlurmObject, matching
from settings.parameters import SLURMDBD_CONF, table
from settings.slurm_value import checked, each_entry, extra_of

#: sacctmgr(1) stores these names in lower case.
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
#: Characters that neither slurmdbd.conf nor SQL give a meaning of their own.
_PASSWORD = re.compile(r"[A-Za-z0-9._~+/=:@%^*!?-]+")
_TRES = re.compile(r"[A-Za-z][A-Za-z0-9_/:.-]*=[0-9]+[KMGTP]?")
_TIME = re.compile(r"[0-9]+(:[0-9]{1,2}){0,2}|[0-9]+-[0-9]{1,2}(:[0-9]{1,2}){0,2}")
_SIZE = r"[1-9][0-9]*[KMGT]?"

Count = Annotated[int, Field(ge=0)]


def _tres(value: Any) -> Any:
    """``cpu=100,gres/gpu=8`` from that text or from a mapping, sorted."""
    if isinstance(value, Mapping):
        value = ",".join(f"{name}={count}" for name, count in value.items())
    if not isinstance(value, str) or not all(_TRES.fullmatch(part) for part in value.split(",")):
        raise ValueError("TRES and counts such as cpu=100,gres/gpu=8")
    return ",".join(sorted(value.split(",")))


def _time(value: Any) -> Any:
    if isinstance(value, bool) or not _TIME.fullmatch(str(value)):
        raise ValueError("minutes, or a time such as 1-12:00:00 (days-hours:minutes:seconds)")
    return str(value)


def _names(value: Any) -> Any:
    """A list of names from a list or from text with commas."""
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(
        isinstance(name, str) and _NAME.fullmatch(name) for name in names
    ):
        raise ValueError("names in lower case (letters, digits, _ . -)")
    return tuple(sorted(names))


def _flags(value: Any) -> Any:
    flags = value.split(",") if isinstance(value, str) else value
    if not isinstance(flags, list | tuple) or not all(
        isinstance(flag, str) and re.fullmatch(r"[A-Za-z_]+", flag) for flag in flags
    ):
        raise ValueError("flags such as DenyOnLimit,NoReserve")
    return ",".join(sorted(flags))


def _line(value: Any) -> Any:
    if not isinstance(value, str) or not re.fullmatch(r"[^|\x00-\x1f\x7f]+", value.strip()):
        raise ValueError("one line of text without |")
    return value.strip()


def _age(value: Any) -> Any:
    if isinstance(value, bool) or not re.fullmatch(r"[1-9][0-9]*(hours|days|months)?", str(value)):
        raise ValueError("a number of months, or a number with hours, days or months: 90days")
    text = str(value)
    return f"{text}months" if text.isdigit() else text


Tres = Annotated[str, BeforeValidator(_tres)]
Time = Annotated[str, BeforeValidator(_time)]
Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
FlagList = Annotated[str, BeforeValidator(_flags)]
Line = Annotated[str, BeforeValidator(_line)]
Age = Annotated[str, BeforeValidator(_age)]
Size = Annotated[str, matching(_SIZE, "a size such as 4096M or 4G")]
Folder = Annotated[
    str,
    matching(
        r"(/[A-Za-z0-9._-]+)+",
        "a whole path of letters, digits and . _ -, such as /var/log/slurm",
    ),
]


class Limits(SlurmObject):
    """What an association of a cluster, account or user may be limited to: sacctmgr(1)."""

    Fairshare: Count | Literal["parent"] | None = None
    GrpJobs: Count | None = None
    GrpJobsAccrue: Count | None = None
    GrpSubmitJobs: Count | None = None
    GrpTRES: Tres | None = None
    GrpTRESMins: Tres | None = None
    GrpTRESRunMins: Tres | None = None
    GrpWall: Time | None = None
    MaxJobs: Count | None = None
    MaxJobsAccrue: Count | None = None
    MaxSubmitJobs: Count | None = None
    MaxTRESPerJob: Tres | None = None
    MaxTRESPerNode: Tres | None = None
    MaxTRESMinsPerJob: Tres | None = None
    MaxWallDurationPerJob: Time | None = None
    Priority: Count | None = None
    #: Every QOS that may be asked for; unset: those of the parent.
    QOS: Names | None = None
    DefaultQOS: str | None = None


class Account(Limits):
    """One entry of ``accounts``."""

    Description: Line | None = None
    Organization: Line | None = None
    Parent: str | None = None


class Association(Limits):
    """A user in an account: one entry of a user's ``Accounts``."""

    #: Partition → limits of the same user and account in that partition alone.
    Partitions: dict[str, Limits] = Field(default_factory=dict)


class User(SlurmObject):
    """One entry of ``users``."""

    #: The account of jobs that name none; may be left out where there is only one.
    DefaultAccount: str
    AdminLevel: Literal["None", "Operator", "Administrator"] | None = None
    Accounts: dict[str, Association] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        """``Accounts`` as a list, and the only account as the default one."""
        if not isinstance(value, Mapping):
            return value
        user = dict(value)
        accounts = user.get("Accounts")
        if isinstance(accounts, list) and all(isinstance(name, str) for name in accounts):
            accounts = dict.fromkeys(accounts)
        if isinstance(accounts, Mapping):
            user["Accounts"] = {name: limits or {} for name, limits in accounts.items()}
            if len(accounts) == 1:
                user.setdefault("DefaultAccount", next(iter(accounts)))
        return user


class Qos(SlurmObject):
    """One entry of ``qos``: sacctmgr(1), "Specifications for QOS"."""

    Description: Line | None = None
    Priority: Count | None = None
    Flags: FlagList | None = None
    #: Seconds that a preempted job has left.
    GraceTime: Count | None = None
    GrpJobs: Count | None = None
    GrpJobsAccrue: Count | None = None
    GrpSubmitJobs: Count | None = None
    GrpTRES: Tres | None = None
    GrpTRESMins: Tres | None = None
    GrpTRESRunMins: Tres | None = None
    GrpWall: Time | None = None
    LimitFactor: Annotated[float, Field(gt=0)] | None = None
    MaxJobsAccruePerAccount: Count | None = None
    MaxJobsAccruePerUser: Count | None = None
    MaxJobsPerAccount: Count | None = None
    MaxJobsPerUser: Count | None = None
    MaxSubmitJobsPerAccount: Count | None = None
    MaxSubmitJobsPerUser: Count | None = None
    MaxTRESPerAccount: Tres | None = None
    MaxTRESPerJob: Tres | None = None
    MaxTRESPerNode: Tres | None = None
    MaxTRESPerUser: Tres | None = None
    MaxTRESMinsPerJob: Tres | None = None
    MaxTRESRunMinsPerAccount: Tres | None = None
    MaxTRESRunMinsPerUser: Tres | None = None
    MaxWallDurationPerJob: Time | None = None
    MinTRESPerJob: Tres | None = None
    #: QOS whose jobs this one may preempt.
    Preempt: Names | None = None
    PreemptMode: Literal["cluster", "cancel", "gang", "requeue", "suspend", "within"] | None = None
    PreemptExemptTime: Time | None = None
    UsageFactor: Annotated[float, Field(ge=0)] | None = None
    UsageThreshold: Annotated[float, Field(ge=0)] | None = None


class Mariadb(SlurmObject):
    """MariaDB's options. The defaults are those of Slurm's accounting page."""

    innodb_buffer_pool_size: Size = "4096M"
    innodb_log_file_size: Size = "1024M"
    #: Seconds.
    innodb_lock_wait_timeout: Annotated[int, Field(ge=1)] = 900
    max_allowed_packet: Size = "16M"
    #: Any other option of the [mariadbd] group.
    extra: dict[str, str] = Field(default_factory=dict)

    @field_validator("extra", mode="wrap")
    @classmethod
    def _extra(cls, value: Any, handler: Any) -> Any:
        options = each_entry(value, lambda name, entry: _option(cls.model_fields, name, entry))
        if len({name.replace("-", "_").lower() for name in options}) < len(options):
            raise ValueError("each option once, with - or with _ between its words")
        return options


def _option(typed: Collection[str], name: str, value: Any) -> tuple[str, str]:
    """The name of an option of MariaDB as it is written, and its text."""
    option = name.replace("-", "_").lower()
    if not re.fullmatch(r"[a-z][a-z0-9_]*", option):
        raise ValueError("the name of an option of MariaDB, such as max_connections")
    if option in typed:
        raise ValueError(f"{option} one level up, where it is typed")
    if option in {"bind_address", "port", "skip_networking", "socket", "datadir"}:
        raise ValueError(f"the database as slurmstack places it, without {name}")
    if isinstance(value, bool):
        value = "ON" if value else "OFF"
    if not isinstance(value, int | float | str) or not str(value).strip():
        raise ValueError("one value, such as 500 or 64M")
    if re.search(r"[\x00-\x1f\x7f]", str(value)):
        raise ValueError("a value on one line, without control characters")
    if "#" in str(value):
        raise ValueError("a value without #, which begins a comment in MariaDB's files")
    return name, str(value).strip()


#: What slurmdbd.conf gets from elsewhere, so that it is said once.
WRITTEN_ELSEWHERE = {
    "authalttypes": "slurmstack:slurm.AuthAltTypes",
    "authaltparameters": "slurmstack:slurm.AuthAltParameters",
    "authinfo": "slurmstack:slurm.AuthInfo",
    "authtype": "slurmstack:slurm.AuthType",
    "dbdaddr": "slurmstack:roles.controller",
    "dbdhost": "slurmstack:roles.controller",
    "pidfile": "the unit's own place",
    "slurmuser": "the packages' own user",
    "storagehost": "the controller's own database",
    "storageloc": "the controller's own database",
    "storagepass": "slurmstack:accountingPassword",
    "storageport": "the controller's own database",
    "storagetype": "the controller's own database",
    "storageuser": "the controller's own database",
}


class Slurmdbd(SlurmObject):
    """Parameters of slurmdbd.conf(5)."""

    file: ClassVar[str] = SLURMDBD_CONF

    AllowNoDefAcct: bool | None = None
    #: Where purged records go that are archived.
    ArchiveDir: Folder = "/var/lib/slurm-archive"
    ArchiveEvents: bool | None = None
    ArchiveJobs: bool | None = None
    ArchiveResvs: bool | None = None
    ArchiveSteps: bool | None = None
    ArchiveSuspend: bool | None = None
    ArchiveTXN: bool | None = None
    ArchiveUsage: bool | None = None
    #: Seconds between commits; a crash loses what was not committed.
    CommitDelay: Annotated[int, Field(ge=1)] | None = None
    DbdPort: Annotated[int, Field(ge=1, le=65535)] = 6819
    DebugFlags: str | None = None
    DebugLevel: str | None = None
    LogFile: Folder = "/var/log/slurm/slurmdbd.log"
    MaxQueryTimeRange: Time | None = None
    #: Seconds.
    MessageTimeout: Annotated[int, Field(ge=1)] | None = None
    Parameters: str | None = None
    PrivateData: str | None = None
    #: Months, or a number with hours, days or months.
    PurgeEventAfter: Age | None = None
    PurgeJobAfter: Age | None = None
    PurgeResvAfter: Age | None = None
    PurgeStepAfter: Age | None = None
    PurgeSuspendAfter: Age | None = None
    PurgeTXNAfter: Age | None = None
    PurgeUsageAfter: Age | None = None
    TrackSlurmctldDown: bool | None = None
    TrackWCKey: bool | None = None
    #: Any other parameter.
    extra: dict[str, str] = Field(default_factory=dict)

    @field_validator("DebugFlags", "DebugLevel", "Parameters", "PrivateData", mode="before")
    @classmethod
    def _as_slurmdbd_reads_it(cls, value: Any, info: ValidationInfo) -> Any:
        parameter = table(SLURMDBD_CONF)[str(info.field_name).lower()]
        return value if value is None else checked(parameter, value)

    @field_validator("extra", mode="wrap")
    @classmethod
    def _extra(cls, value: Any, handler: Any) -> Any:
        # One may be a password in the wrong place.
        return extra_of(SLURMDBD_CONF, cls.model_fields, WRITTEN_ELSEWHERE, quoted=False)(value)

    @property
    def keeps_case(self) -> bool:
        """Whether user names keep their capitals (Parameters=PreserveCaseUser)."""
        return "preservecaseuser" in (self.Parameters or "").lower()


class Dump(Model):
    """When the database is dumped, where to, and how many dumps are kept."""

    on_calendar: CalendarEvent = "*-*-* 02:15:00"
    directory: Folder = "/var/backups/slurmdbd"
    keep: Annotated[int, Field(ge=1, le=1000)] = 14
    #: One more before a slurmdbd of another major release converts the database.
    before_upgrade: bool = True


class Accounting(Model):
    """``slurmstack:accounting``."""

    mariadb: Mariadb = Mariadb()
    slurmdbd: Slurmdbd = Slurmdbd()
    dump: Dump = Dump()
    #: Limits of the cluster as a whole (its root association).
    cluster: Limits = Limits()
    qos: dict[str, Qos] = Field(default_factory=dict)
    accounts: dict[str, Account] = Field(default_factory=dict)
    users: dict[str, User] = Field(default_factory=dict)


def read_password(text: str) -> SecretStr:
    """An existing database password.

    Raises:
        ValueError: with what is wrong, never with the text itself.
    """
    if not 16 <= len(text) <= 64:
        raise ValueError(f"{len(text)} characters")
    if not _PASSWORD.fullmatch(text):
        raise ValueError("characters that are none of these")
    return SecretStr(text)
