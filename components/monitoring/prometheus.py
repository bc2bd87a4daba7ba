"""Monitoring: Prometheus and Alertmanager on the monitoring host, and the files that they read.

Where a site has a Prometheus of its own (``mode: exportersOnly``), the rules, the targets and the
CAs of the exporters lie in the same places for it to take, and the dashboards for its Grafana.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import pulumi

from components.assembly import Assembly, Deployed
from components.bundle_resource import deploy
from components.failure import recovered
from components.host import host_baseline
from components.keys.certificate import ca_pem
from components.keys.hashed_password import hashed, password_and_salt
from components.monitoring import monitoring_tls, node_exporter
from components.monitoring.dashboards.files import files as dashboards
from components.monitoring.grafana import add_grafana
from components.monitoring.places import (
    DASHBOARDS,
    FOLDER,
    USER,
    certificate,
    exporter_certificate,
)
from components.monitoring.targets import gpu_targets, targets
from remote.bundle import Bundle, Check, Directory, File, Package, Part, Unit, Validate
from remote.host import at
from settings import Settings
from templates.rendering import program, render

ROLE = "monitoring"
SECRETS_ROLE = "monitoring-secrets"
PROMETHEUS = f"{FOLDER}/prometheus.yml"
ALERTMANAGER = f"{FOLDER}/alertmanager.yml"
WEB = f"{FOLDER}/web.yml"
RULES = f"{FOLDER}/rules"
TARGETS = f"{FOLDER}/targets"
EXPORTER_CAS = f"{FOLDER}/exporter-cas.crt"
SECRETS = f"{FOLDER}/secrets"
#: The pages' password as it is, for Prometheus itself and for root.
PASSWORD = f"{SECRETS}/pages"
DATA = "/var/lib/prometheus/metrics2"
ALERTMANAGER_DATA = "/var/lib/prometheus/alertmanager"
_DEFAULTS = "/etc/default/prometheus"
_ALERTMANAGER_DEFAULTS = "/etc/default/prometheus-alertmanager"
#: The rules, by the file in templates/monitoring/rules.
RULE_FILES = ("hosts", "slurm", "product", "gpu")
#: Of `cluster`, what the exporters' CAs were when the last run ended.
_CAS = "exporterCas"


class Monitoring(pulumi.ComponentResource):
    """Prometheus and Alertmanager, behind TLS and a password."""

    def __init__(self, name: str, assembly: Assembly) -> None:
        super().__init__("slurmstack:components:Monitoring", name, None, assembly.options)
        settings = assembly.settings
        assert settings.monitoring is not None
        cas = _exporter_cas(assembly)
        needs = assembly.on(name, host_baseline.ROLE, monitoring_tls.ROLE)
        if settings.monitoring.mode == "full":
            given = settings.monitoring_password
            password, salt = password_and_salt("monitoring", given, self)
            shut = pulumi.Output.all(password, salt).apply(
                lambda told: secrets_bundle(name, settings, told[0], told[1])
            )
            deployed = deploy(assembly, name, shut, SECRETS_ROLE, self, needs, secret=True)
            needs = [*needs, deployed.resource]
            (tls,) = assembly.bundles(name, monitoring_tls.ROLE)
            fact = certificate(name, settings).fact
            assembly.outputs["monitoringUrl"] = url(settings)
            assembly.outputs["monitoringCa"] = tls.answer.apply(lambda answer: ca_pem(answer, fact))
        bundle = cas.apply(lambda told: monitoring_bundle(name, settings, told))
        servers = deploy(assembly, name, bundle, ROLE, self, needs)
        assembly.outputs[_CAS] = cas
        if settings.monitoring.grafana is not None:
            add_grafana(name, assembly, self, password, servers.resource)
        self.register_outputs({})

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        if assembly.settings.monitoring is not None:
            cls(assembly.settings.monitor, assembly)


def url(settings: Settings) -> str:
    """Where people find Prometheus."""
    assert settings.monitoring is not None
    host = settings.monitoring.server_name or settings.hosts[settings.monitor].address
    return f"https://{at(host, settings.monitoring.port)}"


def _exporter_cas(assembly: Assembly) -> pulumi.Output[dict[str, str]]:
    """Host → the CA that it has made, for those that are watched.

    What a host that fails said last counts on, and its failure stops nobody here: the state keeps
    no dependency on the exporters, so that a host that is down keeps no other from being watched.
    """
    settings = assembly.settings
    own: dict[str, Deployed] = {}
    for name, host in settings.members.items():
        if not host.lost:
            (own[name],) = assembly.bundles(name, node_exporter.ROLE)

    async def wait() -> dict[str, str]:
        last = (await assembly.left()).cluster
        before: Mapping[str, str] = last.get(_CAS) or {}
        found = {}
        for name, deployed in own.items():
            said: Any = await recovered(deployed.answer, None).future()
            fact = exporter_certificate(name, settings).fact
            pem = (ca_pem(said, fact) if said is not None else None) or before.get(name)
            if pem is not None:
                found[name] = pem
        return found

    return pulumi.Output.from_input(wait())


def secrets_bundle(node: str, settings: Settings, password: str, salt: str) -> Bundle:
    """The pages' password and what receivers are let in by. This bundle is a secret.

    All of these files are read anew when they are needed: a new one asks for no reload.

    Args:
        node: the host's name.
        settings: the stack's.
        password: of the pages.
        salt: 21 letters and digits, for bcrypt.
    """
    monitoring = settings.monitoring
    assert monitoring is not None
    web = render(
        "monitoring/web.yml",
        own=certificate(node, settings),
        user=monitoring.user,
        hashed=hashed(password, salt),
    )
    names = sorted({name for _, name in monitoring.secrets()})
    owner, mode = f"{USER}:{USER}", "0400"
    return Bundle(
        node,
        SECRETS_ROLE,
        [
            Package("prometheus"),
            Directory(FOLDER, parents=True),
            Directory(SECRETS, owner=f"root:{USER}", mode="0750"),
            File(PASSWORD, password, owner, mode),
            *(
                File(
                    f"{SECRETS}/{name}",
                    settings.monitoring_secrets[name].get_secret_value(),
                    owner,
                    mode,
                )
                for name in names
            ),
            File(WEB, web, owner, mode),
            Validate(
                "web-config",
                f'words=$(promtool check web-config "$SLURMSTACK_STAGED{WEB}" 2>&1) || '
                '{ echo "$words"; exit 1; }\n',
                on=(WEB,),
            ),
        ],
    )


def monitoring_bundle(node: str, settings: Settings, cas: Mapping[str, str]) -> Bundle:
    """What the monitoring host gets: rules, targets and CAs of exporters, and the servers.

    Args:
        node: the host's name.
        settings: the stack's.
        cas: host → the CA of its exporter, in PEM.
    """
    monitoring = settings.monitoring
    assert monitoring is not None
    rules = {f"{RULES}/{name}.yml": program(f"monitoring/rules/{name}.yml") for name in RULE_FILES}
    files = {
        EXPORTER_CAS: "".join(cas[name] for name in sorted(cas)),
        f"{TARGETS}/nodes.json": targets(settings),
        f"{TARGETS}/gpus.json": gpu_targets(settings),
        **rules,
    }
    shown = {PurePosixPath(DASHBOARDS, name): text for name, text in dashboards().items()}
    # Without servers the package is there for promtool, which reads the rules.
    servers: list[Part] = [Unit("prometheus.service", enabled=False, running=False)]
    if monitoring.mode == "full":
        servers = _servers(node, settings, tuple(rules))
    return Bundle(
        node,
        ROLE,
        [
            Package("prometheus"),
            Directory(FOLDER, parents=True),
            Directory(RULES),
            Directory(TARGETS),
            Directory(DASHBOARDS),
            *(Directory(folder) for folder in sorted({str(it.parent) for it in shown})),
            *(File(str(path), text) for path, text in shown.items()),
            *(File(path, text) for path, text in files.items()),
            Validate(
                "rules",
                render("monitoring/rules-are-read.sh", rules=sorted(rules)),
                on=tuple(sorted(rules)),
            ),
            *servers,
        ],
    )


def _servers(node: str, settings: Settings, rules: tuple[str, ...]) -> list[Part]:
    monitoring = settings.monitoring
    assert monitoring is not None
    own, address = certificate(node, settings), settings.hosts[node].address
    external = at(monitoring.server_name or address, monitoring.alertmanager_port)
    place = {
        "monitoring": monitoring,
        "cluster": settings.cluster.name,
        "own": own,
        "prometheus": at(address, monitoring.port),
        "alertmanager": at(address, monitoring.alertmanager_port),
        "external": {"prometheus": url(settings), "alertmanager": f"https://{external}"},
        "slurmctld": _slurmctld(settings),
        "secrets": SECRETS,
        "password": PASSWORD,
        "rules": RULES,
        "targets": TARGETS,
        "exporter_cas": EXPORTER_CAS,
        "web": WEB,
        "folder": FOLDER,
        "configs": {"prometheus": PROMETHEUS, "alertmanager": ALERTMANAGER},
        "data": {"prometheus": DATA, "alertmanager": ALERTMANAGER_DATA},
    }
    return [
        Package("prometheus-alertmanager"),
        Package("curl"),
        File(PROMETHEUS, render("monitoring/prometheus.yml", **place)),
        File(ALERTMANAGER, render("monitoring/alertmanager.yml", **place)),
        File(_DEFAULTS, render("monitoring/prometheus.default", **place)),
        File(_ALERTMANAGER_DEFAULTS, render("monitoring/alertmanager.default", **place)),
        Validate(
            "servers",
            render("monitoring/servers-read-it.sh", **place),
            on=(PROMETHEUS, ALERTMANAGER),
        ),
        Unit(
            "prometheus-alertmanager.service",
            restart_on=(_ALERTMANAGER_DEFAULTS, "package:prometheus-alertmanager"),
            reload_on=(ALERTMANAGER,),
        ),
        Unit(
            "prometheus.service",
            restart_on=(_DEFAULTS, "package:prometheus"),
            reload_on=(PROMETHEUS, *rules),
            timeout=180,
        ),
        Check("pages-answer", render("monitoring/pages-answer.sh", **place)),
    ]


def _slurmctld(settings: Settings) -> str | None:
    """Where slurmctld tells of itself: on its own port, if MetricsType says so (slurm.conf(5) of
    25.11)."""
    if str(settings.slurm.extra.get("MetricsType")) != "metrics/openmetrics":
        return None
    return at(settings.hosts[settings.roles.controller].address, settings.slurm.slurmctld_port)
