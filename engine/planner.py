"""Decides which steps bring a resource from its old state to its goal, and what is deleted.

What it is replaced for, and how, is in replacing.py, what --target leaves of it in targets.py, and
what all of them have decided in plan.py. The decisions, their order and their messages are those of
Pulumi's pkg/resource/deploy/step_generator.go; nothing here does anything but decide.
"""

from __future__ import annotations

from collections.abc import Iterable

from engine.goal import Goal, former_urns, make_urn
from engine.order import in_groups, needed_by
from engine.paths import parse_path
from engine.plan import Plan, Step
from engine.properties import reset
from engine.replacing import Replacing
from engine.state import Properties, Resource, Value
from engine.targets import Scope

_TAKEN_OVER = (
    *("type", "custom", "inputs", "parent", "dependencies", "property_dependencies"),
    *("deleted_with", "ignore_changes", "replace_on_changes", "additional_secret_outputs"),
    "source_position",
)
"""What a resource's state has as its registration says."""


class Planner:
    def __init__(self, plan: Plan, scope: Scope) -> None:
        self._plan, self._scope = plan, scope
        self._replacing = Replacing(plan, scope)
        self._stack, self._project = plan.request.stack, plan.request.project.name

    def plan(self, goal: Goal) -> list[Step]:
        """The steps, to be taken in this order, for one registration. Raises Bail."""
        plan = self._plan
        urn = make_urn(self._stack, self._project, goal.parent, goal.type, goal.name)
        if urn in plan.seen:
            plan.bail(f"Duplicate resource URN '{urn}'; try giving it a unique name", urn)
        if goal.parent and goal.parent not in plan.seen and goal.parent not in plan.aliased:
            plan.bail(f"could not find parent resource {goal.parent}", urn)
        plan.seen.add(urn)
        old = self._find_old(urn, goal)
        new = self._new_state(urn, goal, old)
        targeted = self._scope.covers(new)
        inputs = goal.inputs if old is None else self._ignore_changes(urn, goal, old)
        if goal.custom and targeted:
            anew = urn in plan.deletes or self._scope.replaces(urn)
            inputs = plan.check(new, goal.inputs if anew else inputs)
        elif goal.custom:
            inputs = old.inputs if old is not None else {}
        new.inputs = inputs

        if urn in plan.deletes and old is not None:  # deleted early, for a dependency's sake
            return self._replacing.after_early_deletion(goal, old, new)
        self._scope.reach(new)
        if old is None and not targeted:
            return [self._scope.skip(goal, new)]
        if old is None:
            steps = [Step("create", None, new, goal)]
        elif targeted:
            steps = self._from_difference(goal, old, new)
        else:
            steps = self._scope.keep(goal, urn, old)
        return self._scope.validated(steps)

    def _from_difference(self, goal: Goal, old: Resource, new: Resource) -> list[Step]:
        difference = self._replacing.difference(goal, old, new)
        if difference.changes or old.pending_replacement:
            if difference.replaces or old.pending_replacement:
                return self._replacing.replace(goal, old, new, difference)
            self._plan.operated.add(old.urn)
            return [Step("update", old, new, goal, difference)]
        self._plan.operated.add(old.urn)
        if new.is_provider:
            self._scope.stays(old)
        return [Step("update" if old.init_errors else "same", old, new, goal)]

    def _find_old(self, urn: str, goal: Goal) -> Resource | None:
        if taken := self._plan.aliased.get(urn):
            self._plan.bail(
                f"Duplicate resource URN '{urn}' conflicting with alias on resource with URN "
                f"'{taken}'",
                urn,
            )
        former = former_urns(goal, self._stack, self._project, self._plan.renamed)
        for candidate in [urn, *former]:
            old = self._plan.olds.get(candidate)
            if old is None:
                continue
            if candidate != urn:
                rival = urn if candidate in self._plan.seen else self._plan.aliased.get(candidate)
                if rival:
                    self._plan.bail(
                        f"Duplicate resource alias '{candidate}' applied to resource with URN "
                        f"'{urn}' conflicting with resource with URN '{rival}'",
                        urn,
                    )
                self._plan.aliased[candidate] = urn
                self._plan.renamed[urn] = candidate
            return old
        return None

    def _new_state(self, urn: str, goal: Goal, old: Resource | None) -> Resource:
        return Resource(
            urn=urn, provider=goal.provider if goal.custom else "", protect=bool(goal.protect),
            retain_on_delete=bool(goal.retain_on_delete),
            custom_timeouts=goal.custom_timeouts or None,
            aliases=[self._plan.renamed[urn]] if urn in self._plan.renamed else [],
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
            self._plan.diagnose(
                "info",
                f'cannot ignore changes in added or removed elements of the path: "{paths}"',
                urn,
            )
        found: Properties = inputs
        return found

    def needed_by(self, urns: Iterable[str]) -> set[str]:
        """URNs that must stay as long as these resources do."""
        return needed_by(self._plan.olds, urns)

    def deletions(self) -> tuple[list[Step], list[list[Step]]]:
        """Steps that keep what is out of target, and delete steps in groups: a group may go in
        parallel when the one before it is done. Raises Bail."""
        base = self._plan.base
        allowed = self._scope.deletable()
        same: list[Step] = []
        steps: dict[int, Step] = {}
        for r in base:
            if r.delete and id(r) in self._plan.deleted_early:
                continue
            if r.urn not in allowed:
                if not r.delete and r.urn not in self._plan.operated:
                    same.append(Step("same", r, r.copy(id="")))
            elif r.delete:
                self._plan.deletes.add(r.urn)
                steps[id(r)] = Step("delete-replaced", r, None, logical=False)
            elif r.urn not in self._plan.operated:
                self._plan.deletes.add(r.urn)
                op = "remove-pending-replace" if r.pending_replacement else "delete"
                steps[id(r)] = Step(op, r, None, logical=not r.pending_replacement)
        condemned = [r for r in base if id(r) in steps]
        self._scope.refuse_untargeted(condemned)
        return same, [[steps[id(r)] for r in group] for group in in_groups(condemned)]
