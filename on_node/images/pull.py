"""Copies of published images on a node: fetched once, compared, and bounded in what they take."""

from __future__ import annotations

import shutil
import urllib.error
import urllib.request
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from on_node.images import files, used
from on_node.images.refused import Refused
from on_node.images.registry import Entry, Registry

_BLOCK = 1 << 20
#: Seconds in which the server says something.
_SILENCE = 60


def pull(
    root: Path, told: Mapping[str, Any], url: str, limit: int, stay: Collection[str]
) -> dict[str, Any]:
    """Have an image on this node; what its name stands for is as before (`point`).

    Args:
        root: where it keeps them, as the registry does.
        told: the registry's entry of it.
        url: of its file.
        limit: bytes that all of them may take.
        stay: files that are not taken away to make room.

    Returns:
        `what`: there, fetched, or fetched again; and `gone`: files that made room.

    Raises:
        Refused: there is no room, or it cannot be fetched as it was published.
    """
    entry = Entry(**told)
    registry = Registry(root)
    with registry.lock(f"pull {entry.title}"):
        registry = Registry(root)
        for part in root.glob(".*.part"):
            part.unlink()
        known = registry.find(entry.name, entry.version)
        place = root / entry.file
        wrong = registry.wrong(entry) if place.exists() else "missing"
        gone: list[str] = []
        if wrong:
            gone = _room(registry, entry, limit, stay)
            _fetch(url, entry, root / f".{entry.file}.part", place)
        if known is None or known.sha256 != entry.sha256:
            left = [it for it in registry.entries if it is not known]
            registry.save([*left, replace(entry, followed="")], registry.current)
        what = "fetched" if wrong == "missing" else f"fetched again: {wrong}" if wrong else "there"
        return {"what": what, "gone": gone}


def point(root: Path, name: str, version: str) -> dict[str, Any]:
    """From now on an image's name stands for this version here: when all nodes have it, so that a
    job of several finds the same.

    Raises:
        Refused: it is not on this node.
    """
    with Registry(root).lock(f"pull {name} {version}"):
        registry = Registry(root)
        entry = registry.find(name, version)
        if entry is None or not registry.path(entry).is_file():
            raise Refused(f"{name} {version} is not on this node; slurmstack image pull {name}")
        if not registry.is_current(entry):
            registry.save(registry.entries, {**registry.current, name: version})
    return {}


def lend(root: Path, told: Mapping[str, Any], url: str, limit: int) -> dict[str, Any]:
    """Have what is not published yet on this node, for a test; `give_back` takes it away.

    Raises:
        Refused: there is no room, or it cannot be fetched as it was built.
    """
    entry = Entry(**told)
    registry = Registry(root)
    place = root / entry.file
    with registry.lock(f"the test of {entry.title}"):
        place.parent.mkdir(exist_ok=True)
        if not place.exists() or registry.wrong(entry):
            _room(registry, entry, limit, [it.file for it in registry.entries])
            _fetch(url, entry, place.with_name(f".{place.name}.part"), place)
    return {}


def give_back(root: Path, file: str) -> dict[str, Any]:
    """Take away what was there for a test, and what a killed one left."""
    with Registry(root).lock("the end of a test"):
        for place in (root / file).parent.glob(f"*{(root / file).name}*"):
            place.unlink()
    return {}


def collect(root: Path, published: Collection[str]) -> dict[str, Any]:
    """Take copies away of what is published no more, where nobody uses them and no name that is
    published stands for them: another version has to be here first."""
    registry = Registry(root)
    names = {file.partition("+")[0] for file in published}
    gone, kept = [], []
    with registry.lock("gc"):
        registry = Registry(root)
        for entry in [it for it in registry.entries if it.file not in published]:
            if words := used.by_programs(root, [entry.file]):
                kept.append({"title": entry.title, "why": f"in use: {words[entry.file][0]}"})
            elif registry.is_current(entry) and entry.name in names:
                why = f"{entry.name} stands for it there; slurmstack image pull {entry.name}"
                kept.append({"title": entry.title, "why": why})
            else:
                registry.without(entry)
                gone.append(asdict(entry))
    return {"gone": gone, "kept": kept}


def _room(registry: Registry, entry: Entry, limit: int, stay: Collection[str]) -> list[str]:
    """Make room within the bound, by copies that nobody uses and nothing stands for."""
    if entry.size > limit:
        raise Refused(f"{entry.title} has {entry.size >> 20} MiB; a node keeps {limit >> 20} MiB")
    gone = []
    others = [
        it for it in registry.entries
        if it.file not in stay and it.file != entry.file and not registry.is_current(it)
    ]  # fmt: skip
    others.sort(key=lambda it: it.published)
    for other in others:
        if registry.taken() + entry.size <= limit:
            break
        if not used.by_programs(registry.root, [other.file]):
            registry.without(other)
            gone.append(other.file)
    taken = registry.taken()
    if taken + entry.size > limit:
        raise Refused(
            f"{registry.root}: {entry.size >> 20} MiB do not fit: {taken >> 20} MiB of "
            f"{limit >> 20} MiB are taken by images in use or current; slurmstack image rm or gc, "
            "or raise slurmstack:images.nodeLimit"
        )
    free = shutil.disk_usage(registry.root).free
    if free < entry.size:
        raise Refused(f"{registry.root}: {free >> 20} MiB are free; {entry.title} needs "
                      f"{(entry.size >> 20) + 1} MiB")  # fmt: skip
    return gone


def _fetch(url: str, entry: Entry, part: Path, place: Path) -> None:
    try:
        with urllib.request.urlopen(url, timeout=_SILENCE) as answer, part.open("wb") as out:
            shutil.copyfileobj(answer, out, _BLOCK)
        found = files.digest(part)
        if found != entry.sha256:
            raise Refused(f"{url}: expected sha256 {entry.sha256}, found {found}; it was changed "
                          "there, or on the way: slurmstack image ls")  # fmt: skip
        part.chmod(0o644)
        files.put(part, place)
    except (OSError, ValueError) as error:
        raise Refused(f"{url}: it cannot be fetched: {getattr(error, 'reason', error)}") from None
    finally:
        part.unlink(missing_ok=True)
