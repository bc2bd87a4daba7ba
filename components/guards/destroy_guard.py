"""DestroyGuard: refuses `pulumi destroy` while jobs run or wait, before anything is taken back."""

from __future__ import annotations

from components.assembly import Assembly
from components.bundle_resource import HostRole
from components.failure import unless_idle
from components.guards import guards
from remote.bundle import Bundle, Guard
from settings import Settings

ROLE = "destroy-guard"


class DestroyGuard(HostRole):
    """Nothing on the controller but a question, which is asked when it is deleted.

    It depends on all that is deployed. Pulumi deletes what depends before what it depends on, and
    goes on to nothing of that when a delete fails: so this one is the first to go, and stays
    together with everything else while it is refused.
    """

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        name = assembly.controller
        bundle = destroy_guard_bundle(name, assembly.settings)
        cls(name, assembly, bundle, unless_idle(assembly.deployed, assembly.hosts))


def destroy_guard_bundle(node: str, settings: Settings) -> Bundle:
    """A guard, where the settings do not allow the loss of jobs."""
    ask = Guard("jobs-end", guards.program("job_guard", "destroy"), when="remove", timeout=120)
    return Bundle(node, ROLE, [] if settings.guards.allow_job_loss else [ask])
