"""A plan: what a change does to nodes and their daemons, grouped by nodes that fare alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from remote.effects import Deed
from settings.hostlist import fold
from settings.parameters import Needs

#: Of the form of :meth:`Plan.as_dict`; grows when a reader of the last one would stumble.
VERSION = 1

SLURMCTLD = "slurmctld.service"
#: Kinds of changes, as they follow one another.
KINDS = (
    "node", "role", "package", "parameter", "key", "accounting", "file", "unit", "command", "other",
)  # fmt: skip


@dataclass(frozen=True)
class Change:
    """One thing that changes on some nodes, and what that needs."""

    nodes: tuple[str, ...]
    #: One of :data:`KINDS`.
    kind: str
    #: Such as ``slurm.conf MessageTimeout``.
    what: str
    old: str | None
    new: str | None
    needs: Needs
    effect: str

    @property
    def difference(self) -> str:
        """``what old → new``."""
        if self.old is not None and self.new is not None:
            return f"{self.what} {self.old} → {self.new}"
        return f"{self.what} {self.new or self.old or ''}".rstrip()


@dataclass(frozen=True)
class Daemon:
    """What is done to one unit on some nodes. `deed` is the word that their answers will have."""

    nodes: tuple[str, ...]
    unit: str
    deed: Deed
    because: tuple[str, ...]
    #: False: only the run can tell.
    sure: bool = True

    @property
    def words(self) -> str:
        """``slurmctld reconfigured``."""
        word = "reconfigured" if (self.unit, self.deed) == (SLURMCTLD, Deed.RELOADED) else self.deed
        name = self.unit.removesuffix(".service")
        return f"{name} {'' if self.sure else 'may be '}{word}"


@dataclass(frozen=True)
class Plan:
    """All that would happen."""

    stack: str
    changes: tuple[Change, ...]
    daemons: tuple[Daemon, ...]
    #: Nodes whose daemons take the cluster's configuration anew, without a restart.
    reconfigured: tuple[str, ...] = ()
    #: Nodes that are drained first and given back afterwards → why.
    drained: Mapping[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict)
    #: Those that Slurm reboots meanwhile, where their kernel was booted otherwise.
    rebooted: tuple[str, ...] = ()
    #: URNs of what would be done, by node.
    targets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    #: Whether the engine would do anything at all, as to the stack's outputs.
    any: bool = False
    #: A hash of the settings' files, of the state, of the planned steps.
    digests: Mapping[str, str] = field(default_factory=dict)
    #: Jobs that are there now on nodes whose daemons are touched; None: nobody was asked.
    jobs: tuple[Mapping[str, str], ...] | None = None
    #: What the guards on the nodes would refuse, were it done now.
    refused: tuple[str, ...] = ()
    #: Why the controller could not be asked.
    unasked: str | None = None

    @property
    def nodes(self) -> tuple[str, ...]:
        """All to which something is sent."""
        return tuple(self.targets)

    def as_dict(self) -> dict[str, Any]:
        """For programs; described in docs/plan.md."""
        return {
            "version": VERSION,
            "stack": self.stack,
            "changes": [
                {
                    "nodes": fold(it.nodes),
                    "kind": it.kind,
                    "what": it.what,
                    "old": it.old,
                    "new": it.new,
                    "needs": it.needs.value,
                    "effect": it.effect,
                }
                for it in self.changes
            ],
            "daemons": [
                {
                    "nodes": fold(it.nodes),
                    "unit": it.unit,
                    "deed": it.deed.value,
                    "because": list(it.because),
                    "sure": it.sure,
                }
                for it in self.daemons
            ],
            "reconfigured": fold(self.reconfigured),
            "drained": [
                {"nodes": fold(nodes), "because": list(because)}
                for nodes, because in self.drained.items()
            ],
            "rebooted": fold(self.rebooted),
            "nodes": fold(self.nodes),
            "jobs": None if self.jobs is None else [dict(job) for job in self.jobs],
            "refused": list(self.refused),
            "unasked": self.unasked,
            "digests": dict(self.digests),
        }
