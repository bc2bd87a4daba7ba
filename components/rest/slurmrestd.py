"""SlurmRestd: Slurm's REST API on the controller, behind TLS."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import PurePosixPath

import pulumi

from components.assembly import Assembly
from components.bundle_resource import deploy
from components.configuration.slurm_conf import parameters, restart_keys
from components.controller import slurm_controller
from components.guards.upgrades import before_upgrade
from components.keys.certificate import Certificate, ca_pem, certificate_parts
from components.keys.jwt_key_pair import TOKEN
from components.packages.slurm_packages import slurm_packages, trigger
from remote.bundle import (
    Bundle,
    Check,
    Command,
    Directory,
    File,
    Group,
    Package,
    Unit,
    User,
    Validate,
)
from remote.host import at
from settings import Settings
from settings.rest import Rest, expires, names
from templates.rendering import render

ROLE = "slurmrestd"
TLS_ROLE = "rest-tls"
USER = "slurmrestd"
SOCKET = "/run/slurmrestd/slurmrestd.sock"
TLS = "/etc/slurm/tls"
#: Certificate and key of the settings, in one file.
SITE_PEM = f"{TLS}/site.pem"
HAPROXY_CONF = "/etc/haproxy/haproxy.cfg"
UNIT_CONF = "/etc/systemd/system/slurmrestd.service.d/slurmstack.conf"

_WARN_BEFORE = datetime.timedelta(days=30)


class SlurmRestd(pulumi.ComponentResource):
    """slurmrestd as a user of its own on a socket and loopback, and haproxy with TLS before it."""

    #: https://NAME:PORT
    url: str
    #: The CA that clients must know, in PEM; None with a certificate of the settings.
    ca: pulumi.Output[str | None]

    def __init__(
        self, name: str, assembly: Assembly, depends_on: Sequence[pulumi.Resource]
    ) -> None:
        super().__init__("slurmstack:components:SlurmRestd", name, None, assembly.options)
        settings, node, needs = assembly.settings, assembly.controller, depends_on
        rest = settings.rest
        assert rest is not None
        if rest.certificate is not None:
            self._warn(rest)
            tls = deploy(assembly, node, tls_bundle(settings), TLS_ROLE, self, needs, secret=True)
            needs = [tls.resource]
        main = deploy(assembly, node, rest_bundle(settings), ROLE, self, needs)
        self.url = url(settings)
        fact = certificate(settings).fact
        self.ca = main.answer.apply(lambda answer: ca_pem(answer, fact))
        self.register_outputs({})

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        api = None
        if assembly.settings.rest is not None:
            needs = assembly.on(assembly.controller, slurm_controller.ROLE)
            api = cls("slurmrestd", assembly, needs)
        assembly.outputs["restUrl"] = api.url if api else None
        assembly.outputs["restCa"] = api.ca if api else None

    def _warn(self, rest: Rest) -> None:
        end = expires(rest)
        if end - datetime.datetime.now(datetime.UTC) < _WARN_BEFORE:
            pulumi.log.warn(
                f"the certificate of slurmstack:rest expires on {end:%Y-%m-%d}: put a new one "
                "into the settings before",
                self,
            )


def url(settings: Settings) -> str:
    """Where clients reach the API, by a name that its certificate has."""
    rest = settings.rest
    assert rest is not None
    name = _names(settings)[0]
    return f"https://{at(name, rest.port)}"


def tls_bundle(settings: Settings) -> Bundle:
    """Certificate and key of the settings. This bundle is a secret."""
    rest, key = settings.rest, settings.rest_tls_key
    assert rest is not None
    assert rest.certificate is not None
    assert key is not None
    return Bundle(
        settings.roles.controller,
        TLS_ROLE,
        [
            Directory("/etc/slurm"),
            Directory(TLS),
            File(SITE_PEM, rest.certificate + key.get_secret_value(), mode="0400"),
            _validate(SITE_PEM, SITE_PEM),
            Command(
                "reload-haproxy",
                render("rest/reload-haproxy.sh"),
                on=(SITE_PEM,),
                reloads=("haproxy.service",),
            ),
        ],
    )


def rest_bundle(settings: Settings) -> Bundle:
    """slurmrestd, haproxy, and where the settings bring no certificate, what makes one."""
    rest = settings.rest
    assert rest is not None
    node = settings.roles.controller
    made = certificate(settings) if rest.certificate is None else None
    pem = made.pem if made else SITE_PEM
    accounting = any(
        line.name == "AccountingStorageType" and line.value == "accounting_storage/slurmdbd"
        for line in parameters(settings)
    )
    unit_conf = render(
        "rest/slurmrestd.service.conf",
        user=USER,
        socket=SOCKET,
        content="slurmctld,slurmdbd" if accounting else "slurmctld",
        limits=rest.limits,
        loopback_port=rest.loopback_port,
    )
    haproxy = render(
        "rest/haproxy.cfg",
        user=USER,
        socket=SOCKET,
        pem=pem,
        port=rest.port,
        bind=f":::{rest.port} v4v6" if ":" in settings.hosts[node].address else f":{rest.port}",
        tls=rest.tls,
        limits=rest.limits,
    )
    answers = render(
        "rest/rest-answers.sh",
        name=_names(settings)[0],
        port=rest.port,
        pem=pem,
        user=USER,
        token=TOKEN,
        verify=f"--cacert {made.ca}" if made else "--insecure",
    )
    identity = settings.identities.slurmrestd
    return Bundle(
        node,
        ROLE,
        [
            Package("curl"),
            Package("haproxy"),
            *slurm_packages(settings, "slurmrestd"),
            *before_upgrade(settings),
            Group(USER, identity.gid),
            User(USER, identity.uid, USER),
            Directory(str(PurePosixPath(UNIT_CONF).parent)),
            File(UNIT_CONF, unit_conf),
            File(HAPROXY_CONF, haproxy),
            _validate(HAPROXY_CONF, pem),
            *([Directory("/etc/slurm"), *certificate_parts(made)] if made else ()),
            Unit(
                "slurmrestd.service",
                restart_on=(UNIT_CONF, trigger(settings, "slurmrestd")),
                restart_keys=restart_keys(settings, "slurmrestd"),
            ),
            Unit("haproxy.service", reload_on=(HAPROXY_CONF,), restart_on=("package:haproxy",)),
            Check("rest-answers", answers),
        ],
    )


def _validate(path: str, pem: str) -> Validate:
    script = render("rest/haproxy-reads-it.sh", conf=HAPROXY_CONF, pem=pem)
    return Validate("haproxy", script, on=(path,))


def certificate(settings: Settings) -> Certificate:
    """The certificate that is made where the settings bring none."""
    rest = settings.rest
    assert rest is not None
    return Certificate(
        name="rest",
        of="the REST API",
        of_what="Slurm's REST API",
        authority=f"slurmstack REST CA of cluster {settings.cluster.name}",
        folder=TLS,
        names=tuple(_names(settings)),
        days=rest.certificate_days,
        renew_days=rest.renew_days,
        told="haproxy",
    )


def _names(settings: Settings) -> list[str]:
    """Names and addresses of the server, the one that clients are told first."""
    rest, controller = settings.rest, settings.roles.controller
    assert rest is not None
    address = settings.hosts[controller].address
    all_names = [*names(rest, controller, address), address, controller, *rest.other_names]
    return list(dict.fromkeys(all_names))
