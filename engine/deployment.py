"""Runs one operation: the program, the steps its registrations call for, the deletions after it.

Order of events, what is told to the program and what ends up in the state follow Pulumi's
pkg/resource/deploy (deployment_executor.go, step_executor.go, step.go) and pkg/engine/update.go.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import os
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.api import Cancel, Emit, EngineError, Options, Project, Result, Unsupported
from engine.goal import PROVIDER_PREFIX, STACK_TYPE, Goal
from engine.journal import Entry, Journal, fold
from engine.monitor import Halted, Monitor
from engine.planner import Bail, Planner, Step, in_order
from engine.program import SHOWN, Program
from engine.providers import Context, ProviderError, known_providers
from engine.reports import is_internal, metadata, of_pending
from engine.state import (
    UNKNOWN,
    Operation,
    Properties,
    Resource,
    Secret,
    Snapshot,
    now,
)

SUCCESS, FAIL, SKIP = 0, 1, 2
PENDING = {"create": "creating", "create-replacement": "creating", "update": "updating",
           "delete": "deleting", "delete-replaced": "deleting"}  # fmt: skip
SHUTDOWN = 60
"""Seconds that a program may take to end after all its resources are done."""


@dataclass
class Registered:
    """What the program is told. ``result`` is SUCCESS, FAIL or SKIP."""

    resource: Resource
    result: int = SUCCESS
    unknown: bool = False


class Deployment:
    def __init__(
        self,
        project: Project,
        stack: str,
        config: Mapping[str, str],
        secret_keys: frozenset[str],
        snapshot: Snapshot,
        options: Options,
        emit: Emit,
        journal: Journal | None,
        cancel: Cancel,
    ) -> None:
        self.project, self.stack, self.options = project, stack, options
        self.config, self.secret_keys = config, secret_keys
        self.parallel = options.parallel or 4 * (os.cpu_count() or 1)
        self._emit, self._journal, self._cancel = emit, journal, cancel
        self._snapshot = snapshot
        self._base = [r.copy() for r in snapshot.resources]
        self._index = {id(r): i for i, r in enumerate(self._base)}
        self._entries: list[Entry[Resource]] = []
        self._numbers = itertools.count()
        self._step_number: dict[int, int] = {}
        self._providers = known_providers()
        self._planner = Planner(
            stack, project.name, options, in_order(self._base), self._providers, self.diagnose
        )
        self._slots = asyncio.Semaphore(self.parallel)
        self._tasks: set[asyncio.Task[None]] = set()
        self._default_providers: dict[str, asyncio.Task[str]] = {}
        self._goals: dict[str, Goal] = {}
        self._news: dict[str, Step] = {}  # by URN: what register_outputs completes
        self._stack_outputs: tuple[str, Properties] | None = None
        self._changes: Counter[str] = Counter()
        self._erred: list[Step] = []
        self._skipped: set[str] = set()
        self._halt = asyncio.Event()
        self._done = asyncio.Event()  # the program has registered everything
        self._over = asyncio.Event()  # the program may end
        self._failed = self._bailed = self._canceled = self._maybe_corrupt = False
        self._error: Exception | None = None

    async def run(self) -> Result:
        """See engine.api.run."""
        started = time.monotonic()
        shown = {k: "[secret]" if k in self.secret_keys else v for k, v in self.config.items()}
        self._emit({"preludeEvent": {"config": shown}})
        refresh = self.options.operation == "refresh"
        if self._snapshot.pending and not self.options.dry_run and not refresh:
            self.diagnose("warning", of_pending(self._snapshot.pending))
        watch = asyncio.create_task(self._watch_cancel())
        try:
            if refresh:
                await self._refresh()
            elif self.options.operation == "destroy":
                await self._settle(self._delete_rest())
            else:
                await self._run_program()
        finally:
            watch.cancel()
            for task in self._tasks:
                task.cancel()
            for provider in self._providers.values():
                await provider.close()
        if (self._failed or self._planner.saw_error or self._canceled) and not self._bailed:
            word = "preview" if self.options.dry_run else "update"
            ending = "failed" if self._failed or self._planner.saw_error else "canceled"
            self.diagnose("error", f"{word} {ending}")
        failed = self._failed or self._bailed or self._planner.saw_error
        result = Result(
            self._new_snapshot(),
            dict(self._changes),
            "failed" if failed else "canceled" if self._canceled else "succeeded",
            unsupported=str(self._error) if isinstance(self._error, Unsupported) else "",
        )
        summary = {
            "maybeCorrupt": self._maybe_corrupt,
            "durationSeconds": math.ceil(time.monotonic() - started),
            "resourceChanges": dict(sorted(self._changes.items())),
            "PolicyPacks": {},
            "isPreview": self.options.dry_run,
            "result": result.result,
        }
        self._emit({"summaryEvent": summary})
        self._emit({"cancelEvent": {}})
        if isinstance(self._error, Exception) and not isinstance(
            self._error, (Unsupported, EngineError, OSError, ValueError)
        ):
            raise self._error
        return result

    async def _watch_cancel(self) -> None:
        await self._cancel.graceful.wait()
        self._canceled = True
        self._halt.set()
        await self._cancel.hard.wait()
        for task in self._tasks:
            task.cancel()

    async def _run_program(self) -> None:
        monitor = Monitor(self)
        program = Program(self._program_said)
        try:
            address = await monitor.start()
            arguments = {
                "monitor": address,
                "engine": address,
                "stack": self.stack,
                "dry_run": str(self.options.dry_run).lower(),
                "parallel": str(self.parallel),
                "organization": self.options.organization,
                "debug": str(self.options.debug).lower(),
            }
            await program.start(self.project, self.config, self.secret_keys, arguments)
            ended = asyncio.create_task(program.wait())
            events = [asyncio.create_task(e.wait()) for e in (self._done, self._halt)]
            await asyncio.wait([ended, *events], return_when=asyncio.FIRST_COMPLETED)
            if ended.done() and not self._done.is_set() and not self._halt.is_set():
                self._program_ended(ended.result())
            if not self._halt.is_set():
                await self._settle(self._finish_tasks())
            if not self._halt.is_set() and not self._bailed:
                await self._settle(self._after_program())
            await self._finish_tasks()
            self._finish_stack_outputs()
            self._over.set()
            if not self._halt.is_set() and not ended.done():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.shield(ended), SHUTDOWN)
                if not ended.done():
                    self.diagnose("error", f"the program did not end within {SHUTDOWN} s")
                    self._bailed = True
                elif ended.result():
                    self._program_ended(ended.result())
            for task in (ended, *events):
                task.cancel()
        finally:
            stopping = asyncio.create_task(program.stop())
            await asyncio.sleep(0)
            await monitor.stop()
            await stopping

    async def _after_program(self) -> None:
        found = self._planner.check_targets()
        await self._delete_rest()
        self._failed = self._failed or not found

    async def _settle(self, work: Any) -> None:
        """Wait for the work; what stops it has been told already."""
        try:
            await work
        except Halted:
            pass
        except Bail:
            self._bailed = True
        except (EngineError, Unsupported, OSError) as error:
            self.fail_with(error)

    async def _finish_tasks(self) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _program_said(self, text: str, is_stderr: bool) -> None:
        if text.strip():
            self.diagnose("info#err" if is_stderr else "info", text)

    def _program_ended(self, code: int) -> None:
        self._bailed = self._bailed or code != 0
        if code not in (0, SHOWN):
            message = f"program exited with non-zero exit code: {code}"
            if code < 0:
                message = f"program exited unexpectedly: signal {-code}"
            self.diagnose("error", f"an unhandled error occurred: {message}")

    # What the monitor calls

    @property
    def ending(self) -> bool:
        """Whether the program is being ended: what it says about that is noise."""
        return self._over.is_set() and (self._halt.is_set() or self._bailed)

    async def register(self, goal: Goal) -> Registered:
        """Bring a resource to its goal. Raises Halted when the deployment stops before it, at the
        end of the deployment: the program learns it by being ended."""
        try:
            return await self._register(goal)
        except Halted:
            await self._over.wait()
            raise

    async def _register(self, goal: Goal) -> Registered:
        if goal.parent in self._goals:
            goal.inherit(self._goals[goal.parent])
        if goal.type.startswith(PROVIDER_PREFIX):
            package = goal.type.removeprefix(PROVIDER_PREFIX)
            goal.inputs = {**self._provider_inputs(package, goal.version), **goal.inputs}
        elif goal.custom and not goal.provider:
            goal.provider = await self._default_provider(goal)
        if self._halt.is_set():
            raise Halted
        try:
            steps = self._planner.plan(goal)
        except Bail:
            self._bailed = True
            self._halt.set()
            raise Halted from None
        new = next(s.new for s in steps if s.new and s.goal)
        self._goals[new.urn] = goal
        skipped = self._skipped | {s.resource.urn for s in self._erred}
        if self._erred and new.all_dependencies() & skipped:
            self._skipped.add(new.urn)
            return Registered(new, SKIP)
        await self._in_own_task(steps)
        if any(s.failed for s in steps):
            return Registered(new, FAIL)
        return Registered(new, SUCCESS, unknown=steps[-1].skipped_create)

    async def register_outputs(self, urn: str, outputs: Properties) -> None:
        step = self._news.get(urn)
        if step is None:
            raise EngineError(
                f"cannot complete a resource '{urn}' whose registration isn't pending"
            )
        if step.resource.type == STACK_TYPE:
            self._stack_outputs = (urn, outputs)
        elif not step.skipped_create:
            self._complete(step, outputs)
            if self._journal and not self.options.dry_run:
                await self._journal.sync()

    async def program_is_done(self) -> None:
        self._done.set()
        await self._over.wait()

    def known(self, urn: str) -> Resource:
        """A resource of this run. Raises EngineError."""
        if urn not in self._news:
            raise EngineError(f"unknown resource {urn}")
        return self._news[urn].resource

    def fail_with(self, error: Exception) -> None:
        """Stop the deployment for an error that is no step's."""
        if self._error is None:
            self._error = error
            self.diagnose("error", str(error) or type(error).__name__)
        self._bailed = True
        self._halt.set()

    def diagnose(self, severity: str, message: str, urn: str = "", ephemeral: bool = False) -> None:
        event: dict[str, Any] = {"urn": urn} if urn else {}
        if not severity.startswith("info"):
            event["prefix"] = f"{severity}: "
        event |= {"message": message + "\n", "color": "never", "severity": severity}
        if ephemeral:
            event["ephemeral"] = True
        self._emit({"diagnosticEvent": event})

    # Providers as resources

    def _provider_inputs(self, package: str, version: str) -> Properties:
        if package not in self._providers:
            raise Unsupported(f"the provider {package} is not supported by the embedded engine")
        inputs = self._providers[package].configuration()
        return {"__internal": {}, **inputs} | ({"version": version} if version else {})

    async def _default_provider(self, goal: Goal) -> str:
        package = goal.type.split(":")[0]
        known = self._providers.get(package)
        if known is None or goal.type not in known.types:
            raise Unsupported(
                f"the resource type {goal.type} is not supported by the embedded engine"
            )
        key = f"{package}@{goal.version}"
        if key not in self._default_providers:
            name = f"default_{goal.version}".replace(".", "_").replace("-", "_").rstrip("_")
            provider = Goal(f"{PROVIDER_PREFIX}{package}", name, True, {}, version=goal.version)

            async def make() -> str:
                made = (await self.register(provider)).resource
                return f"{made.urn}::{made.id}"

            self._default_providers[key] = asyncio.create_task(make())
        return await asyncio.shield(self._default_providers[key])

    # Steps

    async def _in_own_task(self, steps: list[Step]) -> None:
        """Run a chain of steps to its end even when the caller goes away. Raises Halted."""
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
                if self._halt.is_set():
                    raise Halted
                try:
                    await self._take(step)
                except OSError as error:  # the journal cannot be written
                    self.fail_with(error)
                    raise Halted from None
                if step.failed:
                    if not self.options.continue_on_error:
                        self._halt.set()
                        raise Halted
                    return

    async def _take(self, step: Step) -> None:
        """One step from its first event to its last."""
        old, new, r = step.old, step.new, step.resource
        number = next(self._numbers)
        self._step_number[id(step)] = number
        self._show("resourcePreEvent", step)
        await self._note(
            Entry(number, PENDING.get(step.op, ""), r.copy() if step.op in PENDING else None)
        )
        try:
            await self._apply(step)
        except ProviderError as error:
            await self._step_failed(step, number, str(error))
            return
        if new is not None and step.op != "replace":
            _mark_secrets(new)
        if step.logical and new is not None:
            self._news[new.urn] = step
        if step.logical and not is_internal(step):
            self._changes[step.op] += 1
        if self.options.dry_run or r.custom or step.op == "delete":
            self._show("resOutputsEvent", step)
        done = Entry(number, finished=True, new=None if step.op == "replace" else new)
        kept: list[Entry[Resource]] = []
        if old is not None and step.op != "replace" and not step.skipped_create:
            index = self._index[id(old)]
            early = step.pending_replacement and not old.delete
            old.pending_replacement = old.pending_replacement or early
            if early or step.pending_delete:
                kept.append(Entry(number, old=index, new=old.copy(), keep=True))
            else:
                done.old = index
        if step.skipped_create:
            done.new = None
        await self._note(done, *kept, lazily=step.op == "same")

    async def _step_failed(self, step: Step, number: int, message: str) -> None:
        step.failed = self._failed = True
        self._erred.append(step)
        urn = step.resource.urn
        if self.options.dry_run:
            self.diagnose("error", f"Preview failed: {message}", urn)
        else:
            # Pulumi's resource.Status: 2 says that what the provider left is not known.
            protected = step.op == "delete" and step.resource.protect
            status = 0 if step.op.startswith("create") or protected else 2
            self._maybe_corrupt = self._maybe_corrupt or status == 2
            self.diagnose("error", message, urn)
            done = {"status": status, "steps": sum(self._changes.values())}
            self._emit(
                {
                    "resOpFailedEvent": {
                        "metadata": metadata(step, self.options.show_secrets),
                        **done,
                    }
                }
            )
        await self._note(Entry(number, finished=True))

    async def _apply(self, step: Step) -> None:
        """Do what the step says to the world and to its new state. Raises ProviderError."""
        old, new, r = step.old, step.new, step.resource
        dry_run = self.options.dry_run
        if step.op == "same" and new is not None:
            if old is not None:
                new.id, new.outputs = old.id, old.outputs
        elif step.op.startswith("create") and new is not None:
            if new.type.startswith(PROVIDER_PREFIX):
                new.id = UNKNOWN if dry_run else str(uuid.uuid4())
                new.outputs = {k: v for k, v in new.inputs.items() if k != "__internal"}
            elif new.custom:
                provider = self._providers[new.type.split(":")[0]]
                if dry_run:
                    new.id, new.outputs = provider.preview(self._context(new), new.inputs, None)
                else:
                    work = provider.create(self._context(new), new.inputs)
                    new.id, new.outputs = await self._timed(work, new, "create")
            new.created = new.modified = now()
            if step.pending_delete and old is not None:
                old.delete = True
        elif step.op == "update" and new is not None and old is not None:
            new.id, new.created, new.modified = old.id, old.created, old.modified
            if new.custom and not new.type.startswith(PROVIDER_PREFIX):
                provider = self._providers[new.type.split(":")[0]]
                if dry_run:
                    _, new.outputs = provider.preview(self._context(new), new.inputs, old.outputs)
                else:
                    updating = provider.update(self._context(new), new.inputs, old.outputs)
                    new.outputs = await self._timed(updating, new, "update")
            elif new.custom:
                new.outputs = old.outputs
            if not dry_run:
                new.modified = now()
        elif step.op in ("delete", "delete-replaced"):
            await self._delete(step, r)

    async def _delete(self, step: Step, old: Resource) -> None:
        if step.op == "delete" and old.protect:
            raise ProviderError(
                f'resource "{old.urn}" cannot be deleted\nbecause it is protected. To unprotect '
                "the resource, either remove the `protect` flag from the resource in your Pulumi "
                "program and run `pulumi up`, or use the command:\n"
                f"`pulumi state unprotect '{old.urn}'`"
            )
        if self.options.dry_run or old.external or old.retain_on_delete:
            return
        if old.deleted_with in self._planner.deletes:
            return
        if old.custom and not old.type.startswith(PROVIDER_PREFIX):
            package = old.type.split(":")[0]
            if package not in self._providers:
                raise ProviderError(f"{old.type} is not supported by the embedded engine")
            work = self._providers[package].delete(self._context(old), old.outputs)
            await self._timed(work, old, "delete")

    async def _timed(self, work: Any, r: Resource, operation: str) -> Any:
        seconds = (r.custom_timeouts or {}).get(operation)
        try:
            async with asyncio.timeout(seconds):
                return await work
        except TimeoutError:
            raise ProviderError(
                f"{r.name}: not done within its customTimeouts.{operation} of {seconds:g} s"
            ) from None

    def _context(self, r: Resource) -> Context:
        main = self.project.root / self.project.main
        folder = main if main.is_dir() else main.parent

        def log(line: str) -> None:
            self.diagnose("info", line, r.urn, ephemeral=True)

        return Context(r.urn, r.type, folder, log)

    async def _delete_rest(self) -> None:
        """What is left over, dependents first; a group begins when the one before has ended."""
        same, groups = self._planner.deletions()
        for step in same:
            await self._in_own_task([step])
        needed: set[str] = set()
        for group in groups:
            for failed in self._erred:
                needed |= self._dependencies_of(failed.resource)
            going = [s for s in group if s.resource.urn not in needed]
            if self._halt.is_set():
                raise Halted
            await asyncio.gather(*(self._delete_one(s) for s in going))

    async def _delete_one(self, step: Step) -> None:
        if step.resource.protect and step.op == "delete":  # reported, and others go on
            await self._take(step)
        else:
            with contextlib.suppress(Halted):
                await self._in_own_task([step])

    def _dependencies_of(self, r: Resource) -> set[str]:
        found: set[str] = set()
        left = [r.urn]
        while left:
            resource = self._planner.olds.get(left.pop())
            for urn in resource.all_dependencies() - found if resource else ():
                found.add(urn)
                left.append(urn)
        return found

    async def _refresh(self) -> None:
        """pulumi-command and pulumi-random read nothing back: every resource is as it was."""
        for r in self._base:
            if self._planner.matches(r.urn):
                step = Step("refresh", r, r, logical=False)
                self._show("resourcePreEvent", step)
                plain = not r.custom or r.type.startswith(PROVIDER_PREFIX)
                found = metadata(step, self.options.show_secrets) | {
                    "op": "same",
                    "detailedDiff": None if plain else {},
                }
                self._emit({"resOutputsEvent": self._planning({"metadata": found})})
                if not is_internal(step):
                    self._changes["same"] += 1

    # Events

    def _show(self, event: str, step: Step) -> None:
        self._emit({event: self._planning({"metadata": metadata(step, self.options.show_secrets)})})

    def _planning(self, event: dict[str, Any]) -> dict[str, Any]:
        return event | {"planning": True} if self.options.dry_run else event

    # State

    async def _note(self, *entries: Entry[Resource], lazily: bool = False) -> None:
        """Into the journal, and on disk when this returns unless ``lazily``."""
        if self.options.dry_run:
            return
        for entry in entries:
            if entry.pending is None and not entry.finished and not entry.keep:
                continue
            self._entries.append(entry)
            if self._journal:
                self._journal.add(entry)
        if self._journal and not lazily:
            await self._journal.sync()

    def _complete(self, step: Step, outputs: Properties) -> None:
        """Give a component the outputs that the program computed for it."""
        new = step.new
        assert new
        new.outputs = outputs
        self._show("resOutputsEvent", step)
        if not self.options.dry_run:
            entry = Entry(self._step_number[id(step)], finished=True, new=new)
            self._entries.append(entry)
            if self._journal:
                self._journal.add(entry)

    def _finish_stack_outputs(self) -> None:
        """After a failure an output not given may only not have been reached: it stays."""
        if self._stack_outputs is None:
            return
        urn, outputs = self._stack_outputs
        step = self._news[urn]
        if self._failed or self._bailed or self._planner.saw_error:
            outputs = {**(step.old.outputs if step.old else {}), **outputs}
        self._complete(step, outputs)

    def _new_snapshot(self) -> Snapshot:
        resources, pending = fold(self._base, self._entries)
        operations = [Operation(r, operation) for operation, r in pending]
        forget = self.options.operation == "refresh" and self.options.clear_pending_creates
        kept = [o for o in self._snapshot.pending if o.type == "creating" and not forget]
        renamed = {alias: r.urn for r in resources for alias in r.aliases}
        resources = [_with_new_urns(r, renamed) for r in resources] if renamed else resources
        return Snapshot(in_order(resources), operations + kept, dict(self._snapshot.rest))


def _mark_secrets(new: Resource) -> None:
    """Outputs that were declared secret, or that carry a secret input's name, are secret."""
    outputs = dict(new.outputs)
    for key, value in outputs.items():
        named = key in new.additional_secret_outputs
        if not isinstance(value, Secret) and (named or isinstance(new.inputs.get(key), Secret)):
            outputs[key] = Secret(value)
    new.outputs = outputs


def _with_new_urns(r: Resource, renamed: dict[str, str]) -> Resource:
    def fix(urn: str) -> str:
        return renamed.get(urn, urn)

    provider, _, identity = r.provider.rpartition("::")
    return r.copy(
        parent=fix(r.parent),
        dependencies=[fix(u) for u in r.dependencies],
        property_dependencies={
            k: [fix(u) for u in urns] for k, urns in r.property_dependencies.items()
        },
        deleted_with=fix(r.deleted_with),
        provider=f"{fix(provider)}::{identity}" if provider else "",
        aliases=[],
    )
