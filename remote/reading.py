"""A bundle's text taken apart again: the inverse of `Bundle.render`, for those who explain changes.

What runs on nodes reads the text by `applier/bundle.sh`.
"""

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, cast

from remote.bundle import (
    VERSION,
    Absent,
    Bundle,
    BundleError,
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

_When = Literal["apply", "remove", "both"]


def is_bundle(text: str) -> bool:
    """Whether this is the text of a bundle at all, and not, say, the applier's."""
    return text.startswith("slurmstack-bundle ")


def read(text: str) -> Bundle:
    """The bundle of which this is the text. Raises `BundleError` where it is none of this version;
    the message quotes no more than the first word of a line, since a bundle may be a secret."""
    lines = iter(text.split("\n"))
    if next(lines) != f"slurmstack-bundle {VERSION}":
        raise BundleError(f"not a bundle of version {VERSION}")
    words: dict[str, str] = {}
    probes: dict[str, str] = {}
    parts: list[Part] = []
    ended = False
    for head, block in _entries(lines):
        kind, *rest = head.split(" ")
        if kind in ("node", "role", "reapply"):
            words[kind] = rest[0]
        elif kind == "probe":
            probes[rest[0]] = _script(block)
        elif kind == "end":
            ended = True
        elif kind in _READERS:
            try:
                parts.append(_READERS[kind](rest, block, probes))
            except (IndexError, KeyError, ValueError):
                raise BundleError(f"a line {kind} that is not understood") from None
        else:
            raise BundleError(f"a line {kind} that is not understood")
    if not ended or not {"node", "role"} <= words.keys():
        raise BundleError("a bundle that is not whole")
    return Bundle(words["node"], words["role"], parts)


def _entries(lines: Iterator[str]) -> Iterator[tuple[str, list[str]]]:
    """Each line that is not indented, with the block below it."""
    head, block = "", list[str]()
    for line in lines:
        if head and (not line or line.startswith("  ")):
            block.append(line[2:])
            continue
        if head:
            yield head, block
        head, block = line, []
    if head:  # of a whole bundle it is `end`, which has no block
        yield head, block


def _script(block: Sequence[str]) -> str:
    return "\n".join(block)


def _attributes(words: Sequence[str]) -> dict[str, str]:
    return {key: value for key, _, value in (word.partition("=") for word in words)}


def _seconds(attributes: Mapping[str, str]) -> int:
    return int(attributes["timeout"])


def _list(attributes: Mapping[str, str], key: str) -> tuple[str, ...]:
    return tuple(attributes[key].split(",")) if key in attributes else ()


def _guard(words: Sequence[str], block: Sequence[str], _: Mapping[str, str]) -> Part:
    values = _attributes(words[1:])
    when = cast(_When, values.get("when", "apply"))
    return Guard(words[0], _script(block), when, _seconds(values))


def _withdraw(words: Sequence[str], block: Sequence[str], _: Mapping[str, str]) -> Part:
    values = _attributes(words[1:])
    on, unit = _list(values, "on"), values.get("unit")
    return Withdrawal(words[0], _script(block), _seconds(values), on, unit)


def _package(words: Sequence[str], _block: Sequence[str], _: Mapping[str, str]) -> Part:
    return Package(words[0], words[1] if len(words) > 1 else None)


def _group(words: Sequence[str], _block: Sequence[str], _: Mapping[str, str]) -> Part:
    return Group(words[0], int(words[1]) if len(words) > 1 else None)


def _user(words: Sequence[str], _block: Sequence[str], _: Mapping[str, str]) -> Part:
    name, uid, group, *places = words
    home, shell = (None if place == "-" else place for place in places)
    return User(name, None if uid == "-" else int(uid), group, home, shell)


def _directory(words: Sequence[str], _block: Sequence[str], _: Mapping[str, str]) -> Part:
    path, owner, mode, *more = words
    return Directory(path, owner, mode, "ephemeral" in more, "parents" in more)


def _file(words: Sequence[str], block: Sequence[str], _: Mapping[str, str]) -> Part:
    path, owner, mode, *more = words
    return File(path, "".join(f"{line}\n" for line in block), owner, mode, "lasting" in more)


def _encoded(words: Sequence[str], block: Sequence[str], _: Mapping[str, str]) -> Part:
    path, owner, mode, *more = words
    try:
        content = base64.b64decode("".join(block), validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error
    return File(path, content, owner, mode, "lasting" in more)


def _link(words: Sequence[str], _block: Sequence[str], _: Mapping[str, str]) -> Part:
    return Link(words[0], words[1])


def _absent(words: Sequence[str], _block: Sequence[str], _: Mapping[str, str]) -> Part:
    return Absent(words[0])


def _validate(words: Sequence[str], block: Sequence[str], _: Mapping[str, str]) -> Part:
    values = _attributes(words[1:])
    return Validate(words[0], _script(block), _list(values, "on"), _seconds(values))


def _command(words: Sequence[str], block: Sequence[str], probes: Mapping[str, str]) -> Part:
    name, values = words[0], _attributes(words[1:])
    return Command(
        name,
        _script(block),
        on=_list(values, "on"),
        when=cast(Literal["apply", "remove"], values.get("when", "apply")),
        timeout=_seconds(values),
        probe=probes.get(name),
        restarts=_list(values, "restarts"),
        reloads=_list(values, "reloads"),
        reboots="reboots" in values,
    )


def _unit(words: Sequence[str], block: Sequence[str], _: Mapping[str, str]) -> Part:
    name, enabled, running = words[:3]
    values = _attributes(words[3:])
    below = [line.partition(" ") for line in block]
    reload = [text for word, _, text in below if word == "reload"]
    return Unit(
        name,
        {"enabled": True, "disabled": False, "-": None}[enabled],
        {"running": True, "stopped": False, "-": None}[running],
        restart_on=_list(values, "restart-on"),
        reload_on=_list(values, "reload-on"),
        reload="\n".join(reload) if reload else None,
        restart_keys=tuple(text for word, _, text in below if word == "restart-key"),
        drain_on=_list(values, "drain-on"),
        drain_keys=tuple(text for word, _, text in below if word == "drain-key"),
        timeout=_seconds(values),
    )


def _check(words: Sequence[str], block: Sequence[str], _: Mapping[str, str]) -> Part:
    return Check(words[0], _script(block), _seconds(_attributes(words[1:])))


_READERS: Mapping[str, Callable[[Sequence[str], Sequence[str], Mapping[str, str]], Part]] = {
    "guard": _guard,
    "withdraw": _withdraw,
    "package": _package,
    "group": _group,
    "user": _user,
    "directory": _directory,
    "file": _file,
    "file-base64": _encoded,
    "link": _link,
    "absent": _absent,
    "validate": _validate,
    "command": _command,
    "unit": _unit,
    "check": _check,
}
