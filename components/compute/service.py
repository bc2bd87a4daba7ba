"""How a compute node is taken out of use before a change, and given back: ``compute/service.sh``.

Each role that does so has a reason of its own, by which it tells its drains from all others.
"""

from __future__ import annotations

from collections.abc import Sequence

from components.health import node_acceptance
from remote.bundle import Withdrawal
from settings import Settings
from settings.duration import written
from templates.rendering import render

#: The reason of a drain for a boot (``components.boot.node_boot``).
BOOTING = "slurmstack: the node is being booted"


def withdrawal(
    node: str,
    settings: Settings,
    ours: str,
    on: Sequence[str] = (),
    unit: str | None = None,
    first: str = "",
) -> Withdrawal:
    """How the node is drained before a change, and given back.

    Args:
        node: its name.
        settings: the stack's.
        ours: the reason of such drains.
        on: what of the bundle must not change while a unit of another role is at work.
        unit: that one.
        first: shell text that may find that nothing, or something else, is to be done.
    """
    accept = accepted_by(settings)
    script = service(node, settings, ours, accept, first)
    timeout = settings.rollout.drain_timeout + (900 if accept is None else 1500)
    return Withdrawal("node-drained", script, timeout=timeout, on=tuple(on), unit=unit)


def accepted_by(settings: Settings) -> str | None:
    """What a node must show that a change had taken out of use; None for a job of one second."""
    return node_acceptance.GATE if "rollout" in node_acceptance.gates(settings) else None


def service(node: str, settings: Settings, ours: str, accept: str | None, first: str = "") -> str:
    """The script that takes a node out of use and gives it back.

    Args:
        node: its name.
        settings: the stack's.
        ours: the reason of such drains.
        accept: what the node must show before it is given back; None for a job of one second.
        first: shell text before all that, which may leave the script.
    """
    rollout, health = settings.rollout, settings.health_check
    return render(
        "compute/service.sh",
        node=node,
        ours=ours,
        server=server(settings),
        seconds=rollout.drain_timeout,
        written=written(rollout.drain_timeout),
        end_jobs=rollout.end_jobs,
        health=health.command if health is not None else None,
        accept=accept,
        first=first,
    )


def server(settings: Settings) -> str:
    """Where nodes find slurmctld: its address and port."""
    controller = settings.hosts[settings.roles.controller]
    return f"{controller.address}:{settings.slurm.slurmctld_port}"
