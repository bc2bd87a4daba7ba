"""What an operator sees: engine events as progress lines, a diff or JSON.

Texts follow Pulumi's pkg/backend/display. Displays take events (apitype.EngineEvent as dicts)
whose secrets may be readable; no display shows them unless it is told to.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Style:
    """What is shown of an operation: ``outputs`` are the stack's, ``truncate`` shortens long
    values."""

    show_secrets: bool = False
    outputs: bool = True
    debug: bool = False
    preview: bool = False
    truncate: bool = True


class Display(ABC):
    """One way to show an operation."""

    @abstractmethod
    def show(self, event: dict[str, Any]) -> None:
        """Take the next event."""

    def close(self) -> None:  # noqa: B027
        """All events have been shown."""
