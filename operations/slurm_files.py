"""What differs between two versions of a file of Slurm's, parameter by parameter, and what each
difference needs, by the table of ``settings/parameters.toml``. Pure functions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from on_node.slurm_state import fields, lines_of
from settings.hostlist import expand
from settings.parameters import Needs, files, needs_of, needs_of_change

#: The folder of the files that the table is of.
_FOLDER = PurePosixPath("/etc/slurm")
#: Words that begin a line about one thing out of several, and what such a thing is called.
_THINGS = {"nodename": "node", "partitionname": "partition", "switchname": "switch",
           "blockname": "block", "nodeset": "node set", "downnodes": "down nodes"}  # fmt: skip

#: A thing's name → its parameters, as the file writes them.
_Things = dict[str, dict[str, str]]


@dataclass(frozen=True)
class ParameterChange:
    """One parameter, or one line, that is not as it was."""

    #: Such as ``slurm.conf``.
    file: str
    #: Such as ``MessageTimeout``, ``partition debug MaxTime``, ``Gres``.
    name: str
    #: None where it is not in the file.
    old: str | None
    new: str | None
    needs: Needs
    #: Daemons that a reconfigure does not bring the change to.
    restart: tuple[str, ...] = ()
    #: The node whose line it stands in.
    node: str | None = None

    def __str__(self) -> str:
        if self.old is None:
            return f"{self.file} {self.name} {self.new}".rstrip()
        return f"{self.file} {self.name} {self.old} → {self.new or 'not set'}"


def known(path: str) -> str | None:
    """The table's name of a file, None where it is none of Slurm's."""
    place = PurePosixPath(path)
    return place.name if place.parent == _FOLDER and place.name in files() else None


def changes(path: str, old: str | None, new: str | None) -> Iterator[ParameterChange]:
    """The differences of a file for which :func:`known` has a name.

    Args:
        path: where the file lies.
        old, new: its texts; None where there is none.
    """
    file = PurePosixPath(path).name
    was, to_be = _read(old or ""), _read(new or "")
    for kind in dict.fromkeys([*was, *to_be]):
        before, after = was.get(kind, {}), to_be.get(kind, {})
        for thing in dict.fromkeys([*before, *after]):
            yield from _of_thing(file, kind, thing, before.get(thing), after.get(thing))


def _read(text: str) -> dict[str, _Things]:
    """Kind of line → name → parameters; of kind "" are the file's own parameters."""
    found: dict[str, _Things] = {"": {"": {}}}
    for line in lines_of(text):
        line = line.partition(" #")[0].rstrip()
        values = fields(line)
        if not values:
            continue
        first, name = next(iter(values.items()))
        if first.lower() not in _THINGS:
            _enter(found[""][""], _whole(line, values))
            continue
        del values[first]
        names = expand(name) if first.lower() == "nodename" else (name,)
        for one in names:
            _enter(found.setdefault(first, {}).setdefault(one, {}), values)
    return found


def _whole(line: str, values: dict[str, str]) -> dict[str, str]:
    """A line of one parameter is all of it, whatever its value holds."""
    name, _, value = line.partition("=")
    return {name.strip(): value.strip()} if len(values) == 1 else values


def _enter(there: dict[str, str], values: Mapping[str, str]) -> None:
    """What a second line says of the same thing comes beside what the first one says."""
    for name, value in values.items():
        there[name] = f"{there[name]}; {value}" if name in there else value


def _of_thing(
    file: str, kind: str, thing: str, old: Mapping[str, str] | None, new: Mapping[str, str] | None
) -> Iterator[ParameterChange]:
    table = f"{file} {kind}" if f"{file} {kind}" in files() else file
    node = thing if kind.lower() == "nodename" else None
    called = "" if node or not kind else f"{_THINGS[kind.lower()]} {thing} "
    if file == "slurm.conf" and node and (old is None or new is None):
        # The node itself comes or goes: its parameters say nothing of their own.
        needs, restart = needs_of(table, "")
        was, to_be = (None if it is None else thing for it in (old, new))
        yield ParameterChange(file, "node", was, to_be, needs, restart, node)
        return
    before, after = old or {}, new or {}
    for name in dict.fromkeys([*before, *after]):
        if before.get(name) != after.get(name):
            values = before.get(name), after.get(name)
            needs, restart = needs_of_change(table, name, *values)
            yield ParameterChange(file, f"{called}{name}", *values, needs, restart, node)
