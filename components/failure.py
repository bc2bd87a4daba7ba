"""What a failed resource leaves to those that need it, so that the run goes on and says why.

With ``--continue-on-error`` the engine skips what depends on a failed resource. The SDK (3.260)
does not let it: it awaits the URN of each dependency, the failed one's raises, and the program ends
in a traceback before the other nodes are done.
"""

from __future__ import annotations

from typing import TypeVar

import pulumi
from pulumi.resource import DependencyResource
from pulumi.runtime.stack import ResourceRegistrationFailed

T = TypeVar("T")


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
