"""What an operation has done: noted in the journal as it happens, a new snapshot at the end."""

from __future__ import annotations

import itertools

from engine.goal import make_urn, qualified_type
from engine.journal import Entry, Journal, fold
from engine.order import in_order
from engine.plan import Step
from engine.state import STACK_TYPE, PendingOperation, Properties, Resource, Snapshot

PENDING = {"create": "creating", "create-replacement": "creating", "update": "updating",
           "delete": "deleting", "delete-replaced": "deleting"}  # fmt: skip


class Record:
    """``base`` are copies of the resources at the start. Without a journal (a dry run) nothing is
    noted, and the new snapshot is the old one."""

    def __init__(self, before: Snapshot, journal: Journal | None) -> None:
        self.base = [r.copy() for r in before.resources]
        self._before, self._journal = before, journal
        self._index = {id(r): i for i, r in enumerate(self.base)}
        self._entries: list[Entry[Resource]] = []
        self._numbers = itertools.count()

    async def begin(self, step: Step) -> None:
        """A step is under way; on disk when this returns. Raises OSError, as the next do."""
        step.number = next(self._numbers)
        if operation := PENDING.get(step.op):
            self._add(Entry(step.number, operation, step.resource.copy()))
            await self.sync()

    async def finish(self, step: Step) -> None:
        """A step has ended, well or not; one that changed nothing waits for the next sync."""
        done: Entry[Resource] = Entry(step.number, finished=True)
        if not step.failed and step.op != "replace" and not step.skipped_create:
            done.new = step.new
            if old := step.old:
                index = self._index[id(old)]
                early = step.pending_replacement and not old.delete
                old.pending_replacement = old.pending_replacement or early
                if early or step.pending_delete:
                    self._add(Entry(step.number, old=index, new=old.copy(), keep=True))
                else:
                    done.old = index
        self._add(done)
        if step.op != "same":
            await self.sync()

    def complete(self, step: Step, outputs: Properties) -> None:
        """A component has its outputs; on disk after the next sync."""
        assert step.new
        step.new.outputs = outputs
        self._add(Entry(step.number, finished=True, new=step.new))

    async def sync(self) -> None:
        if self._journal:
            await self._journal.sync()

    def _add(self, entry: Entry[Resource]) -> None:
        if self._journal:
            self._entries.append(entry)
            self._journal.add(entry)

    def snapshot(self, forget_creates: bool) -> Snapshot:
        """What there is now. Creations that an earlier operation did not end stay pending unless
        they are to be forgotten."""
        resources, pending = fold(self.base, self._entries)
        kept = [o for o in self._before.pending if o.type == "creating" and not forget_creates]
        operations = [PendingOperation(r, operation) for operation, r in pending]
        if renamed := _renamed(resources):
            resources = [_with_new_urns(r, renamed) for r in resources]
        return Snapshot(in_order(resources), operations + kept, dict(self._before.rest))


def _renamed(resources: list[Resource]) -> dict[str, str]:
    """Old URN → new URN. A resource out of target follows its parent, which its URN names."""
    found: dict[str, str] = {}
    for r in resources:
        found |= dict.fromkeys(r.aliases, r.urn)
        parent = found.get(r.parent, "")
        if parent and qualified_type(parent) != STACK_TYPE:
            stack, project, kind, name = r.urn.removeprefix("urn:pulumi:").split("::", 3)
            found[r.urn] = make_urn(stack, project, parent, kind.rpartition("$")[2], name)
    return found


def _with_new_urns(r: Resource, renamed: dict[str, str]) -> Resource:
    def fix(urn: str) -> str:
        return renamed.get(urn, urn)

    provider, _, identity = r.provider.rpartition("::")
    fixed = {k: [fix(u) for u in urns] for k, urns in r.property_dependencies.items()}
    if fixed != r.property_dependencies:
        fixed = {k: urns for k, urns in fixed.items() if urns}
    return r.copy(
        urn=fix(r.urn), parent=fix(r.parent), deleted_with=fix(r.deleted_with), aliases=[],
        dependencies=[fix(u) for u in r.dependencies], property_dependencies=fixed,
        provider=f"{fix(provider)}::{identity}" if provider else "",
    )  # fmt: skip
