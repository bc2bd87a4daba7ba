"""The inventory output as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from operations.stack import NoSuchStack

#: Enough of a SHA-256 to tell two apart by eye.
_SHORT = 12


def of(inventory: Mapping[str, Any], node: str | None) -> dict[str, Any]:
    """The inventory, or the part of one node.

    Raises:
        NoSuchStack: it has no such node.
    """
    if node is None:
        return dict(inventory)
    if node not in inventory:
        raise NoSuchStack(f"no node {node} in the inventory; it has {', '.join(sorted(inventory))}")
    return {node: inventory[node]}


def summary(inventory: Mapping[str, Any]) -> Table:
    """A line for each node."""
    listing = Table(box=None, pad_edge=False)
    for column in ("node", "roles", "munge key"):
        listing.add_column(column, overflow="fold")
    for column in ("files", "packages", "units"):
        listing.add_column(column, justify="right")
    for name, node in sorted(inventory.items()):
        if node.get("lost"):
            listing.add_row(name, "lost")
            continue
        numbers = (str(len(node[kind])) for kind in ("files", "packages", "units"))
        key = node["keys"].get("munge", "")[:_SHORT]
        listing.add_row(name, ", ".join(node["roles"]), key, *numbers)
    return listing


def table(inventory: Mapping[str, Any]) -> Table:
    """One line for each thing that a node holds; hashes by their first twelve digits."""
    listing = Table(box=None, pad_edge=False)
    for column in ("node", "", "what", "is"):
        listing.add_column(column, overflow="fold")
    for name, node in sorted(inventory.items()):
        listing.add_section()
        if node.get("lost"):
            listing.add_row(name, "lost", "", "")
            continue
        applied = node.get("applied", {})
        listing.add_row(name)
        for role in node["roles"]:
            listing.add_row("", "role", role, applied.get(role) or "at a time not known")
        for kind, held in (
            ("key", _short(node["keys"])),
            ("file", _short(node["files"])),
            ("package", node["packages"]),
            ("unit", node["units"]),
        ):
            for what, value in sorted(held.items()):
                listing.add_row("", kind, what, value)
    return listing


def _short(hashes: Mapping[str, str]) -> dict[str, str]:
    return {name: value[:_SHORT] for name, value in hashes.items()}
