"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["good", "fault", "unknown"]


@dataclass(frozen=True)
class Result:
    """One check's word on the node."""

    verdict: Verdict
    #: What is wrong, in words for the drain reason; of `unknown`, why nobody knows.
    words: str = ""


GOOD = Result("good")


def fault(words: str) -> Result:
    """It is not as it must be."""
    return Result("fault", words)


def unknown(words: str) -> Result:
    """It could not be told: no fault, and no proof that an earlier one is mended."""
    return Result("unknown", words)


def all_of(faults: list[str]) -> Result:
    """A fault where there is any."""
    return fault(", ".join(faults)) if faults else GOOD
