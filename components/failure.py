"""What a failed resource leaves to those that need it, so that the run goes on and says why.

With ``--continue-on-error`` the engine skips what depends on a failed resource. The SDK (3.260)
does not let it: it awaits the URN of each dependency, the failed one's raises, and the program ends
in a traceback before the other nodes are done.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Mapping
from typing import Any, TypeVar, cast

import pulumi
from pulumi.resource import DependencyResource
from pulumi.runtime.stack import ResourceRegistrationFailed

from components.assembly import Deployed
from remote.contact import ContactError, run_on_hosts
from remote.host import Host

T = TypeVar("T")

#: Seconds for a node whose bundle has failed to answer.
_SECONDS = 15.0
#: Whether a daemon of this host takes slurm.conf from the controller.
_SERVED = "systemctl is-active --quiet slurmd sackd"


def dependency(resource: pulumi.Resource, parent: pulumi.Resource) -> pulumi.Resource:
    """A resource as ``depends_on`` takes it, with its URN even when it has failed.

    The engine then knows of the dependency, and skips what has it.
    """
    name, kind = resource.pulumi_resource_name, resource.pulumi_resource_type
    stand_in = DependencyResource("")
    stand_in._name, stand_in._type = name, kind
    stand_in.__dict__["urn"] = recovered(resource.urn, pulumi.create_urn(name, kind, parent))
    return stand_in


def recovered(output: pulumi.Output[T], instead: pulumi.Input[T]) -> pulumi.Output[T]:
    """The output, or another value when the resource it is of has failed or was skipped.

    Where that is an input of a resource, the resource must have :func:`dependency` on the failed
    one too: it is skipped then, and the other value goes nowhere.
    """

    def replace(error: Exception) -> pulumi.Input[T]:
        if isinstance(error, ResourceRegistrationFailed):
            return instead
        raise error

    return output.recover(replace)


def took(bundle: Deployed) -> pulumi.Output[bool]:
    """Whether a bundle was taken, now or before; unknown where that cannot be told (--target)."""
    return recovered(bundle.answer.apply(lambda _: True), False)


def if_any(
    resource: Coroutine[Any, Any, pulumi.Resource | None],
) -> pulumi.Output[pulumi.Resource]:
    """What turns out to be a resource or nothing, as ``depends_on`` takes it: it takes no notice of
    None, which its type does not say."""
    return cast("pulumi.Output[pulumi.Resource]", pulumi.Output.from_input(resource))


def unless_idle(
    bundles: Iterable[Deployed], hosts: Mapping[str, Host]
) -> list[pulumi.Input[pulumi.Resource]]:
    """Bundles as ``depends_on`` takes them; those that failed where no daemon takes its
    configuration from the controller are left out.

    What needs a bundle on every node must not stand still for a node that is down, or that is new
    and in trouble: nothing runs there that could miss it, and the run that meets the node again
    brings it.
    """
    return [_unless_idle(bundle, hosts[bundle.node]) for bundle in bundles]


def _unless_idle(bundle: Deployed, host: Host) -> pulumi.Input[pulumi.Resource]:
    async def wait() -> pulumi.Resource | None:
        if pulumi.runtime.is_dry_run() or host.lost:
            return bundle.resource
        if await took(bundle).future():
            return bundle.resource
        reply = (await run_on_hosts([host], _SERVED, seconds=_SECONDS))[host.name]
        misses_it = not isinstance(reply, ContactError) and reply.status == 0
        return bundle.resource if misses_it else None

    return if_any(wait())
