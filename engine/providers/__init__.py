"""The providers this engine knows, and what it asks of them.

A provider here does what the plugin of that name does: the same stored inputs, outputs, ids,
differences and previews. Values are those of engine.state; secrets stay wrapped in them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from engine.paths import parse_path
from engine.state import Properties, urn_name


@dataclass(frozen=True)
class Context:
    """Where a provider works: ``log`` shows one line of progress beside the resource."""

    urn: str
    type: str
    folder: Path
    log: Callable[[str], None]

    @property
    def name(self) -> str:
        return urn_name(self.urn)


@dataclass
class Difference:
    """What changed: ``detail`` is path → add, delete or update, each perhaps with `-replace`."""

    changes: bool = False
    replace_keys: list[str] = field(default_factory=list)
    changed_keys: list[str] = field(default_factory=list)
    detail: dict[str, str] | None = None
    delete_before_replace: bool = False

    @property
    def replaces(self) -> bool:
        return bool(self.replace_keys) or any(
            kind.endswith("-replace") for kind in (self.detail or {}).values()
        )


class Refused(Exception):
    """A property's value that the provider does not accept: (property, reason), and so on."""

    def __init__(self, *failures: tuple[str, str]) -> None:
        super().__init__("; ".join(reason for _, reason in failures))
        self.failures = failures


class ProviderError(Exception):
    """An operation failed; the text is the provider's."""


class Provider(Protocol):
    types: frozenset[str]

    def configuration(self) -> Properties:
        """Inputs of the provider resource itself, beside those of the engine."""
        return {}

    def check(self, kind: str, inputs: Properties) -> Properties:
        """The inputs to store. Raises Refused."""
        ...

    def difference(self, kind: str, old: Properties, new: Properties) -> Difference: ...

    def preview(
        self, context: Context, new: Properties, old_outputs: Properties | None
    ) -> tuple[str, Properties]:
        """Id and outputs that a create (``old_outputs`` None) or update would leave."""
        ...

    async def create(self, context: Context, inputs: Properties) -> tuple[str, Properties]:
        """Raises ProviderError, as the next two do."""
        ...

    async def update(
        self, context: Context, inputs: Properties, old_outputs: Properties
    ) -> Properties: ...

    async def delete(self, context: Context, outputs: Properties) -> None:
        return None

    async def close(self) -> None:
        return None


def known_providers() -> dict[str, Provider]:
    """By package name."""
    from engine.providers.command import CommandProvider
    from engine.providers.random import RandomProvider

    return {"command": CommandProvider(), "random": RandomProvider()}


def top_level(detail: dict[str, str]) -> list[str]:
    """The properties that a detailed difference is about."""
    return sorted({str(parse_path(path)[0]) for path in detail})
