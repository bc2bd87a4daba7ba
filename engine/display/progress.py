"""Progress: a line for each thing that happens, then what it came to.

Follows pkg/backend/display/progress.go and rows.go, as they print without a terminal.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from engine.display import Display, Style, steps
from engine.display.diff import outputs
from engine.display.steps import Metadata
from engine.display.values import Printer, detailed, difference, opened
from engine.state import STACK_TYPE, urn_name


@dataclass
class Row:
    """A resource as the operator sees it. ``finished`` names the operations that are over."""

    step: Metadata
    hidden: bool = True
    failed: bool = False
    finished: dict[str, Metadata] = field(default_factory=dict)
    diagnostics: list[dict[str, Any]] = field(default_factory=list)
    last: str = ""
    started: float = 0.0
    ended: float | None = None

    def count(self, *severities: str) -> int:
        return sum(d["severity"] in severities for d in self.diagnostics)


class ProgressDisplay(Display):
    def __init__(self, style: Style, project: str, stack: str) -> None:
        self.style = style
        self._default_urn = f"urn:pulumi:{stack}::{project}::{STACK_TYPE}::{project}-{stack}"
        # The stack's row; "" until the stack itself is the first to be heard of.
        self.stack_urn = ""
        self.rows: dict[str, Row] = {}
        self.closing: dict[str, Any] | None = None
        self.done = False

    def println(self, line: str = "") -> None:
        print(line, flush=True)

    def show(self, event: dict[str, Any]) -> None:
        if steps.default_provider(event):
            return
        if "preludeEvent" in event:
            self.println()
        elif "summaryEvent" in event:
            self.closing = event["summaryEvent"]
        elif "stdoutEvent" in event:
            self.println(event["stdoutEvent"]["message"].rstrip("\n"))
        elif diagnostic := event.get("diagnosticEvent"):
            self._diagnostic(diagnostic)
        elif pre := event.get("resourcePreEvent"):
            row = self._row(pre["metadata"])
            row.step, row.started, row.ended = pre["metadata"], time.monotonic(), None
            self.updated(row)
        elif found := event.get("resOutputsEvent"):
            step = found["metadata"]
            row = self._row(step)
            refresh = row.step["op"] == "refresh"
            row.step, row.ended = step, time.monotonic()
            row.finished[step["op"]] = step
            custom = steps.state(step).get("custom")
            if refresh or (not self.style.preview and custom and step["op"] != "same"):
                self.updated(row)
        elif failure := event.get("resOpFailedEvent"):
            row = self._row(failure["metadata"])
            row.failed = True
            row.ended = time.monotonic()
            self.updated(row)

    def _diagnostic(self, diagnostic: dict[str, Any]) -> None:
        if diagnostic["severity"] == "debug" and not self.style.debug:
            return
        text = (diagnostic.get("prefix", "") + diagnostic["message"]).rstrip()
        if not text:
            return
        urn = diagnostic.get("urn") or self.stack_urn
        row = self._row({"urn": urn, "op": "same"}, heard=False)
        row.last = text
        row.hidden = False
        if not diagnostic.get("ephemeral"):
            row.diagnostics.append(diagnostic)
        self.updated(row)

    def _row(self, step: Metadata, heard: bool = True) -> Row:
        """The resource's row. A parent that was not heard of yet gets a hidden one."""
        urn, root = step["urn"], step["urn"] == self.stack_urn
        row = self.rows.get(urn)
        if row is None and heard and steps.is_root(step):
            self.stack_urn = urn
            if row := self.rows.pop("", None):
                self.rows[urn] = row
        if row is None:
            row = self.rows[urn] = Row(step)
        parent = steps.state(step).get("parent")
        if parent and parent not in self.rows:
            self.rows[parent] = Row({"urn": parent, "op": "same"})
        self.rows.setdefault(self.stack_urn, Row({"urn": "", "op": "same"}, hidden=False))
        if heard and (root or steps.should_show(step)):
            row.hidden = False
        return row

    def updated(self, row: Row) -> None:
        if not row.hidden:
            self.println(" " + " ".join(self.columns(row)))

    def is_done(self, row: Row) -> bool:
        if row.failed or self.done:
            return True
        return not steps.is_root(row.step) and row.step["op"] in row.finished

    def columns(self, row: Row) -> list[str]:
        """Sign, type, name, status, info."""
        step, done = row.step, self.is_done(row)
        op = str(step["op"])
        failed = row.failed or row.count("error") > 0
        running = steps.is_root(step) and op == "same" and not done
        # A stack of which nothing has been heard yet has no status.
        status = "running" if running and row.started else steps.words(
            op, self.style.preview, done, failed and done)  # fmt: skip
        if running and not row.started:
            status = ""
        if done and not failed and not self.style.preview and self._interrupted(row):
            status = steps.words(op, False, False, False) + " (interrupted)"
        elif row.started and op != "same" and not self.style.preview and status:
            end = row.ended if done else time.monotonic()
            if end is not None and not (done and row.failed):
                seconds = end - row.started
                fine = f"{seconds:.2f}s" if done and seconds < 1 else f"{int(seconds)}s"
                bare = status.removesuffix("**")
                status = f"{bare} ({fine}){status[len(bare) :]}"
        return [steps.sign(op), *self.label(row), status + steps.retain(step), self._info(row)]

    def label(self, row: Row) -> tuple[str, str]:
        """The resource's own type, without its parents', and its name."""
        urn = row.step["urn"] or self._default_urn
        return steps.type_name(urn.split("::")[2].rsplit("$", 1)[-1]), urn_name(urn)

    def _interrupted(self, row: Row) -> bool:
        step = row.step
        state = steps.state(step)
        if not self.done or not state.get("custom"):
            return False
        return step["op"] not in ("same", "remove-pending-replace") and (
            step["op"] not in row.finished
        )

    def _info(self, row: Row) -> str:
        step = row.step
        if step["op"] in ("create-replacement", "delete-replaced"):
            step = row.finished.get("replace", step)
        pieces = [f"[{found}]"] if (found := short_diff(step)) else []
        if self.done:
            for word, severities in (("error", ["error"]), ("warning", ["warning"]),
                                     ("message", ["info", "info#err"]),
                                     ("debug", ["debug"])):  # fmt: skip
                if count := row.count(*severities):
                    pieces.append(f"{count} {word}{'s' if count > 1 else ''}")
        elif row.last:
            pieces.append(row.last)
        return "; ".join(pieces).partition("\n")[0]

    def close(self) -> None:
        """Everything after the last event: rows still open, diagnostics, outputs, summary."""
        open_rows = [row for row in self.rows.values() if not self.is_done(row)]
        self.done = True
        for row in open_rows:
            self.updated(row)
        self._diagnostics()
        if self.style.outputs and self.stack_urn:
            step = self.rows[self.stack_urn].step
            printer = Printer(self.style, 1, step["op"])
            if text := outputs(step, printer):
                self.println("Outputs:")
                self.println(text)
        if self.closing:
            errored = sum(row.count("error") > 0 for row in self.rows.values())
            self.println(steps.summary(self.closing, errored))
            self.println()

    def _diagnostics(self) -> None:
        written = False
        for row in self.rows.values():
            # What the program itself printed comes as a stream of its own.
            streams: dict[str, list[str]] = {}
            for diagnostic in row.diagnostics:
                printed = diagnostic["message"].endswith("\n\n") and not diagnostic.get("prefix")
                text = (diagnostic.get("prefix", "") + diagnostic["message"]).rstrip()
                key = diagnostic["severity"] if printed else ""
                streams.setdefault(key, []).extend(text.split("\n"))
            for number, lines in enumerate(streams.values()):
                if not written:
                    self.println("Diagnostics:")
                    written = True
                if number == 0:
                    kind, name = self.label(row)
                    self.println(f"  {kind} ({name}):")
                for line in lines:
                    self.println(f"    {line.rstrip()}")
                self.println()


def short_diff(step: Metadata) -> str:
    """``diff: +added-removed~changed``: which properties make the step necessary."""
    old, new = step.get("old"), step.get("new")
    if not old or not new:
        return ""
    changed: dict[str, set[str]] = {"add": set(), "delete": set(), "update": set()}
    if step["op"] != "same":
        if step.get("detailedDiff") is not None:
            found = detailed(step, opened(old.get("outputs")), opened(new.get("inputs")))
        else:
            found = difference(opened(old.get("inputs")), opened(new.get("inputs")))  # type: ignore[assignment]
        for key, (kind, _) in ((found.items if found else None) or {}).items():
            if kind in changed:
                changed[kind].add(key)
    for key in ("provider", "protect"):
        if (old.get(key) or "") != (new.get(key) or ""):
            changed["update"].add(key)
    include = step.get("diffs")
    text = ""
    for kind, mark in (("add", "+"), ("delete", "-"), ("update", "~")):
        keys = sorted(k for k in changed[kind] if not include or k in include)
        text += mark + ",".join(keys) if keys else ""
    return f"diff: {text}" if text or any(changed.values()) else ""
