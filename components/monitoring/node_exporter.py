"""NodeExporter: what every host tells of itself, to the monitoring host and to nobody else.

node-exporter speaks TLS with a certificate that the host has made, and asks for one of the CA of
the monitoring host. Beside its own figures it reads two folders of text files: what this product
knows of the host (keys, certificates, dumps, drift), and on the controller what Slurm says.
"""

from __future__ import annotations

import pulumi

from components.accounting.database import DATABASE
from components.assembly import Assembly
from components.bundle_resource import deploy
from components.host import host_baseline
from components.host.metrics import METRICS, forgotten
from components.keys import munge_key
from components.keys.certificate import ca_pem, certificate_parts
from components.monitoring import monitoring_tls
from components.monitoring.places import FOLDER, certificate, exporter_certificate
from components.rest import slurmrestd
from remote.bundle import Bundle, Check, Command, Directory, File, Package, Part, Unit
from remote.commands import STATE_PATH
from settings import Settings
from templates.rendering import render

ROLE = "node-exporter"
DEFAULTS = "/etc/default/prometheus-node-exporter"
WEB = f"{FOLDER}/node-exporter.yml"
CLIENT_CA = f"{FOLDER}/client-ca.crt"
#: Where the exporter of Slurm writes: its own folder, since it is not root.
SLURM_METRICS = f"{METRICS}/slurm"
PROGRAM = "/usr/local/lib/slurmstack/host-metrics"
_SERVICE = "/etc/systemd/system/slurmstack-host-metrics.service"
_TIMER = "/etc/systemd/system/slurmstack-host-metrics.timer"
#: Units whose absence is an alert, where a host has them.
UNITS = (
    "slurmctld", "slurmdbd", "slurmrestd", "slurmd", "sackd", "munge", "mariadb", "haproxy",
    "slurmstack-slurm-exporter",
)  # fmt: skip


class NodeExporter(pulumi.ComponentResource):
    """node-exporter of one host."""

    def __init__(self, name: str, assembly: Assembly) -> None:
        super().__init__("slurmstack:components:NodeExporter", name, None, assembly.options)
        settings = assembly.settings
        assert settings.monitoring is not None
        needs = assembly.on(name, host_baseline.ROLE)
        given = settings.monitoring.client_ca
        bundle: Bundle | pulumi.Output[Bundle]
        if given is not None:
            bundle = node_exporter_bundle(name, settings, given)
        else:
            (tls,) = assembly.bundles(settings.monitor, monitoring_tls.ROLE)
            fact = certificate(settings.monitor, settings).fact
            bundle = tls.answer.apply(
                lambda answer: node_exporter_bundle(name, settings, ca_pem(answer, fact) or "")
            )
            needs = [*needs, tls.resource]
        deploy(assembly, name, bundle, ROLE, self, needs)
        self.register_outputs({})

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        if assembly.settings.monitoring is not None:
            for name in assembly.hosts:
                cls(name, assembly)


def node_exporter_bundle(node: str, settings: Settings, client_ca: str) -> Bundle:
    """What every host gets.

    Args:
        node: the host's name.
        settings: the stack's.
        client_ca: whose clients are answered, in PEM.
    """
    monitoring = settings.monitoring
    assert monitoring is not None
    own = exporter_certificate(node, settings)
    address = settings.hosts[node].address
    web = render("monitoring/node-exporter-web.yml", pem=own.pem, client_ca=CLIENT_CA)
    defaults = render(
        "monitoring/node-exporter.default",
        port=monitoring.exporter_port,
        web=WEB,
        folders=[METRICS, *([SLURM_METRICS] if node == settings.roles.controller else [])],
        units="|".join(UNITS),
    )
    parts: list[Part] = [
        Package("prometheus-node-exporter"),
        Package("curl"),
        Directory(FOLDER, parents=True),
        *certificate_parts(own),
        File(CLIENT_CA, client_ca),
        File(WEB, web),
        File(DEFAULTS, defaults),
        *_host_metrics(node, settings),
        Unit("prometheus-node-exporter.service", restart_on=(DEFAULTS,)),
        Check(
            "exporter-is-shut",
            render(
                "monitoring/exporter-is-shut.sh",
                address=address,
                port=monitoring.exporter_port,
                ca=own.ca,
                pem=certificate(node, settings).pem if _asks(node, settings) else None,
            ),
        ),
    ]
    return Bundle(node, ROLE, parts)


def _asks(node: str, settings: Settings) -> bool:
    """Whether the exporters are asked from this host."""
    monitoring = settings.monitoring
    return monitoring is not None and monitoring.mode == "full" and node == settings.monitor


def _host_metrics(node: str, settings: Settings) -> list[Part]:
    """What the product knows of the host, looked at once a minute."""
    monitoring = settings.monitoring
    assert monitoring is not None
    head = node == settings.roles.controller
    keys = {"munge": munge_key.PATH}
    used = [exporter_certificate(node, settings)]
    if _asks(node, settings):
        used.append(certificate(node, settings))
    certificates = [path for it in used for path in (it.pem, it.ca)]
    if head and settings.jwt is not None:
        keys |= {"jwks": "/etc/slurm/slurm.jwks", "jwt": "/etc/slurm/jwt.key"}
    if head and settings.rest is not None:
        made = slurmrestd.certificate(settings)
        own = settings.rest.certificate is not None
        certificates += [slurmrestd.SITE_PEM] if own else [made.pem, made.ca]
    dumps = None
    if head and settings.accounting is not None:
        dumps = settings.accounting.dump.directory
    script = render(
        "monitoring/host-metrics.sh",
        folder=METRICS,
        state=STATE_PATH,
        keys=dict(sorted(keys.items())),
        max_age=monitoring.key_max_age,
        certificates=certificates,
        dumps=dumps,
        database=DATABASE,
        slurm_conf="/etc/slurm/slurm.conf" if head else "/run/slurm/conf/slurm.conf",
    )
    return [
        Directory(METRICS),
        File(PROGRAM, script, mode="0755"),
        File(_SERVICE, render("monitoring/host-metrics.service", program=PROGRAM, folder=METRICS)),
        File(_TIMER, render("monitoring/host-metrics.timer")),
        Command("host-metrics", f"exec {PROGRAM}\n", on=(PROGRAM,), timeout=60),
        forgotten("host", unit="slurmstack-host-metrics"),
        Unit("slurmstack-host-metrics.timer", restart_on=(_TIMER,)),
    ]
