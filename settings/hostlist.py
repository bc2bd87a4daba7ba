"""Host lists in Slurm's notation, ``cn[01-64],login01``, as ``scontrol show hostnames`` reads it.

Slurm's notation is a part of ClusterShell's, which has more (``!``, ``&``, ``^``, ``@group``,
steps) and sorts: what is written here is read by Slurm's rules and in the order written.
ClusterShell folds, which is the longer half of the work.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Iterator

from ClusterShell.NodeSet import NodeSet

EXAMPLE = "a host list such as cn[01-64,70],login01"
#: Slurm's own limit of one range (MAX_RANGE of its hostlist.c).
MOST = 64 * 1024
_LITERAL = re.compile(r"[A-Za-z0-9._:/+-]*")
_RANGE = re.compile(r"([0-9]+)(?:-([0-9]+))?")
#: What other tools read and Slurm takes for a part of a name, or not at all.
_FOREIGN = {
    "!": "no list without some hosts (!): name those that are left",
    "&": "no intersections (&): name the hosts",
    "^": "no files (^): name the hosts",
    "@": "no groups (@): name the hosts",
    "*": "no patterns (*): name the hosts",
    "?": "no patterns (?): name the hosts",
    "{": "square brackets, cn[1-3], instead of {}",
    "}": "square brackets, cn[1-3], instead of {}",
    "(": "square brackets, cn[1-3], instead of ()",
    ")": "square brackets, cn[1-3], instead of ()",
}


def host_list(text: str) -> str:
    """The same text, where it is a host list.

    Raises:
        ValueError: as ``expand``.
    """
    expand(text)
    return text


def expand(text: str) -> tuple[str, ...]:
    """The hosts of a host list, in the order written.

    Raises:
        ValueError: Slurm has no such syntax, or the text names no host, or one of them twice.
    """
    hosts = tuple(host for word in _words(text) for host in _hosts(word))
    seen: set[str] = set()
    for host in hosts:
        if host in seen:
            raise ValueError(f"{EXAMPLE}, each host once ({host} is there twice)")
        seen.add(host)
    return hosts


def _words(text: str) -> Iterator[str]:
    """What stands between the commas that are in no brackets."""
    text = text.strip()
    if not text:
        raise ValueError(f"{EXAMPLE} that names at least one host")
    for character in text:
        if character.isspace():
            raise ValueError(f"{EXAMPLE} (commas and no spaces between hosts)")
        if character in _FOREIGN:
            raise ValueError(f"{EXAMPLE}; Slurm has {_FOREIGN[character]}")
    word, depth = "", 0
    for character in text:
        depth += {"[": 1, "]": -1}.get(character, 0)
        if depth not in (0, 1):
            raise ValueError(f"{EXAMPLE} (a missing or nested bracket)")
        if character == "," and not depth:
            yield word
            word = ""
        else:
            word += character
    if depth:
        raise ValueError(f"{EXAMPLE} (a missing bracket)")
    yield word


def _hosts(word: str) -> Iterator[str]:
    if not word:
        raise ValueError(f"{EXAMPLE} (nothing between two commas)")
    parts: list[list[str]] = []
    for index, part in enumerate(re.split(r"[\[\]]", word)):
        if index % 2:
            parts.append([number for item in part.split(",") for number in _numbers(item)])
        elif not _LITERAL.fullmatch(part):
            raise ValueError(f"{EXAMPLE} (letters, digits, - and . in a name)")
        else:
            parts.append([part])
    for pieces in itertools.product(*parts):
        yield "".join(pieces)


def _numbers(item: str) -> Iterator[str]:
    if "/" in item:
        raise ValueError(f"{EXAMPLE}; Slurm has no steps (/): name the numbers")
    bounds = _RANGE.fullmatch(item)
    if bounds is None:
        raise ValueError(f"{EXAMPLE} (numbers and ranges of them in brackets, not {item!r})")
    first, last = bounds[1], bounds[2] or bounds[1]
    if int(last) < int(first):
        raise ValueError(f"{EXAMPLE} (a range from the lower to the higher number, not {item})")
    if int(last) - int(first) >= MOST:
        raise ValueError(f"{EXAMPLE} (at most {MOST} hosts in one range)")
    for number in range(int(first), int(last) + 1):
        yield f"{number:0{len(first)}d}"


def fold(hosts: Iterable[str]) -> str:
    """The shortest host list for these hosts, e.g. ``cn[01-64]``."""
    return str(NodeSet.fromlist(list(hosts)))


def left_of(names: str, gone: Collection[str]) -> str:
    """A host list without some of its names; as it was written where it has none of them, and
    empty where it has no others."""
    left = [name for name in expand(names) if name not in gone]
    return names if len(left) == len(expand(names)) else fold(left)


def pair(names: str, addresses: str) -> tuple[tuple[str, str], ...]:
    """Names and addresses that two host lists give, in step, each in the order written.

    ``pair("cn[01-02]", "10.0.0.[12,11]")`` → ``(("cn01", "10.0.0.12"), ("cn02", "10.0.0.11"))``

    Raises:
        ValueError: one of them is no host list, or they differ in length.
    """
    left, right = expand(names), expand(addresses)
    if len(left) != len(right):
        raise ValueError(f"as many addresses as names ({len(left)}), not {len(right)}")
    return tuple(zip(left, right, strict=True))
