"""Brings resources to what the program registers, and deletes what it no longer does.

What is told to the program follows Pulumi's pkg/resource/deploy (deployment_executor.go).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from dataclasses import dataclass
from importlib.metadata import version as installed

from engine.api import Ending, Request, Result
from engine.errors import EngineError, Unsupported, refuse
from engine.executor import Executor, Halted
from engine.goal import Goal
from engine.order import in_order
from engine.plan import Bail, Plan, Step
from engine.planner import Planner
from engine.providers import known_providers
from engine.record import Record
from engine.reports import Reports
from engine.state import PROVIDER_PREFIX, STACK_TYPE, Properties, Resource
from engine.targets import Scope

SUCCESS, FAIL, SKIP = 0, 1, 2


@dataclass
class Registered:
    """What the program is told. ``result`` is SUCCESS, FAIL or SKIP."""

    resource: Resource
    result: int = SUCCESS
    unknown: bool = False


class Deployment:
    def __init__(self, request: Request, record: Record, reports: Reports) -> None:
        self.request, self.record, self.reports = request, record, reports
        self._providers = known_providers()
        base = in_order(record.base)
        self.plan = Plan(request, base, self._providers, reports.diagnose)
        self.scope = Scope(self.plan)
        self._planner = Planner(self.plan, self.scope)
        self.executor = Executor(request, record, reports, self._providers, self.plan.deletes)
        self._default_providers: dict[str, asyncio.Task[str]] = {}
        self._goals: dict[str, Goal] = {}
        self._stack_outputs: tuple[str, Properties] | None = None
        self._skipped: set[str] = set()
        self.done = asyncio.Event()  # the program has registered everything
        self.over = asyncio.Event()  # the program may end
        self.missing_targets = False

    @property
    def failed(self) -> bool:
        return bool(self.executor.erred) or self.missing_targets or self.plan.saw_error

    @property
    def ending(self) -> bool:
        """Whether the program is being ended: what it says about that is noise."""
        return self.over.is_set() and (self.executor.halt.is_set() or self.executor.bailed)

    async def close(self) -> None:
        await self.executor.abandon()
        for provider in self._providers.values():
            await provider.close()

    async def register(self, goal: Goal) -> Registered:
        """Bring a resource to its goal. Raises Halted when the deployment stops before it, at the
        end of the deployment: the program learns it by being ended."""
        try:
            return await self._register(goal)
        except Halted:
            await self.over.wait()
            raise

    async def _register(self, goal: Goal) -> Registered:
        if goal.parent in self._goals:
            goal.inherit(self._goals[goal.parent])
        if goal.type.startswith(PROVIDER_PREFIX):
            package = goal.type.removeprefix(PROVIDER_PREFIX)
            goal.inputs = {**self._provider_inputs(package, goal.version), **goal.inputs}
        elif goal.custom and not goal.provider:
            goal.provider = await self._default_provider(goal)
        if self.executor.halt.is_set():
            raise Halted
        try:
            steps = self._planner.plan(goal)
        except Bail:
            self.executor.bail()
            raise Halted from None
        new = next(s.new for s in steps if s.new and s.goal)
        self._goals[new.urn] = goal
        skipped = self._skipped | {s.resource.urn for s in self.executor.erred}
        if skipped and new.all_dependencies() & skipped:
            self._skipped.add(new.urn)
            return Registered(new, SKIP)
        await self.executor.run(steps)
        if any(s.failed for s in steps):
            return Registered(new, FAIL)
        return Registered(new, SUCCESS, unknown=steps[-1].skipped_create)

    def _provider_inputs(self, package: str, version: str) -> Properties:
        if package not in self._providers:
            raise refuse(f"the provider {package}")
        built_in = installed(f"pulumi-{package}")
        if version not in ("", built_in):
            raise refuse(f"version {version} of the provider {package} ({built_in} is built in)")
        inputs = self._providers[package].configuration()
        return {"__internal": {}, **inputs} | ({"version": version} if version else {})

    async def _default_provider(self, goal: Goal) -> str:
        package = goal.type.split(":")[0]
        known = self._providers.get(package)
        if known is None or goal.type not in known.types:
            raise refuse(f"the resource type {goal.type}")
        key = f"{package}@{goal.version}"
        if key not in self._default_providers:
            name = f"default_{goal.version}".replace(".", "_").replace("-", "_").rstrip("_")
            provider = Goal(f"{PROVIDER_PREFIX}{package}", name, True, {}, version=goal.version)

            async def make() -> str:
                made = (await self.register(provider)).resource
                return f"{made.urn}::{made.id}"

            self._default_providers[key] = asyncio.create_task(make())
        return await asyncio.shield(self._default_providers[key])

    async def register_outputs(self, urn: str, outputs: Properties) -> None:
        step = self.executor.news.get(urn)
        if step is None:
            raise EngineError(
                f"cannot complete a resource '{urn}' whose registration isn't pending"
            )
        if step.resource.type == STACK_TYPE:
            self._stack_outputs = (urn, outputs)
        elif not step.skipped_create:
            self._complete(step, outputs)
            await self.record.sync()

    def _complete(self, step: Step, outputs: Properties) -> None:
        self.record.complete(step, outputs)
        self.reports.step("resOutputsEvent", step)

    def known(self, urn: str) -> Resource | None:
        """A resource of this run."""
        done = self.executor.news.get(urn)
        return done.resource if done else None

    async def settle(self, work: Awaitable[None]) -> None:
        """Wait for the work; what stops it has been told already."""
        try:
            await work
        except Halted:
            pass
        except Bail:
            self.executor.bailed = True
        except (EngineError, Unsupported, OSError) as error:
            self.executor.fail_with(error)

    async def delete_rest(self) -> None:
        """What is left over, dependents first; a group begins when the one before has ended.
        Raises Halted, Bail or OSError."""
        same, groups = self._planner.deletions()
        for step in same:
            await self.executor.run([step])
        for group in groups:
            if self.executor.halt.is_set():
                raise Halted
            failed = [step.resource.urn for step in self.executor.erred]
            needed = self._planner.needed_by(failed)
            going = (self._delete(s) for s in group if s.resource.urn not in needed)
            await asyncio.gather(*going)

    async def _delete(self, step: Step) -> None:
        if step.resource.protect and step.op == "delete":  # reported, and others go on
            await self.executor.take(step)
        else:
            with contextlib.suppress(Halted):
                await self.executor.run([step])

    def finish_stack_outputs(self) -> None:
        """After a failure an output not given may only not have been reached: it stays."""
        if self._stack_outputs is None:
            return
        urn, outputs = self._stack_outputs
        step = self.executor.news[urn]
        if self.failed or self.executor.bailed:
            outputs = {**(step.old.outputs if step.old else {}), **outputs}
        self._complete(step, outputs)

    def result(self, canceled: bool) -> Result:
        request, executor = self.request, self.executor
        failed = self.failed or executor.bailed
        word: Ending = "failed" if failed else "canceled" if canceled else "succeeded"
        forget = request.operation == "refresh" and request.clear_pending_creates
        refused = str(executor.error) if isinstance(executor.error, Unsupported) else ""
        snapshot = self.record.snapshot(forget_creates=forget)
        return Result(snapshot, dict(executor.changes), word, request.filter.text(refused))
