"""What a cluster is put together from, and what of it stands already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pulumi

from components.last_outputs import LastOutputs
from remote.answer import Answer
from remote.host import Host
from settings import Settings
from settings.model import Hardware


@dataclass(frozen=True)
class Deployed:
    """What stands on a node: the resource to depend on, and what the node said of it."""

    node: str
    role: str
    resource: pulumi.Resource
    answer: pulumi.Output[Answer]
    #: What it depends on.
    after: tuple[pulumi.Input[pulumi.Resource], ...] = ()


class Turns(Protocol):
    """Who waits for whom (``components.rollout``)."""

    def enter(self, deployed: Deployed) -> None: ...

    def together(self, role: str, controller: Deployed) -> None: ...

    def ends(self, role: str, last: str) -> None: ...

    def before(self, node: str, role: str) -> list[pulumi.Input[pulumi.Resource]]: ...

    def unless_stopped(
        self, bundles: Sequence[Deployed]
    ) -> list[pulumi.Input[pulumi.Resource]]: ...


class Assembly:
    """Settings, hosts and hardware, and all that has been deployed from them so far.

    Each bundle that is deployed is entered here by ``bundle_resource.deploy``: that is how a
    component finds what it stands on, and how the stack's outputs come to name it.
    """

    #: In the order in which it was deployed.
    deployed: list[Deployed]
    #: The stack's output ``cluster``.
    outputs: dict[str, pulumi.Input[Any]]

    def __init__(
        self,
        settings: Settings,
        hosts: Mapping[str, Host],
        hardware: Mapping[str, Hardware],
        cluster: pulumi.Resource,
        last: pulumi.Output[LastOutputs],
        turns: Turns,
    ) -> None:
        """
        Args:
            settings: the stack's.
            hosts: every host of the cluster.
            hardware: compute node → what it has.
            cluster: the resource that all components belong to.
            last: the stack's outputs as the last run left them.
            turns: who waits for whom.
        """
        self.settings = settings
        self.hosts = hosts
        self.hardware = hardware
        self.last = last
        self.turns = turns
        self.options = pulumi.ResourceOptions(parent=cluster)
        self.deployed = []
        self.outputs = {}

    @property
    def controller(self) -> str:
        """The controller's name."""
        return self.settings.roles.controller

    async def left(self) -> LastOutputs:
        """What the last run left, as far as it is known."""
        return await self.last.future() or LastOutputs()

    def on(self, node: str, *roles: str) -> list[pulumi.Resource]:
        """What stands on a node so far of these roles, as far as it has them."""
        return [bundle.resource for bundle in self.bundles(node, *roles)]

    def bundles(self, node: str, *roles: str) -> list[Deployed]:
        """The same, with what the node said."""
        return [bundle for bundle in self.deployed if bundle.node == node and bundle.role in roles]

    def of(self, role: str) -> list[pulumi.Resource]:
        """What stands of a role so far, on all nodes."""
        return [bundle.resource for bundle in self.deployed if bundle.role == role]


class Component(Protocol):
    """What ``components.cluster.COMPONENTS`` holds."""

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        """Deploy the component wherever the settings want it; nowhere, if they do not.

        Its bundles depend on what they stand on, and on no more: what a node has of other
        components must neither delay nor stop them.
        """
