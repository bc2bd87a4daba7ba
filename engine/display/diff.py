"""`--diff`: every step with its properties, as Pulumi prints it. Diagnostics go to stderr."""

from __future__ import annotations

import sys
from typing import Any

from engine.display import Display, Style, steps
from engine.display.steps import Metadata
from engine.display.values import Printer, detailed, difference, opened
from engine.properties import Diff, internal
from engine.state import UNKNOWN, urn_name


class DiffDisplay(Display):
    """Prints each event as it comes."""

    def __init__(self, style: Style) -> None:
        self.style = style
        self.seen: dict[str, Metadata] = {}
        self.errored = 0

    def show(self, event: dict[str, Any]) -> None:
        text = self.render(event)
        stream = sys.stderr if "diagnosticEvent" in event else sys.stdout
        if text:
            print(text, end="", file=stream, flush=True)

    def render(self, event: dict[str, Any]) -> str:
        if steps.default_provider(event):
            return ""
        if diagnostic := event.get("diagnosticEvent"):
            if diagnostic["severity"] == "debug" and not self.style.debug:
                return ""
            return str(diagnostic.get("prefix", "") + diagnostic["message"])
        if stdout := event.get("stdoutEvent"):
            return str(stdout["message"])
        if pre := event.get("resourcePreEvent"):
            step = pre["metadata"]
            self.seen[step["urn"]] = step
            if step["op"] == "refresh":
                return ""
            return self._step(step) if self._wanted(step) else ""
        if outputs := event.get("resOutputsEvent"):
            return self._outputs(outputs["metadata"])
        if "resOpFailedEvent" in event:
            self.errored += 1
        if closing := event.get("summaryEvent"):
            return steps.summary(closing, self.errored) + "\n"
        return ""

    def _wanted(self, step: Metadata) -> bool:
        return steps.is_root(step) or steps.should_show(step, diff=True)

    def _indent(self, step: Metadata) -> int:
        depth, parent = 0, steps.state(step).get("parent")
        while parent and (found := self.seen.get(parent)):
            depth += self._wanted(found)
            parent = steps.state(found).get("parent")
        return depth

    def _printer(self, indent: int, op: str, prefix: bool) -> Printer:
        return Printer(self.style, indent, op, prefix)

    def _header(self, step: Metadata, indent: int) -> str:
        op, old, new = step["op"], step.get("old") or {}, step.get("new") or {}
        lock = ""
        if old.get("protect") and new and not new.get("protect"):
            lock = " 🔓"
        elif new.get("protect") or old.get("protect"):
            lock = " 🔒"
        head = f"{steps.sign(op)}{step['type']}: ({op}{steps.retain(step)}){lock}\n"
        out = ["    " * indent + head]
        margin = "    " * (indent + 1)
        if old.get("id"):
            out.append(f"{margin}[id={old['id']}]\n")
        out.append(f"{margin}[urn={step['urn']}]\n")
        provider = step.get("provider")
        if provider and old.get("provider") and new and old["provider"] != new.get("provider"):
            out.append(f"{margin}[provider: {old['provider']} => {new.get('provider')}]\n")
        elif provider and urn_name(provider.rpartition("::")[0]) != "default":
            out.append(f"{margin}[provider={provider}]\n")
        return "".join(out)

    def _step(self, step: Metadata) -> str:
        indent = self._indent(step)
        head = self._header(step, indent)
        op, old, new = step["op"], step.get("old"), step.get("new")
        if op == "same":
            return head
        if old is None or new is None:
            state = new or old or {}
            shown = (new or {}).get("outputs") or state.get("inputs")
            printer = self._printer(indent + 1, op, False)
            printer.object(opened(shown))
            return head + printer.text()
        printer = self._printer(indent + 1, op, True)
        if step.get("detailedDiff") is not None:
            found = detailed(step, opened(old.get("outputs")), opened(new.get("inputs")))
            if found.items:
                printer.object_diff(found)
            else:
                printer.with_op("same").object(opened(old.get("inputs")))
            return head + printer.text()
        which = "outputs" if new.get("outputs") else "inputs"
        before, after = opened(old.get(which)), opened(new.get(which))
        change = difference(before, after)
        if change:
            printer.object_diff(change, step.get("diffs") if which == "inputs" else None)
        else:
            printer.with_op("same").object(after)
        return head + printer.text()

    def _outputs(self, step: Metadata) -> str:
        if not self._wanted(step):
            return ""
        refresh = self.seen.get(step["urn"], {}).get("op") == "refresh"
        if refresh and step["op"] == "update":
            return self._step(step)
        indent = self._indent(step)
        text = outputs(step, self._printer(indent + 1, step["op"], False), refresh)
        head = ""
        if refresh and (step["op"] != "refresh" or text or steps.is_root(step)):
            head = self._header(step, indent)
        if self.style.outputs and text:
            margin = "    " * (indent + 1)
            head += f"{margin}--outputs:--\n{text}"
        return head


def massage(change: Diff) -> None:
    """Take out of the stack's outputs what a preview cannot know: it need be no change."""
    items = change.items or {}
    listed = any(isinstance(key, int) for key in items)
    resource = items.get(_RESOURCE, ("", None))[0] == "add"
    for key, (kind, value) in list(items.items()):
        if kind == "add":
            items[key] = (kind, _without_mark(value))
            if resource and (key == _RESOURCE or value == UNKNOWN):
                del items[key]
        elif kind == "update":
            massage(value)
            if value.new == UNKNOWN and not listed:
                del items[key]


_RESOURCE = "@isPulumiResource"


def _without_mark(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_mark(v) for k, v in value.items() if k != _RESOURCE}
    return [_without_mark(v) for v in value] if isinstance(value, list) else value


def outputs(step: Metadata, printer: Printer, refresh: bool = False) -> str:
    """The outputs that are new or other than before; of the stack itself all after an update."""
    root, preview = steps.is_root(step), printer.style.preview
    if preview and not root and not refresh:
        return ""
    old, new = step.get("old"), step.get("new") or {}
    if old and old.get("initErrors"):
        return ""
    found, inputs = opened(new.get("outputs")), opened(new.get("inputs"))
    found = {k: v for k, v in found.items() if not internal(k)}
    sames = root and not preview
    change = difference(opened(old.get("outputs")), found) if old else None
    if change and root and preview:
        massage(change)
    if change is None:
        if old and not sames:
            return ""
        new_here = (k for k in found if k not in inputs or inputs[k] != found[k])
        shown = {k: found[k] for k in new_here if found[k] not in (None, "", [], {})}
        width = max((len(k) for k in found), default=0)
        for key in sorted(shown):
            printer.title(key, width)
            printer.value(shown[key])
        return printer.text()
    items = change.items or {}
    width = max((len(k) for k in items), default=0)
    for key, (kind, value) in items.items():
        if kind == "same" and not sames:
            continue
        if key in inputs and not refresh and difference(found.get(key), inputs[key]) is None:
            continue
        printer.item((kind, value), lambda p, k=key: p.title(k, width))  # type: ignore[misc]
    return printer.text()
