"""One operation from its first event to its last: the program's update, a refresh, a destroy.

The order of events follows Pulumi's pkg/engine/update.go.
"""

from __future__ import annotations

import asyncio
import math
import time

from engine.api import Cancel, Emit, Event, Request, Result
from engine.deployment import Deployment
from engine.errors import CommandError
from engine.filter import MASK
from engine.journal import Journal
from engine.monitor import Monitor
from engine.plan import Step
from engine.program import SHOWN, Program
from engine.record import Record
from engine.reports import Reports, of_pending
from engine.state import Snapshot

SHUTDOWN = 60
"""Seconds that a program may take to end after all its resources are done."""


async def run(
    request: Request, snapshot: Snapshot, emit: Emit, journal: Journal | None = None,
    cancel: Cancel | None = None,
) -> Result:  # fmt: skip
    """Run one preview, update, refresh or destroy; ``journal`` is None for a dry run only. The
    snapshot given is not changed. Emits every event from preludeEvent to summaryEvent.

    Raises EngineError when it cannot begin (nothing has been done then). A failing program or step
    is no exception but ``Result.result == "failed"``, its diagnostics already emitted.
    """
    started = time.monotonic()
    request.filter.add(request.config[key] for key in request.secret_keys)
    reports, record = Reports(emit, request), Record(snapshot, journal)
    for resource in [*record.base, *(o.resource for o in snapshot.pending)]:
        request.filter.learn([resource.inputs, resource.outputs])
    deployment = Deployment(request, record, reports)
    shown = {k: MASK if k in request.secret_keys else v for k, v in request.config.items()}
    emit({"preludeEvent": {"config": request.filter.value(shown)}})
    refreshing = request.refresh or request.operation == "refresh"
    if snapshot.pending and not request.dry_run and not refreshing:
        reports.diagnose("warning", of_pending(snapshot.pending))
    cancel, executor = cancel or Cancel(), deployment.executor
    watch = asyncio.create_task(_watch(cancel, deployment))
    try:
        if not _begun(deployment, refreshing):
            deployment.missing_targets = True
            executor.bail()
        elif request.operation == "destroy":
            await deployment.settle(deployment.delete_rest())
        elif request.operation == "update":
            await _run_program(deployment)
    finally:
        watch.cancel()
        await deployment.close()
    canceled = cancel.graceful.is_set()
    if (deployment.failed or canceled) and not executor.bailed:
        word = "preview" if request.dry_run else "update"
        reports.diagnose("error", f"{word} {'failed' if deployment.failed else 'canceled'}")
    result = deployment.result(canceled)
    emit({"summaryEvent": {
        "maybeCorrupt": executor.maybe_corrupt,
        "durationSeconds": math.ceil(time.monotonic() - started),
        "resourceChanges": dict(sorted(result.changes.items())),
        "PolicyPacks": {}, "isPreview": request.dry_run, "result": result.result,
    }})  # fmt: skip
    emit({"cancelEvent": {}})
    if executor.error and not isinstance(executor.error, (CommandError, OSError, ValueError)):
        raise executor.error
    return result


async def _watch(cancel: Cancel, deployment: Deployment) -> None:
    await cancel.graceful.wait()
    deployment.executor.halt.set()
    await cancel.hard.wait()
    await deployment.executor.abandon()


def _begun(deployment: Deployment, refreshing: bool) -> bool:
    """Refresh if that is wanted; False where targets are missing.

    pulumi-command and pulumi-random read nothing back: every resource is as it was. Before another
    operation (--refresh) it counts for nothing."""
    alone, base = deployment.request.operation == "refresh", deployment.record.base
    if refreshing and base and not deployment.scope.check():
        return False
    for r in base if refreshing else []:
        r.property_dependencies = {k: v for k, v in r.property_dependencies.items() if v}
        if deployment.scope.refreshes(r):
            step = Step("refresh", r, r, logical=False)
            deployment.reports.step("resourcePreEvent", step)
            others: Event = {"op": "same"} if alone else {}
            others["detailedDiff"] = None if r.is_provider or not r.custom else {}
            deployment.reports.step("resOutputsEvent", step, **others)
            if alone and not step.internal:
                deployment.executor.changes["same"] += 1
    return deployment.scope.check(replaced=True)


async def _run_program(deployment: Deployment) -> None:
    """Serve the program until it has ended, and delete what it no longer registers."""
    executor, reports = deployment.executor, deployment.reports

    def said(text: str, is_stderr: bool) -> None:
        if text.strip():
            reports.diagnose("info#err" if is_stderr else "info", text)

    def ended_with(code: int) -> None:
        executor.bailed = executor.bailed or code != 0
        if code not in (0, SHOWN):
            message = f"program exited with non-zero exit code: {code}"
            if code < 0:
                message = f"program exited unexpectedly: signal {-code}"
            reports.diagnose("error", f"an unhandled error occurred: {message}")

    monitor, program, halt = Monitor(deployment), Program(said), executor.halt
    try:
        await program.start(deployment.request, await monitor.start())
        ended = asyncio.create_task(program.wait())
        events = [asyncio.create_task(e.wait()) for e in (deployment.done, halt)]
        await asyncio.wait([ended, *events], return_when=asyncio.FIRST_COMPLETED)
        if ended.done() and not deployment.done.is_set() and not halt.is_set():
            ended_with(ended.result())
        if not halt.is_set():
            await executor.idle()
        if not halt.is_set() and not executor.bailed:
            deployment.missing_targets = not deployment.scope.check()
            await deployment.settle(deployment.delete_rest())
            executor.bailed = executor.bailed or deployment.missing_targets  # that has been told
        await executor.idle()
        deployment.finish_stack_outputs()
        deployment.over.set()
        if not halt.is_set() and not ended.done():
            await asyncio.wait([ended], timeout=SHUTDOWN)
            if not ended.done():
                reports.diagnose("error", f"the program did not end within {SHUTDOWN} s")
                executor.bailed = True
            elif ended.result():
                ended_with(ended.result())
        for task in (ended, *events):
            task.cancel()
    finally:
        stopping = asyncio.create_task(program.stop())
        await asyncio.sleep(0)
        await monitor.stop()
        await stopping
