"""Turns: a change reaches the compute nodes of a class one batch after the other.

A role of a batch waits for the same role of the batch before. (That it waited for all roles of that
batch would be a circle: slurmctld waits for the programs of every node, and slurmd for slurmctld.)
Keys wait for nobody: they change everywhere at once.

What is waited for is no dependency that the state keeps: nodes come and go without a word of the
others, `--target` and `destroy` need none of them. Only where a batch has failed, those after it
depend on what failed, so that either engine passes them over.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pulumi

from components.assembly import Deployed
from components.failure import if_any, recovered, took
from components.inventory import TOGETHER, was_applied
from components.last_outputs import LastOutputs
from remote.contact import ContactError, run_on_hosts
from remote.host import Host
from settings import Settings
from settings.rollout import number_of

#: Seconds for a node that has failed to say that it is there.
_SECONDS = 15.0


@dataclass(frozen=True)
class _Standing:
    """What became of a role on the nodes of a class so far."""

    failed: int = 0
    #: A node has taken the change well, so that a failure speaks of a node and not of the change.
    proven: bool = False
    #: What those that come after depend on, and so are passed over.
    stopper: Deployed | None = None


@dataclass
class _Class:
    """The turns of a class of nodes, and how many of these may fail."""

    turns: tuple[tuple[str, ...], ...]
    may_fail: int
    #: Role → what was entered of it.
    entered: dict[str, list[Deployed]] = field(default_factory=lambda: defaultdict(list))
    #: (Role, turn) → what became of all turns before it.
    standings: dict[tuple[str, int], asyncio.Task[_Standing]] = field(default_factory=dict)


class RolloutTurns:
    """Who waits for whom. A node that is not in the last inventory waits for nobody, and nobody for
    it: nothing runs there that a change could harm.
    """

    #: Node and role of what was passed over, since the turns before had failed.
    stopped: set[tuple[str, str]]

    def __init__(
        self,
        settings: Settings,
        hosts: Mapping[str, Host],
        before: pulumi.Output[LastOutputs],
    ) -> None:
        """
        Args:
            settings: the stack's.
            hosts: every host of the cluster.
            before: the stack's outputs as the last run left them.
        """
        self.stopped = set()
        self._hosts = hosts
        self._before = before
        self._whole = asyncio.Event()
        self._broken: BaseException | None = None
        self._deployed: list[Deployed] = []
        self._place: dict[str, tuple[_Class, int]] = {}
        self._by_name = {name for name in settings.compute if settings.rollout.names(name)}
        for node_class in settings.nodes:
            nodes = [name for name in node_class.names if name in settings.compute]
            one = _Class(
                settings.rollout.turns(nodes), number_of(settings.rollout.may_fail, len(nodes))
            )
            for number, turn in enumerate(one.turns):
                self._place |= dict.fromkeys(turn, (one, number))
        self._canaries = settings.rollout.canary != 0
        self._controller = settings.roles.controller
        self._together: dict[str, Deployed] = {}
        self._ends: dict[str, str] = {}

    def enter(self, deployed: Deployed) -> None:
        """Those after it wait for it."""
        self._deployed.append(deployed)
        if deployed.node in self._place:
            self._place[deployed.node][0].entered[deployed.role].append(deployed)

    def together(self, role: str, controller: Deployed) -> None:
        """A role whose daemons lose the controller's until they are started anew, where these have
        another fact ``together`` than last. Then all nodes go at once: the jobs of a node that is
        out of contact for too long end.
        """
        self._together[role] = controller

    def ends(self, role: str, last: str) -> None:
        """A role that is over with another one of the node alone, where the node has that: those
        after it wait for it."""
        self._ends[role] = last

    def complete(self) -> None:
        """All is entered; before that, nobody's turn comes."""
        self._whole.set()

    def abandon(self, error: BaseException) -> None:
        """The program fails before all is entered: nobody's turn comes any more.

        The SDK (3.260) tells of the first that failed while it waited for the others, and of the
        program's own error no more, so that they all fail with that one.
        """
        self._broken = error
        self._whole.set()

    def before(self, node: str, role: str) -> list[pulumi.Input[pulumi.Resource]]:
        """What a role of a node waits for, as ``depends_on`` takes it."""
        if pulumi.runtime.is_dry_run() or self._place.get(node, (None, 0))[1] == 0:
            return []

        async def wait() -> pulumi.Resource | None:
            await self._whole.wait()
            if self._broken is not None:
                raise self._broken
            if node not in await self._known() or await self._at_once(role):
                return None
            stopper = (await self._standing(*self._place[node], role)).stopper
            if stopper is None:
                return None
            self.stopped.add((node, role))
            return stopper.resource

        return [if_any(wait())]

    def unless_stopped(self, bundles: Sequence[Deployed]) -> list[pulumi.Input[pulumi.Resource]]:
        """Bundles as ``depends_on`` takes them, but those that were passed over: what stands there
        is what the run before left, and what must change everywhere at once changes there, too."""
        return [self._unless_stopped(bundle) for bundle in bundles]

    def _unless_stopped(self, bundle: Deployed) -> pulumi.Input[pulumi.Resource]:
        if pulumi.runtime.is_dry_run() or self._place.get(bundle.node, (None, 0))[1] == 0:
            return bundle.resource

        async def wait() -> pulumi.Resource | None:
            await took(bundle).future()
            return None if (bundle.node, bundle.role) in self.stopped else bundle.resource

        return if_any(wait())

    async def _at_once(self, role: str) -> bool:
        if role not in self._together:
            return False
        answer = await recovered(self._together[role].answer, cast("Any", None)).future()
        last = (await self._known()).get(self._controller, {}).get(TOGETHER)
        return answer is not None and answer.facts.get(TOGETHER) != last

    async def _known(self) -> Mapping[str, Any]:
        before: LastOutputs | None = await self._before.future()
        return {} if before is None else before.inventory

    def _standing(self, nodes: _Class, turn: int, role: str) -> asyncio.Task[_Standing]:
        place = (role, turn)
        if place not in nodes.standings:
            look = self._look(nodes, turn, role)
            nodes.standings[place] = asyncio.ensure_future(look)
        return nodes.standings[place]

    async def _look(self, nodes: _Class, turn: int, role: str) -> _Standing:
        if turn == 0:
            return _Standing(proven=not self._canaries)
        standing = await self._standing(nodes, turn - 1, role)
        if standing.stopper is not None:
            return standing
        known = await self._known()
        # What the role is over with, in the place of the role itself.
        entered = {bundle.node: bundle for bundle in nodes.entered[role]}
        entered |= {
            bundle.node: bundle
            for bundle in nodes.entered[self._ends.get(role, role)]
            if bundle.node in entered
        }
        bundles = [
            bundle
            for name, bundle in entered.items()
            if name in nodes.turns[turn - 1] and (name in known or name in self._by_name)
        ]
        taken = await asyncio.gather(*(took(bundle).future() for bundle in bundles))
        failed = [bundle for bundle, well in zip(bundles, taken, strict=True) if well is False]
        number = standing.failed + len(failed)
        stopper = failed[-1] if failed and number > nodes.may_fail else None
        if stopper is None and not standing.proven:
            dead = await asyncio.gather(*(self._was_dead(bundle) for bundle in failed))
            alive = [bundle for bundle, gone in zip(failed, dead, strict=True) if not gone]
            stopper = alive[0] if alive else None
        return _Standing(number, standing.proven or True in taken, stopper)

    async def _was_dead(self, failed: Deployed) -> bool:
        """Whether the node was out of reach before anything was changed on it."""
        known, node = await self._known(), failed.node
        # Those that came before: what comes after may wait for what waits for this.
        for bundle in itertools.takewhile(lambda one: one is not failed, self._deployed):
            if bundle.node == node:
                answer = await recovered(bundle.answer, cast("Any", None)).future()
                if answer is not None and was_applied(answer, known):
                    return False
        reply = (await run_on_hosts([self._hosts[node]], "true", seconds=_SECONDS))[node]
        return isinstance(reply, ContactError) and reply.step == "connect"
