"""Where the parts of monitoring lie on a host, and the certificate that all of them use there."""

from __future__ import annotations

from components.keys.certificate import Certificate
from settings import Settings

#: Below the packages' own folder; all of it is ours.
FOLDER = "/etc/prometheus/slurmstack"
TLS = f"{FOLDER}/tls"
#: Grafana's dashboards, in folders as Grafana has them.
DASHBOARDS = f"{FOLDER}/dashboards"
#: Prometheus's, Alertmanager's and node-exporter's packages run them as this user.
USER = "prometheus"


def certificate(node: str, settings: Settings) -> Certificate:
    """One a host, for all that listens there and, where Prometheus runs, for its asking.

    Exporters, Prometheus and Alertmanager read it anew for each connection (exporter-toolkit's
    web-config, Prometheus's tls_config), so that nobody has to be told of another one.
    """
    monitoring = settings.monitoring
    assert monitoring is not None
    names = [settings.hosts[node].address, node]
    if node == settings.monitor and monitoring.server_name is not None:
        names.insert(0, monitoring.server_name)
    return Certificate(
        name="metrics",
        of="what is watched on this host",
        of_what="this host's metrics",
        authority=f"slurmstack metrics CA of {node} in cluster {settings.cluster.name}",
        folder=TLS,
        names=tuple(dict.fromkeys(names)),
        days=monitoring.certificate_days,
        renew_days=monitoring.renew_days,
        usage="serverAuth,clientAuth",
        owner=USER,
    )


def at(address: str, port: int) -> str:
    """An address and a port as URLs and targets have them."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
