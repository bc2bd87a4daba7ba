"""`--target`: which resources an operation is about."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from functools import cached_property


class Targets:
    """Patterns of URNs: `*` stands for anything within a part of a URN, `**` across parts.
    Without any, everything matches."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = tuple(patterns)

    def __bool__(self) -> bool:
        return bool(self._patterns)

    @cached_property
    def _matcher(self) -> re.Pattern[str]:
        def expression(pattern: str) -> str:
            parts = re.split(r"(\*\*|\*)", pattern)
            return "".join({"**": ".*", "*": "[^:]*"}.get(p, re.escape(p)) for p in parts)

        return re.compile("|".join(map(expression, self._patterns)))

    def match(self, urn: str) -> bool:
        return not self._patterns or self._matcher.fullmatch(urn) is not None

    def missing(self, known: Collection[str]) -> list[str]:
        """Targets without a star that are none of these URNs."""
        return [t for t in self._patterns if "*" not in t and t not in known]
