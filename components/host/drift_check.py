"""DriftCheck: each host compares itself with what was last applied to it, and tells.

It compares by the applier's `compare`, as `slurmstack drift` does. Bundles hold secrets and do not
lie on hosts: what the applier keeps of each is hashes (`applied`, remote/README.md).
"""

from __future__ import annotations

from components.accounting.slurmdbd import RECONCILE
from components.assembly import Assembly
from components.bundle_resource import HostRole
from components.controller.slurm_controller import SLURM_CONF
from components.guards import guards
from components.host import host_baseline
from components.host.metrics import METRICS, forgotten
from remote.bundle import Bundle, Directory, File, Unit
from remote.commands import APPLIER_PATH, STATE_PATH
from settings import Settings
from templates.rendering import render

ROLE = "drift-check"
PROGRAM = "/usr/local/lib/slurmstack/drift-check"
_SERVICE = "/etc/systemd/system/slurmstack-drift.service"
_TIMER = "/etc/systemd/system/slurmstack-drift.timer"


class DriftCheck(HostRole):
    """The timer of one host. Nothing waits for it."""

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        if assembly.settings.drift_check is None:
            return
        for name in assembly.hosts:
            bundle = drift_check_bundle(name, assembly.settings)
            cls(name, assembly, bundle, assembly.on(name, host_baseline.ROLE, guards.ROLE))


def drift_check_bundle(node: str, settings: Settings) -> Bundle:
    """What every host gets; on the controller it also asks slurmctld and slurmdbd."""
    assert settings.drift_check is not None
    cluster = ""
    if node == settings.roles.controller:
        words = [SLURM_CONF, *([RECONCILE] if settings.accounting is not None else [])]
        cluster = guards.program("cluster_drift", *words)
    return Bundle(
        node,
        ROLE,
        [
            Directory(METRICS),
            File(
                PROGRAM,
                render(
                    "host/drift-check.sh",
                    applier=APPLIER_PATH,
                    state=STATE_PATH,
                    folder=METRICS,
                    cluster=cluster,
                ),
                mode="0755",
            ),
            File(_SERVICE, render("host/drift-check.service", program=PROGRAM, folder=METRICS)),
            File(
                _TIMER,
                render("host/drift-check.timer", on_calendar=settings.drift_check.on_calendar),
            ),
            forgotten("drift", unit="slurmstack-drift"),
            Unit("slurmstack-drift.timer", restart_on=(_TIMER,)),
        ],
    )
