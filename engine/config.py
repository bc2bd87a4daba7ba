"""Configuration values: paths into them, secrets within them, and the text programs see.

A value is what YAML gives (text, number, boolean, list, map); a secret is the map
``{"secure": "v1:NONCE:DATA"}``, at any depth. Rules follow Pulumi's
sdk/go/common/resource/config: a top-level value is set as text, a value inside a structure
becomes a boolean or an integer where it looks like one.
"""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Callable
from typing import Any

from engine.errors import CommandError
from engine.paths import PropertyPath, parse_path


def go_json(value: Any) -> str:
    """JSON as Go's encoder writes a value: sorted keys, ``<``, ``>`` and ``&`` escaped."""
    return escape(json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")))


def escape(text: str) -> str:
    """JSON text with the characters that Go's encoder hides from HTML."""
    return re.sub("[<>&\u2028\u2029]", lambda m: f"\\u{ord(m[0]):04x}", text)


class PathError(CommandError):
    """A path that is none, or leads to what cannot be set."""


def parse_key(text: str, project: str, path: bool = False) -> tuple[str, PropertyPath]:
    """The full key (``namespace:name``) and the path below it (empty without ``--path``)."""
    key: str | int = text
    below: list[str | int] = []
    if path:
        if not text:
            raise PathError("empty config key path")
        try:
            key, *below = parse_path(text)
        except ValueError as error:
            raise PathError(f"invalid config key path: {error}") from None
    if not isinstance(key, str):
        raise PathError("first path segement of config key must be a string")
    match = re.fullmatch(r"(?:([^:]*):(?:config:)?)?([^:]*)", key)
    if not match or not (namespace := match[1] if match[1] is not None else project):
        raise CommandError(
            f"invalid configuration key: could not parse {key} as a configuration key "
            "(configuration keys should be of the form `<namespace>:<name>`)"
        )
    return f"{namespace}:{match[2]}", tuple(below)


def is_secure(value: Any) -> bool:
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("secure"), str)


def has_secure(value: Any) -> bool:
    if is_secure(value):
        return True
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(has_secure(v) for v in inner)


def decrypt(value: Any, opened: Callable[[str], str]) -> Any:
    """The value as plain Python, each secret replaced by what ``opened`` makes of it."""
    if is_secure(value):
        return opened(value["secure"])
    if isinstance(value, dict):
        pairs = sorted((to_text(plain(k)), v) for k, v in value.items())
        return {k: decrypt(v, opened) for k, v in pairs}
    if isinstance(value, list):
        return [decrypt(v, opened) for v in value]
    return plain(value)


def plain(value: Any) -> Any:
    """A YAML scalar as Pulumi's YAML library reads it: ``0644`` is octal, ``3.0`` and 1e3 are
    integers, a date is text. Raises CommandError for what it has no JSON for."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        # The YAML library keeps the width of numbers with leading zeros.
        octal = type(value).__name__ == "ScalarInt" and getattr(value, "_width", None)
        digits = str(int(value))
        return int(digits, 8) if octal and not set(digits) & set("-89") else int(value)
    if isinstance(value, float) and math.isfinite(value):
        return int(value) if value.is_integer() else float(value)
    if isinstance(value, str):
        return str(value)
    if type(value) is datetime.date:
        return f"{value} 00:00:00 +0000 UTC"
    raise CommandError(f"configuration value {value!r} has no form in JSON; quote it in the YAML")


def to_text(value: Any) -> str:
    """What a program gets: text as it is, everything else as JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else go_json(value)


def coerce(text: str) -> bool | int | str:
    """A value inside a structure: true and false, and integers without leading zeros."""
    if text in ("true", "false"):
        return text == "true"
    if re.fullmatch(r"-?(0|[1-9]\d*)", text) and -(2**63) <= int(text) < 2**64:
        return int(text)
    return text


def get(value: Any, path: PropertyPath) -> Any:
    """The value at the path. Raises KeyError where there is none."""
    for step in path:
        fits = isinstance(step, int) if isinstance(value, list) else isinstance(value, dict)
        if not fits or is_secure(value):
            raise KeyError(step)
        value = value[step]
    return value


def put(container: Any, path: PropertyPath, value: Any, parents: str = "") -> None:
    """Set the value at the path below ``container``, making lists and maps as needed."""
    step: Any = path[0]
    rest = path[1:]
    at = f"{parents}[{step}]" if isinstance(step, int) else f"{parents}.{step}".lstrip(".")
    if isinstance(container, list):
        if not isinstance(step, int):
            raise PathError(f"{at}: key for an array must be an int")
        if not 0 <= step <= len(container):
            raise PathError(f"{at}: array index out of range")
        if step == len(container):
            container.append(None)
    elif not isinstance(step, str):
        raise PathError(f"{at}: key for a map must be a string")
    if not rest:
        container[step] = value
        return
    child = container[step] if isinstance(container, list) else container.get(step)
    if not isinstance(child, list | dict) or is_secure(child):
        # Only the value of a whole key is replaced by a structure; deeper it is a type error.
        if child is not None and parents:
            kind = "an array" if isinstance(rest[0], int) else "a map"
            raise PathError(f"{at}: expected {kind}")
        child = container[step] = [] if isinstance(rest[0], int) else {}
    put(child, rest, value, at)


def remove(container: Any, path: PropertyPath) -> None:
    """Remove what is at the path; nothing happens where there is nothing."""
    try:
        parent = get(container, path[:-1])
        del parent[path[-1]]
    except (KeyError, IndexError, TypeError):
        return
