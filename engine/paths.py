"""Paths into values, as Pulumi writes them: ``a.b[0]["x.y"]``, with ``*`` for any step.

Follows sdk/go/common/resource/property_path.go.
"""

from __future__ import annotations

import re

PropertyPath = tuple[str | int, ...]
_QUOTED = re.compile(r'\["((?:\\"|[^"])*)"(]?)')
_NAME = re.compile(r"[^.\[]+")


def parse_path(text: str) -> PropertyPath:
    """Raises ValueError on text that is no path, in Pulumi's words."""
    if text.startswith("."):
        raise ValueError("expected property path to start with a name or index")
    path: list[str | int] = []
    rest = text
    while rest:
        if rest.startswith("."):
            rest = rest[1:]
            if not rest:
                raise ValueError("expected property path to end with a name or index")
            if rest.startswith("["):
                raise ValueError("expected property name after '.'")
        elif rest.startswith('["'):
            quoted = _QUOTED.match(rest)
            if not quoted:
                raise ValueError("missing closing quote in property name")
            if not quoted[2]:
                raise ValueError("missing closing bracket in property access")
            path.append(quoted[1].replace('\\"', '"'))
            rest = rest[quoted.end() :]
        elif rest.startswith("["):
            index, closing, rest = rest[1:].partition("]")
            if not closing:
                raise ValueError("missing closing bracket in array index")
            path.append(index if index == "*" else _integer(index))
        else:
            name = _NAME.match(rest)
            assert name
            path.append(name[0])
            rest = rest[name.end() :]
    return tuple(path)


def _integer(text: str) -> int:
    if not re.fullmatch(r"[+-]?\d+", text, re.ASCII):
        reason = f'strconv.ParseInt: parsing "{text}": invalid syntax'
        raise ValueError(f"invalid array index: {reason}")
    return int(text)


def format_path(path: PropertyPath) -> str:
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif re.fullmatch(r"\w*", step, re.ASCII):
            text += f".{step}" if text else step
        else:
            text += '["' + step.replace('"', '\\"') + '"]'
    return text


def contains(pattern: PropertyPath, path: PropertyPath) -> bool:
    """Whether the path is the pattern's place or lies within it."""
    return len(pattern) <= len(path) and all(
        p in ("*", s) for p, s in zip(pattern, path, strict=False)
    )
