"""Decides which steps bring a resource from its old state to its goal, and what is deleted.

The decisions, their order and their messages are those of Pulumi's
pkg/resource/deploy/step_generator.go; it does nothing but decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from engine.api import Request
from engine.errors import refuse
from engine.goal import Goal, former_urns, make_urn
from engine.order import depending_on, in_groups, needed_by
from engine.paths import contains, parse_path
from engine.properties import reset
from engine.providers import Difference, Provider, Refused
from engine.state import STACK_TYPE, UNKNOWN, Properties, Resource, Value, reveal
from engine.targets import Targets

Diagnose = Callable[[str, str, str], None]
"""severity, message, URN"""


_TAKEN_OVER = (
    *("type", "custom", "inputs", "parent", "dependencies", "property_dependencies"),
    *("deleted_with", "ignore_changes", "replace_on_changes", "additional_secret_outputs"),
    "source_position",
)
"""What a resource's state has as its registration says."""


class Bail(Exception):
    """The deployment cannot go on; the diagnostic has been given."""


@dataclass(eq=False)
class Step:
    """One change of one resource. ``old`` and ``new`` are the states before and after; ``goal``
    the registration it answers. ``pending_delete``: the old one is deleted at the end."""

    op: str
    old: Resource | None
    new: Resource | None
    goal: Goal | None = None
    difference: Difference | None = None
    logical: bool = True
    pending_delete: bool = False
    skipped_create: bool = False
    pending_replacement: bool = False
    failed: bool = False
    number: int = 0

    @property
    def resource(self) -> Resource:
        found = self.new or self.old
        assert found
        return found

    @property
    def internal(self) -> bool:
        """Whether it is none of those that an operation counts."""
        r = self.resource
        default = r.is_provider and r.name.startswith("default")
        return default or self.op == "remove-pending-replace"


def reference(provider: Resource) -> str:
    """How resources name their provider."""
    return f"{provider.urn}::{provider.id}"


class Planner:
    def __init__(
        self, request: Request, base: list[Resource], providers: Mapping[str, Provider],
        diagnose: Diagnose,
    ) -> None:  # fmt: skip
        self._request, self._stack, self._project = request, request.stack, request.project.name
        self._base, self._providers, self._diagnose = base, providers, diagnose
        self.olds = {r.urn: r for r in base if not r.delete}
        self.renamed: dict[str, str] = {}  # URN → the URN it was found under
        self._aliased: dict[str, str] = {}  # the same the other way round
        self.seen: set[str] = set()
        self.deletes: set[str] = set()
        self._replaces: set[str] = set()
        self._operated: set[str] = set()
        self._deleted_early: set[int] = set()
        self._dependent_keys: dict[str, list[str]] = {}
        self._skipped_creates: set[str] = set()
        self._targets, self._replaced = Targets(request.targets), Targets(request.replace)
        self._reached = Targets(request.targets)  # with what depends on them
        self._running: set[str] = set()  # the old references of providers that stay
        self.saw_error = False

    def plan(self, goal: Goal) -> list[Step]:
        """The steps, to be taken in this order, for one registration. Raises Bail."""
        urn = make_urn(self._stack, self._project, goal.parent, goal.type, goal.name)
        if urn in self.seen:
            message = f"Duplicate resource URN '{urn}'; try giving it a unique name"
            self._bail(message, urn)
        if goal.parent and goal.parent not in self.seen and goal.parent not in self._aliased:
            self._bail(f"could not find parent resource {goal.parent}", urn)
        self.seen.add(urn)
        old = self._find_old(urn, goal)
        new = self._new_state(urn, goal, old)
        targeted = self._is_targeted(new)
        inputs = goal.inputs
        if old is not None and goal.ignore_changes:
            inputs = self._ignore_changes(urn, goal, old)
        if goal.custom and targeted:
            inputs = self._check(new, inputs if urn not in self.deletes else goal.inputs)
        elif goal.custom:
            inputs = old.inputs if old is not None else {}
        new.inputs = inputs

        if urn in self.deletes and old is not None:  # deleted early, for a dependency's sake
            self.deletes.discard(urn)
            self._replaces.add(urn)
            keys = Difference(True, self._dependent_keys.get(urn, []))
            return self._replacement(goal, old, new, keys, before=True)
        if self._is_reached(new):
            self._reached.add(urn)
        if old is None:
            if not targeted:
                self._operated.add(urn)
                self._skipped_creates.add(urn)
                return [Step("same", new.copy(), new, goal, skipped_create=True)]
            return self._validated([Step("create", None, new, goal)])
        if not targeted:
            return self._validated(self._untargeted(goal, urn, old))
        return self._validated(self._from_difference(goal, old, new))

    def _from_difference(self, goal: Goal, old: Resource, new: Resource) -> list[Step]:
        difference = self._difference(goal, old, new)
        if difference.changes or old.pending_replacement:
            if difference.replaces or old.pending_replacement:
                return self._replace(goal, old, new, difference)
            self._operated.add(old.urn)
            return [Step("update", old, new, goal, difference)]
        self._operated.add(old.urn)
        if new.is_provider:
            self._running.add(reference(old))
        return [Step("update" if old.init_errors else "same", old, new, goal)]

    def _difference(self, goal: Goal, old: Resource, new: Resource) -> Difference:
        if self._is_replaced(new.urn):
            return Difference(True, ["id"])
        if new.deleted_with and new.deleted_with in self._replaces:
            return Difference(True, ["deletedWith"])
        if bool(old.provider) != bool(new.provider):
            return Difference(True, ["provider"])
        if not goal.custom:
            return Difference(old.inputs != new.inputs)
        if new.is_provider:
            return Difference()
        found = self._provider(goal.type).difference(goal.type, old.inputs, new.inputs)
        return self._replace_on_changes(found, goal.replace_on_changes)

    def _replace_on_changes(self, found: Difference, paths: list[str]) -> Difference:
        if not found.changes or not paths:
            return found
        patterns = [parse_path(p) for p in paths]
        detail = dict(found.detail or {})
        for path, kind in detail.items():
            if any(contains(p, parse_path(path)) for p in patterns):
                detail[path] = f"{kind.removesuffix('-replace')}-replace"
        keys = [k for k in found.changed_keys if any(contains(p, (k,)) for p in patterns)]
        found.detail = detail if found.detail is not None else None
        found.replace_keys = list(dict.fromkeys([*found.replace_keys, *keys]))
        return found

    def _replace(
        self, goal: Goal, old: Resource, new: Resource, difference: Difference
    ) -> list[Step]:
        urn = new.urn
        if new.protect and old.protect:
            self._error(
                f'unable to replace resource "{urn}"\nas it is currently marked for protection. '
                "To unprotect the resource, remove the `protect` flag from the resource in your "
                "Pulumi program and run `pulumi up`",
                urn,
            )
        self._replaces.add(urn)
        if goal.custom and not self._is_replaced(urn):
            new.inputs = self._check(new, goal.inputs)
        before = goal.delete_before_replace
        if before is None:
            before = difference.delete_before_replace
        before = before or old.pending_replacement
        return self._replacement(goal, old, new, difference, before, first=True)

    def _replacement(
        self, goal: Goal, old: Resource, new: Resource, difference: Difference, before: bool,
        first: bool = False,
    ) -> list[Step]:  # fmt: skip
        """``before``: the old one goes first; ``first``: nothing has been deleted for it yet."""
        create = Step(
            "create-replacement", old, new, goal, difference, False, pending_delete=not before
        )
        replace = Step("replace", old, new, None, difference)
        self._operated.add(old.urn)
        if not before:
            return [create, replace]
        steps: list[Step] = []
        if first:
            for dependent, keys in reversed(self._dependents_to_replace(old)):
                if id(dependent) in self._deleted_early:
                    continue
                self._dependent_keys[dependent.urn] = keys
                if dependent.protect:
                    self._error(
                        f'unable to replace resource "{dependent.urn}" as part of replacing '
                        f'"{new.urn}" as it is currently marked for protection. To unprotect '
                        "the resource, remove the `protect` flag from the resource in your Pulumi "
                        "program and run `pulumi up`, or use the command:\n"
                        f"`pulumi state unprotect '{dependent.urn}'`",
                        new.urn,
                    )
                steps.append(self._delete_early(dependent))
            if not old.pending_replacement:
                steps.append(self._delete_early(old))
        return [*steps, replace, create]

    def _delete_early(self, old: Resource) -> Step:
        self.deletes.add(old.urn)
        self._deleted_early.add(id(old))
        return Step("delete-replaced", old, None, logical=False, pending_replacement=True)

    def _dependents_to_replace(self, root: Resource) -> list[tuple[Resource, list[str]]]:
        """What must go before the root can: dependents that a change of it would replace."""
        replaced = {root.urn}
        found: list[tuple[Resource, list[str]]] = []
        dependents = depending_on(self._base, {root.urn}, ignore=self._operated - {root.urn})
        for r in dependents:
            keys: list[str] | None = None
            if not r.custom or r.external or r.delete:
                continue
            if r.provider_urn in replaced or r.deleted_with in replaced:
                keys = []
            else:
                unknown = {
                    k for k in r.inputs if replaced & set(r.property_dependencies.get(k, []))
                }
                if unknown and not r.is_provider:
                    assumed = {k: UNKNOWN if k in unknown else v for k, v in r.inputs.items()}
                    d = self._provider(r.type).difference(r.type, r.inputs, assumed)
                    d = self._replace_on_changes(d, r.replace_on_changes)
                    keys = d.replace_keys if d.replaces else None
            if keys is not None:
                replaced.add(r.urn)
                found.append((r, keys))
        return found

    def _find_old(self, urn: str, goal: Goal) -> Resource | None:
        if taken := self._aliased.get(urn):
            self._bail(
                f"Duplicate resource URN '{urn}' conflicting with alias on resource with URN "
                f"'{taken}'",
                urn,
            )
        former = former_urns(goal, self._stack, self._project, self.renamed)
        for candidate in [urn, *former]:
            old = self.olds.get(candidate)
            if old is None:
                continue
            if candidate != urn:
                rival = urn if candidate in self.seen else self._aliased.get(candidate)
                if rival:
                    self._bail(
                        f"Duplicate resource alias '{candidate}' applied to resource with URN "
                        f"'{urn}' conflicting with resource with URN '{rival}'",
                        urn,
                    )
                self._aliased[candidate] = urn
                self.renamed[urn] = candidate
            return old
        return None

    def _new_state(self, urn: str, goal: Goal, old: Resource | None) -> Resource:
        return Resource(
            urn=urn, provider=goal.provider if goal.custom else "", protect=bool(goal.protect),
            retain_on_delete=bool(goal.retain_on_delete),
            custom_timeouts=goal.custom_timeouts or None,
            aliases=[self.renamed[urn]] if urn in self.renamed else [],
            created=old.created if old else "", modified=old.modified if old else "",
            **{name: getattr(goal, name) for name in _TAKEN_OVER},
        )  # fmt: skip

    def _ignore_changes(self, urn: str, goal: Goal, old: Resource) -> Properties:
        inputs: Value = goal.inputs
        not_done = []
        for text in goal.ignore_changes:
            inputs, done = reset(parse_path(text), old.inputs, inputs)
            if not done:
                not_done.append(text)
        if not_done:
            paths = ", ".join(not_done)
            self._diagnose(
                "info",
                f'cannot ignore changes in added or removed elements of the path: "{paths}"',
                urn,
            )
        found: Properties = inputs
        return found

    def _check(self, new: Resource, inputs: Properties) -> Properties:
        if new.is_provider:
            return inputs
        try:
            return self._provider(new.type).check(new.type, inputs)
        except Refused as refused:
            for key, reason in refused.failures:
                shown = (
                    "[secret]" if reveal(inputs.get(key)) != inputs.get(key) else inputs.get(key)
                )
                subject = f"{new.type} resource '{new.name}'"
                message = f"{subject} has a problem: {reason}"
                if key:
                    message = f"{subject}: property {key} value {{{shown}}} has a problem: {reason}"
                self._diagnose("error", message, new.urn)
            raise Bail(f"resource {new.urn} is invalid") from None

    def _provider(self, kind: str) -> Provider:
        provider = self._providers.get(kind.split(":")[0])
        if provider is None or kind not in provider.types:
            raise refuse(f"the resource type {kind}")
        return provider

    def _is_targeted(self, new: Resource) -> bool:
        if not self._targets or new.type == STACK_TYPE or new.is_provider:
            return True
        return self._is_reached(new)

    def _is_reached(self, new: Resource) -> bool:
        """Whether the targets name it, or with --target-dependents what it depends on."""
        if not self._targets or self._targets.match(new.urn):
            return True
        dependencies = new.all_dependencies() if self._request.target_dependents else ()
        return any(map(self._reached.match, dependencies))

    def _is_replaced(self, urn: str) -> bool:
        return bool(self._replaced) and self._replaced.match(urn)

    def _untargeted(self, goal: Goal, urn: str, old: Resource) -> list[Step]:
        """The old state is kept, its URN included, and so is all that it depends on, which the
        program may not have any more."""
        steps: list[Step] = []
        if old.provider and old.provider not in self._running:
            if old.provider not in map(reference, self._base):
                self._bail(f"could not find provider {old.provider} in old state", urn)
            self._bail(
                f"provider {old.provider} for resource {urn} has not been registered yet, this is "
                "due to a change of providers mixed with --target. Change your program back to the "
                "original providers",
                urn,
            )

        def keep(r: Resource, goal: Goal | None) -> None:
            self.seen.add(r.urn)
            self._operated |= {urn, r.urn}
            done = self.seen | self._aliased.keys() | self.deletes
            for needed in sorted(r.all_dependencies() - done - {r.provider_urn}):
                if needed not in self.olds:
                    wrong = f"{needed} of untargeted resource {urn} has no old state"
                    self._bail(f"{'parent' if needed == r.parent else 'dependency'} {wrong}", urn)
                if needed not in self.seen:
                    keep(self.olds[needed], None)
            steps.append(Step("same", r, r.copy(id=""), goal))

        keep(old, goal)
        return steps

    def _validated(self, steps: list[Step]) -> list[Step]:
        """Refuse a step that needs what --target keeps from being created."""
        for step in steps if self._targets or self._replaced else []:
            missing = step.new.all_dependencies() & self._skipped_creates if step.new else ()
            for urn in sorted(missing):
                message = f"Resource '{step.resource.urn}' depends on '{urn}' which was was not "
                self._error(message + "specified in --target list.", step.resource.urn)
                self._skipped_creates.discard(urn)
        return steps

    def matches(self, r: Resource) -> bool:
        """Whether a refresh is about it. Asked in order: dependents come after their targets."""
        if self._is_reached(r):
            self._reached.add(r.urn)
            self._running.add(r.provider)
            return True
        return False

    def check_targets(self, replaced: bool = False) -> bool:
        """Report targets (with ``replaced`` those of --replace) that are nowhere; whether there are
        none."""
        targets = self._replaced if replaced else self._targets
        missing = targets.missing(self.seen | {r.urn for r in self._base})
        for target in missing:
            hint = "" if "$" in target else " Did you forget to escape $ in your shell?"
            self._diagnose("error", f"Target '{target}' could not be found in the stack.{hint}", "")
        return not missing

    def needed_by(self, urns: Iterable[str]) -> set[str]:
        """URNs that must stay as long as these resources do."""
        return needed_by(self.olds, urns)

    def deletions(self) -> tuple[list[Step], list[list[Step]]]:
        """Steps that keep what is out of target, and delete steps in groups: a group may go in
        parallel when the one before it is done. Raises Bail."""
        targets = {r.urn for r in self._base if self._targets.match(r.urn)}
        allowed = targets.union(r.urn for r in depending_on(self._base, targets, children=True))
        same: list[Step] = []
        steps: dict[int, Step] = {}
        for r in self._base:
            if r.delete and id(r) in self._deleted_early:
                continue
            if r.urn not in allowed:
                if not r.delete and r.urn not in self._operated:
                    same.append(Step("same", r, r.copy(id="")))
            elif r.delete:
                self.deletes.add(r.urn)
                steps[id(r)] = Step("delete-replaced", r, None, logical=False)
            elif r.urn not in self._operated:
                self.deletes.add(r.urn)
                op = "remove-pending-replace" if r.pending_replacement else "delete"
                steps[id(r)] = Step(op, r, None, logical=not r.pending_replacement)
        if not self._request.target_dependents:
            self._refuse_untargeted([r for r in self._base if id(r) in steps])
        groups = in_groups([r for r in self._base if id(r) in steps])
        return same, [[steps[id(r)] for r in group] for group in groups]

    def _refuse_untargeted(self, condemned: list[Resource]) -> None:
        for r in condemned:
            if not self._targets.match(r.urn):
                self._diagnose(
                    "error",
                    f"Resource '{r.urn}' will be destroyed but was not specified in --target list."
                    "\nEither include resource in --target list or pass --target-dependents to "
                    "proceed.",
                    r.urn,
                )
                self.saw_error = True
        if self._targets and self.saw_error and not self._request.dry_run:
            raise Bail("delete untargeted resource")

    def _error(self, message: str, urn: str) -> None:
        """A preview goes on, to tell all; an update does not."""
        self._diagnose("error", message, urn)
        self.saw_error = True
        if not self._request.dry_run:
            raise Bail(message)

    def _bail(self, message: str, urn: str) -> None:
        self._diagnose("error", message, urn)
        raise Bail(message)
