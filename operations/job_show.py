"""`slurmstack job show`: one job as the controller knows it, and why it waits."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from components.kubernetes.with_jobs import LIBRARY
from on_node.diagnosis.job import JOB_ID
from on_node.slurm_state import fields
from operations.cluster import Cluster
from operations.refused import Refused

_REASONS = tomllib.loads(Path(__file__).with_name("job_reasons.toml").read_text())
#: Lines of its output that are shown.
_LINES = 15
#: What sprio(1) writes with -l: factors that add up to the priority.
_FACTORS = {"A": "age", "F": "fair share", "J": "size", "P": "partition", "Q": "QOS", "T": "TRES"}

_SCRIPT = """
id={id}
shown=$(timeout 20 scontrol --oneliner show job "$id" 2>&1) || {{
  columns=JobID,JobName,User,Account,Partition,State,ExitCode,Submit,Start,End,NodeList
  sacct -X -P -n -j "$id" -o $columns | sed 's/^/ended /'
  exit 0
}}
echo "$shown" | sed 's/^/job /'
first=$(echo "$shown" | head -n 1)
field() {{ echo "$first" | grep -o "\\(^\\| \\)$1=[^ ]*" | head -n 1 | cut -d= -f2-; }}
number=$(field JobId)
if [ "$(field JobState)" = PENDING ]; then
  timeout 20 sprio -h -j "$id" -o '%Y|%A|%F|%J|%P|%Q|%T' 2>/dev/null |
    head -n 1 | sed 's/^/priority /'
  timeout 20 squeue -h -t PENDING -p "$(field Partition)" -o '%Q' 2>/dev/null |
    awk -v own="$(field Priority)" '$1 > own {{ n++ }} END {{ print "before", n + 0 }}'
  timeout 20 squeue -h --start -j "$id" -o '%S %Y' 2>/dev/null | head -n 1 | sed 's/^/start /'
fi
timeout 20 scontrol write batch_script "$number" - 2>/dev/null | grep '^#K8S_' | sed 's/^/header /'
out=$(field StdOut | sed "s/%j/$number/g")
[ ! -e {library} ] || (cd /; PYTHONPATH={library} PYTHONDONTWRITEBYTECODE=1 \
  timeout 40 python3 -m on_node.pods.show "$number" 2>/dev/null | sed 's/^/k8s /')
[ ! -f "$out" ] || tail -n {lines} -- "$out" | cut -c1-200 | sed 's/^/output /'
"""


@dataclass(frozen=True)
class Shown:
    """What is known of a job; texts as Slurm writes them."""

    id: str
    name: str
    user: str
    account: str
    qos: str
    partition: str
    state: str
    #: Why it waits: Slurm's word, and what that means.
    reason: str = ""
    meaning: str = ""
    #: What its priority is made of, and how many jobs of its partition come first.
    priority: str = ""
    before: int | None = None
    #: When slurmctld expects it to start, and where.
    expected: str = ""
    nodes: str = ""
    times: str = ""
    wants: str = ""
    exit_code: str = ""
    headers: tuple[str, ...] = ()
    output_file: str = ""
    output: tuple[str, ...] = ()
    #: Its pods as Kubernetes tells them, each followed by its image, events and end of its log.
    kubernetes: tuple[str, ...] = ()


def show(cluster: Cluster, wanted: str) -> Shown:
    """Ask the controller, once.

    Args:
        cluster: whose.
        wanted: a job's number, such as 12 or 12_3.

    Raises:
        Refused: there is no such job, or slurmctld does not answer.
        ContactError: the controller cannot be reached.
    """
    if not JOB_ID.fullmatch(wanted):
        raise Refused(f"{wanted}: not a job's number such as 12 or 12_3")
    told = cluster.ask(_SCRIPT.format(id=wanted, lines=_LINES, library=LIBRARY), "job", 100)
    return read(wanted, told, cluster.controller)


def read(wanted: str, told: str, controller: str) -> Shown:
    """From what the controller said.

    Raises:
        Refused: it knows no such job.
    """
    of: dict[str, list[str]] = {}
    for line in told.splitlines():
        word, _, rest = line.partition(" ")
        of.setdefault(word, []).append(rest)
    if "job" in of:
        return _known(of)
    if "ended" in of:
        return _ended(of["ended"][0])
    raise Refused(f"{controller}: there is no job {wanted}, and none is in accounting")


def _known(of: dict[str, list[str]]) -> Shown:
    line = of["job"][0]
    name = re.search(r" JobName=(.*?) UserId=", line)
    values = fields(re.sub(r" JobName=.*? UserId=", " UserId=", line, count=1))
    state = values.get("JobState", "")
    waits = state == "PENDING"
    reason = values.get("Reason", "") if waits else ""
    tres = values.get("ReqTRES", values.get("TRES", ""))
    times = [f"submitted {values.get('SubmitTime', '')}"]
    if not waits:
        times += [f"started {values.get('StartTime', '')}", f"runs {values.get('RunTime', '')}"]
    start, _, where = (of.get("start") or [""])[0].partition(" ")
    return Shown(
        id=values["JobId"],
        name=name[1] if name else "",
        user=values.get("UserId", "").partition("(")[0],
        account=values.get("Account", ""),
        qos=values.get("QOS", ""),
        partition=values.get("Partition", ""),
        state=state,
        reason=reason,
        meaning=_meaning(reason),
        priority=_priority((of.get("priority") or [""])[0]),
        before=int(of["before"][0]) if "before" in of else None,
        expected=f"{start} on {where}" if start not in ("", "N/A") else "",
        nodes="" if waits else values.get("NodeList", ""),
        times=", ".join(times),
        wants=f"{tres}, at most {values.get('TimeLimit', '')}",
        exit_code=values.get("ExitCode", "") if state not in ("PENDING", "RUNNING") else "",
        headers=tuple(it.removeprefix("#") for it in of.get("header", ())),
        output_file=values.get("StdOut", "").replace("%j", values["JobId"]),
        output=tuple(of.get("output", ())),
        kubernetes=tuple(of.get("k8s", ())),
    )


def _meaning(reason: str) -> str:
    # Of nodes that are not there, Slurm names them behind a comma.
    word = re.split(r"[,(]", reason)[0]
    prefix = re.match("Assoc|QOS|Max", word)
    return str(_REASONS.get(word) or (_REASONS[f"{prefix[0]}*"] if prefix else ""))


def _priority(line: str) -> str:
    total, *parts = line.split("|") if line.count("|") == len(_FACTORS) else ("",)
    named = zip(_FACTORS.values(), parts, strict=False)
    shares = [f"{name} {value.strip()}" for name, value in named if value.strip() not in ("", "0")]
    return f"{total.strip()} ({', '.join(shares)})" if shares else total.strip()


def _ended(line: str) -> Shown:
    job, name, user, account, partition, state, code, submit, start, end, nodes = line.split("|")
    return Shown(
        job, name, user, account, "", partition, state, nodes=nodes, exit_code=code,
        times=f"submitted {submit}, started {start}, ended {end}",
    )  # fmt: skip


def _word(line: str) -> tuple[str, str]:
    name, _, value = line.partition(" ")
    return name, value


def lines(shown: Shown) -> list[str]:
    """The same for people."""
    whose = (
        f"{shown.user} (account {shown.account or '-'}{f', QOS {shown.qos}' if shown.qos else ''})"
    )
    told = [
        f"job {shown.id}  {shown.name}",
        f"  of        {whose}, partition {shown.partition}",
        f"  state     {shown.state}{f' ({shown.reason})' if shown.reason else ''}"
        f"{f', exit {shown.exit_code}' if shown.exit_code else ''}",
    ]
    for name, value in (
        ("", shown.meaning), ("priority", shown.priority),
        ("", f"{shown.before} jobs of its partition have a higher one" if shown.before else ""),
        ("expected", shown.expected), ("nodes", shown.nodes), ("times", shown.times),
        ("wants", shown.wants), *(("header", it) for it in shown.headers),
        *(_word(it) for it in shown.kubernetes), ("output", shown.output_file),
    ):  # fmt: skip
        if value:
            told.append(f"  {name:<9} {value}")
    return [*told, *(f"    {line}" for line in shown.output)]
