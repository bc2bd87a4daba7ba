"""What Slurm holds of a job: from slurmctld while it remembers it, from accounting after that."""

from __future__ import annotations

import re
import subprocess
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from on_node.diagnosis.rule import Line

JOB_ID = re.compile(r"[0-9]{1,10}(_[0-9]{1,9})?")
#: Seconds for each of Slurm's commands.
_SECONDS = 15
_FIELDS = (
    "JobIDRaw,JobID,State,ExitCode,DerivedExitCode,NodeList,Start,End,User,UID,GID,Reason,JobName,"
    "Partition,WorkDir,StdOut,StdErr,MaxRSS,ReqMem,Timelimit"
)
#: What a job ends as when nothing went wrong, or is as long as it has not ended.
_WELL = ("COMPLETED", "RUNNING", "PENDING", "SUSPENDED", "COMPLETING", "CONFIGURING")


class JobError(Exception):
    """One line for whoever asked."""


@dataclass(frozen=True)
class Job:
    """A job, or one of an array."""

    id: int
    name: str
    user: str
    uid: int
    gid: int
    partition: str
    state: str
    exit_code: str
    reason: str
    nodes: tuple[str, ...]
    #: Seconds since 1970; the end is 0 while it runs.
    start: float
    end: float
    work_dir: str
    #: Files that it wrote its output to.
    outputs: tuple[str, ...]
    #: Step → state and exit code, as accounting has them.
    steps: tuple[tuple[str, str, str], ...] = ()

    @property
    def failed(self) -> bool:
        # It waits, but for a person: Slurm put it back and held it.
        held = "launch failed" in self.reason.replace("_", " ")
        return held or self.state.split()[0] not in _WELL

    def lines(self) -> list[Line]:
        """As evidence."""
        told = [f"State={self.state} ExitCode={self.exit_code} Reason={self.reason}"]
        told += [f"Step={step} State={state} ExitCode={code}" for step, state, code in self.steps]
        return [Line("sacct", text, "", place) for place, text in enumerate(told)]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def of(values: dict[str, Any]) -> Job:
        """From `as_dict`, read back from JSON."""
        lists = {name: tuple(values[name]) for name in ("nodes", "outputs")}
        steps = tuple((str(a), str(b), str(c)) for a, b, c in values["steps"])
        return Job(**{**values, **lists, "steps": steps})


def job(wanted: str) -> Job:
    """
    Args:
        wanted: a job's number, or ARRAY_TASK.

    Raises:
        JobError: it is none, or Slurm knows no such job.
    """
    if not JOB_ID.fullmatch(wanted):
        raise JobError(f"{wanted}: not a job's number such as 12 or 12_3")
    shown, accounted = _of_scontrol(wanted), _of_sacct(wanted)
    if not shown and not accounted:
        raise JobError(
            f"job {wanted}: neither slurmctld nor accounting knows it; see the number "
            "(sacct -X -S now-2days), and that accounting is on for jobs of the past"
        )
    return _joined(shown, accounted)


def _of_scontrol(wanted: str) -> dict[str, str]:
    told = _said("scontrol", "-o", "show", "job", wanted)
    line = told.splitlines()[0] if told.strip() else ""
    return dict(re.findall(r"(?:^| )([A-Za-z][\w/:]*)=(.*?)(?= [A-Za-z][\w/:]*=|\s*$)", line))


def _of_sacct(wanted: str) -> list[dict[str, str]]:
    words = ["sacct", "-n", "-P", "-D", "-j", wanted, "-o", _FIELDS]
    told = _said(*words, "--expand-patterns") or _said(*words)
    names = _FIELDS.split(",")
    rows = [
        dict(zip(names, line.split("|")))  # noqa: B905 (Python 3.9)
        for line in told.splitlines()
        if "|" in line
    ]
    # Of a job that was requeued, the last time that it ran; its steps follow it.
    firsts = [index for index, row in enumerate(rows) if "." not in row["JobID"]]
    ran = [index for index in firsts if rows[index]["NodeList"] != "None assigned"]
    if not firsts:
        return []
    begin = ran[-1] if ran else firsts[-1]
    return rows[begin : next((index for index in firsts if index > begin), None)]


def _joined(shown: dict[str, str], accounted: list[dict[str, str]]) -> Job:
    first = accounted[0] if accounted else {}
    owner = re.fullmatch(r"(.*)\((\d+)\)", shown.get("UserId", ""))
    group = re.fullmatch(r"(.*)\((\d+)\)", shown.get("GroupId", ""))
    state = shown.get("JobState") or first.get("State", "")
    # slurmctld says by which user in accounting only.
    if state == "CANCELLED" and first.get("State", "").startswith(state):
        state = first["State"]
    past = state == "PENDING" and bool(first)  # of one that was put back: when it ran
    start = first.get("Start", "") if past else shown.get("StartTime") or first.get("Start", "")
    end = first.get("End", "") if past else shown.get("EndTime") or first.get("End", "")
    number = int(shown.get("JobId") or first.get("JobIDRaw", "0"))
    work_dir = shown.get("WorkDir") or first.get("WorkDir", "")
    outputs = [shown.get(key) or first.get(key, "") for key in ("StdOut", "StdErr")]
    if not any(outputs) and first:
        outputs = [f"slurm-{number}.out"]
    return Job(
        id=number,
        name=shown.get("JobName") or first.get("JobName", ""),
        user=owner[1] if owner else first.get("User", ""),
        uid=int(owner[2] if owner else first.get("UID") or -1),
        gid=int(group[2] if group else first.get("GID") or -1),
        partition=shown.get("Partition") or first.get("Partition", ""),
        state=state or "UNKNOWN",
        exit_code=shown.get("ExitCode") or first.get("ExitCode", ""),
        reason=shown.get("Reason") or first.get("Reason", ""),
        nodes=expanded(shown.get("NodeList") or first.get("NodeList", "")),
        start=_time(start),
        end=_time(end) if past or state not in _WELL[1:] else 0.0,
        work_dir=work_dir,
        outputs=tuple(
            dict.fromkeys(_path(_filled_in(it, number), work_dir) for it in outputs if it)
        ),
        steps=tuple((row["JobID"], row["State"], row["ExitCode"]) for row in accounted[1:]),
    )


def _filled_in(path: str, number: int) -> str:
    """A pattern of sbatch(1) that accounting kept as it was given; what is not known stays."""
    return re.sub(r"%\d*[jJA]", str(number), path)


def _path(path: str, folder: str) -> str:
    return path if path.startswith("/") else f"{folder.rstrip('/')}/{path}"


def expanded(nodes: str) -> tuple[str, ...]:
    """The names of a host list."""
    if not nodes or nodes in ("(null)", "None assigned"):
        return ()
    return tuple(_said("scontrol", "show", "hostnames", nodes).split())


def _time(text: str) -> float:
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S").timestamp()
    except ValueError:
        return 0.0


def _said(*words: str) -> str:
    """What a command prints; nothing where it fails or is not there."""
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
