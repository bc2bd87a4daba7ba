"""Paths into values, as Pulumi writes them: ``a.b[0]["x.y"]``, with ``*`` for any step.

Follows sdk/go/common/resource/property_path.go.
"""

from __future__ import annotations

import re

PropertyPath = tuple[str | int, ...]
_STEP = re.compile(r'(\.?)(?:([^.\[\]"]+)|\[(\d+)\]|\[\*\]|\["((?:[^"\\]|\\.)*)"\])')


def parse_path(text: str) -> PropertyPath:
    """Raises ValueError on text that is no path."""
    path: list[str | int] = []
    at = 0
    while at < len(text):
        found = _STEP.match(text, at)
        if not found or (found[1] and not path):
            raise ValueError(f"cannot parse '{text}' at {at}")
        _, name, index, quoted = found.groups()
        if index is not None:
            path.append(int(index))
        else:
            path.append(name or ("*" if quoted is None else quoted.replace('\\"', '"')))
        at = found.end()
    return tuple(path)


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
