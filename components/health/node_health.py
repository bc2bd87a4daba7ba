"""NodeHealth: our own checks of a compute node (``on_node/health``), where NHC is not the choice.

slurmd runs them as HealthCheckProgram; before and after jobs they are called by a Prolog and an
Epilog beside the site's (``components.configuration.job_programs``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.assembly import Assembly
from components.bundle_resource import HostRole
from components.health.with_jobs import ROLE, own
from components.host import host_baseline
from components.host.metrics import METRICS, forgotten
from components.host.mounts import mounted
from components.host.python_programs import python_programs
from components.host.scratch import scratches
from remote.bundle import Bundle, Directory, File, Part
from settings import Settings
from settings.gres import cards, real_gpus
from settings.health import PROGRAM
from settings.mig import geometry
from settings.model import Hardware
from templates.rendering import render

CONFIG = "/etc/slurmstack/health.json"
#: What was found last, and for what the node was drained.
KEPT = "/var/lib/slurmstack-health"
_LIBRARY = "/usr/local/lib/slurmstack-health"


class NodeHealth(HostRole):
    """The checks of one compute node, there before slurm.conf names them."""

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        settings = assembly.settings
        if own(settings) is None:
            return
        for name in settings.compute_nodes:
            bundle = health_bundle(name, settings, assembly.hardware)
            cls(name, assembly, bundle, assembly.on(name, host_baseline.ROLE))


def health_bundle(node: str, settings: Settings, hardware: Mapping[str, Hardware]) -> Bundle:
    """What a compute node gets."""
    return Bundle(
        node,
        ROLE,
        [
            # Of the controller's programs, those that read what scontrol says.
            *python_programs(_LIBRARY, "node_states", "slurm_state", "health"),
            Directory(str(Path(PROGRAM).parent)),
            Directory(str(Path(CONFIG).parent)),
            Directory(KEPT, ephemeral=True),
            Directory(METRICS),
            File(PROGRAM, render("health/health-check.sh", library=_LIBRARY), mode="0755"),
            *_config(node, settings, hardware),
            forgotten("health", lock="/run/slurmstack-health/lock"),
        ],
    )


def _config(node: str, settings: Settings, hardware: Mapping[str, Hardware]) -> list[Part]:
    """None for a node that is lost: nothing is sent to it, and nothing is known of it."""
    if node not in settings.compute:
        return []
    text = json.dumps(config(node, settings, hardware[node]), indent=1, sort_keys=True)
    return [File(CONFIG, f"{text}\n")]


def config(node: str, settings: Settings, has: Hardware) -> dict[str, Any]:
    """What the checks compare the node with."""
    check = own(settings)
    assert check is not None
    node_class = settings.compute[node]
    declared = node_class.gres(has)
    count, sliced = cards(declared)
    # Where somebody else cuts them, one at least.
    cut = len(geometry(node_class.mig or {})) or 1 if sliced else 0
    types = {gpu.type for gpu in real_gpus(declared) if gpu.automatic and not gpu.sliced}
    precheck, limits = settings.precheck, check.limits
    return {
        "node": node,
        "deadline": limits.deadline,
        "disk": dict(limits.free_disk),
        "mounts": sorted(
            {
                *check.mounts,
                *(it.mounted_at for it in mounted(node, settings).values()),
                *(it.path for it in scratches(node, settings).values()),
            }
        ),
        "memory": limits.free_memory,
        "zombies": limits.zombies,
        "fork": limits.fork_time,
        "clock": limits.clock_error,
        "link_flaps": limits.link_flaps,
        "gpu_memory": limits.gpu_memory,
        "gpus": {
            "count": count,
            "type": types.pop() if len(types) == 1 else None,
            "cut": cut,
            "nvlinks": limits.nvlinks,
        }
        if count or sliced
        else None,
        "xids": sorted(check.xids),
        "infiniband": {"ports": precheck.infiniband_ports, "rate": precheck.infiniband_rate},
        "without": sorted(check.without),
        "prolog": check.prolog,
        "epilog": check.epilog,
        "sweep": list(check.sweep),
    }
