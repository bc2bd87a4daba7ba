"""What the engine reports of steps, in the words and the form of Pulumi's engine events."""

from __future__ import annotations

from typing import Any

from engine.goal import PROVIDER_PREFIX
from engine.planner import Step
from engine.state import Operation, Resource, blind, to_disk


class State(dict[str, Any]):
    """A resource as events tell of it, and the resource itself, which `preview --json` shows."""

    resource: Resource


def metadata(step: Step, show_secrets: bool) -> dict[str, Any]:
    """An apitype.StepEventMetadata."""
    r, d = step.resource, step.difference
    found: dict[str, Any] = {
        "op": step.op,
        "urn": r.urn,
        "type": r.type,
        "old": _state(step.old, show_secrets),
        "new": _state(step.new, show_secrets),
    }
    if d and d.replace_keys and step.op in ("create-replacement", "replace"):
        found["keys"] = d.replace_keys
    if d and d.changed_keys:
        found["diffs"] = d.changed_keys
    detail = d.detail if d else None
    found["detailedDiff"] = detail and {
        path: {"diffKind": kind, "inputDiff": False} for path, kind in detail.items()
    }
    if step.logical:
        found["logical"] = True
    found["provider"] = r.provider
    return found


def _state(r: Resource | None, show_secrets: bool) -> State | None:
    """An apitype.StepEventStateMetadata."""
    if r is None:
        return None
    encrypt = None if show_secrets else blind
    found = State(type=r.type, urn=r.urn)
    found.resource = r
    flags = {
        "custom": r.custom,
        "delete": r.delete,
        "protect": r.protect,
        "taint": r.taint,
        "external": r.external,
        "retainOnDelete": r.retain_on_delete,
    }
    found.update({name: True for name, value in flags.items() if value})
    found.update(
        id=r.id,
        parent=r.parent,
        inputs=to_disk(r.inputs, encrypt),
        outputs=to_disk(r.outputs, encrypt),
        provider=r.provider,
    )
    if r.init_errors:
        found["initErrors"] = r.init_errors
    return found


def is_internal(step: Step) -> bool:
    """Whether the step is none of those that an operation counts."""
    r = step.resource
    default = r.type.startswith(PROVIDER_PREFIX) and r.name.startswith("default")
    return default or step.op == "remove-pending-replace"


def of_pending(pending: list[Operation]) -> str:
    """The warning of what an interrupted operation left."""
    listed = "".join(f"  * {o.resource.urn}, interrupted while {o.type}\n" for o in pending)
    return (
        f"Attempting to deploy or update resources with {len(pending)} pending operations from "
        f"previous deployment.\n{listed}These resources are in an unknown state because the "
        "Pulumi CLI was interrupted while waiting for changes to these resources to complete. "
        "You should confirm whether or not the operations listed completed successfully by "
        "checking the state of the appropriate provider. For example, if you are using AWS, "
        "you can confirm using the AWS Console.\n\nOnce you have confirmed the status of the "
        "interrupted operations, you can repair your stack using `pulumi refresh` which will "
        "refresh the state from the provider you are using and clear the pending operations "
        "if there are any.\n\nNote that `pulumi refresh` will need to be run interactively to "
        "clear pending CREATE operations."
    )
