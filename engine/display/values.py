"""Property values and their differences, as Pulumi prints them.

Text of several lines is shown by the lines that change, JSON and YAML texts as what they hold,
secrets as ``[secret]``, what a preview cannot know as ``[unknown]``. Follows
pkg/backend/display/object_diff.go and sdk/go/common/resource/properties_diff.go.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from engine import properties
from engine.display import Style
from engine.display.steps import sign
from engine.paths import parse_path
from engine.properties import Diff, internal
from engine.state import REFERENCE, SIGNATURE, UNKNOWN, Secret, from_disk, reveal

Title = Callable[["Printer"], None]
_LIMIT = 150
_LINES = 3


def opened(disk: dict[str, Any] | None) -> dict[str, Any]:
    """The properties of an event's state; blinded secrets stay secrets."""
    found: dict[str, Any] = from_disk(disk or {}, lambda _: '"[secret]"')
    return found


def difference(old: Any, new: Any) -> Diff | None:
    """What an operator sees of a difference."""
    return properties.difference(old, new, internals=False)


def detailed(step: dict[str, Any], old: dict[str, Any], new: dict[str, Any]) -> Diff:
    """The difference that a provider described, path by path."""
    root = Diff(None, None, {})
    for text, how in sorted(step["detailedDiff"].items()):
        path = parse_path(text)
        kind = str(how.get("diffKind") or how.get("kind")).removesuffix("-replace")
        before: Any = opened(step["old"].get("inputs" if how.get("inputDiff") else "outputs"))
        after: Any = new
        at = root
        for position, key in enumerate(path):
            before, after = _part(before, key), _part(after, key)
            assert at.items is not None
            if position + 1 == len(path):
                if kind == "add":
                    at.items[key] = ("add", UNKNOWN if after is None else after)
                elif kind == "delete":
                    at.items[key] = ("delete", UNKNOWN if before is None else before)
                else:
                    at.items[key] = ("update", difference(before, after) or Diff(before, after))
            elif before is None and after is not None:
                at.items[key] = ("add", after)
                break
            elif before is not None and after is None:
                at.items[key] = ("delete", before)
                break
            else:
                known = at.items.get(key, ("", None))[1]
                inner = known if isinstance(known, Diff) and known.items else Diff(None, None, {})
                at.items[key] = ("update", inner)
                at = inner
    return root


def _part(value: Any, key: Any) -> Any:
    if isinstance(value, Secret):
        # What is within a secret is as secret.
        inner = _part(value.value, key)
        return inner if inner is None or isinstance(inner, Secret) else Secret(inner)
    if isinstance(value, dict):
        return value.get(key)
    fits = isinstance(value, list) and isinstance(key, int) and key < len(value)
    return value[key] if fits else None


def quote(text: str) -> str:
    """As Go's %q."""
    body = json.dumps(text, ensure_ascii=False)
    for code in (*range(0x20), 0x7F):
        body = body.replace(f"\\u{code:04x}", f"\\x{code:02x}")
    return body.replace("\x7f", "\\x7f")


def go_float(value: float) -> str:
    """A number with a fraction, as Go's %g."""
    digits = Decimal(repr(value)).as_tuple()
    count, exponent = len(digits.digits), len(digits.digits) + int(digits.exponent) - 1
    exact = format(Decimal(repr(value)), "f")
    return exact if -4 <= exponent < 6 else f"{value:.{count - 1}e}"


def shorten(text: str) -> str:
    lines = text.split("\n")
    cut = [line[:_LIMIT] + "..." if len(line) > _LIMIT else line for line in lines[:_LINES]]
    return "\n".join(cut) + ("\n..." if len(lines) > _LINES else "")


def _structure(text: str) -> tuple[str, Any] | None:
    """JSON, or YAML of several lines, when it holds a map or a list."""
    text = text.strip()
    value: Any = None
    kind = "json"
    if text.startswith(("{", "[")):
        try:
            value = json.loads(text)
        except ValueError:
            value = None
    first = text.partition("\n")[0]
    if (
        value is None
        and "\n" in text
        and (": " in first or first.endswith(":") or first.startswith(("- ", "{", "[", "#", "---")))
    ):
        import yaml

        kind = "yaml"
        try:
            value = json.loads(json.dumps(yaml.safe_load(text), default=str))
        except (yaml.YAMLError, ValueError, TypeError):
            value = None
    return (kind, value) if isinstance(value, dict | list) else None


def _lines(text: str) -> list[str]:
    """Lines with their ends: a last line without one differs from one with it."""
    return [line for line in re.split(r"(?<=\n)", text) if line]


def _worth_printing(value: Any) -> bool:
    return value is not None and not (isinstance(value, str | list | dict) and not value)


@dataclass
class Printer:
    """Collects lines in ``out``; the copies that its methods make share it."""

    style: Style
    indent: int
    op: str = "same"
    prefix: bool = False
    out: list[str] = field(default_factory=list)

    def text(self) -> str:
        return "".join(self.out)

    def with_op(self, op: str, prefix: bool = True) -> Printer:
        return replace(self, op=op, prefix=prefix)

    def indented(self, by: int) -> Printer:
        return replace(self, indent=self.indent + by)

    def write(self, text: str) -> None:
        self.out.append(text)

    def margin(self, text: str, prefix: bool | None = None) -> None:
        space = "    " * self.indent
        if self.prefix if prefix is None else prefix:
            space = space[:-2] + sign(self.op)
        self.write(space + text)

    def title(self, key: Any, width: int) -> None:
        name = shorten(str(key)) if self.style.truncate else str(key)
        self.margin(f"{name.ljust(width)}: ")

    def object(self, value: dict[str, Any]) -> None:
        width = max((len(k) for k in value), default=0)
        for key in sorted(value):
            if not internal(key):
                self.title(key, width)
                self.value(value[key])

    def value(self, value: Any) -> None:
        self._value(value)
        self.write("\n")

    def _value(self, value: Any) -> None:
        if isinstance(value, Secret):
            if self.style.show_secrets:
                self._value(value.value)
            else:
                self.write("[secret]")
        elif isinstance(value, list):
            if not value:
                self.write("[]")
                return
            self.write("[\n")
            for index, item in enumerate(value):
                self.margin(f"    [{index}]: ")
                self.indented(1).value(item)
            self.margin("]", prefix=False)
        elif isinstance(value, dict) and value.get(SIGNATURE) == REFERENCE:
            self.write("{\n")
            inner = self.indented(1)
            identity = UNKNOWN if value.get("id") == "" else value.get("id")
            parts = (("URN", value["urn"]), ("ID", identity),
                     ("PackageVersion", value["packageVersion"]))  # fmt: skip
            for key, part in parts:
                inner.title(key, 3)
                inner.write(f"{inner._primitive(part)}\n")
            self.margin("}", prefix=False)
        elif isinstance(value, dict):
            if not value:
                self.write("{}")
                return
            self.write("{\n")
            self.indented(1).object(value)
            self.margin("}", prefix=False)
        elif isinstance(value, str) and value != UNKNOWN and (found := _structure(value)):
            self.write(f"({found[0]}) ")
            self.value(found[1])
        else:
            self.write(self._primitive(value))

    def _primitive(self, value: Any) -> str:
        if value is None:
            return "<null>"
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, str):
            if value == UNKNOWN:
                return "[unknown]"
            return quote(shorten(value) if self.style.truncate else value)
        if isinstance(value, int | float):
            return str(int(float(value))) if value == int(value) else go_float(value)
        return "[secret]" if isinstance(value, Secret) else str(value)

    def object_diff(self, diff: Diff, include: list[str] | None = None) -> None:
        items = diff.items or {}
        keys = [k for k in sorted(items, key=str) if include is None or k in include]
        width = max((len(str(k)) for k in keys), default=0)
        for key in keys:
            self.item(items[key], lambda p, k=key: p.title(k, width))  # type: ignore[misc]

    def item(self, item: tuple[str, Any], title: Title) -> None:
        kind, value = item
        if kind == "update":
            self.diff(title, value)
        elif kind != "same" or _worth_printing(value):
            op = {"add": "create", "delete": "delete"}.get(kind, "same")
            printer = self.with_op(op, prefix=kind != "same")
            title(printer)
            printer.value(value)

    def diff(self, title: Title, diff: Diff) -> None:
        here = self.with_op("update")
        if self.style.show_secrets and (
            isinstance(diff.old, Secret) or isinstance(diff.new, Secret)
        ):
            inner = difference(reveal(diff.old), reveal(diff.new))
            if inner:
                self.diff(title, inner)
                return
        if diff.items is not None:
            is_list = any(isinstance(key, int) for key in diff.items)
            title(here)
            here.write("[\n" if is_list else "{\n")
            if is_list:
                for index, item in sorted(diff.items.items()):
                    here.indented(2).item(
                        item,
                        lambda p, i=index: p.indented(-1).margin(f"[{i}]: "),  # type: ignore[misc]
                    )
            else:
                here.indented(1).object_diff(diff)
            here.margin("]\n" if is_list else "}\n", prefix=False)
            return
        old, new = diff.old, diff.new
        parts = isinstance(old, list | dict) or isinstance(new, list | dict)
        if _worth_printing(old) and _worth_printing(new) and not parts:
            title(here)
            if isinstance(old, str) and isinstance(new, str) and UNKNOWN not in (old, new):
                here.text_diff(old, new)
            else:
                here.write(f"{here._primitive(old)} => {here._primitive(new)}\n")
            return
        for kind, value in (("delete", old), ("add", new)):
            if _worth_printing(value):
                self.item((kind, value), title)

    def text_diff(self, old: str, new: str) -> None:
        before, after = _structure(old), _structure(new)
        if before and after:
            inner = difference(before[1], after[1])
            if inner is None:
                old, new = quote(old), quote(new)
            else:
                kinds = before[0] if before[0] == after[0] else f"{before[0]} => {after[0]}"
                self.write(f"({kinds}) ")
                self.diff(lambda _: None, inner)
                return
        if "\n" not in old and "\n" not in new:
            self.write(f"{quote(old)} => {quote(new)}\n")
            return
        self.write("\n")
        self.indented(1).line_diff(_lines(old), _lines(new))

    def line_diff(self, old: list[str], new: list[str]) -> None:
        """Changed lines with two unchanged ones around; empty lines are left out."""
        blocks = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()

        def lines(op: str, found: list[str]) -> None:
            for line in found:
                if line.strip():
                    text = line.removesuffix("\n")
                    text = shorten(text) if self.style.truncate else text
                    self.with_op(op, prefix=op != "same").margin(text + "\n")

        for at, (kind, start, end, new_start, new_end) in enumerate(blocks):
            if kind != "equal":
                lines("delete", old[start:end])
                lines("create", new[new_start:new_end])
                continue
            same = [line for line in old[start:end] if line.strip()]
            head = [] if at == 0 else same[:2]
            tail = [] if at == len(blocks) - 1 else same[-2:]
            if len(same) > len(head) + len(tail) + 1:
                lines("same", [*head, "...", *tail])
            else:
                lines("same", same)
