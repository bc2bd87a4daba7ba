"""Logs as the tests have them: a head of `key: value`, then lines below `[SOURCE NODE]`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from on_node.diagnosis.rule import SOURCES, Line

HERE = Path(__file__).parent
_SECTION = re.compile(rf"\[({'|'.join(SOURCES)})(?: (\S+))?\]")


@dataclass(frozen=True)
class Case:
    """One log, and what is expected of it."""

    name: str
    head: dict[str, str]
    lines: tuple[Line, ...]


def case(name: str, text: str) -> Case:
    head: dict[str, str] = {}
    lines: list[Line] = []
    source, node = "", ""
    for number, line in enumerate(text.splitlines()):
        section = _SECTION.fullmatch(line)
        if section:
            source, node = section[1], section[2] or ""
        elif source:
            lines.append(Line(source, line, node, number))
        else:
            key, _, value = line.partition(": ")
            head[key] = value
    return Case(name, head, tuple(lines))


def reports() -> Iterator[Case]:
    """The public reports."""
    for path in sorted((HERE / "reports").glob("*.txt")):
        yield case(path.stem, path.read_text())
