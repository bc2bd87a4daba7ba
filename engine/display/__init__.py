"""What an operator sees: engine events as progress lines, a live tree, a diff or JSON.

Texts follow Pulumi's pkg/backend/display. Displays take events (apitype.EngineEvent as dicts)
whose secrets may be readable; no display shows them unless it is told to.
"""

from __future__ import annotations

from typing import Any


class Display:
    """One way to show an operation."""

    def show(self, event: dict[str, Any]) -> None:
        """Take the next event."""
        raise NotImplementedError

    def tick(self) -> None:
        """A second has passed."""

    def close(self) -> None:
        """All events have been shown."""
