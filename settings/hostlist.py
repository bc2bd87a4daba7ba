"""Host lists in Slurm's notation (``cn[01-64],login01``), by ClusterShell."""

from __future__ import annotations

from collections.abc import Iterable

from ClusterShell.NodeSet import NodeSet, NodeSetException


def expand(text: str) -> tuple[str, ...]:
    """The hosts of a host list, in ClusterShell's order.

    Raises:
        ValueError: the text is no host list, or names no host.
    """
    if not text.strip() or any(character.isspace() for character in text.strip()):
        raise ValueError("a host list such as cn[01-64] (no spaces)")
    if text.lstrip().startswith("@"):
        raise ValueError("a host list such as cn[01-64] (groups are not resolved here)")
    try:
        hosts = tuple(NodeSet(text.strip()))
    except NodeSetException as error:
        raise ValueError(f"a host list such as cn[01-64] ({error})") from None
    if not hosts:
        raise ValueError("a host list that names at least one host")
    return hosts


def fold(hosts: Iterable[str]) -> str:
    """The shortest host list for these hosts, e.g. ``cn[01-64]``."""
    return str(NodeSet.fromlist(list(hosts)))


def pair(names: str, addresses: str) -> tuple[tuple[str, str], ...]:
    """Names and addresses that two host lists give, in step.

    ``pair("cn[01-02]", "10.0.0.[11-12]")`` → ``(("cn01", "10.0.0.11"), ("cn02", "10.0.0.12"))``

    Raises:
        ValueError: one of them is no host list, or they differ in length.
    """
    left, right = expand(names), expand(addresses)
    if len(left) != len(right):
        raise ValueError(f"as many addresses as names ({len(left)}), not {len(right)}")
    return tuple(zip(left, right, strict=True))
