"""What a rule is, and what evidence is."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: Where a line of evidence is from.
#: ``output``: what the job wrote. ``sacct``: what accounting and slurmctld hold of the job, as
#: ``State=… ExitCode=…``. ``node``: what a look at the node finds (``DiskFull=/scratch``).
SOURCES = ("output", "sacct", "slurmctld", "slurmd", "kernel", "node")

#: From what is told by the machine itself to what merely follows from something else. What stands
#: earlier explains what stands later.
LEVELS = ("machine", "slurm", "cause", "exception", "symptom")


@dataclass(frozen=True)
class Line:
    """One line of evidence."""

    source: str
    text: str
    node: str = ""
    #: Its place in the file that it is from.
    place: int = 0


@dataclass(frozen=True)
class Rule:
    """A cause, and how it is known."""

    #: Stable: programs and tests go by it.
    id: str
    #: The cause, in one sentence.
    says: str
    #: What to do.
    remedy: str
    #: Where the meaning of the evidence is documented.
    source: str
    #: Source → patterns (regular expressions, no case); one line is enough.
    patterns: dict[str, tuple[str, ...]]
    #: One of LEVELS.
    level: str = "cause"
    #: How often it is the cause where its evidence is: 0 to 1. A judgement, not a measurement.
    confidence: float = 0.8
    #: Whose it is to mend: ``user``, ``operator``, or ``hardware``.
    owner: str = "user"
    #: Rules that are the cause where they are found, too; beyond what the level says.
    explained_by: tuple[str, ...] = ()
    #: A line that one of these matches is no evidence.
    unless: tuple[str, ...] = ()
    #: Takes only lines that are evidence of no other rule.
    last: bool = False


class Matcher:
    """The patterns of a rule, compiled."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self._of = {
            source: re.compile("|".join(f"(?:{it})" for it in patterns), re.IGNORECASE)
            for source, patterns in rule.patterns.items()
        }
        self._not: re.Pattern[str] | None = (
            re.compile("|".join(f"(?:{it})" for it in rule.unless), re.IGNORECASE)
            if rule.unless
            else None
        )

    def matches(self, line: Line) -> bool:
        pattern = self._of.get(line.source)
        if pattern is None or not pattern.search(line.text):
            return False
        return self._not is None or not self._not.search(line.text)
