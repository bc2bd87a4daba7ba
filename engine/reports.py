"""What the engine reports, in the words and the form of Pulumi's engine events."""

from __future__ import annotations

from typing import Any

from engine.api import Emit, Request
from engine.plan import Step
from engine.state import FIELDS, PendingOperation, Resource, to_disk


class State(dict[str, Any]):
    """A resource as events tell of it, and the resource itself, which `preview --json` shows."""

    resource: Resource


class Reports:
    """Emits the events of one operation, secrets filtered out of all their texts."""

    def __init__(self, emit: Emit, request: Request) -> None:
        self.emit, self._filter = emit, request.filter
        self._planning = {"planning": True} if request.dry_run else {}

    def step(self, event: str, step: Step, **others: Any) -> None:
        """A resourcePreEvent or resOutputsEvent; ``others`` go before what the step says."""
        self.emit({event: {"metadata": self._metadata(step) | others} | self._planning})

    def failure(self, step: Step, status: int, steps: int) -> None:
        """``status`` is Pulumi's resource.Status: 2 says that nobody knows what is left."""
        failed = {"metadata": self._metadata(step), "status": status, "steps": steps}
        self.emit({"resOpFailedEvent": failed})

    def diagnose(self, severity: str, message: str, urn: str = "", ephemeral: bool = False) -> None:
        event: dict[str, Any] = {"urn": urn} if urn else {}
        if not severity.startswith("info"):
            event["prefix"] = f"{severity}: "
        message = self._filter.text(message) + "\n"
        event |= {"message": message, "color": "never", "severity": severity}
        if ephemeral:
            event["ephemeral"] = True
        self.emit({"diagnosticEvent": event})

    def _metadata(self, step: Step) -> dict[str, Any]:
        """An apitype.StepEventMetadata."""
        r, d = step.resource, step.difference
        found: dict[str, Any] = {"op": step.op, "urn": r.urn, "type": r.type}
        found["old"] = step.old and self._state(step.old)
        found["new"] = step.new and self._state(step.new)
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

    def _state(self, r: Resource) -> State:
        """An apitype.StepEventStateMetadata."""
        r = self._filter.resource(r)
        found = State(type=r.type, urn=r.urn)
        found.resource = r
        flags = ("custom", "delete", "protect", "external", "retain_on_delete")
        found |= {FIELDS.get(name, name): True for name in flags if getattr(r, name)}
        found |= {"id": r.id, "parent": r.parent, "inputs": to_disk(r.inputs, None)}
        found |= {"outputs": to_disk(r.outputs, None), "provider": r.provider}
        if r.init_errors:
            found["initErrors"] = r.init_errors
        return found


def of_pending(pending: list[PendingOperation]) -> str:
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
