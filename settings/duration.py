"""Lengths of time as an operator writes them: ``900``, ``45s``, ``30m``, ``8h``, ``7d``."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_EXPECTED = "a length of time such as 900 (seconds), 45s, 30m, 8h or 7d"


def seconds(value: Any) -> int:
    """The seconds that ``30m`` and the like stand for.

    Raises:
        ValueError: it is no length of time.
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(_EXPECTED)
    match = re.fullmatch(r"([0-9]{1,9})([smhd]?)", str(value).strip())
    if match is None:
        raise ValueError(_EXPECTED)
    return int(match[1]) * _UNITS[match[2]]


def written(value: int) -> str:
    """Seconds in the largest unit that divides them: ``28800`` → ``8h``."""
    for unit, length in sorted(_UNITS.items(), key=lambda item: -item[1]):
        if unit and value and value % length == 0:
            return f"{value // length}{unit}"
    return f"{value}s"


#: A field in seconds that also takes ``30m``, at least one second and less than 68 years, which
#: is what Slurm's 32 bits hold.
Duration = Annotated[int, BeforeValidator(seconds), Field(ge=1, le=2**31 - 1)]
