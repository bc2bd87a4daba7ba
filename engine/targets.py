"""`--target` and `--replace`: which resources an operation is about, and what becomes of others."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from engine.goal import Goal
from engine.order import depending_on
from engine.plan import Bail, Plan, Step, reference
from engine.state import STACK_TYPE, Resource


class Targets:
    """URNs and patterns of them: `*` stands for anything within a part of a URN, `**` across
    parts. Without any, everything matches."""

    def __init__(self, patterns: Iterable[str]) -> None:
        given = list(patterns)
        self._literals = dict.fromkeys(p for p in given if "*" not in p)
        globs = [_expression(p) for p in given if "*" in p]
        self._globs = re.compile("|".join(globs)) if globs else None

    def __bool__(self) -> bool:
        return bool(self._literals or self._globs)

    def match(self, urn: str) -> bool:
        patterned = self._globs is not None and self._globs.fullmatch(urn) is not None
        return not self or urn in self._literals or patterned

    def add(self, urn: str) -> None:
        """One more, if there are any."""
        if self:
            self._literals[urn] = None

    def missing(self, known: Collection[str]) -> list[str]:
        """Targets without a star that are none of these URNs."""
        return [urn for urn in self._literals if urn not in known]


def _expression(pattern: str) -> str:
    parts = re.split(r"(\*\*|\*)", pattern)
    return "".join({"**": ".*", "*": "[^:]*"}.get(p, re.escape(p)) for p in parts)


class Scope:
    """What an operation is about. Resources are asked about in order: what others depend on, and
    --target-dependents goes on from, comes before them."""

    def __init__(self, plan: Plan) -> None:
        self._plan, request = plan, plan.request
        self._targets, self._replaced = Targets(request.targets), Targets(request.replace)
        self._reached = Targets(request.targets)  # with what depends on them
        self._running: set[str] = set()  # the old references of providers that stay
        self._skipped_creates: set[str] = set()

    def covers(self, new: Resource) -> bool:
        if not self._targets or new.type == STACK_TYPE or new.is_provider:
            return True
        return self._reaches(new)

    def _reaches(self, r: Resource) -> bool:
        """Whether the targets name it, or with --target-dependents what it depends on."""
        if not self._targets or self._targets.match(r.urn):
            return True
        dependencies = r.all_dependencies() if self._plan.request.target_dependents else ()
        return any(map(self._reached.match, dependencies))

    def reach(self, r: Resource) -> bool:
        """The same, and then what depends on it is reached, too."""
        if found := self._reaches(r):
            self._reached.add(r.urn)
        return found

    def refreshes(self, r: Resource) -> bool:
        if found := self.reach(r):
            self._running.add(r.provider)
        return found

    def replaces(self, urn: str) -> bool:
        return bool(self._replaced) and self._replaced.match(urn)

    def stays(self, provider: Resource) -> None:
        """A provider that goes on as it was: what is out of target may need it."""
        self._running.add(reference(provider))

    def skip(self, goal: Goal, new: Resource) -> Step:
        """Out of target, and not there yet."""
        self._plan.operated.add(new.urn)
        self._skipped_creates.add(new.urn)
        return Step("same", new.copy(), new, goal, skipped_create=True)

    def keep(self, goal: Goal, urn: str, old: Resource) -> list[Step]:
        """The old state is kept, its URN included, and so is all that it depends on, which the
        program may not have any more."""
        steps: list[Step] = []
        if old.provider and old.provider not in self._running:
            if old.provider not in map(reference, self._plan.base):
                self._plan.bail(f"could not find provider {old.provider} in old state", urn)
            self._plan.bail(
                f"provider {old.provider} for resource {urn} has not been registered yet, this is "
                "due to a change of providers mixed with --target. Change your program back to the "
                "original providers",
                urn,
            )

        def keep(r: Resource, goal: Goal | None) -> None:
            self._plan.seen.add(r.urn)
            self._plan.operated |= {urn, r.urn}
            done = self._plan.seen | self._plan.aliased.keys() | self._plan.deletes
            for needed in sorted(r.all_dependencies() - done - {r.provider_urn}):
                if needed not in self._plan.olds:
                    wrong = f"{needed} of untargeted resource {urn} has no old state"
                    self._plan.bail(
                        f"{'parent' if needed == r.parent else 'dependency'} {wrong}", urn
                    )
                if needed not in self._plan.seen:
                    keep(self._plan.olds[needed], None)
            steps.append(Step("same", r, r.copy(id=""), goal))

        keep(old, goal)
        return steps

    def validated(self, steps: list[Step]) -> list[Step]:
        """Refuse a step that needs what --target keeps from being created."""
        for step in steps if self._targets or self._replaced else []:
            missing = step.new.all_dependencies() & self._skipped_creates if step.new else ()
            for urn in sorted(missing):
                message = f"Resource '{step.resource.urn}' depends on '{urn}' which was was not "
                self._plan.error(message + "specified in --target list.", step.resource.urn)
                self._skipped_creates.discard(urn)
        return steps

    def check(self, replaced: bool = False) -> bool:
        """Report targets (with ``replaced`` those of --replace) that are nowhere; whether there are
        none."""
        targets = self._replaced if replaced else self._targets
        missing = targets.missing(self._plan.seen | {r.urn for r in self._plan.base})
        for target in missing:
            hint = "" if "$" in target else " Did you forget to escape $ in your shell?"
            self._plan.diagnose(
                "error", f"Target '{target}' could not be found in the stack.{hint}", ""
            )
        return not missing

    def deletable(self) -> set[str]:
        base = self._plan.base
        targets = {r.urn for r in base if self._targets.match(r.urn)}
        return targets.union(r.urn for r in depending_on(base, targets, children=True))

    def refuse_untargeted(self, condemned: list[Resource]) -> None:
        for r in [] if self._plan.request.target_dependents else condemned:
            if not self._targets.match(r.urn):
                self._plan.diagnose(
                    "error",
                    f"Resource '{r.urn}' will be destroyed but was not specified in --target list."
                    "\nEither include resource in --target list or pass --target-dependents to "
                    "proceed.",
                    r.urn,
                )
                self._plan.saw_error = True
        if self._targets and self._plan.saw_error and not self._plan.request.dry_run:
            raise Bail("delete untargeted resource")
