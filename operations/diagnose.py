"""`slurmstack diagnose`: why a job failed, from the evidence of all its nodes."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from on_node.diagnosis import command, report
from on_node.diagnosis.job import JOB_ID, Job
from on_node.diagnosis.judge import judge
from on_node.diagnosis.rule import Line
from operations.cluster import Cluster
from operations.on_node_program import program
from operations.refused import Refused
from remote.contact import ContactError, Reply
from settings.diagnosis import Diagnosis

#: Seconds for the controller, and for all nodes at once.
_SECONDS = 60.0
_END = "end-of-program"
#: Nodes that are asked; of more, those that the job began on, and the last.
_NODES = 128
#: In the order in which they import each other.
_MODULES = (
    "diagnosis.rule", "diagnosis.rules.fabric", "diagnosis.rules.gpu", "diagnosis.rules.node",
    "diagnosis.rules.program", "diagnosis.rules.slurm", "diagnosis.rules", "diagnosis.judge",
    "diagnosis.redact", "diagnosis.job", "diagnosis.gather", "diagnosis.report", "diagnosis.asked",
)  # fmt: skip


@dataclass(frozen=True)
class Told:
    """What is said of a job."""

    #: All of it, as on_node/diagnosis/report.py has it.
    report: Mapping[str, Any]
    #: The same as a page.
    page: str
    #: The folder on the controller where both are, or why they are not.
    kept: str


def diagnose(cluster: Cluster, wanted: str) -> Told:
    """Ask the controller, then the job's nodes, all at once; keep the report on the controller.

    Raises:
        Refused: there is no such job, or the controller does not answer.
        ContactError: the controller cannot be reached.
    """
    if not JOB_ID.fullmatch(wanted):
        raise Refused(f"{wanted}: not a job's number such as 12 or 12_3")
    slurm = cluster.settings.slurm
    told = _answer(cluster.ask(_script("job", wanted, slurm.SlurmctldLogFile), "job", _SECONDS))
    if "error" in told:
        raise Refused(f"{cluster.controller}: {told['error']}")
    job = Job.of(told["job"])
    lines = [Line(*it) for it in told["lines"]]
    asked, missing = _ask(cluster, job, lines)
    found = report.as_dict(job, judge(lines), asked, missing, told["neighbours"])
    page = report.page(found)
    return Told(found, page, _keep(cluster, job, found, page))


def of_logs(names: Sequence[str]) -> dict[str, Any]:
    """What log files say that are here.

    Raises:
        Refused: one cannot be read.
    """
    try:
        return command.of_logs(names)
    except OSError as error:
        raise Refused(str(error)) from None


def _ask(cluster: Cluster, job: Job, lines: list[Line]) -> tuple[list[str], dict[str, str]]:
    """Add what the nodes have; those that answered, and why others did not."""
    known = cluster.settings.compute
    missing = {name: "it is in this cluster no more" for name in job.nodes if name not in known}
    there = [name for name in job.nodes if name in known]
    names = there if len(there) <= _NODES else [*there[: _NODES - 1], there[-1]]
    script = _script("node", json.dumps(job.as_dict()), cluster.settings.slurm.SlurmdLogFile)
    asked = []
    for name, reply in cluster.run(names, script, _SECONDS).items() if names else ():
        why = _why_not(reply)
        if why is not None:
            missing[name] = why
            continue
        assert isinstance(reply, Reply)
        lines += [Line(*it) for it in _answer(reply.stdout)["lines"]]
        asked.append(name)
    return asked, missing


def _why_not(reply: Reply | ContactError) -> str | None:
    if isinstance(reply, ContactError):
        return f"{reply.step}: {reply.found}; {reply.remedy}"
    if reply.status == 127:
        return "python3 is not there; slurmstack:diagnosis brings it"
    if reply.status != 0:
        said = reply.stderr.strip().splitlines()
        return said[-1] if said else f"exit {reply.status}"
    return None


def _keep(cluster: Cluster, job: Job, found: Mapping[str, Any], page: str) -> str:
    """Where it is kept on the controller."""
    files = {"report.json": json.dumps(found, indent=2) + "\n", "report.txt": page}
    bounds = cluster.settings.diagnosis or Diagnosis()
    words = [str(job.id), str(job.uid), json.dumps(files)]
    words += [str(bounds.keep_days), str(bounds.keep_megabytes)]
    script = _script("keep", *words)
    try:
        kept: str = _answer(cluster.ask(script, "keep", _SECONDS))["kept"]
    except (Refused, ContactError) as error:
        return f"not kept: {error}"
    return f"{cluster.controller}:{kept}"


def _script(*words: str) -> str:
    # A report is too much for a command line: all words travel with the program.
    text = program(*_MODULES, words=words)
    return f"PYTHONDONTWRITEBYTECODE=1 timeout 50 python3 - <<'{_END}'\n{text}\n{_END}\n"


def _answer(text: str) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads(text)
    except ValueError:
        raise Refused(f"not understood: {shlex.quote(text[:80])}") from None
    return answer
