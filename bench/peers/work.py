"""What bundles put on each host, as any tool of its kind could do it: the parts of all roles of a
host together, and which handlers a changed path or package calls.

Left out is what slurmstack does besides and the tools have no word for: guards, validation, checks,
drains, keys of restarts, and putting back what a daemon refuses. So the others do less.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from remote.bundle import (
    Absent,
    Bundle,
    Command,
    Directory,
    File,
    Group,
    Link,
    Package,
    Unit,
    User,
)
from remote.commands import STATE_PATH

_T = TypeVar("_T")
#: Units that systemd reads from here need a daemon-reload.
UNITS = "/etc/systemd/"
SYSTEMD = "systemd reads units"


@dataclass(frozen=True)
class Handler:
    """What is done once, in the order of `Work.handlers`, where something that calls it changed."""

    name: str
    kind: Literal["script", "restart", "reload", "systemd"]
    #: The unit's name, or the script's text.
    what: str = field(repr=False, default="")
    #: The place of the bundle that has it first, in the order in which bundles are applied.
    place: int = field(compare=False, default=-1)


@dataclass
class Work:
    """One host's."""

    groups: list[Group] = field(default_factory=list)
    users: list[User] = field(default_factory=list)
    packages: list[Package] = field(default_factory=list)
    directories: list[Directory] = field(default_factory=list)
    files: list[File] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    absent: list[Absent] = field(default_factory=list)
    units: list[Unit] = field(default_factory=list)
    handlers: list[Handler] = field(default_factory=list)
    #: Path, or `package:NAME` → names of handlers.
    calls: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def called_by(self, keys: Iterable[str]) -> list[str]:
        """Names of the handlers that these call, in the handlers' order."""
        called = {name for key in keys for name in self.calls.get(key, ())}
        return [handler.name for handler in self.handlers if handler.name in called]


def works(bundles: Iterable[Bundle]) -> dict[str, Work]:
    """Host → its work, from bundles in the order in which they are applied."""
    found: dict[str, Work] = defaultdict(lambda: Work(handlers=[Handler(SYSTEMD, "systemd")]))
    for place, bundle in enumerate(bundles):
        _add(found[bundle.node], bundle, place)
    for work in found.values():
        work.directories.sort(key=lambda part: part.path)
        for file in work.files:
            if file.path.startswith(UNITS):
                work.calls[file.path].append(SYSTEMD)
    return dict(found)


def _add(work: Work, bundle: Bundle, place: int) -> None:
    # The applier makes it for each bundle, and scripts of bundles write there.
    for path in (STATE_PATH, f"{STATE_PATH}/{bundle.role}"):
        _once(work.directories, Directory(path, mode="0700"))
    for part in bundle.parts:
        match part:
            case Group():
                _once(work.groups, part)
            case User():
                _once(work.users, part)
            case Package():
                _once(work.packages, part)
            case Directory():
                _once(work.directories, part)
            case File():
                _once(work.files, part)
            case Link():
                _once(work.links, part)
            case Absent():
                _once(work.absent, part)
            case Command(when="apply"):
                _call(work, Handler(f"run {part.name}", "script", part.script, place), part.on)
            case Unit():
                _once(work.units, part)
                _call(
                    work,
                    Handler(f"restart {part.name}", "restart", part.name, place),
                    part.restart_on,
                )
                _call(
                    work, Handler(f"reload {part.name}", "reload", part.name, place), part.reload_on
                )


def _once(parts: list[_T], part: _T) -> None:
    """Roles of a host share folders, users and packages."""
    if part not in parts:
        parts.append(part)


def _call(work: Work, handler: Handler, on: Iterable[str]) -> None:
    for key in on:
        work.calls[key].append(handler.name)
    if on and handler not in work.handlers:
        work.handlers.append(handler)


def handlers(works: Mapping[str, Work]) -> Iterator[tuple[str, dict[str, Handler]]]:
    """Each handler's name with host → its handler, in the order in which the bundles that have them
    are applied: slurmctld comes before the slurmd that it is to know."""
    of_name: dict[str, dict[str, Handler]] = defaultdict(dict)
    for host, work in works.items():
        for handler in work.handlers:
            of_name[handler.name][host] = handler
    for name in sorted(of_name, key=lambda name: min(one.place for one in of_name[name].values())):
        yield name, of_name[name]
