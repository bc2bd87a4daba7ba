"""What is decided so far about each resource, and the steps that follow from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from engine.api import Request
from engine.errors import refuse
from engine.goal import Goal
from engine.providers import Difference, Provider, Refused
from engine.state import Properties, Resource, reveal

Diagnose = Callable[[str, str, str], None]
"""severity, message, URN"""


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


class Plan:
    """What registrations, replacements, targets and deletions are planned with: the state before
    the operation, and what has been decided."""

    def __init__(
        self, request: Request, base: list[Resource], providers: Mapping[str, Provider],
        diagnose: Diagnose,
    ) -> None:  # fmt: skip
        self.request, self.base, self.diagnose = request, base, diagnose
        self._providers = providers
        self.olds = {r.urn: r for r in base if not r.delete}
        self.renamed: dict[str, str] = {}  # URN → the URN it was found under
        self.aliased: dict[str, str] = {}  # the same the other way round
        self.seen: set[str] = set()  # registered
        self.operated: set[str] = set()  # old URNs that steps are planned for
        self.replaces: set[str] = set()
        self.deletes: set[str] = set()
        self.deleted_early: set[int] = set()
        self.saw_error = False

    def check(self, new: Resource, inputs: Properties) -> Properties:
        if new.is_provider:
            return inputs
        try:
            return self.provider(new.type).check(new.type, inputs)
        except Refused as refused:
            for key, reason in refused.failures:
                value = inputs.get(key)
                shown = value if reveal(value) == value else "[secret]"
                subject = f"{new.type} resource '{new.name}'"
                message = f"{subject} has a problem: {reason}"
                if key:
                    message = f"{subject}: property {key} value {{{shown}}} has a problem: {reason}"
                self.diagnose("error", message, new.urn)
            raise Bail(f"resource {new.urn} is invalid") from None

    def provider(self, kind: str) -> Provider:
        provider = self._providers.get(kind.split(":")[0])
        if provider is None or kind not in provider.types:
            raise refuse(f"the resource type {kind}")
        return provider

    def error(self, message: str, urn: str) -> None:
        """A preview goes on, to tell all; an update does not."""
        self.diagnose("error", message, urn)
        self.saw_error = True
        if not self.request.dry_run:
            raise Bail(message)

    def bail(self, message: str, urn: str) -> None:
        self.diagnose("error", message, urn)
        raise Bail(message)
