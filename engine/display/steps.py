"""Steps: the words and signs of each kind, and the summary at the end."""

from __future__ import annotations

import math
from typing import Any

from engine.state import PROVIDER_PREFIX, STACK_TYPE, urn_name

UPDATE_KINDS = {"update": "Updating", "refresh": "Refreshing", "destroy": "Destroying"}

# Sign, in progress, done, failed; as pkg/resource/deploy/step.go has them.
_KINDS: dict[str, tuple[str, str, str, str]] = {
    "same": ("  ", "", "", "failed"),
    "create": ("+ ", "creating", "created", "creating failed"),
    "update": ("~ ", "updating", "updated", "updating failed"),
    "delete": ("- ", "deleting", "deleted", "deleting failed"),
    "replace": ("+-", "replacing", "replaced", "replacing failed"),
    "create-replacement": ("++", "creating replacement", "created replacement", "creating failed"),
    "delete-replaced": ("--", "deleting original", "deleted original", "deleting failed"),
    "refresh": ("~ ", "refreshing", "refresh", "refreshing failed"),
    "remove-pending-replace": ("~ ", "", "", ""),
}
_PLANNED = {
    "same": "",
    "create-replacement": "create replacement",
    "delete-replaced": "delete original",
    "refresh": "refreshing",
}
_REPLACEMENTS = {"replace", "create-replacement", "delete-replaced", "remove-pending-replace"}

Metadata = dict[str, Any]


def state(step: Metadata) -> dict[str, Any]:
    """The resource as it will be, or was."""
    return step.get("new") or step.get("old") or {}


def sign(op: str) -> str:
    return _KINDS[op][0]


def words(op: str, preview: bool, done: bool, failed: bool) -> str:
    """What is happening to a resource, or has happened."""
    _, progress, finished, failure = _KINDS[op]
    if preview:
        return _PLANNED.get(op, op)
    return f"**{failure}**" if failed else finished if done else progress


def is_root(step: Metadata) -> bool:
    return str(step.get("type")) == STACK_TYPE or f"::{STACK_TYPE}::" in str(step.get("urn"))


def retain(step: Metadata) -> str:
    """A mark for what stays in the world when its resource goes."""
    goes = step["op"] in ("delete", "replace", "create-replacement", "delete-replaced")
    return "[retain]" if goes and (step.get("old") or {}).get("retainOnDelete") else ""


def type_name(kind: str) -> str:
    """A type for people: the file that many modules have for each type is left out."""
    package, _, rest = kind.partition(":")
    module, _, name = rest.partition(":")
    folder, slash, file = module.rpartition("/")
    if slash and name and file == name[0].lower() + name[1:]:
        return f"{package}:{folder}:{name}"
    return kind


def default_provider(event: dict[str, Any]) -> bool:
    """Whether the event is of a provider nobody wrote down: it is not for operators."""
    for payload in event.values():
        if isinstance(payload, dict) and (step := payload.get("metadata")):
            name = urn_name(step["urn"])
            return str(step["type"]).startswith(PROVIDER_PREFIX) and name.startswith("default")
    return False


def should_show(step: Metadata, diff: bool = False) -> bool:
    """Whether the step is worth a line: no sames (but changes of protection), and in a diff a
    replacement is shown once."""
    if step["op"] == "same":
        old, new = step.get("old") or {}, step.get("new") or {}
        return bool(old.get("protect")) != bool(new.get("protect"))
    return not (diff and not step.get("logical") and step["op"] in _REPLACEMENTS)


def summary(event: dict[str, Any], errored: int) -> str:
    """The closing `Resources:` section, with the duration of a real operation."""
    changes: dict[str, int] = event.get("resourceChanges") or {}
    preview = bool(event.get("isPreview"))
    lines = ["Resources:"]
    kinds = [op for op in _KINDS if changes.get(op) and op != "same"]
    for op in kinds:
        past = {"refresh": "refreshed", "delete-replaced": "deleted"}.get(op, _past(op))
        what = f"to {op}" if preview else past
        lines.append(f"    {sign(op)}{changes[op]} {what}")
    pieces = []
    if len(kinds) > 1:
        pieces.append(f"{sum(changes[op] for op in kinds)} changes")
    if changes.get("same"):
        pieces.append(f"{changes['same']} unchanged")
    if pieces:
        lines.append("    " + ". ".join(pieces))
    if errored:
        lines.append(f"    {errored} errored")
    if not preview:
        seconds = math.ceil(event.get("durationSeconds") or 0)
        minutes, rest = divmod(seconds, 60)
        hours, minutes = divmod(minutes, 60)
        text = (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes or hours else "")
        lines += ["", f"Duration: {text}{rest}s"]
    return "\n".join(lines)


def _past(op: str) -> str:
    return f"{op}d" if op.endswith("e") or op == "create-replacement" else f"{op}ed"
