"""Takes steps: does what each says to the world and to its resource, reports and records it.

Order of events and what ends up in the state follow Pulumi's pkg/resource/deploy
(step_executor.go, step.go).
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import Counter
from collections.abc import Awaitable, Mapping, Set
from typing import TypeVar

from engine.api import Request
from engine.errors import refuse
from engine.plan import Step
from engine.providers import Context, Provider, ProviderError
from engine.record import Record
from engine.reports import Reports
from engine.state import UNKNOWN, Resource, Secret, now

T = TypeVar("T")
ABANDON = 6
"""Seconds that abandoned steps may take to end what they started."""


class Halted(Exception):
    """No further steps are taken; the program is about to be ended."""


class Executor:
    """Takes chains of steps, as many at once as the request allows, until something ends it:
    ``halt`` is set. ``deleted`` are the URNs of what is condemned so far."""

    def __init__(
        self, request: Request, record: Record, reports: Reports,
        providers: Mapping[str, Provider], deleted: Set[str],
    ) -> None:  # fmt: skip
        self._request, self._record, self._reports = request, record, reports
        self._providers, self._deleted = providers, deleted
        self._slots = asyncio.Semaphore(request.parallel)
        self._tasks: set[asyncio.Task[None]] = set()
        self.halt = asyncio.Event()
        self.news: dict[str, Step] = {}  # by URN: what the program's resources have come to
        self.changes: Counter[str] = Counter()
        self.erred: list[Step] = []
        self.maybe_corrupt = False
        self.bailed = False  # it ends for an error that is no step's, and has been told
        self.error: Exception | None = None

    def fail_with(self, error: Exception) -> None:
        """Stop for an error that is no step's."""
        if self.error is None:
            self.error = error
            self._reports.diagnose("error", str(error) or type(error).__name__)
        self.bail()

    def bail(self) -> None:
        """Stop: why has been told."""
        self.bailed = True
        self.halt.set()

    async def abandon(self) -> None:
        """Leave the steps under way; they stay in the record as begun. Returns when what they
        started has been ended, but does not wait for one that cannot be."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=ABANDON)

    async def idle(self) -> None:
        """Return when no step is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def run(self, steps: list[Step]) -> None:
        """Take a chain of steps to its end even when the caller goes away. Raises Halted."""
        task = asyncio.create_task(self._chain(steps))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.cancelled():
                raise
            raise Halted from None

    async def _chain(self, steps: list[Step]) -> None:
        cheap = all(s.op == "same" for s in steps)
        async with contextlib.nullcontext() if cheap else self._slots:
            for step in steps:
                if self.halt.is_set():
                    raise Halted
                try:
                    await self.take(step)
                except OSError as error:  # the journal cannot be written
                    self.fail_with(error)
                    raise Halted from None
                if step.failed:
                    if not self._request.continue_on_error:
                        self.halt.set()
                        raise Halted
                    return

    async def take(self, step: Step) -> None:
        """One step from its first event to its last. Raises OSError when it cannot be recorded."""
        self._reports.step("resourcePreEvent", step)
        await self._record.begin(step)
        try:
            await self._apply(step)
        except ProviderError as error:
            self._failed(step, str(error))
        else:
            self._succeeded(step)
        await self._record.finish(step)

    def _succeeded(self, step: Step) -> None:
        new = step.new
        if new is not None and step.op != "replace":
            _mark_secrets(new)
        if new is not None and step.logical:
            self.news[new.urn] = step
        if step.logical and not step.internal:
            self.changes[step.op] += 1
        if self._request.dry_run or step.resource.custom or step.op == "delete":
            self._reports.step("resOutputsEvent", step)

    def _failed(self, step: Step, message: str) -> None:
        step.failed = True
        self.erred.append(step)
        r = step.resource
        if self._request.dry_run:
            self._reports.diagnose("error", f"Preview failed: {message}", r.urn)
            return
        unchanged = step.op.startswith("create") or (step.op == "delete" and r.protect)
        self.maybe_corrupt = self.maybe_corrupt or not unchanged
        self._reports.diagnose("error", message, r.urn)
        self._reports.failure(step, 0 if unchanged else 2, self.changes.total())

    async def _apply(self, step: Step) -> None:
        """Do what the step says to the world and to its new state. Raises ProviderError."""
        old, new = step.old, step.new
        if step.op == "same" and new is not None and old is not None:
            new.id, new.outputs = old.id, old.outputs
        elif step.op.startswith("create") and new is not None:
            await self._create(new)
            if step.pending_delete and old is not None:
                old.delete = True
        elif step.op == "update" and new is not None and old is not None:
            await self._update(old, new)
        elif step.op in ("delete", "delete-replaced") and old is not None:
            await self._delete(old, replaced=step.op == "delete-replaced")

    async def _create(self, new: Resource) -> None:
        if new.is_provider:
            new.id = UNKNOWN if self._request.dry_run else str(uuid.uuid4())
            new.outputs = {k: v for k, v in new.inputs.items() if k != "__internal"}
        elif new.custom:
            provider, context = self._provider(new), self._context(new)
            if self._request.dry_run:
                new.id, new.outputs = provider.preview(context, new.inputs, None)
            else:
                work = provider.create(context, new.inputs)
                new.id, new.outputs = await _timed(work, new, "create")
        new.created = new.modified = now()

    async def _update(self, old: Resource, new: Resource) -> None:
        new.id, new.created, new.modified = old.id, old.created, old.modified
        if new.is_provider:
            new.outputs = old.outputs
        elif new.custom:
            provider, context = self._provider(new), self._context(new)
            if self._request.dry_run:
                _, new.outputs = provider.preview(context, new.inputs, old.outputs)
            else:
                work = provider.update(context, new.inputs, old.outputs)
                new.outputs = await _timed(work, new, "update")
        if not self._request.dry_run:
            new.modified = now()

    async def _delete(self, old: Resource, replaced: bool) -> None:
        if old.protect and not replaced:
            raise ProviderError(
                f'resource "{old.urn}" cannot be deleted\nbecause it is protected. To unprotect '
                "the resource, either remove the `protect` flag from the resource in your Pulumi "
                "program and run `pulumi up`, or use the command:\n"
                f"`pulumi state unprotect '{old.urn}'`"
            )
        kept = self._request.dry_run or old.external or old.retain_on_delete
        if kept or old.deleted_with in self._deleted or old.is_provider or not old.custom:
            return
        if old.package not in self._providers:
            raise ProviderError(str(refuse(old.type)))
        await _timed(self._provider(old).delete(self._context(old), old.outputs), old, "delete")

    def _provider(self, r: Resource) -> Provider:
        return self._providers[r.package]

    def _context(self, r: Resource) -> Context:
        main = self._request.project.root / self._request.project.main
        folder = main if main.is_dir() else main.parent

        def log(line: str) -> None:
            self._reports.diagnose("info", line, r.urn, ephemeral=True)

        return Context(r.urn, r.type, folder, log)


async def _timed(work: Awaitable[T], r: Resource, operation: str) -> T:
    seconds = (r.custom_timeouts or {}).get(operation)
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        raise ProviderError(
            f"{r.name}: not done within its customTimeouts.{operation} of {seconds:g} s"
        ) from None


def _mark_secrets(new: Resource) -> None:
    """Outputs that were declared secret, or that carry a secret input's name, are secret."""
    outputs = dict(new.outputs)
    for key, value in outputs.items():
        named = key in new.additional_secret_outputs
        if not isinstance(value, Secret) and (named or isinstance(new.inputs.get(key), Secret)):
            outputs[key] = Secret(value)
    new.outputs = outputs
