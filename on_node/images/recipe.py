"""What an image is made of and how, as the settings of this host say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from on_node.images.places import CONFIGURATION
from on_node.images.refused import Refused


@dataclass(frozen=True)
class Site:
    """This host's registry and its bounds, and the recipes of all images."""

    root: Path
    #: Bytes that all images may take; None: what the disk has.
    limit: int | None
    keep: int
    keep_days: int
    images: Mapping[str, Recipe]

    @staticmethod
    def read(path: Path = CONFIGURATION) -> Site:
        """
        Raises:
            Refused: the host has none.
        """
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise Refused(f"{path} is not there: run pulumi up") from None
        images = {name: Recipe(name=name, **image) for name, image in told.pop("images").items()}
        return Site(Path(told.pop("root")), images=images, **told)

    def recipe(self, name: str) -> Recipe:
        """
        Raises:
            Refused: there is none of this name.
        """
        if name not in self.images:
            known = ", ".join(sorted(self.images)) or "none"
            raise Refused(f"{name}: no image of the settings; there are: {known}")
        return self.images[name]


@dataclass(frozen=True)
class Recipe:
    """How an image is made."""

    name: str
    version: str
    #: `suite`, `url` and `sha256`, or `docker`.
    base: Mapping[str, str]
    #: Run in the image as root: packages, the Python environment, the site's own steps.
    script: str
    #: Lock file of /opt/python, and the folder of this host that its packages come from.
    lock: str
    wheels: str
    environment: Mapping[str, str]
    labels: Mapping[str, str]
    #: Each with `run` and `timeout`, on this host.
    tests: tuple[Mapping[str, Any], ...]

    @property
    def title(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def from_what(self) -> str:
        """The base in words."""
        base = self.base
        if "suite" in base:
            return f"the distribution's {base['suite']}"
        return f"docker://{base['docker']}" if "docker" in base else f"{base['url']}"

    @property
    def digest(self) -> str:
        """Another one for each way to make it; tests are none of it."""
        told = [self.name, self.version, dict(self.base), self.script, self.lock]
        told += [dict(self.environment), dict(self.labels)]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    @property
    def file(self) -> str:
        """As Enroot names what it has imported: NAME+VERSION.sqsh."""
        return f"{self.name}+{self.version}.sqsh"
