"""Host lists as administrators write them: ``cn[01-16,33]``, a class's name, ``@partition``.

One function for all verbs: what a verb is given is either a list of hosts that it may work on, or
refused on one line before anything is touched.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from operations.refused import Refused
from settings import Settings
from settings.hostlist import expand, fold

#: A comma that stands in no brackets.
_COMMA = re.compile(r",(?![^\[]*\])")


def chosen(text: str, settings: Settings, among: Collection[str] | None = None) -> list[str]:
    """The hosts of a host list, each once, in the order written.

    Args:
        text: host lists of Slurm's notation, names of classes, and ``@partition``, with commas.
        settings: the stack's.
        among: those that the verb works on; by default all that have a role.

    Raises:
        Refused: it names no host, or what is none, or a host that is lost, excluded or not for
            this verb.
    """
    names = list(
        dict.fromkeys(name for word in _COMMA.split(text) for name in _hosts(word, settings))
    )
    allowed = settings.members if among is None else among
    for name in names:
        entry = settings.hosts.get(name)
        if entry is not None and entry.lost:
            raise Refused(f"{name}: lost in the settings; take lost: true out first")
        if name in allowed:
            continue
        if name in settings.excluded:
            raise Refused(f"{name}: excluded; slurmstack node return {name} takes it back")
        if name in settings.members:
            raise Refused(f"{name}: not for this verb; it is for {fold(allowed) or 'no host'}")
        there = fold(settings.members)
        raise Refused(f"{name}: no host with a role in the settings; there are {there}")
    return names


def _hosts(word: str, settings: Settings) -> Iterator[str]:
    word = word.strip()
    if not word:
        raise Refused("an empty host list: name hosts (cn[01-16,33]), a class, or @partition")
    classes = {entry.name: entry for entry in settings.nodes if entry.name is not None}
    if word.startswith("@"):
        partition = settings.partitions.get(word[1:])
        if partition is None:
            known = ", ".join(f"@{name}" for name in settings.partitions) or "none"
            raise Refused(f"{word}: no such partition in the settings; there are: {known}")
        whole = partition.Nodes == "ALL"
        names = list(settings.compute) if whole else expand(partition.Nodes)
    elif word in classes:
        names = classes[word].names
    else:
        try:
            names = expand(word)
        except ValueError as error:
            raise Refused(f"{word}: expected {error}") from None
        yield from names
        return
    # A list that stands for others leaves out what is gone for good.
    present = [name for name in names if name in settings.compute]
    if not present:
        raise Refused(f"{word}: an empty list, it has no node now")
    yield from present
