"""The registry: a folder of published images, and registry.yaml, which says what they are.

registry.yaml is JSON below a line of comment, and so YAML: it is written without a library. What is
published under a version stays what it is; another content is another version.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from on_node.images import files
from on_node.images.refused import Refused

_HEAD = "# Written by slurmstack; slurmstack image publish and its like change it, nobody else.\n"
#: How long another one may have the registry before a verb gives up.
_SECONDS = 60.0
_UTC = timezone.utc  # noqa: UP017 - Python 3.9 has no other name for it


@dataclass(frozen=True)
class Entry:
    """One published version of an image."""

    name: str
    version: str
    #: In the registry's folder.
    file: str
    sha256: str
    #: Bytes.
    size: int
    #: What it was made from, and of: the base in words, the digest of its recipe.
    base: str = ""
    recipe: str = ""
    built: str = ""
    built_by: str = ""
    published: str = ""
    published_by: str = ""
    #: When another one became the current version; nothing while this is it.
    followed: str = ""

    @property
    def title(self) -> str:
        return f"{self.name} {self.version}"


def now() -> str:
    """This moment, as registry.yaml writes it: two that follow each other differ."""
    return datetime.now(_UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def age(moment: str) -> float:
    """Seconds since a moment that `now` wrote."""
    then = datetime.fromisoformat(moment.replace("Z", "+00:00"))
    return (datetime.now(_UTC) - then).total_seconds()


class Registry:
    """What a folder says that it holds."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.file = root / "registry.yaml"
        #: Name → version that it stands for; on a node there may be none yet.
        self.current: dict[str, str] = {}
        self.entries: list[Entry] = []
        self._read()

    def _read(self) -> None:
        try:
            lines = self.file.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return
        try:
            told = json.loads("\n".join(line for line in lines if not line.startswith("#")))
            for name, image in told["images"].items():
                if image["current"]:
                    self.current[name] = image["current"]
                for version, entry in image["versions"].items():
                    self.entries.append(Entry(name, version, **entry))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Refused(
                f"{self.file} is not as slurmstack wrote it ({type(error).__name__}: {error}); "
                f"compare it with .registry.yaml.before beside it, and put that back"
            ) from None

    def find(self, name: str, version: str | None = None) -> Entry | None:
        """A version of an image; left out, the current one."""
        wanted = version or self.current.get(name)
        for entry in self.entries:
            if (entry.name, entry.version) == (name, wanted):
                return entry
        return None

    def path(self, entry: Entry) -> Path:
        return self.root / entry.file

    def is_current(self, entry: Entry) -> bool:
        return self.current.get(entry.name) == entry.version

    def wrong(self, entry: Entry, whole: bool = True) -> str:
        """What is other about an image than when it was published; nothing where nothing is.

        Args:
            entry: which.
            whole: read all of it; else its size alone is looked at.
        """
        path = self.path(entry)
        try:
            size = path.lstat().st_size
            if path.is_symlink() or not path.is_file():
                return f"{path} is no file any more"
            if size != entry.size:
                return f"{path} has {size} bytes; it was published with {entry.size}"
            found = files.digest(path) if whole else entry.sha256
        except FileNotFoundError:
            return f"{path} is not there any more"
        except OSError as error:
            return f"{path} cannot be read: {error.strerror}"
        if found != entry.sha256:
            return f"{path} was changed: sha256 {found}; it was published with {entry.sha256}"
        return ""

    def taken(self) -> int:
        """Bytes that published images and what waits to be published take."""
        return sum(path.stat().st_size for path in _images(self.root))

    def strangers(self) -> list[str]:
        """Images in the folder that registry.yaml does not know."""
        known = {entry.file for entry in self.entries}
        return sorted(
            path.name for path in self.root.glob("*.sqsh")
            if not path.is_symlink() and path.name not in known
        )  # fmt: skip

    def lock(self, what: str) -> Any:
        """Nobody else changes it meanwhile; it is to be read anew then."""
        return files.held(self.root / ".lock", what, _SECONDS)

    def save(self, entries: list[Entry], current: Mapping[str, str]) -> None:
        """Say so from now on. The links come last: they name what is there."""
        images: dict[str, Any] = {}
        for entry in sorted(entries, key=lambda it: (it.name, it.published, it.version)):
            told = {key: value for key, value in asdict(entry).items() if value != ""}
            name, version = told.pop("name"), told.pop("version")
            image = images.setdefault(name, {"current": current.get(name, ""), "versions": {}})
            image["versions"][version] = told
        if self.file.exists():
            files.write(self.root / ".registry.yaml.before", self.file.read_text(encoding="utf-8"))
        files.write_json(self.file, {"images": images}, _HEAD)
        self.entries, self.current = entries, dict(current)
        self._links()

    def _links(self) -> None:
        found = {name: self.find(name) for name in self.current}
        wanted = {f"{name}.sqsh": it.file for name, it in found.items() if it is not None}
        for name, file in wanted.items():
            place = self.root / name
            if not (place.is_symlink() and str(place.readlink()) == file):
                files.link(place, file)
        for place in self.root.glob("*.sqsh"):
            if place.is_symlink() and place.name not in wanted:
                place.unlink()

    def without(self, gone: Entry) -> None:
        """Forget a version, and take its file away: the file last, so that nothing names what is
        not there."""
        left = [entry for entry in self.entries if entry is not gone]
        current = dict(self.current)
        if self.is_current(gone):
            del current[gone.name]
        self.save(left, current)
        self.path(gone).unlink(missing_ok=True)

    def made_current(self, entry: Entry) -> None:
        """From now on this is what its name stands for."""
        before = self.current.get(entry.name)
        entries = [
            replace(it, followed=now())
            if it.name == entry.name and it.version == before != entry.version
            else it
            for it in self.entries
            if (it.name, it.version) != (entry.name, entry.version)
        ]
        entries.append(replace(entry, followed=""))
        self.save(entries, {**self.current, entry.name: entry.version})


def _images(root: Path) -> Iterator[Path]:
    for path in (*root.glob("*.sqsh"), *root.glob(".candidates/*.sqsh")):
        if path.is_file() and not path.is_symlink():
            yield path
