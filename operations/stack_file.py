"""Edits of a stack's file that change what they are meant to change and not a byte besides.

The file is read as a tree whose parts know where they stand in the text; an edit replaces a piece
of the text. Comments, quotes and the form of everything else stay. What is written in a form that
cannot be edited so is refused, and is the operator's to change.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from operations.refused import Refused

#: A scalar that needs no quotes in a block, as host lists and addresses are.
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:\[\],+-]*[A-Za-z0-9\]]|[A-Za-z0-9]")


class StackFile:
    """``Pulumi.STACK.yaml``: its text, and the edits made to it so far; `save` writes them."""

    def __init__(self, project: Path, stack: str, prefix: str) -> None:
        """
        Args:
            project: the project's folder.
            stack: the stack's name.
            prefix: of the keys, which is the project's name.

        Raises:
            Refused: it cannot be read.
        """
        self.path = project / f"Pulumi.{stack}.yaml"
        self._prefix = prefix
        try:
            self.text = self.path.read_text(encoding="utf-8")
        except OSError as error:
            raise Refused(f"{self.path}: {error.strerror}") from error

    def at(self, *path: str | int) -> Node | None:
        """The part of the file at this path: a key of ours, then names and indices."""
        node: Node | None = _entry(self._root(), "config")
        for index, step in enumerate(path):
            if isinstance(node, SequenceNode) and isinstance(step, int):
                node = node.value[step]
            else:
                node = _entry(node, f"{self._prefix}:{step}" if index == 0 else str(step))
        return node

    def names(self, *path: str | int) -> list[str]:
        """The names of a table's entries, as they are written; none where there is no table."""
        node = self.at(*path)
        return [key.value for key, _ in node.value] if isinstance(node, MappingNode) else []

    def value(self, *path: str | int) -> str | None:
        """A text of the file; None where there is none."""
        node = self.at(*path)
        return node.value if isinstance(node, ScalarNode) else None

    def set(self, value: str, *path: str | int) -> None:
        """Put another text in the place of one, or a new entry at the end of its table."""
        node = self.at(*path)
        if isinstance(node, ScalarNode):
            parent = self.at(*path[:-1])
            # Between braces, commas and brackets of a text are taken for YAML's.
            inside = isinstance(parent, MappingNode | SequenceNode) and bool(parent.flow_style)
            quoted = inside or self.text[node.start_mark.index] in "\"'"
            self._put(node.start_mark.index, node.end_mark.index, _scalar(value, quoted))
        elif node is None:
            self._add(f"{_scalar(str(path[-1]))}: {_scalar(value)}", *path[:-1])
        else:
            raise self._refuse(path, "is no text")

    def rename(self, name: str, *path: str | int) -> None:
        """Put another name in the place of an entry's."""
        parent = self._table(*path[:-1])
        key = next(key for key, _ in parent.value if key.value == path[-1])
        quoted = self.text[key.start_mark.index] in "\"'"
        self._put(key.start_mark.index, key.end_mark.index, _scalar(name, quoted))

    def drop(self, *path: str | int) -> None:
        """Take an entry out of its table, and the table with its last entry."""
        parent = self._table(*path[:-1])
        if len(parent.value) == 1:
            return self.drop(*path[:-1])
        name = f"{self._prefix}:{path[0]}" if len(path) == 1 else path[-1]
        key, value = next(pair for pair in parent.value if pair[0].value == name)
        start = self.text.rindex("\n", 0, key.start_mark.index) + 1
        return self._put(start, self._end(value), "")

    def over(self, config: Mapping[str, str]) -> dict[str, Any]:
        """A stack's configuration as it would be with this file.

        Args:
            config: key → value as Pulumi gives them, secrets opened.
        """
        loaded = YAML(typ="safe", pure=True).load(self.text) or {}
        values: dict[str, Any] = {}
        for key, value in (loaded.get("config") or {}).items():
            if isinstance(value, Mapping) and "secure" in value:
                values[key] = config[key]
            else:
                values[key] = json.dumps(value) if isinstance(value, Mapping | list) else value
        return values

    def save(self) -> None:
        """Write it at once or not at all.

        Raises:
            Refused: it cannot be written; the file is as it was.
        """
        new = self.path.with_name(f".{self.path.name}.new")
        try:
            with new.open("w", encoding="utf-8") as file:
                os.fchmod(file.fileno(), self.path.stat().st_mode & 0o7777)
                file.write(self.text)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.path)
        except OSError as error:
            new.unlink(missing_ok=True)
            raise Refused(f"{self.path}: {error.strerror}; the file is as it was") from error

    def _root(self) -> Node:
        root: Node = YAML(typ="rt", pure=True).compose(self.text)
        return root

    def _table(self, *path: str | int) -> MappingNode:
        node = self.at(*path) if path else _entry(self._root(), "config")
        if not isinstance(node, MappingNode) or node.flow_style:
            raise self._refuse(path, "is not a table with a line for each entry")
        return node

    def _add(self, line: str, *path: str | int) -> None:
        """A line at the end of a table; the table, too, where it is not there."""
        config = self._table()
        if path and self.at(*path) is None:
            if len(path) > 1:
                raise self._refuse(path, "is missing")
            indent = " " * config.value[0][0].start_mark.column
            text = f"{indent}{self._prefix}:{path[0]}:\n{indent}  {line}\n"
            return self._insert(config, text)
        table = self._table(*path)
        indent = " " * table.value[0][0].start_mark.column
        return self._insert(table, f"{indent}{line}\n")

    def _insert(self, table: MappingNode, lines: str) -> None:
        end = self._end(table.value[-1][1])
        if self.text[end - 1] != "\n":
            lines = f"\n{lines}"
        self._put(end, end, lines)

    def _end(self, node: Node) -> int:
        """Where the last line of an entry ends: behind its last scalar, not what follows it."""
        while isinstance(node, MappingNode | SequenceNode) and not node.flow_style and node.value:
            last = node.value[-1]
            node = last[1] if isinstance(last, tuple) else last
        index = self.text.find("\n", max(node.end_mark.index - 1, node.start_mark.index))
        return len(self.text) if index < 0 else index + 1

    def _put(self, start: int, end: int, text: str) -> None:
        self.text = self.text[:start] + text + self.text[end:]

    def _refuse(self, path: tuple[str | int, ...], found: str) -> Refused:
        where = ".".join(map(str, path)) or "config"
        return Refused(f"{self.path.name}: {self._prefix}:{where} {found}; edit it by hand")


def _entry(node: Node | None, name: str) -> Node | None:
    if not isinstance(node, MappingNode):
        return None
    return next((value for key, value in node.value if key.value == name), None)


def _scalar(text: str, quoted: bool = False) -> str:
    if not quoted and _PLAIN.fullmatch(text) and not _is_other(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _is_other(text: str) -> bool:
    """Whether YAML takes a plain text for a number, a time, a truth value."""
    return not isinstance(YAML(typ="safe", pure=True).load(text), str)
