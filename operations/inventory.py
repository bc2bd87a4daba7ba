"""The inventory output as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

#: Enough of a SHA-256 to tell two apart by eye.
_SHORT = 12


def table(inventory: Mapping[str, Any]) -> Table:
    """One row a node; files with the first twelve digits of their SHA-256."""
    found = Table(title="inventory: who holds what, as read back from each node")
    for column in ("node", "roles", "keys", "files", "packages", "units"):
        found.add_column(column, overflow="fold")
    for name, node in sorted(inventory.items()):
        if node.get("lost"):
            found.add_row(name, "lost", "", "", "", "")
            continue
        found.add_row(
            name,
            "\n".join(node["roles"]),
            _lines(_short(node["keys"])),
            _lines(_short(node["files"])),
            _lines(node["packages"]),
            _lines(node["units"]),
            end_section=True,
        )
    return found


def _short(hashes: Mapping[str, str]) -> dict[str, str]:
    return {name: value[:_SHORT] for name, value in hashes.items()}


def _lines(values: Mapping[str, str]) -> str:
    return "\n".join(f"{name} {value}" for name, value in sorted(values.items()))
