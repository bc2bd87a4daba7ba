"""MonitoringTls: the certificate by which the monitoring host asks, and by which its pages answer.

It comes before every exporter: they answer clients of its CA, and nobody else.
"""

from __future__ import annotations

from components.assembly import Assembly
from components.bundle_resource import HostRole
from components.host import host_baseline
from components.keys.certificate import certificate_parts
from components.monitoring.places import FOLDER, certificate
from remote.bundle import Bundle, Directory, Package
from settings import Settings

ROLE = "monitoring-tls"


class MonitoringTls(HostRole):
    """The certificate of the monitoring host."""

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        settings = assembly.settings
        if settings.monitoring is None or settings.monitoring.mode != "full":
            return
        name = settings.monitor
        needs = assembly.on(name, host_baseline.ROLE)
        cls(name, assembly, monitoring_tls_bundle(name, settings), needs)


def monitoring_tls_bundle(node: str, settings: Settings) -> Bundle:
    """A CA, a certificate, and what renews it. The package brings the user who reads it."""
    return Bundle(
        node,
        ROLE,
        [
            Package("prometheus"),
            Directory(FOLDER, parents=True),
            *certificate_parts(certificate(node, settings)),
        ],
    )
