"""Production as the program sends it: every bundle of ``Pulumi.prod.yaml``, taken apart again."""

from __future__ import annotations

import asyncio
import base64
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from settings import Settings, parse
from settings.model import Hardware
from tests.unit.components.test_cluster import Node, commands, deploy_all, plain

STACK = Path(__file__).parents[1] / "Pulumi.prod.yaml"
_SCRIPTS = ("guard", "validate", "command", "check")
#: Path → what reads the file at $FILE on a lab's controller, where the reader is a program of the
#: nodes' (tests/lab/test_prod_files.py). All others have a reader in tests/unit/test_prod.py.
ON_NODE = {
    r"/etc/apt/apt\.conf\.d/.*": "apt-config -c $FILE dump",
    r"/etc/apt/preferences\.d/.*": "apt-cache -o Dir::Etc::PreferencesParts=/var/empty"
    " -o Dir::Etc::Preferences=$FILE policy",
    r"/etc/apt/sources\.list\.d/.*": "apt-get indextargets -o Dir::Etc::sourceparts=/var/empty"
    " -o Dir::Etc::sourcelist=$FILE",
    r"/etc/haproxy/haproxy\.cfg": "haproxy -c -f $FILE",
    r"/etc/mysql/mariadb\.conf\.d/.*": "mariadbd --defaults-file=$FILE --help --verbose",
    r"/etc/tmpfiles\.d/.*": "systemd-tmpfiles --create --root=$(mktemp -d) $FILE",
    r"/etc/systemd/system/.*": "systemd-analyze verify --root=$ROOT --man=no"
    " --recursive-errors=no $UNIT",
}


@cache
def prod() -> Settings:
    config = yaml.safe_load(STACK.read_text())["config"]
    return parse({key.removeprefix("slurmstack:"): value for key, value in config.items()})


@cache
def hardware() -> dict[str, Hardware]:
    """As the program takes it: all declared, so that no host is asked."""
    found = {name: one.hardware for name, one in prod().compute.items()}
    assert None not in found.values()
    return {name: one for name, one in found.items() if one is not None}


@dataclass(frozen=True)
class Entry:
    """One line of a bundle with the block below it."""

    node: str
    role: str
    words: tuple[str, ...]
    block: str

    @property
    def kind(self) -> str:
        return self.words[0]

    @property
    def name(self) -> str:
        """The path of a file, else its name."""
        return self.words[1]


@cache
def sent() -> Mapping[str, dict[str, Any]]:
    """Name of each command → its inputs, with secrets marked."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        node, _ = deploy_all(Node(), prod(), hardware())
    finally:
        asyncio.set_event_loop(None)
        loop.close()
    return commands(node)


@cache
def bundles() -> tuple[str, ...]:
    """The texts that the nodes are sent, but the applier itself."""
    texts = (plain(inputs.get("stdin", "")) for inputs in sent().values())
    return tuple(text for text in texts if text.startswith("slurmstack-bundle "))


@cache
def entries() -> tuple[Entry, ...]:
    """All of them, line by line; alike blocks of many nodes come once."""
    found: dict[tuple[str, tuple[str, ...], str], Entry] = {}
    for text in bundles():
        for entry in _entries(text):
            found.setdefault((entry.role, entry.words, entry.block), entry)
    return tuple(found.values())


def _entries(text: str) -> list[Entry]:
    header, *lines = text.splitlines()
    heads: list[tuple[tuple[str, ...], list[str]]] = []
    for line in lines:
        if line.startswith("  ") or not line:
            heads[-1][1].append(line[2:])
        else:
            heads.append((tuple(line.split()), []))
    assert heads.pop() == (("end",), []), header
    (_, name), (_, role) = (words for words, _ in heads[:2])
    return [
        Entry(name, role, words, "".join(f"{line}\n" for line in block))
        for words, block in itertools.islice(heads, 2, None)
    ]


def files() -> list[Entry]:
    """Files of readable text."""
    return [entry for entry in entries() if entry.kind == "file"]


def on_node(path: str) -> str | None:
    """The command of :data:`ON_NODE` for this path."""
    return next((command for name, command in ON_NODE.items() if re.fullmatch(name, path)), None)


def binary_files() -> dict[str, bytes]:
    """Path → content of files that are sent as base64."""
    return {
        entry.name: base64.b64decode(entry.block)
        for entry in entries()
        if entry.kind == "file-base64"
    }


def text(path: str) -> str:
    """The one file of this path."""
    (found,) = {entry.block for entry in files() if entry.name == path}
    return found


def scripts() -> list[Entry]:
    """Shell text of guards, commands and checks."""
    return [entry for entry in entries() if entry.kind in _SCRIPTS]
