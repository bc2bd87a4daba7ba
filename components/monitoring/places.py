"""Where the parts of monitoring lie on a host, and the certificates that they use there."""

from __future__ import annotations

from dataclasses import replace

from components.keys.certificate import Certificate
from settings import Settings

#: Below the packages' own folder; all of it is ours.
FOLDER = "/etc/prometheus/slurmstack"
TLS = f"{FOLDER}/tls"
EXPORTER_TLS = f"{FOLDER}/exporter-tls"
#: Grafana's dashboards, in folders as Grafana has them.
DASHBOARDS = f"{FOLDER}/dashboards"
#: Prometheus's, Alertmanager's and node-exporter's packages run them as this user.
USER = "prometheus"


def certificate(node: str, settings: Settings) -> Certificate:
    """The monitoring host's, by which its pages answer and Prometheus asks.

    Exporters, Prometheus and Alertmanager read theirs anew for each connection (exporter-toolkit's
    web-config, Prometheus's tls_config), so that nobody has to be told of another one.
    """
    monitoring = settings.monitoring
    assert monitoring is not None
    names = [settings.hosts[node].address, node]
    if node == settings.monitor and monitoring.server_name is not None:
        names.insert(0, monitoring.server_name)
    return Certificate(
        name="metrics",
        of="Prometheus and Alertmanager",
        of_what="the monitoring host",
        authority=f"slurmstack metrics CA of {node} in cluster {settings.cluster.name}",
        folder=TLS,
        names=tuple(dict.fromkeys(names)),
        days=monitoring.certificate_days,
        renew_days=monitoring.renew_days,
        usage="serverAuth,clientAuth",
        owner=USER,
    )


def exporter_certificate(node: str, settings: Settings) -> Certificate:
    """What the exporters of a host answer by.

    The monitoring host has this one, too: a host becomes it, and is it no more, and a path that
    went from one role to another on the way would be refused by the applier.
    """
    return replace(
        certificate(node, settings),
        name="exporter",
        of="what is watched on this host",
        of_what="this host's metrics",
        folder=EXPORTER_TLS,
        names=(settings.hosts[node].address, node),
        usage="serverAuth",
    )
