"""Decides which steps bring a resource from its old state to its goal, and what is deleted.

The decisions, their order and their messages are those of Pulumi's
pkg/resource/deploy/step_generator.go; it does nothing but decide.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from engine.api import Options, Unsupported
from engine.goal import PROVIDER_PREFIX, STACK_TYPE, Goal, former_urns, make_urn
from engine.properties import contains, parse_path, reset
from engine.providers import Difference, Provider, Refused
from engine.state import UNKNOWN, Properties, Resource, Value, reveal

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

    @property
    def resource(self) -> Resource:
        found = self.new or self.old
        assert found
        return found


class Planner:
    def __init__(
        self,
        stack: str,
        project: str,
        options: Options,
        base: list[Resource],
        providers: Mapping[str, Provider],
        diagnose: Diagnose,
    ) -> None:
        self._stack, self._project, self._options = stack, project, options
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
        self._targets = set(options.targets)
        self.saw_error = False

    # Registrations

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
        if old is None:
            if not targeted:
                self._operated.add(urn)
                self._skipped_creates.add(urn)
                return [Step("same", new.copy(), new, goal, skipped_create=True)]
            return self._validated([Step("create", None, new, goal)])
        if targeted and self._options.targets and self._options.target_dependents:
            self._targets.add(urn)
        if not targeted:
            self._operated.add(old.urn)
            return [Step("same", old, old.copy(id="", urn=urn, aliases=new.aliases), goal)]
        return self._validated(self._from_difference(goal, old, new))

    def _from_difference(self, goal: Goal, old: Resource, new: Resource) -> list[Step]:
        difference = self._difference(goal, old, new)
        if difference.changes or old.pending_replacement:
            if difference.replaces or old.pending_replacement:
                return self._replace(goal, old, new, difference)
            self._operated.add(old.urn)
            return [Step("update", old, new, goal, difference)]
        self._operated.add(old.urn)
        return [Step("update" if old.init_errors else "same", old, new, goal)]

    def _difference(self, goal: Goal, old: Resource, new: Resource) -> Difference:
        if new.deleted_with and new.deleted_with in self._replaces:
            return Difference(True, ["deletedWith"])
        if old.taint:
            return Difference(True, ["id"])
        if bool(old.provider) != bool(new.provider):
            return Difference(True, ["provider"])
        if not goal.custom:
            return Difference(old.inputs != new.inputs)
        if goal.type.startswith(PROVIDER_PREFIX):
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
        if goal.custom:
            new.inputs = self._check(new, goal.inputs)
        before = goal.delete_before_replace
        if before is None:
            before = difference.delete_before_replace
        before = before or old.pending_replacement
        return self._replacement(goal, old, new, difference, before, first=True)

    def _replacement(
        self,
        goal: Goal,
        old: Resource,
        new: Resource,
        difference: Difference,
        before: bool,
        first: bool = False,
    ) -> list[Step]:
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
        dependents = self._depending_on({root.urn}, ignore=self._operated - {root.urn})
        for r in dependents:
            keys: list[str] | None = None
            if not r.custom or r.external or r.delete:
                continue
            if provider_urn(r) in replaced or r.deleted_with in replaced:
                keys = []
            else:
                unknown = {
                    k for k in r.inputs if replaced & set(r.property_dependencies.get(k, []))
                }
                if unknown and not r.type.startswith(PROVIDER_PREFIX):
                    assumed = {k: UNKNOWN if k in unknown else v for k, v in r.inputs.items()}
                    d = self._provider(r.type).difference(r.type, r.inputs, assumed)
                    d = self._replace_on_changes(d, r.replace_on_changes)
                    keys = d.replace_keys if d.replaces else None
            if keys is not None:
                replaced.add(r.urn)
                found.append((r, keys))
        return found

    def _depending_on(
        self, roots: set[str], ignore: set[str] | None = None, children: bool = False
    ) -> list[Resource]:
        """Old resources that depend on the roots, also indirectly, in the state's order."""
        reached = set(roots)
        found = []
        for r in self._base:
            needs = r.all_dependencies()
            if not children and r.parent not in (*r.dependencies, r.deleted_with):
                needs = needs - {r.parent}
            if r.urn not in roots and r.urn not in (ignore or ()) and needs & reached:
                reached.add(r.urn)
                found.append(r)
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
            urn=urn,
            provider=goal.provider if goal.custom else "",
            protect=bool(goal.protect),
            retain_on_delete=bool(goal.retain_on_delete),
            custom_timeouts=goal.custom_timeouts or None,
            aliases=[self.renamed[urn]] if urn in self.renamed else [],
            created=old.created if old else "",
            modified=old.modified if old else "",
            **{name: getattr(goal, name) for name in _TAKEN_OVER},
        )

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
        if new.type.startswith(PROVIDER_PREFIX):
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
            raise Unsupported(f"the resource type {kind} is not supported by the embedded engine")
        return provider

    def _validated(self, steps: list[Step]) -> list[Step]:
        """Refuse a step that needs what --target keeps from being created."""
        for step in steps if self._options.targets else []:
            missing = step.new.all_dependencies() & self._skipped_creates if step.new else ()
            for urn in sorted(missing):
                message = f"Resource '{step.resource.urn}' depends on '{urn}' which was was not "
                self._error(message + "specified in --target list.", step.resource.urn)
                self._skipped_creates.discard(urn)
        return steps

    # Targets

    def _is_targeted(self, new: Resource) -> bool:
        if not self._options.targets:
            return True
        if new.type == STACK_TYPE or new.type.startswith(PROVIDER_PREFIX):
            return True
        if self.matches(new.urn) or any(self.matches(a) for a in new.aliases):
            return True
        return self._options.target_dependents and bool(new.all_dependencies() & self._targets)

    def matches(self, urn: str) -> bool:
        return not self._options.targets or any(_glob(t, urn) for t in self._options.targets)

    def check_targets(self) -> bool:
        """Report targets that are nowhere; whether there are none."""
        known = self.seen | {r.urn for r in self._base}
        missing = [t for t in self._options.targets if "*" not in t and t not in known]
        for target in missing:
            hint = "" if "$" in target else " Did you forget to escape $ in your shell?"
            self._diagnose("error", f"Target '{target}' could not be found in the stack.{hint}", "")
        return not missing

    # Deletions

    def deletions(self) -> tuple[list[Step], list[list[Step]]]:
        """Steps that keep what is out of target, and delete steps in groups: a group may go in
        parallel when the one before it is done. Raises Bail."""
        allowed = None
        if self._options.targets:
            targets = {r.urn for r in self._base if self.matches(r.urn)}
            dependents = self._depending_on(targets, children=True)
            allowed = targets | {r.urn for r in dependents}
        same: list[Step] = []
        steps: list[Step] = []
        for r in self._base:
            if r.delete and id(r) in self._deleted_early:
                continue
            if allowed is not None and r.urn not in allowed:
                if not r.delete and r.urn not in self._operated:
                    same.append(Step("same", r, r.copy(id="")))
            elif r.delete:
                self.deletes.add(r.urn)
                steps.append(Step("delete-replaced", r, None, logical=False))
            elif r.urn not in self._operated:
                self.deletes.add(r.urn)
                op = "remove-pending-replace" if r.pending_replacement else "delete"
                steps.append(Step(op, r, None, logical=not r.pending_replacement))
        if allowed is not None and not self._options.target_dependents:
            for step in steps:
                if not self.matches(step.resource.urn):
                    self._diagnose(
                        "error",
                        f"Resource '{step.resource.urn}' will be destroyed but was not specified "
                        "in --target list.\nEither include resource in --target list or pass "
                        "--target-dependents to proceed.",
                        step.resource.urn,
                    )
                    self.saw_error = True
            if self.saw_error and not self._options.dry_run:
                raise Bail("delete untargeted resource")
        return same, _in_groups(steps)

    # Errors

    def _error(self, message: str, urn: str) -> None:
        """A preview goes on, to tell all; an update does not."""
        self._diagnose("error", message, urn)
        self.saw_error = True
        if not self._options.dry_run:
            raise Bail(message)

    def _bail(self, message: str, urn: str) -> None:
        self._diagnose("error", message, urn)
        raise Bail(message)


def _in_groups(steps: list[Step]) -> list[list[Step]]:
    """Dependents first: what depends on nothing else that is condemned goes last."""
    groups: list[list[Step]] = []
    left = list(steps)
    while left:
        condemned = {s.resource.urn for s in left}
        ready = [
            s for s in left if not (s.resource.all_dependencies() - {s.resource.urn}) & condemned
        ]
        ready = ready or left  # a cycle cannot be: the state is in order
        groups.append(ready)
        taken = {id(s) for s in ready}
        left = [s for s in left if id(s) not in taken]
    return groups[::-1]


def provider_urn(resource: Resource) -> str:
    return resource.provider.rpartition("::")[0]


def _glob(pattern: str, urn: str) -> bool:
    """Pulumi's targets: `*` within a part of a URN, `**` across parts."""
    if "*" not in pattern:
        return pattern == urn
    parts = re.split(r"(\*\*|\*)", pattern)
    text = "".join({"**": ".*", "*": "[^:]*"}.get(p, re.escape(p)) for p in parts)
    return re.fullmatch(text, urn) is not None


def in_order(resources: Iterable[Resource]) -> list[Resource]:
    """The same resources, each after all that it depends on; otherwise the order is kept."""
    listed = list(resources)
    by_urn = {r.urn: r for r in sorted(listed, key=lambda r: not r.delete)}
    done: set[int] = set()
    ordered: list[Resource] = []
    for start in listed:
        stack = [(start, False)]
        while stack:
            r, ready = stack.pop()
            if ready:
                ordered.append(r)
            elif id(r) not in done:
                done.add(id(r))
                stack.append((r, True))
                needed = (by_urn.get(urn) for urn in sorted(r.all_dependencies(), reverse=True))
                stack += [(d, False) for d in needed if d is not None and id(d) not in done]
    return ordered
