"""Whether a resource has changed, and the steps that put another one in its place."""

from __future__ import annotations

from engine.goal import Goal
from engine.order import depending_on
from engine.paths import contains, parse_path
from engine.plan import Plan, Step
from engine.providers import Difference
from engine.state import UNKNOWN, Resource
from engine.targets import Scope


class Replacing:
    def __init__(self, plan: Plan, scope: Scope) -> None:
        self._plan, self._scope = plan, scope
        self._dependent_keys: dict[str, list[str]] = {}

    def difference(self, goal: Goal, old: Resource, new: Resource) -> Difference:
        if self._scope.replaces(new.urn):
            return Difference(True, ["id"])
        if new.deleted_with and new.deleted_with in self._plan.replaces:
            return Difference(True, ["deletedWith"])
        if bool(old.provider) != bool(new.provider):
            return Difference(True, ["provider"])
        if not goal.custom:
            return Difference(old.inputs != new.inputs)
        if new.is_provider:
            return Difference()
        found = self._plan.provider(goal.type).difference(goal.type, old.inputs, new.inputs)
        return _replace_on_changes(found, goal.replace_on_changes)

    def replace(
        self, goal: Goal, old: Resource, new: Resource, difference: Difference
    ) -> list[Step]:
        urn = new.urn
        if new.protect and old.protect:
            self._plan.error(
                f'unable to replace resource "{urn}"\nas it is currently marked for protection. '
                "To unprotect the resource, remove the `protect` flag from the resource in your "
                "Pulumi program and run `pulumi up`",
                urn,
            )
        self._plan.replaces.add(urn)
        if goal.custom and not self._scope.replaces(urn):
            new.inputs = self._plan.check(new, goal.inputs)
        before = goal.delete_before_replace
        if before is None:
            before = difference.delete_before_replace
        before = before or old.pending_replacement
        return self._replacement(goal, old, new, difference, before, first=True)

    def after_early_deletion(self, goal: Goal, old: Resource, new: Resource) -> list[Step]:
        """The old one has gone for the sake of what it depends on."""
        self._plan.deletes.discard(new.urn)
        self._plan.replaces.add(new.urn)
        keys = Difference(True, self._dependent_keys.get(new.urn, []))
        return self._replacement(goal, old, new, keys, before=True)

    def _replacement(
        self, goal: Goal, old: Resource, new: Resource, difference: Difference, before: bool,
        first: bool = False,
    ) -> list[Step]:  # fmt: skip
        """``before``: the old one goes first; ``first``: nothing has been deleted for it yet."""
        create = Step(
            "create-replacement", old, new, goal, difference, False, pending_delete=not before
        )
        replace = Step("replace", old, new, None, difference)
        self._plan.operated.add(old.urn)
        if not before:
            return [create, replace]
        steps: list[Step] = []
        if first:
            for dependent, keys in reversed(self._dependents_to_replace(old)):
                if id(dependent) in self._plan.deleted_early:
                    continue
                self._dependent_keys[dependent.urn] = keys
                if dependent.protect:
                    self._plan.error(
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
        self._plan.deletes.add(old.urn)
        self._plan.deleted_early.add(id(old))
        return Step("delete-replaced", old, None, logical=False, pending_replacement=True)

    def _dependents_to_replace(self, root: Resource) -> list[tuple[Resource, list[str]]]:
        """What must go before the root can: dependents that a change of it would replace."""
        replaced = {root.urn}
        found: list[tuple[Resource, list[str]]] = []
        done = self._plan.operated - {root.urn}
        for r in depending_on(self._plan.base, {root.urn}, ignore=done):
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
                    d = self._plan.provider(r.type).difference(r.type, r.inputs, assumed)
                    d = _replace_on_changes(d, r.replace_on_changes)
                    keys = d.replace_keys if d.replaces else None
            if keys is not None:
                replaced.add(r.urn)
                found.append((r, keys))
        return found


def _replace_on_changes(found: Difference, paths: list[str]) -> Difference:
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
