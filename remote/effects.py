"""What the applier will do when one bundle follows another: its rules, as a pure function.

The rules are those of the applier (README.md): they are written in ``applier/units.sh`` and
``applier/scripts.sh``, and `tests/unit/remote/test_effects.py` holds this module against it. What
only the node can know (a unit that somebody stopped, a file that was edited there) is told as if
all is as the bundle before left it.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import sha256
from typing import TypeVar

from remote.bundle import (
    Absent,
    Bundle,
    Check,
    Command,
    Directory,
    File,
    Group,
    Guard,
    Link,
    Package,
    Part,
    Unit,
    User,
    Validate,
    Withdrawal,
)

_T = TypeVar("_T")
_Path = File | Link | Absent


class Deed(StrEnum):
    """What is done to a unit, in the words of the applier's answer; the least first."""

    STARTED = "started"
    RELOADED = "reloaded"
    RESTARTED = "restarted"
    STOPPED = "stopped"


@dataclass(frozen=True)
class ToUnit:
    """What happens to one unit. `because`: keys of parts that changed, `restart-key NAME`, or
    `command NAME` that does it. `sure` is False where only the run can tell."""

    unit: str
    deed: Deed
    because: tuple[str, ...]
    sure: bool = True


@dataclass(frozen=True)
class PackageChange:
    """A package that comes (`old` is None), goes (`new` is None), or changes its version; an empty
    version stands for whichever one the node has or finds."""

    name: str
    old: str | None
    new: str | None


@dataclass(frozen=True)
class PathChange:
    """A file, link or absent path that is not as it was; None: not of this bundle."""

    path: str
    old: _Path | None
    new: _Path | None


@dataclass(frozen=True)
class CommandRun:
    """A command that runs, and why."""

    command: Command
    because: tuple[str, ...]


@dataclass(frozen=True)
class Effects:
    """All that one bundle in the place of another does to its node."""

    packages: tuple[PackageChange, ...] = ()
    paths: tuple[PathChange, ...] = ()
    commands: tuple[CommandRun, ...] = ()
    units: tuple[ToUnit, ...] = ()
    #: Why the node is taken out of use first (a bundle's `Withdrawal`); empty where it is not.
    withdrawn_for: tuple[str, ...] = ()
    #: Commands that have the node rebooted after the run, where it needs it.
    reboots: tuple[str, ...] = ()
    #: Keys of other parts that are not as they were: users, groups, directories, guards, readers
    #: and checks. None of them touches a daemon.
    others: tuple[str, ...] = ()


def effects(
    old: Bundle | None,
    new: Bundle | None,
    installed: Mapping[str, str] | None = None,
    held: Collection[str] = frozenset(),
    at_work: Collection[str] = frozenset(),
) -> Effects:
    """What happens to a node when `new` is applied where `old` was.

    Args:
        old: the bundle applied last; None where the role is new there.
        new: the bundle to be applied; None where the role is taken back.
        installed: package → version, as the node said itself.
        held: units and paths of the node's other roles: those stay when this role lets go of them.
        at_work: units that the node's other roles have applied.
    """
    was, to_be = old.parts if old else (), new.parts if new else ()
    there = {package.name: package.version or "" for package in _of(Package, was).values()}
    there |= installed or {}
    packages = tuple(_packages(there, was, to_be, removing=new is None))
    paths = tuple(
        change
        for change in _paths(was, to_be, removing=new is None)
        if change.new or change.path not in held
    )
    changed = {f"package:{change.name}" for change in packages if change.new is not None}
    changed |= {change.path for change in paths if change.new is not None}
    commands = tuple(_commands(was, to_be, changed, removing=new is None))
    units = [*_units(was, to_be, changed, there, held)]
    if old is not None and new is not None:
        # With a role that is new, what its commands would tell daemons, these read as they start.
        units += _told(commands)
    out = tuple(_withdrawn_for(was, to_be, changed, at_work))
    reboots = tuple(run.command.name for run in commands if run.command.reboots)
    others = tuple(_others(was, to_be))
    return Effects(packages, paths, commands, tuple(units), out, reboots, others)


def unknown(old: Bundle | None) -> Effects:
    """What may happen where the bundle to come is known only once others are applied."""
    return Effects(
        units=tuple(
            ToUnit(unit.name, Deed.RESTARTED, unit.restart_on, sure=False)
            for unit in _of(Unit, old.parts if old else ()).values()
            if any(path.startswith("/") for path in unit.restart_on)
        )
    )


def sealed(bundle: Bundle) -> Bundle:
    """The same bundle with a hash in the place of all its text, so that it can be compared and
    named without being known."""
    return Bundle(bundle.node, bundle.role, [_sealed(part) for part in bundle.parts])


def digest(content: str | bytes) -> str:
    """SHA-256 of a file's content, as the node's answer has it, too."""
    return sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def _seal(text: str) -> str:
    return f"sha256:{digest(text)}"


def _sealed(part: Part) -> Part:
    match part:
        case File():
            return File(
                part.path, f"sha256:{digest(part.content)}\n", part.owner, part.mode, part.lasting
            )
        case Guard():
            return Guard(part.name, _seal(part.script), part.when, part.timeout)
        case Withdrawal():
            return replace(part, script=_seal(part.script))
        case Validate():
            return Validate(part.name, _seal(part.script), part.on, part.timeout)
        case Check():
            return Check(part.name, _seal(part.script), part.timeout)
        case Command():
            return Command(
                part.name,
                _seal(part.script),
                part.on,
                part.when,
                part.timeout,
                None if part.probe is None else _seal(part.probe),
                part.restarts,
                part.reloads,
                part.reboots,
            )
        case Unit():
            return replace(
                part,
                reload=None if part.reload is None else _seal(part.reload),
                restart_keys=tuple(_seal(key) for key in part.restart_keys),
                drain_keys=tuple(_seal(key) for key in part.drain_keys),
            )
        case _:
            return part


def _of(kind: type[_T], parts: Collection[Part]) -> dict[str, _T]:
    """The parts of a kind, by their keys."""
    return {part.key: part for part in parts if isinstance(part, kind)}


def _packages(
    there: Mapping[str, str], was: Collection[Part], to_be: Collection[Part], removing: bool
) -> Iterator[PackageChange]:
    for package in _of(Package, to_be).values():
        version = there.get(package.name)
        if version is None or package.version not in (None, version):
            yield PackageChange(package.name, version, package.version or "")
    if removing:
        # While the role stays, so do its packages.
        for package in _of(Package, was).values():
            yield PackageChange(package.name, there[package.name], None)


def _paths(was: Collection[Part], to_be: Collection[Part], removing: bool) -> Iterator[PathChange]:
    old: Mapping[str, _Path] = {**_of(File, was), **_of(Link, was), **_of(Absent, was)}
    new: Mapping[str, _Path] = {**_of(File, to_be), **_of(Link, to_be), **_of(Absent, to_be)}
    for path, part in new.items():
        if path not in old or not _alike(old[path], part):
            yield PathChange(path, old.get(path), part)
    for path, part in old.items():
        if path not in new and (removing or not (isinstance(part, File) and part.lasting)):
            yield PathChange(path, part, None)


def _alike(one: _Path, other: _Path) -> bool:
    """Whether the node's path is the same by both."""
    if isinstance(one, File) and isinstance(other, File):
        return (digest(one.content), one.owner, one.mode) == (
            digest(other.content), other.owner, other.mode,
        )  # fmt: skip
    return one == other


def _commands(
    was: Collection[Part], to_be: Collection[Part], changed: Collection[str], removing: bool
) -> Iterator[CommandRun]:
    if removing:
        for command in _of(Command, was).values():
            if command.when == "remove":
                yield CommandRun(command, ())
        return
    old = _of(Command, was)
    for key, command in _of(Command, to_be).items():
        if command.when != "apply":
            continue
        before = old.get(key)
        because = tuple(sorted(set(command.on) & set(changed)))
        if because or before is None or before.script.strip("\n") != command.script.strip("\n"):
            yield CommandRun(command, because)


def _units(
    was: Collection[Part],
    to_be: Collection[Part],
    changed: Collection[str],
    there: Mapping[str, str],
    held: Collection[str],
) -> Iterator[ToUnit]:
    old, new = _of(Unit, was), _of(Unit, to_be)
    coming = dict(there)
    coming |= {
        package.name: package.version for package in _of(Package, to_be).values() if package.version
    }
    for key, unit in new.items():
        before = old.get(key)
        if unit.running is False:
            if before is None or before.running is not False:
                yield ToUnit(unit.name, Deed.STOPPED, (), sure=before is not None)
        elif before is None or before.running is False:
            if unit.running:
                yield ToUnit(unit.name, Deed.STARTED, ())
            elif before is None:
                # Whether it runs already is the node's to say; its keys count with a reload only.
                due = unit.restart_keys if set(unit.reload_on) & set(changed) else ()
                yield from _while_running(unit, changed, _changed_keys((), due), sure=False)
        else:
            keys = _changed_keys(_keys(before, there), _keys(unit, coming))
            yield from _while_running(unit, changed, keys)
    for key, unit in old.items():
        if key not in new and unit.running and unit.name not in held:
            yield ToUnit(unit.name, Deed.STOPPED, ())


def _keys(unit: Unit, versions: Mapping[str, str]) -> list[str]:
    """What the unit runs with, as the applier keeps it: its keys, and versions of packages."""
    packages = (key.removeprefix("package:") for key in unit.restart_on if not key.startswith("/"))
    return sorted(
        [*unit.restart_keys, *(f"package {it} {versions.get(it, '')}" for it in packages)]
    )


def _changed_keys(kept: Collection[str], keys: Collection[str]) -> tuple[str, ...]:
    """Names of those that ask for a restart."""
    fresh = set(keys) - set(kept)
    if _has_package(kept) or not _has_package(keys):
        fresh |= set(kept) - set(keys)
    else:
        # Kept by an applier that noted no versions: one that was not noted has not changed.
        fresh = {key for key in fresh if not key.startswith("package ")}
    named = {
        f"package:{key.split()[1]}"
        if key.startswith("package ")
        else f"restart-key {key.partition('=')[0]}"
        for key in fresh
    }
    return tuple(sorted(named))


def _has_package(keys: Collection[str]) -> bool:
    return any(key.startswith("package ") for key in keys)


def _while_running(
    unit: Unit, changed: Collection[str], keys: Collection[str], sure: bool = True
) -> Iterator[ToUnit]:
    restarting = {*keys, *(set(unit.restart_on) & set(changed))}
    reloading = set(unit.reload_on) & set(changed)
    if restarting:
        yield ToUnit(unit.name, Deed.RESTARTED, tuple(sorted(restarting)), sure)
    if reloading and (not restarting or unit.reload is not None):
        yield ToUnit(unit.name, Deed.RELOADED, tuple(sorted(reloading)), sure)


def _withdrawn_for(
    was: Collection[Part],
    to_be: Collection[Part],
    changed: Collection[str],
    at_work: Collection[str],
) -> Iterator[str]:
    """What a unit of both bundles, or of another role, is not to meet at work
    (``applier/withdraw.sh``)."""
    old = _of(Unit, was)
    withdrawal = _of(Withdrawal, to_be).get("withdraw")
    if withdrawal is None:
        return
    if withdrawal.unit in at_work:
        yield from sorted(set(withdrawal.on) & set(changed))
    for key, unit in _of(Unit, to_be).items():
        before = old.get(key)
        if before is None or not (unit.drain_on or unit.drain_keys):
            continue
        yield from sorted(set(unit.drain_on) & set(changed))
        # One that never asked for it has its keys among those that restart it.
        asked = bool(before.drain_on or before.drain_keys)
        kept = set(before.drain_keys if asked else before.restart_keys)
        fresh = set(unit.drain_keys) ^ kept if asked else set(unit.drain_keys) - kept
        yield from (f"drain-key {name}" for name in sorted({it.partition("=")[0] for it in fresh}))


def _told(commands: Collection[CommandRun]) -> Iterator[ToUnit]:
    for run in commands:
        for unit in run.command.restarts:
            yield ToUnit(unit, Deed.RESTARTED, (run.command.key,))
        for unit in run.command.reloads:
            yield ToUnit(unit, Deed.RELOADED, (run.command.key,))


def _others(was: Collection[Part], to_be: Collection[Part]) -> Iterator[str]:
    kinds = (Group, User, Directory, Guard, Withdrawal, Validate, Check)
    old = {part.key: part for part in was if isinstance(part, kinds)}
    new = {part.key: part for part in to_be if isinstance(part, kinds)}
    yield from (key for key in (*new, *(old.keys() - new.keys())) if old.get(key) != new.get(key))
