"""What differs between property values, and what undoes it.

Follows sdk/go/common/resource/properties_diff.go and property_path.go.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from engine.paths import PropertyPath, format_path
from engine.state import SIGNATURE, Secret, Value

_NOTHING = object()


@dataclass
class Diff:
    """``items`` maps a key or index to ``("add", new)``, ``("delete", old)``, ``("same", both)``
    or ``("update", Diff)``; None for values without parts."""

    old: Value
    new: Value
    items: dict[Any, tuple[str, Any]] | None = None


def internal(key: Any) -> bool:
    return isinstance(key, str) and key.startswith("__")


def difference(old: Value, new: Value, internals: bool = True) -> Diff | None:
    """None when the values are equal. Secrets are compared as wholes; a key that is null is none.
    Without ``internals`` keys that begin with two underscores are left out."""
    pairs: Iterable[tuple[Any, tuple[Value, Value]]]
    if isinstance(old, dict) and isinstance(new, dict) and SIGNATURE not in {*old, *new}:
        keys = [k for k in sorted(old.keys() | new.keys()) if internals or not internal(k)]
        absent, pairs = None, [(k, (old.get(k), new.get(k))) for k in keys]
    elif isinstance(old, list) and isinstance(new, list):
        absent, pairs = _NOTHING, enumerate(zip_longest(old, new, fillvalue=_NOTHING))
    elif old == new and isinstance(old, bool) == isinstance(new, bool):
        return None
    else:
        return Diff(old, new)
    items: dict[Any, tuple[str, Any]] = {}
    for key, (before, after) in pairs:
        if before is absent or after is absent:
            if before is after and key in old and key in new:
                items[key] = ("same", None)
            if before is not after:
                items[key] = ("add", after) if before is absent else ("delete", before)
            continue
        inner = difference(before, after, internals)
        items[key] = ("same", before) if inner is None else ("update", inner)
    changed = any(kind != "same" for kind, _ in items.values())
    return Diff(old, new, items) if changed else None


def detailed_diff(old: Value, new: Value) -> dict[str, str]:
    """What differs in Pulumi's form of that name: path → "add", "delete" or "update"."""

    def flat(diff: Diff, path: PropertyPath) -> dict[str, str]:
        if diff.items is None:
            kind = "add" if diff.old is None else "delete" if diff.new is None else "update"
            return {format_path(path): kind}
        found: dict[str, str] = {}
        for key, (kind, value) in sorted(diff.items.items()):
            if kind == "update":
                found |= flat(value, (*path, key))
            elif kind != "same":
                found[format_path((*path, key))] = kind
        return found

    diff = difference(old, new)
    return flat(diff, ()) if diff else {}


def reset(path: PropertyPath, old: Value, new: Value) -> tuple[Value, bool]:
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
