"""The inventory output as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

#: Enough of a SHA-256 to tell two apart by eye.
_SHORT = 12


def table(inventory: Mapping[str, Any]) -> Table:
    """One line for each thing that a node holds; hashes by their first twelve digits."""
    title = "who holds what, as each node answered when it was last applied there"
    found = Table(title=title, title_justify="left")
    for column in ("node", "", "what", "is"):
        found.add_column(column, overflow="fold")
    for name, node in sorted(inventory.items()):
        found.add_section()
        if node.get("lost"):
            found.add_row(name, "lost", "", "")
            continue
        applied = node.get("applied", {})
        found.add_row(name)
        for role in node["roles"]:
            found.add_row("", "role", role, applied.get(role) or "at a time not known")
        for kind, held in (
            ("key", _short(node["keys"])),
            ("file", _short(node["files"])),
            ("package", node["packages"]),
            ("unit", node["units"]),
        ):
            for what, value in sorted(held.items()):
                found.add_row("", kind, what, value)
    return found


def _short(hashes: Mapping[str, str]) -> dict[str, str]:
    return {name: value[:_SHORT] for name, value in hashes.items()}
