"""A mistake in the settings, and the report of all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic_core import PydanticCustomError


@dataclass(frozen=True)
class Problem:
    """One mistake: where in the YAML, what was expected there, what was found."""

    path: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.path}: expected {self.expected}; found {self.found}"


class SettingsError(Exception):
    """All mistakes in the settings of one stack."""

    def __init__(self, problems: Sequence[Problem], stack: str | None = None) -> None:
        self.problems = tuple(problems)
        where = f"Pulumi.{stack}.yaml" if stack else "the settings"
        count = len(self.problems)
        head = f"{count} mistake{'s' if count != 1 else ''} in {where}; nothing was contacted:"
        super().__init__("\n".join([head, *(f"  - {problem}" for problem in self.problems)]))


def refused(expected: str, found: str) -> PydanticCustomError:
    """A mistake whose report quotes `found` and nothing else: the value may be a secret."""
    return PydanticCustomError("refused", "{expected}", {"expected": expected, "found": found})


def shown(value: object, limit: int = 60) -> str:
    """A found value as the report shows it, in YAML's words: text quoted, never longer than `limit`
    characters."""
    text = _flow(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _flow(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    return repr(value)
