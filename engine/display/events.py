"""Events for programs: `--event-log`, `--json`. What is written here holds no secret."""

from __future__ import annotations

import json
import queue
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from engine.display import Display, Style, steps
from engine.errors import CommandError
from engine.state import blind


class EventLog:
    """`--event-log`: a file with an event a line, or ``tcp://HOST:PORT`` of the Automation API,
    which takes them by gRPC. Raises CommandError where the file cannot be written."""

    def __init__(self, target: str) -> None:
        self._file: IO[str] | None = None
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        if target.startswith("tcp://"):
            arguments = (target.removeprefix("tcp://"),)
            self._thread = threading.Thread(target=self._stream, args=arguments, daemon=True)
            self._thread.start()
            return
        try:
            self._file = Path(target).open("w", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise CommandError(f"could not create event log {target}: {error.strerror}") from error

    def write(self, line: str) -> None:
        if self._file:
            self._file.write(line + "\n")
            self._file.flush()
        else:
            self._queue.put(line)

    def _stream(self, address: str) -> None:
        import grpc
        from pulumi.runtime.proto import events_pb2, events_pb2_grpc

        def requests() -> Iterator[Any]:
            while (line := self._queue.get()) is not None:
                yield events_pb2.EventRequest(event=line)

        with grpc.insecure_channel(address) as channel:
            try:
                events_pb2_grpc.EventsStub(channel).StreamEvents(requests())
            except grpc.RpcError as error:
                print(f"warning: events could not be sent to {address}: {error}", file=sys.stderr)

    def close(self) -> None:
        if self._file:
            self._file.close()
        elif self._thread:
            self._queue.put(None)
            self._thread.join(10)


class Stamp:
    """Numbers and dates events and gives them as JSON."""

    def __init__(self) -> None:
        self._sequence = 0

    def __call__(self, event: dict[str, Any]) -> str:
        stamped = {"sequence": self._sequence, "timestamp": int(time.time()), **blind(event)}
        self._sequence += 1
        return json.dumps(stamped, ensure_ascii=False, separators=(",", ":"))


class PreviewJsonDisplay(Display):
    """`preview --json`: one document at the end."""

    def __init__(self, style: Style) -> None:
        self._outputs = style.outputs
        self._started = time.monotonic_ns()
        self.digest: dict[str, Any] = {}

    def show(self, event: dict[str, Any]) -> None:
        if steps.default_provider(event):
            return
        if prelude := event.get("preludeEvent"):
            if prelude.get("config"):
                self.digest["config"] = dict(sorted(prelude["config"].items()))
        elif pre := event.get("resourcePreEvent"):
            step = pre["metadata"]
            if steps.is_root(step) or steps.should_show(step, diff=True):
                self.digest.setdefault("steps", []).append(self._step(step))
        elif diagnostic := event.get("diagnosticEvent"):
            if not diagnostic.get("ephemeral") and diagnostic["severity"] != "debug":
                found = {"urn": diagnostic.get("urn"),
                         "message": diagnostic.get("prefix", "") + diagnostic["message"],
                         "severity": diagnostic["severity"]}  # fmt: skip
                kept = {k: v for k, v in found.items() if v is not None}
                self.digest.setdefault("diagnostics", []).append(kept)
        elif closing := event.get("summaryEvent"):
            self.digest["duration"] = time.monotonic_ns() - self._started
            self.digest["changeSummary"] = closing.get("resourceChanges") or {}

    def _step(self, step: steps.Metadata) -> dict[str, Any]:
        found = {"op": step["op"], "urn": step["urn"], "provider": step.get("provider")}
        found |= {"oldState": self._state(step, "old"), "newState": self._state(step, "new")}
        found |= {"diffReasons": step.get("diffs"), "replaceReasons": step.get("keys")}
        detail = step.get("detailedDiff")
        return {k: v for k, v in found.items() if v} | {
            "detailedDiff": detail
            and {k: {"kind": v["diffKind"], "inputDiff": v["inputDiff"]} for k, v in detail.items()}
        }

    def _state(self, step: steps.Metadata, which: str) -> dict[str, Any] | None:
        """All that a checkpoint would have of it, secrets as a word."""
        state = step.get(which)
        if state is None:
            return None
        hidden = () if self._outputs or not steps.is_root(step) else ("inputs", "outputs")
        whole = state.resource.dump(None)
        return {k: blind(v, "[secret]") for k, v in whole.items() if k not in hidden}

    def close(self) -> None:
        print(json.dumps(self.digest, indent=4, ensure_ascii=False))
