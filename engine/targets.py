"""`--target` and `--replace`: which resources an operation is about."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable


class Targets:
    """URNs and patterns of them: `*` stands for anything within a part of a URN, `**` across
    parts. Without any, everything matches."""

    def __init__(self, patterns: Iterable[str]) -> None:
        given = list(patterns)
        self._literals = dict.fromkeys(p for p in given if "*" not in p)
        globs = [_expression(p) for p in given if "*" in p]
        self._globs = re.compile("|".join(globs)) if globs else None

    def __bool__(self) -> bool:
        return bool(self._literals or self._globs)

    def match(self, urn: str) -> bool:
        patterned = self._globs is not None and self._globs.fullmatch(urn) is not None
        return not self or urn in self._literals or patterned

    def add(self, urn: str) -> None:
        """One more, if there are any."""
        if self:
            self._literals[urn] = None

    def missing(self, known: Collection[str]) -> list[str]:
        """Targets without a star that are none of these URNs."""
        return [urn for urn in self._literals if urn not in known]


def _expression(pattern: str) -> str:
    parts = re.split(r"(\*\*|\*)", pattern)
    return "".join({"**": ".*", "*": "[^:]*"}.get(p, re.escape(p)) for p in parts)
