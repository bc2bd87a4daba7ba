"""How verbs print: tables, trees, JSON and times, as Pulumi prints them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Any, TypeVar

from engine.errors import CommandError

T = TypeVar("T")


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], prefix: str = "") -> None:
    """Columns as Pulumi prints them: two spaces between, further lines of a cell below it."""
    cells = [[cell.split("\n") for cell in row] for row in (headers, *rows)]
    widths = [max(len(line) for row in cells for line in row[i]) for i in range(len(headers))]
    for row in cells:
        for lines in zip_longest(*row, fillvalue=""):
            padded = (line.ljust(width) for line, width in zip(lines, widths, strict=True))
            print(prefix + "  ".join(padded).rstrip())


_AGES = {31536000: "year", 2592000: "month", 604800: "week", 86400: "day", 3600: "hour",
         60: "minute", 1: "second"}  # fmt: skip


def ago(when: datetime) -> str:
    """As go-humanize says it."""
    seconds = int((datetime.now(UTC) - when).total_seconds())
    for size, unit in _AGES.items():
        if seconds >= size:
            count = seconds // size
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "now"


def parse_time(text: str) -> datetime:
    """A time as Go writes it: up to nine digits of a second, UTC or an offset. Raises CommandError
    for what is none."""
    match = re.fullmatch(r"(.{19})(?:\.(\d+))?(Z|[+-]\d\d:\d\d)", text)
    if not match:
        raise CommandError(f"failed to load checkpoint: '{text}' is not a time")
    zone = "+00:00" if match[3] == "Z" else match[3]
    return datetime.fromisoformat(f"{match[1]}.{(match[2] or '0')[:6].ljust(6, '0')}{zone}")


def iso_milliseconds(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{when.microsecond // 1000:03d}Z"


def branches(
    node: T, below: Callable[[T], list[T]], stem: str = "", branch: str = ""
) -> Iterator[tuple[str, str, T]]:
    """A tree from its root on: what stands before each node, before lines below it, and it."""
    deeper = stem + {"": "", "├─ ": "│  ", "└─ ": "   "}[branch]
    yield stem + branch, deeper, node
    children = below(node)
    for child in children:
        yield from branches(child, below, deeper, "└─ " if child is children[-1] else "├─ ")
