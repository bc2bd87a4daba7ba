"""Grafana: the dashboards in a browser, from a package that the settings name.

All that is provisioned lies in files: the data source, which is Prometheus beside it by its own
password and CA, and the dashboards with their folders. Nothing is made by hand on its pages.
"""

from __future__ import annotations

import pulumi
import pulumi_random as random

from components.assembly import Assembly
from components.bundle_resource import deploy
from components.host import host_baseline
from components.keys.certificate import Certificate, ca_pem, certificate_parts
from components.monitoring import monitoring_tls
from components.monitoring.places import DASHBOARDS
from components.monitoring.places import certificate as prometheus_certificate
from components.packages import package_repository
from remote.bundle import Bundle, Check, Command, Directory, File, Package, Unit
from remote.host import at
from settings import Settings
from settings.grafana import Grafana
from templates.rendering import render

ROLE = "grafana"
SECRETS_ROLE = "grafana-secrets"
#: The package runs it as this user.
USER = "grafana"
FOLDER = "/etc/grafana/slurmstack"
INI = "/etc/grafana/grafana.ini"
PROVISIONING = f"{FOLDER}/provisioning"
SECRETS = f"{FOLDER}/secrets"
#: Of the user admin.
PASSWORD = f"{SECRETS}/admin"
#: By which Grafana encrypts what it keeps in its own database.
SECRET_KEY = f"{SECRETS}/secret-key"
PROMETHEUS_PASSWORD = f"{SECRETS}/prometheus"
PROMETHEUS_CA = f"{FOLDER}/prometheus-ca.crt"
_SOURCE = f"{PROVISIONING}/datasources/slurmstack.yaml"
_PROVIDER = f"{PROVISIONING}/dashboards/slurmstack.yaml"


def add_grafana(
    name: str,
    assembly: Assembly,
    parent: pulumi.Resource,
    prometheus_password: pulumi.Output[str],
    prometheus: pulumi.Resource,
) -> None:
    """Grafana beside Prometheus, behind TLS.

    Args:
        name: the monitoring host.
        assembly: what it is part of.
        parent: the component it belongs to.
        prometheus_password: of the pages of Prometheus.
        prometheus: what its data source stands on.
    """
    settings = assembly.settings
    options = pulumi.ResourceOptions(parent=parent)
    password, key = (
        random.RandomPassword(f"grafana-{of}", length=32, special=False, opts=options).result
        for of in ("password", "secret-key")
    )
    needs = assembly.on(name, host_baseline.ROLE, *package_repository.ROLES)
    secrets = pulumi.Output.all(password, key, prometheus_password).apply(
        lambda told: grafana_secrets_bundle(name, settings, *told)
    )
    shut = deploy(assembly, name, secrets, SECRETS_ROLE, parent, needs, secret=True)
    (tls,) = assembly.bundles(name, monitoring_tls.ROLE)
    fact = prometheus_certificate(name, settings).fact
    bundle = tls.answer.apply(
        lambda answer: grafana_bundle(name, settings, ca_pem(answer, fact) or "")
    )
    needs = [*needs, shut.resource, tls.resource, prometheus]
    deployed = deploy(assembly, name, bundle, ROLE, parent, needs)
    made = certificate(name, settings)
    assembly.outputs["grafanaUrl"] = url(settings)
    assembly.outputs["grafanaCa"] = deployed.answer.apply(lambda told: ca_pem(told, made.fact))


def _setting(settings: Settings) -> Grafana:
    assert settings.monitoring is not None
    assert settings.monitoring.grafana is not None
    return settings.monitoring.grafana


def _package(settings: Settings) -> Package:
    setting = _setting(settings)
    version = setting.package.version if setting.package is not None else None
    return Package(setting.package_name, version)


def url(settings: Settings) -> str:
    """Where people find it."""
    assert settings.monitoring is not None
    host = settings.monitoring.server_name or settings.hosts[settings.monitor].address
    return f"https://{at(host, _setting(settings).port)}"


def certificate(node: str, settings: Settings) -> Certificate:
    """Its own, since Grafana runs as another user than Prometheus, whose key is nobody else's."""
    monitoring = settings.monitoring
    assert monitoring is not None
    return Certificate(
        name="grafana",
        of="Grafana's pages",
        of_what="Grafana",
        authority=f"slurmstack Grafana CA of cluster {settings.cluster.name}",
        folder=f"{FOLDER}/tls",
        names=prometheus_certificate(node, settings).names,
        days=monitoring.certificate_days,
        renew_days=monitoring.renew_days,
        owner=USER,
    )


def grafana_secrets_bundle(
    node: str, settings: Settings, password: str, secret_key: str, prometheus_password: str
) -> Bundle:
    """What Grafana lets admin in by, and what it is let in by. This bundle is a secret.

    Args:
        node: the host's name.
        settings: the stack's.
        password: of the user admin.
        secret_key: by which Grafana encrypts what it keeps.
        prometheus_password: of the pages of Prometheus.
    """
    files = {PASSWORD: password, SECRET_KEY: secret_key, PROMETHEUS_PASSWORD: prometheus_password}
    return Bundle(
        node,
        SECRETS_ROLE,
        [
            _package(settings),
            Directory(FOLDER, parents=True),
            Directory(SECRETS, owner=f"root:{USER}", mode="0750"),
            *(File(path, text, f"root:{USER}", "0440") for path, text in files.items()),
            # grafana.ini's password is for a first start only.
            Command(
                "admin-password",
                render("monitoring/grafana-admin-password.sh", user=USER, ini=INI, file=PASSWORD),
                on=(PASSWORD,),
                timeout=120,
            ),
            # The data source's is read when it starts.
            Command(
                "grafana-reads-secrets",
                "systemctl try-restart grafana-server.service\n",
                on=(SECRET_KEY, PROMETHEUS_PASSWORD),
                restarts=("grafana-server.service",),
                timeout=180,
            ),
        ],
    )


def grafana_bundle(node: str, settings: Settings, prometheus_ca: str) -> Bundle:
    """Grafana, its configuration, and what is provisioned.

    Args:
        node: the host's name.
        settings: the stack's.
        prometheus_ca: whose certificate Prometheus has, in PEM.
    """
    monitoring, setting = settings.monitoring, _setting(settings)
    assert monitoring is not None
    own, address = certificate(node, settings), settings.hosts[node].address
    place = {
        "monitoring": monitoring,
        "grafana": setting,
        "own": own,
        "host": monitoring.server_name or address,
        "url": url(settings),
        "address": at(address, setting.port),
        "prometheus": at(address, monitoring.port),
        "dashboards": DASHBOARDS,
        "provisioning": PROVISIONING,
        "password": PASSWORD,
        "secret_key": SECRET_KEY,
        "prometheus_password": PROMETHEUS_PASSWORD,
        "prometheus_ca": PROMETHEUS_CA,
    }
    files = {
        PROMETHEUS_CA: prometheus_ca,
        _SOURCE: render("monitoring/grafana-source.yaml", **place),
        _PROVIDER: render("monitoring/grafana-dashboards.yaml", **place),
    }
    package = _package(settings)
    return Bundle(
        node,
        ROLE,
        [
            package,
            Package("curl"),
            *(
                Directory(folder, parents=folder == FOLDER)
                for folder in (
                    FOLDER,
                    PROVISIONING,
                    f"{PROVISIONING}/datasources",
                    f"{PROVISIONING}/dashboards",
                )
            ),
            *certificate_parts(own),
            File(INI, render("monitoring/grafana.ini", **place), f"root:{USER}", "0640"),
            *(File(path, text) for path, text in files.items()),
            Unit(
                "grafana-server.service",
                restart_on=(INI, *files, f"package:{package.name}"),
                timeout=180,
            ),
            Check("grafana-answers", render("monitoring/grafana-answers.sh", **place), timeout=120),
        ],
    )
