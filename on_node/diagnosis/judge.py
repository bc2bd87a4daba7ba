"""From evidence to causes: which rules fire, which of them explain which, and who failed first."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from on_node.diagnosis.rule import LEVELS, Line, Matcher, Rule
from on_node.diagnosis.rules import RULES

#: Lines that a finding shows.
_SHOWN = 3
#: A longer line is cut: what tells of a failure stands at its beginning.
_LENGTH = 2000
#: What begins after ranks have waited in vain follows from that, unless machine or Slurm say so.
_WAITED = "collective-timeout"

_MATCHERS = [Matcher(rule) for rule in sorted(RULES, key=lambda rule: rule.last)]
_BY_SOURCE = {
    source: [it for it in _MATCHERS if source in it.rule.patterns]
    for source in {source for rule in RULES for source in rule.patterns}
}
#: Lines of which a log may have tens of thousands and that tell of nothing.
_IDLE = re.compile(r"\bNCCL INFO (?!.*(?:fail|error|refused|closed|Call to))|^\S*\s*frame #\d+: ")
#: Pieces of text of which any line of output has one that a rule could be about. Most lines of a
#: training are its progress, which is passed over so.
_WORTH = (
    "error", "err=", "exception", "fail", "fatal", "kill", "warn", "abort", "signal", "timeout",
    "timed out", "time out", "denied", "unable", "cannot", "can't", "couldn't", "mismatch",
    "closed", "reset", "refused", "exceeded", "missing", "unknown", "invalid", "exit", "terminat",
    "segfault", "segmentation", "corrupt", "nan", "infinite", "finite", "oom", "memory", "lost",
    "enospc", "edquot", "xid", "nccl", "cuda", "cudnn", "cublas", "assert", "eaddrinuse", "stale",
    "different", "duplicate", "already", "detected", "reached", "srun", "ibv_", "rendezvous",
    "interpreter", "superblock", "nonexistent", "heartbeat", "deadline", "disconnected", "cancel",
    "mpi_", "pmi", "not ", "no ", "broken pipe", "bus ", "in use", "too many", "due to",
    "networks", "slots",
    "first task", "marked a variable", "running collective", "loss scale", " : ", "full",
)  # fmt: skip


@dataclass
class Finding:
    """A cause that the evidence speaks for."""

    rule: Rule
    lines: list[Line] = field(default_factory=list)
    count: int = 0
    #: The finding that it follows from.
    follows: str | None = None

    @property
    def first(self) -> Line:
        return self.lines[0]

    @property
    def level(self) -> int:
        return LEVELS.index(self.rule.level)


@dataclass(frozen=True)
class Culprit:
    """The first rank that failed; each part None where the evidence does not tell."""

    rank: int | None = None
    node: str | None = None
    how: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """The findings, the most likely cause first."""

    findings: tuple[Finding, ...]
    culprit: Culprit

    @property
    def cause(self) -> Finding | None:
        return self.findings[0] if self.findings else None


def judge(lines: Iterable[Line]) -> Diagnosis:
    """What the evidence says.

    Args:
        lines: of each file in their order, with `place` counting up.
    """
    evidence = [_cut(line) for line in lines]
    found = _found(evidence)
    for finding in found:
        finding.follows = _explanation(finding, found)
    output = [line for line in evidence if line.source == "output"]
    root = _of_torchrun(output)
    _noticed(found, root)
    found.sort(key=_order)
    return Diagnosis(tuple(found), root or _culprit(found, output))


def confidence(finding: Finding, findings: Sequence[Finding]) -> float:
    """0 to 1: the rule's own, more where several sources agree, less beside a rival."""
    value = finding.rule.confidence
    sources = {line.source for line in finding.lines}
    agreeing = [it for it in findings if it.follows == finding.rule.id and it.level < 3]
    if len(sources) > 1 or agreeing:
        value = 1 - (1 - value) / 2
    rivals = [
        it
        for it in findings
        if it is not finding and it.follows is None and it.level <= finding.level
    ]
    return round(value * (0.8 if rivals else 1.0), 2)


def _cut(line: Line) -> Line:
    if len(line.text) <= _LENGTH:
        return line
    return Line(line.source, line.text[:_LENGTH], line.node, line.place)


def worth(text: str) -> bool:
    """Whether a line of output could tell a rule anything."""
    lower = text.lower()
    return any(word in lower for word in _WORTH) and _IDLE.search(text) is None


def _found(evidence: Sequence[Line]) -> list[Finding]:
    by_rule: dict[str, Finding] = {}
    for line in evidence:
        if line.source == "output" and not worth(line.text):
            continue
        taken = False
        for matcher in _BY_SOURCE.get(line.source, ()):
            if (taken and matcher.rule.last) or not matcher.matches(line):
                continue
            taken = True
            finding = by_rule.setdefault(matcher.rule.id, Finding(matcher.rule))
            finding.count += 1
            fresh = line.source not in {it.source for it in finding.lines}
            if len(finding.lines) < _SHOWN or fresh:
                finding.lines.append(line)
    return list(by_rule.values())


def _explanation(finding: Finding, found: Sequence[Finding]) -> str | None:
    """The rule that this one follows from, the strongest of several."""
    candidates = [
        it
        for it in found
        if it is not finding and _explains(it, finding) and not _explains(finding, it, True)
    ]
    if not candidates:
        return None
    return min(candidates, key=lambda it: (it.level, -it.rule.confidence)).rule.id


def _explains(cause: Finding, other: Finding, strictly: bool = False) -> bool:
    """Whether `other` follows from `cause`; `strictly`, by what the rules name and by order."""
    if cause.rule.id in other.rule.explained_by:
        return cause.rule.id != _WAITED or not _after(cause, other)
    if cause.rule.id == _WAITED and 2 <= other.level < 4:
        return _after(other, cause)
    return not strictly and cause.level < other.level


def _after(one: Finding, other: Finding) -> bool:
    """Whether it began later in the same file."""
    a, b = one.first, other.first
    return (a.source, a.node) == (b.source, b.node) and a.place > b.place


def _order(finding: Finding) -> tuple[Any, ...]:
    first = finding.first
    return (
        finding.follows is not None,
        finding.level,
        -finding.rule.confidence,
        first.place,
        finding.rule.id,
    )


_RANK = (
    re.compile(r"^\s*\[rank ?(\d+)\]", re.I),
    re.compile(r"^\s*\[?(?:rank|Rank)[ =:]*(\d+)\]?[:\s]"),
    re.compile(r"^\s*(\d{1,5}): "),  # srun --label
)
_ROOT_CAUSE = re.compile(r"Root Cause \(first observed failure\)")
_OF_ROOT = {
    "rank": re.compile(r"^\s*rank\s*: (\d+)"),
    "host": re.compile(r"^\s*host\s*: (\S+)"),
    "exitcode": re.compile(r"^\s*exitcode\s*: (-?\d+)"),
}
_SRUN = re.compile(r"srun: error: ([\w.-]+): tasks? ([\d,-]+): (.+)$")
_MPIRUN = re.compile(r"process rank (\d+) with PID \d+ on node (\S+) exited on (signal \d+)")
#: What srun says when it ends the step for a task that has just failed (--kill-on-bad-exit): what
#: it says of tasks from there on is its own doing (_task_finish in srun/launch.c, Slurm 24.11.5).
_SRUN_ENDS_IT = re.compile(r"srun: Terminating StepId=")
#: How tasks end that others have ended: by a signal, or as a shell whose child was (128 and its
#: number, sh(1)), which the signal reached first.
_ENDED_BY_OTHERS = re.compile(r"Terminated|Killed|signal 15|SIGTERM|exit code 1(37|43)$")


def _noticed(found: Sequence[Finding], root: Culprit | None) -> None:
    """Where torchrun names the rank that ended first, and only others say that a peer is gone, they
    say it of that rank: how it ended is the cause."""
    by_rule = {finding.rule.id: finding for finding in found}
    closed, ended = by_rule.get("peer-closed"), by_rule.get("exit-code")
    if root is None or closed is None or ended is None or closed.follows is not None:
        return
    if not {root.rank, None} & {_rank(line.text) for line in closed.lines}:
        closed.follows = ended.rule.id


def _culprit(found: Sequence[Finding], output: Sequence[Line]) -> Culprit:
    """By what the launchers say: the cause's own line, srun's first word."""
    for finding in found[:1]:
        waits = finding.rule.id in (_WAITED, "peer-closed")
        for line in finding.lines:
            rank = None if waits else _rank(line.text)
            if rank is not None:
                node = _node_of(rank, output) or line.node or None
                return Culprit(rank, node, "its line says so")
    before = _ends(takewhile(lambda line: not _SRUN_ENDS_IT.search(line.text), output))
    ends = before or _ends(output)
    for match in filter(None, (_MPIRUN.search(line.text) for line in output)):
        return Culprit(int(match[1]), match[2], f"mpirun: {match[3]}")
    own = [match for match in ends if not _ENDED_BY_OTHERS.search(match[3])]
    for match in own or ends[:1]:
        return Culprit(int(re.split(r"[,-]", match[2])[0]), match[1], f"srun: {match[3]}")
    for finding in found[:1]:
        if finding.level == 0 and finding.first.node:
            return Culprit(None, finding.first.node, f"the {finding.first.source} of that node")
    return Culprit()


def _ends(output: Iterable[Line]) -> list[re.Match[str]]:
    return [match for line in output for match in [_SRUN.search(line.text)] if match]


def _rank(text: str) -> int | None:
    for pattern in _RANK:
        match = pattern.match(text)
        if match:
            return int(match[1])
    return None


def _node_of(rank: int, output: Sequence[Line]) -> str | None:
    for line in output:
        match = _SRUN.search(line.text)
        if match and rank in _numbers(match[2]):
            return match[1]
    return None


def _numbers(text: str) -> set[int]:
    numbers: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            numbers |= set(range(int(first), int(last or first) + 1))
    return numbers


def _of_torchrun(output: Sequence[Line]) -> Culprit | None:
    for index, line in enumerate(output):
        if not _ROOT_CAUSE.search(line.text):
            continue
        told: dict[str, str] = {}
        for following in output[index + 1 : index + 10]:
            text = re.sub(r"^\s*(\[?\w+\]?: ?)?(?=\s*\w+\s*: )", "", following.text)
            for name, pattern in _OF_ROOT.items():
                match = pattern.match(text)
                if match:
                    told.setdefault(name, match[1])
        if "rank" in told:
            how = f"torchrun: exit code {told.get('exitcode', 'unknown')}"
            return Culprit(int(told["rank"]), told.get("host"), how)
    return None
