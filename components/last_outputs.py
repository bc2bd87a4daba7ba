"""What the last run left: the stack's outputs before this one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pulumi


@dataclass(frozen=True)
class LastOutputs:
    """The outputs. They are no dict, since the SDK (3.260) goes through one in an Output entry by
    entry each time it is asked for (contains_unknowns, from_input): of 64 nodes that took half of
    the program's processor time."""

    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def inventory(self) -> Mapping[str, Any]:
        """Node → what it said when it was applied last."""
        return self.values.get("inventory") or {}

    @property
    def cluster(self) -> Mapping[str, Any]:
        """What the components said of the cluster as a whole."""
        return self.values.get("cluster") or {}


def last_outputs() -> pulumi.Output[LastOutputs]:
    """The stack's outputs as the last run left them."""
    root = pulumi.runtime.get_root_resource()
    assert root is not None
    stored: pulumi.Output[Any] = pulumi.runtime.invoke_output(
        "pulumi:pulumi:getResource", {"urn": root.urn}
    )
    # What was a secret in it (see __main__.py) must not make one of what is told from it.
    return pulumi.Output.unsecret(stored).apply(lambda resource: LastOutputs(resource["state"]))
