"""A tree of switches from what ibnetdiscover(8) prints of an InfiniBand fabric. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from settings.hostlist import fold

_ITEM = re.compile(r'^(Switch|Ca)\s+\d+\s+"([^"]+)"(?:\s+#\s+"([^"]*)")?')
_LINK = re.compile(r'^\[\d+\](?:\([0-9a-f]+\))?\s+"([^"]+)"')


class FabricError(ValueError):
    """Text from which no tree of the cluster's nodes follows."""


def tree(text: str, nodes: Iterable[str]) -> dict[str, dict[str, str]]:
    """``switches`` of ``slurmstack:topology``.

    A node with several adapters hangs on several leaf switches (rails). Nodes that hang on the
    same ones are one switch here, since topology.conf(5) gives each node one place; such groups
    that meet one level up are joined by a switch there, and so on to the top.

    Args:
        text: what ``ibnetdiscover`` printed.
        nodes: the cluster's compute nodes. An adapter's description begins with its host's name.

    Raises:
        FabricError: a node is not in the fabric, or the fabric is in several pieces.
    """
    wanted = set(nodes)
    links, hosts = _read(text)
    leaves: dict[str, set[str]] = {}
    for adapter, host in hosts.items():
        if host in wanted:
            leaves.setdefault(host, set()).update(
                peer for peer in links.get(adapter, ()) if peer.startswith("S-")
            )
    missing = sorted(wanted - {host for host, leaf_switches in leaves.items() if leaf_switches})
    if missing:
        raise FabricError(
            f"no link of {fold(missing)} in what ibnetdiscover printed: are their ports up, and "
            "do their adapters' descriptions begin with the host's name (ibnodes)?"
        )
    units: dict[frozenset[str], list[str]] = {}
    for host, leaf_switches in leaves.items():
        units.setdefault(frozenset(leaf_switches), []).append(host)
    switches: dict[str, dict[str, str]] = {}
    level: dict[str, set[str]] = {}
    for number, (leafs, members) in enumerate(
        sorted(units.items(), key=lambda unit: min(unit[1])), 1
    ):
        switches[f"leaf{number}"] = {"Nodes": fold(members)}
        level[f"leaf{number}"] = set(leafs)
    return switches | _upwards(level, links)


def _upwards(
    level: dict[str, set[str]], links: Mapping[str, set[str]]
) -> dict[str, dict[str, str]]:
    """Switches above: what meets at the next switches that were not seen yet is joined."""
    joined: dict[str, dict[str, str]] = {}
    seen = {guid for guids in level.values() for guid in guids}
    height = 1
    while len(level) > 1:
        reach = {
            name: {up for guid in guids for up in links[guid] if up.startswith("S-")} - seen
            for name, guids in level.items()
        }
        # Leaf switches that are cabled to each other, or shared by groups, meet where they are.
        meets = {name: reach[name] | level[name] for name in level}
        groups = _components(meets)
        if len(groups) == len(level) and not any(reach.values()):
            raise FabricError(f"the fabric is in {len(level)} pieces: {', '.join(sorted(level))}")
        seen |= {guid for switches in reach.values() for guid in switches}
        above: dict[str, set[str]] = {}
        for number, group in enumerate(groups, 1):
            guids = {guid for name in group for guid in reach[name] or level[name]}
            if len(group) == 1:
                above[group[0]] = guids
                continue
            name = f"spine{height}-{number}" if len(groups) > 1 else f"spine{height}"
            joined[name] = {"Switches": fold(group)}
            above[name] = guids
        level = above
        height += 1
    return joined


def _components(meets: Mapping[str, set[str]]) -> list[list[str]]:
    groups: list[tuple[list[str], set[str]]] = []
    for name, guids in meets.items():
        touching = [group for group in groups if group[1] & guids]
        names = [name for group in touching for name in group[0]] + [name]
        union = set(guids).union(*(group[1] for group in touching))
        groups = [group for group in groups if group not in touching] + [(names, union)]
    return [names for names, _ in groups]


def _read(text: str) -> tuple[dict[str, set[str]], dict[str, str]]:
    """GUID → the GUIDs that it is cabled to; adapter → its host."""
    links: dict[str, set[str]] = {}
    hosts: dict[str, str] = {}
    at: str | None = None
    for line in text.splitlines():
        item = _ITEM.match(line)
        if item:
            at = item[2]
            links.setdefault(at, set())
            if item[1] == "Ca" and (item[3] or "").split():
                hosts[at] = item[3].split()[0].partition(".")[0]
            continue
        link = _LINK.match(line)
        if link and at is not None:
            links[at].add(link[1])
            links.setdefault(link[1], set()).add(at)
        elif not line.strip():
            at = None
    return links, hosts
