"""Property paths, differences between property values, and both on the wire.

Paths are Pulumi's (`a.b[0]["x.y"]`, `*` for any); differences are those of its
sdk/go/common/resource/properties_diff.go, in the form of detailedDiff.
"""

from __future__ import annotations

import re
from typing import Any

from google.protobuf import struct_pb2

from engine.state import ASSETS, SECRET, SIGNATURE, Properties, Secret, Value

Path = tuple[str | int, ...]
_STEP = re.compile(r'\.?(?:([^.\[\]"]+)|\[(\d+)\]|\[\*\]|\["((?:[^"\\]|\\.)*)"\])')
ABSENT = object()


def parse_path(text: str) -> Path:
    """Raises ValueError on text that is no path."""
    path: list[str | int] = []
    at = 0
    while at < len(text):
        found = _STEP.match(text, at)
        if not found:
            raise ValueError(f"invalid property path {text!r}")
        name, index, quoted = found.groups()
        if index is not None:
            path.append(int(index))
        else:
            path.append(name or ("*" if quoted is None else quoted.replace('\\"', '"')))
        at = found.end()
    return tuple(path)


def format_path(path: Path) -> str:
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif re.fullmatch(r"\w*", step, re.ASCII):
            text += f".{step}" if text else step
        else:
            text += '["' + step.replace('"', '\\"') + '"]'
    return text


def contains(pattern: Path, path: Path) -> bool:
    """Whether the path is the pattern's place or lies within it."""
    return len(pattern) <= len(path) and all(
        p in ("*", s) for p, s in zip(pattern, path, strict=False)
    )


def diff(old: Value, new: Value, path: Path = ()) -> dict[str, str]:
    """What differs, as path → "add", "delete" or "update". Secrets are compared as wholes."""
    if isinstance(old, dict) and isinstance(new, dict) and SIGNATURE not in {*old, *new}:
        found: dict[str, str] = {}
        for key in sorted(old.keys() | new.keys()):
            before, after = old.get(key), new.get(key)
            if before is None or after is None:
                if before is not after:
                    found[format_path((*path, key))] = "add" if before is None else "delete"
            else:
                found |= diff(before, after, (*path, key))
        return found
    if isinstance(old, list) and isinstance(new, list):
        found = {}
        for i in range(max(len(old), len(new))):
            if i >= len(old) or i >= len(new):
                found[format_path((*path, i))] = "add" if i >= len(old) else "delete"
            else:
                found |= diff(old[i], new[i], (*path, i))
        return found
    if old == new and isinstance(old, bool) == isinstance(new, bool):
        return {}
    return {format_path(path): "add" if old is None else "delete" if new is None else "update"}


def reset(path: Path, old: Value, new: Value) -> tuple[Value, bool]:
    """``new`` with its value at the path put back to that of ``old``, and whether that could be
    done: places are not created, lists keep their length."""
    if not path:
        return old, True
    if isinstance(new, Secret):
        value, done = reset(path, old.value if isinstance(old, Secret) else old, new.value)
        return Secret(value), done
    if isinstance(old, Secret):  # what is taken out of a secret stays one
        inner = old.value
        if isinstance(inner, dict):
            old = {k: Secret(v) for k, v in inner.items()}
        else:
            old = [Secret(v) for v in inner] if isinstance(inner, list) else inner
    step, rest = path[0], path[1:]
    done = True
    if isinstance(new, dict) and isinstance(old, dict) and not isinstance(step, int):
        changed: dict[str, Any] = dict(new)
        for key in sorted(old.keys() | new.keys()) if step == "*" else [step]:
            if not rest and key not in old:
                changed.pop(key, None)
            elif rest and (key not in old or key not in new):
                done = done and key not in old and key not in new
            else:
                changed[key], ok = reset(rest, old[key], new.get(key))
                done = done and ok
        return changed, done
    if isinstance(new, list) and isinstance(old, list) and (step == "*" or isinstance(step, int)):
        items = list(new)
        indices = range(len(new)) if step == "*" else [int(step)]
        done = step != "*" or len(old) == len(new)
        for i in indices:
            if i >= len(old) or i >= len(new):
                done = False
            else:
                items[i], ok = reset(rest, old[i], new[i])
                done = done and ok
        return items, done
    return new, False


class AssetFound(ValueError):
    """An asset or archive, which this engine does not have."""


def from_wire(value: struct_pb2.Value) -> Value:
    """A property value of a gRPC message. Raises AssetFound."""
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "struct_value":
        return properties_from_wire(value.struct_value)
    if kind == "list_value":
        return [from_wire(v) for v in value.list_value.values]
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() and abs(number) < 1e21 else number
    return value.bool_value if kind == "bool_value" else None


def properties_from_wire(struct: struct_pb2.Struct) -> Any:
    found = {k: from_wire(v) for k, v in sorted(struct.fields.items())}
    signature = found.get(SIGNATURE)
    if signature == SECRET:
        value = found["value"]
        return value if isinstance(value, Secret) else Secret(value)
    if signature in ASSETS:
        raise AssetFound(ASSETS[signature])
    return found


def to_wire(value: Value, into: struct_pb2.Value) -> None:
    if isinstance(value, str):
        into.string_value = value
    elif isinstance(value, Secret):
        fields = into.struct_value.fields
        fields[SIGNATURE].string_value = SECRET
        to_wire(value.value, fields["value"])
    elif isinstance(value, dict):
        into.struct_value.SetInParent()
        for key, item in value.items():
            to_wire(item, into.struct_value.fields[key])
    elif isinstance(value, list):
        into.list_value.SetInParent()
        for item in value:
            to_wire(item, into.list_value.values.add())
    elif isinstance(value, bool):
        into.bool_value = value
    elif value is None:
        into.null_value = struct_pb2.NULL_VALUE
    else:
        into.number_value = value


def properties_to_wire(properties: Properties) -> struct_pb2.Struct:
    struct = struct_pb2.Struct()
    for key, value in properties.items():
        to_wire(value, struct.fields[key])
    return struct
