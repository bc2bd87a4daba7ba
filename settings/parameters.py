"""Slurm's parameters as data: which there are, what their values are, what a change of one needs.

The facts are in ``parameters.toml``, one line a parameter. This module looks them up; what is
written into a file goes through :mod:`settings.slurm_value`.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Literal

#: The releases that the table is of.
OLDEST, NEWEST = (23, 11), (25, 11)
Release = tuple[int, int]

SLURM_CONF = "slurm.conf"
NODE, PARTITION = f"{SLURM_CONF} NodeName", f"{SLURM_CONF} PartitionName"
SLURMDBD_CONF = "slurmdbd.conf"
Daemon = Literal["slurmctld", "slurmd", "sackd", "slurmdbd", "slurmrestd"]


class Needs(StrEnum):
    """What a change of a parameter needs before daemons run by it, the least first."""

    NOTHING = "nothing"
    RECONFIGURE = "reconfigure"
    RESTART = "restart"
    #: Its nodes without jobs.
    DRAIN = "drain"
    #: All daemons stopped, and what they keep taken care of.
    STOP = "stop"


@dataclass(frozen=True)
class Parameter:
    """One parameter of one file, as its line in ``parameters.toml`` describes it."""

    file: str
    name: str
    kind: str
    needs: Needs
    #: What a lower or a higher number needs, where that is something else.
    lowered: Needs | None = None
    raised: Needs | None = None
    #: Words of a closed list, or the type of plugin.
    of: tuple[str, ...] = ()
    #: Word of the list → the first release that has it, where 23.11 has not.
    words_since: Mapping[str, Release] = field(default_factory=dict)
    since: Release | None = None
    until: Release | None = None
    note: str = ""
    #: Daemons that have to be restarted: a reconfigure does not bring the change to them.
    restart: tuple[str, ...] = ()
    min: int = 0
    max: int | None = None
    #: Daemon on whose hosts a program is to be, or ``login``.
    on: str = ""
    #: Its words may have + or - before them.
    signs: bool = False
    #: A word may have a number after it.
    counted: bool = False
    example: str = ""
    #: A program with arguments.
    words: bool = False

    @property
    def gone(self) -> bool:
        """Whether no release of the table heeds it."""
        return self.until is not None and self.until < OLDEST

    def in_release(self, release: Release) -> bool:
        """Whether this release heeds it."""
        return (self.since or release) <= release <= (self.until or release)


@cache
def _data() -> Mapping[str, Any]:
    return tomllib.loads((Path(__file__).parent / "parameters.toml").read_text())


@cache
def table(file: str) -> Mapping[str, Parameter]:
    """Lower-case name → parameter of a file, or of a kind of line (``slurm.conf NodeName``).

    Raises:
        KeyError: the table has no such file.
    """
    defaults = _data()["files"][file]
    parameters = {}
    for name, line in _data()[file].items():
        fields = defaults | line
        words = [word.partition("@") for word in fields.get("of", "").split()]
        fields["of"] = tuple(word for word, _, _ in words)
        fields["words_since"] = {word: release_of(since) for word, _, since in words if since}
        fields["restart"] = tuple(fields.get("restart", "").split())
        for key in ("since", "until"):
            fields[key] = release_of(fields[key]) if key in fields else None
        for key in ("needs", "lowered", "raised"):
            fields[key] = Needs(fields[key]) if key in fields else None
        parameters[name.lower()] = Parameter(file=file, name=name, **fields)
    return parameters


def files() -> tuple[str, ...]:
    """The files and kinds of lines that the table has."""
    return tuple(_data()["files"])


def find(file: str, name: str) -> Parameter | None:
    """A parameter by its name, whatever its case."""
    return table(file).get(name.lower())


def needs_of(file: str, name: str) -> tuple[Needs, tuple[str, ...]]:
    """What a change of a parameter needs, and the daemons that it restarts; what its file says of a
    name that the table has not."""
    parameter = find(file, name)
    if parameter is not None:
        return parameter.needs, parameter.restart
    defaults = _data()["files"][file]
    return Needs(defaults["needs"]), tuple(defaults.get("restart", "").split())


def needs_of_change(
    file: str, name: str, old: str | None, new: str | None
) -> tuple[Needs, tuple[str, ...]]:
    """As :func:`needs_of`, of one value in the place of another."""
    needs, restart = needs_of(file, name)
    parameter = find(file, name)
    numbers = [int(value) for value in (old, new) if value is not None and value.isdigit()]
    if parameter is not None and len(numbers) == 2:
        way = parameter.lowered if numbers[1] < numbers[0] else parameter.raised
        needs = way or needs
    return needs, restart


@cache
def _defaults() -> Mapping[str, Any]:
    return tomllib.loads((Path(__file__).parent / "defaults.toml").read_text())


def default(parameter: Parameter) -> str | None:
    """Slurm's own default, as a slurmctld shows it; empty where there is none, None where it is
    not known."""
    known: str | None = _defaults().get(parameter.file, {}).get(parameter.name)
    return known


def restarted_by(daemon: Daemon, file: str = SLURM_CONF) -> tuple[str, ...]:
    """The parameters whose change restarts this daemon, since a reconfigure does not bring it
    there (scontrol(1), reconfigure: neither listening ports nor authentication)."""
    parameters = table(file).values()
    return tuple(parameter.name for parameter in parameters if daemon in parameter.restart)


def files_that_restart(daemon: Daemon) -> tuple[str, ...]:
    """The files that this daemon reads when it starts, and not at a reconfigure."""
    files = _data()["files"].items()
    return tuple(name for name, file in files if daemon in file.get("restart", ""))


def without_jobs() -> tuple[str, ...]:
    """The parameters of slurm.conf whose change no running job survives."""
    needs = (Needs.DRAIN, Needs.STOP)
    parameters = table(SLURM_CONF).values()
    return tuple(parameter.name for parameter in parameters if parameter.needs in needs)


def needs_drain(key: str) -> bool:
    """Whether what a line sets, ``Parameter=value`` or ``file=…``, is not to change under jobs."""
    name = key.partition("=")[0]
    found = find(SLURM_CONF, name) or find(NODE, name)
    needs = found.needs if found is not None else _data()["files"].get(name, {}).get("needs")
    return needs in (Needs.DRAIN, Needs.STOP)


def files_without_jobs() -> tuple[str, ...]:
    """The files beside slurm.conf whose change no running job survives."""
    files = _data()["files"].items()
    return tuple(name for name, file in files if file["needs"] == Needs.DRAIN)


def plugins(kind: str) -> Mapping[str, tuple[Release | None, Release | None]]:
    """Plugin of a type → the first and the last release that has it. Empty: any name will do."""
    spans = _data()["plugins"].get(kind, {})
    return {name: _span(span) for name, span in spans.items()}


def _span(text: str) -> tuple[Release | None, Release | None]:
    first, _, last = text.partition("-")
    return (release_of(first) if first else None, release_of(last) if last else None)


def release_of(version: str) -> Release:
    """``24.11.5-4`` → (24, 11).

    Raises:
        ValueError: it does not begin with a release.
    """
    # An epoch, Debian's, says nothing of the release.
    match = re.match(r"(?:\d+:)?(\d\d)\.(\d\d)(?!\d)", version)
    if match is None:
        raise ValueError(f"{version} is no version of Slurm")
    return int(match[1]), int(match[2])


def written(release: Release) -> str:
    """(24, 11) → ``24.11``."""
    return f"{release[0]}.{release[1]:02}"


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name that this one is a slip of, whatever its case; None where nothing is near."""
    spelled = {known.lower(): known for known in names}
    # Two letters that changed places are half of what a short name has.
    alike = 0.7 if len(name) < 7 else 0.8
    close = difflib.get_close_matches(name.lower(), spelled, n=1, cutoff=alike)
    return spelled[close[0]] if close else None
