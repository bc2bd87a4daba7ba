"""What is published, which versions stay, and what is told of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from on_node.images import build, files, trial, used
from on_node.images.places import CANDIDATES
from on_node.images.recipe import Site
from on_node.images.refused import Refused
from on_node.images.registry import Entry, Registry, age, now

#: File → who uses it.
Users = Mapping[str, "list[str]"]
_DAY = 86_400


def publish(site: Site, name: str, version: str, tests: list[str], who: str) -> dict[str, Any]:
    """The candidate of a name becomes what the name stands for; or a version does that is
    published already.

    Args:
        site: whose registry.
        name: of the image.
        version: of one that is published; empty: the candidate.
        tests: the commands that must have succeeded in the candidate.
        who: asks for it.

    Raises:
        Refused: it was not built, not tested, or changed since.
    """
    registry = Registry(site.root)
    with registry.lock(f"publish {name} by {who}"):
        registry = Registry(site.root)
        if version:
            return _again(registry, name, version)
        known = build.candidate(site.root, name)
        why = trial.whole(known, tests)
        if why:
            raise Refused(f"{name} {known['version']}: {why}; slurmstack image test {name}")
        before = registry.find(name, known["version"])
        file = f"{name}+{known['version']}.sqsh"
        if before is not None and before.sha256 != known["sha256"]:
            raise Refused(
                f"{before.title} is published with sha256 {before.sha256[:12]}…, and jobs rely on "
                f"it; the one that was built has {known['sha256'][:12]}…: give it another version"
            )
        place, stranger = site.root / file, before is None
        if stranger and place.exists() and files.digest(place) != known["sha256"]:
            raise Refused(f"{place} is there and not published; move it away")
        entry = before or Entry(
            name, known["version"], file, known["sha256"], known["size"], known["base"],
            known["recipe"], known["built"], known["built_by"], now(), who,
        )  # fmt: skip
        # Under its name before the registry says so; killed between, the next call goes on.
        if not place.exists() or registry.wrong(entry):
            part = site.root / ".publish.part"
            part.unlink(missing_ok=True)
            _twice(site.root / known["file"], part)
            files.put(part, place)
        registry.made_current(entry)
        (site.root / CANDIDATES / f"{name}.json").unlink(missing_ok=True)
        (site.root / known["file"]).unlink(missing_ok=True)
        return asdict(entry)


def _twice(path: Path, other: Path) -> None:
    """The same file under another name; a copy where the file system has no such thing."""
    try:
        os.link(path, other)
    except OSError:
        shutil.copyfile(path, other)
        other.chmod(0o644)


def _again(registry: Registry, name: str, version: str) -> dict[str, Any]:
    entry = _published(registry, name, version)
    wrong = registry.wrong(entry)
    if wrong:
        raise Refused(f"{wrong}; it is not made current")
    registry.made_current(entry)
    return asdict(entry)


def _published(registry: Registry, name: str, version: str) -> Entry:
    entry = registry.find(name, version or None)
    if entry is None:
        known = ", ".join(it.version for it in registry.entries if it.name == name) or "none"
        raise Refused(f"{name} {version}: not published; published of {name}: {known}".replace(
            "  ", " "))  # fmt: skip
    return entry


def listed(site: Site, quick: bool) -> dict[str, Any]:
    """All that there is, and what is wrong with it.

    Args:
        site: whose registry.
        quick: look at sizes alone.
    """
    registry = Registry(site.root)
    entries = [
        {
            **asdict(entry),
            "current": registry.is_current(entry),
            "wrong": registry.wrong(entry, whole=not quick),
        }
        for entry in registry.entries
    ]
    return {
        "root": str(site.root), "limit": site.limit, "taken": registry.taken(),
        "published": entries, "candidates": build.candidates(site.root),
        "strangers": registry.strangers(),
    }  # fmt: skip


def remove(site: Site, name: str, version: str, users: Users, who: str) -> dict[str, Any]:
    """Take a version away now.

    Raises:
        Refused: it is not there, it is what its name stands for while there are others, or
            somebody uses it.
    """
    registry = Registry(site.root)
    with registry.lock(f"rm {name} {version} by {who}"):
        registry = Registry(site.root)
        entry = _published(registry, name, version)
        others = [it.version for it in registry.entries if it.name == name and it is not entry]
        if registry.is_current(entry) and others:
            raise Refused(
                f"{entry.title} is what {name} stands for; make another one that first: "
                f"slurmstack image publish {name} --version {others[-1]}"
            )
        using = _using(registry, entry, users)
        if using:
            raise Refused(f"{entry.title} is in use: {', '.join(using[:5])}")
        registry.without(entry)
        return asdict(entry)


def collect(site: Site, users: Users, who: str, dry: bool) -> dict[str, Any]:
    """Take away what the rule lets go: versions beyond those that stay, which were followed by
    another one long enough ago, and which nobody uses.

    Args:
        site: whose registry, with the rule.
        users: who uses what, elsewhere.
        who: asks for it.
        dry: say so and do nothing.
    """
    registry = Registry(site.root)
    with registry.lock(f"gc by {who}"):
        registry = Registry(site.root)
        gone, kept = [], []
        for entry in _beyond(site, registry):
            using = _using(registry, entry, users)
            if using:
                kept.append({"title": entry.title, "why": f"in use: {', '.join(using[:5])}"})
                continue
            if not dry:
                registry.without(entry)
            gone.append(asdict(entry))
    return {"gone": gone, "kept": kept}


def _beyond(site: Site, registry: Registry) -> list[Entry]:
    found = []
    for name in registry.current:
        versions = [it for it in registry.entries if it.name == name]
        # The current one first, then those that were it last.
        versions.sort(key=lambda it: (registry.is_current(it), it.followed), reverse=True)
        found += [
            it for it in versions[site.keep :]
            if it.followed and age(it.followed) >= site.keep_days * _DAY
        ]  # fmt: skip
    return found


def _using(registry: Registry, entry: Entry, users: Users) -> list[str]:
    names = {entry.file}
    if registry.is_current(entry):
        names.add(f"{entry.name}.sqsh")
    here = used.by_programs(registry.root, names)
    return [word for name in sorted(names) for word in (*users.get(name, ()), *here.get(name, ()))]
