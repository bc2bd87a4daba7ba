"""SlurmExporter: Slurm's figures, asked of slurmctld once an interval whoever reads them.

A daemon on the controller asks by Slurm's own commands and writes a text file, which node-exporter
serves: so slurmctld is asked no oftener when more ask, and there is one listener, one certificate.
"""

from __future__ import annotations

from components.assembly import Assembly
from components.bundle_resource import HostRole
from components.controller import slurm_controller
from components.monitoring import node_exporter
from components.monitoring.node_exporter import SLURM_METRICS
from remote.bundle import Bundle, Check, Command, Directory, File, Package, Unit
from settings import Settings
from templates.rendering import program, render

ROLE = "slurm-exporter"
PROGRAM = "/usr/local/lib/slurmstack/slurm-exporter"
_SERVICE = "/etc/systemd/system/slurmstack-slurm-exporter.service"


class SlurmExporter(HostRole):
    """The daemon, as SlurmUser, who may see all jobs whatever PrivateData hides."""

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        if assembly.settings.monitoring is None:
            return
        name = assembly.controller
        needs = assembly.on(name, slurm_controller.ROLE, node_exporter.ROLE)
        cls(name, assembly, slurm_exporter_bundle(name, assembly.settings), needs)


def slurm_exporter_bundle(node: str, settings: Settings) -> Bundle:
    """What the controller gets of it."""
    monitoring = settings.monitoring
    assert monitoring is not None
    unit = render(
        "monitoring/slurm-exporter.service",
        program=PROGRAM,
        folder=SLURM_METRICS,
        interval=monitoring.slurm_interval,
        accounting=settings.accounting is not None,
    )
    return Bundle(
        node,
        ROLE,
        [
            Package("python3-prometheus-client"),
            Directory(SLURM_METRICS, owner="slurm:slurm", ephemeral=True),
            File(PROGRAM, program("monitoring/slurm_exporter.py"), mode="0755"),
            File(_SERVICE, unit),
            Command("forget-figures", f"rm -f {SLURM_METRICS}/*.prom\n", when="remove", timeout=30),
            Unit("slurmstack-slurm-exporter.service", restart_on=(PROGRAM, _SERVICE)),
            Check(
                "slurm-is-seen",
                f"grep -qx 'slurm_up 1.0' {SLURM_METRICS}/slurm.prom 2>/dev/null && exit 0\n"
                "echo 'slurm-exporter has seen no slurmctld; see "
                "journalctl -u slurmstack-slurm-exporter'\nexit 1\n",
            ),
        ],
    )
