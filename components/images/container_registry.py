"""ContainerRegistry: images for names that begin with docker://, kept by one host of the cluster.

The distribution's docker-registry, behind TLS: one process that all may read from and that writes
nothing, one in which a user with a password pushes to the same folder, and one for each registry
that is mirrored. All hosts on which images are fetched know its CA.
"""

from __future__ import annotations

from functools import partial
from pathlib import PurePosixPath

import pulumi

from components.assembly import Assembly
from components.bundle_resource import deploy
from components.host import host_baseline
from components.images.images import keepers
from components.keys.certificate import Certificate, ca_pem, certificate_parts
from components.keys.hashed_password import hashed, password_and_salt
from components.packages import package_repository
from remote.bundle import (
    Bundle,
    Check,
    Command,
    Directory,
    File,
    Guard,
    Package,
    Part,
    Unit,
    Validate,
)
from remote.host import at
from settings import Settings
from settings.registry import Mirror, Registry
from templates.rendering import render

ROLE = "registry"
SECRETS_ROLE = "registry-password"
CLIENT_ROLE = "registry-ca"
PACKAGE = "docker-registry"
#: The package runs it as this user.
USER = "docker-registry"
FOLDER = "/etc/docker/registry/slurmstack"
HTPASSWD = f"{FOLDER}/htpasswd"
#: Root's alone: who asks for the password that was made finds it here.
PASSWORD = f"{FOLDER}/password"
#: As update-ca-certificates(8) wants it.
CA = "/usr/local/share/ca-certificates/slurmstack-registry.crt"
#: Which mirrors Apptainer, Podman and Skopeo ask (containers-registries.conf.d(5)).
MIRRORS = "/etc/containers/registries.conf.d/slurmstack.conf"
_UNIT = "slurmstack-registry"
_PUSH = "push"


class ContainerRegistry(pulumi.ComponentResource):
    """The registry on its host, and what makes the others trust it.

    The password is pulumi-random's RandomPassword, or the stack's secret
    ``slurmstack:registryPassword``.
    """

    def __init__(self, name: str, assembly: Assembly) -> None:
        super().__init__("slurmstack:components:ContainerRegistry", name, None, assembly.options)
        settings = assembly.settings
        needs = assembly.on(name, host_baseline.ROLE, *package_repository.ROLES)
        given = settings.registry_password
        password, salt = password_and_salt("registry", given, self)
        shut = pulumi.Output.all(password, salt).apply(
            lambda told: secrets_bundle(name, told[0], told[1], settings)
        )
        secret = deploy(assembly, name, shut, SECRETS_ROLE, self, needs, secret=True)
        main = deploy(
            assembly, name, registry_bundle(name, settings), ROLE, self, [*needs, secret.resource]
        )
        fact = certificate(settings).fact
        ca = main.answer.apply(lambda answer: ca_pem(answer, fact) or "")
        for node in clients(settings):
            if node in assembly.hosts:
                bundle = ca.apply(partial(client_bundle, node, settings))
                needs = [*assembly.on(node, host_baseline.ROLE), main.resource]
                deploy(assembly, node, bundle, CLIENT_ROLE, self, needs)
        assembly.outputs["registry"] = address(settings)
        assembly.outputs["registryCa"] = ca
        self.register_outputs({})

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        if assembly.settings.registry is not None:
            cls(assembly.settings.registry_host, assembly)


def _registry(settings: Settings) -> Registry:
    assert settings.registry is not None
    return settings.registry


def clients(settings: Settings) -> tuple[str, ...]:
    """Hosts where images are fetched, and the registry's own."""
    images = (settings.image_host,) if settings.images else ()
    return tuple(dict.fromkeys((*keepers(settings), *images, settings.registry_host)))


def host_name(settings: Settings) -> str:
    """By which the registry's host is reached."""
    return _registry(settings).server_name or settings.hosts[settings.registry_host].address


def address(settings: Settings) -> str:
    """HOST:PORT, as it stands in names of images."""
    return at(host_name(settings), _registry(settings).port)


def certificate(settings: Settings) -> Certificate:
    """The registry's. Its processes read it when they start: reloading ends them after what is on
    its way, and systemd starts them again."""
    registry, node = _registry(settings), settings.registry_host
    names = (host_name(settings), settings.hosts[node].address, node)
    return Certificate(
        name="registry",
        of="the registry of container images",
        of_what="the registry of container images",
        authority=f"slurmstack registry CA of cluster {settings.cluster.name}",
        folder=f"{FOLDER}/tls",
        names=tuple(dict.fromkeys(names)),
        days=registry.certificate_days,
        renew_days=registry.renew_days,
        owner=USER,
        told=_UNIT,
    )


def secrets_bundle(node: str, password: str, salt: str, settings: Settings) -> Bundle:
    """Who may push. This bundle is a secret.

    Args:
        node: the host's name.
        password: in clear text.
        salt: 21 letters and digits, for bcrypt.
        settings: the stack's.
    """
    registry = _registry(settings)
    line = f"{registry.user}:{hashed(password, salt)}\n"
    parts: list[Part] = [
        Package(PACKAGE),
        Directory(FOLDER, parents=True),
        File(PASSWORD, password, mode="0400"),
        # Read anew when it has changed.
        File(HTPASSWD, line, f"root:{USER}", "0640"),
    ]
    for name, mirror in registry.mirrors.items():
        if mirror.login is not None:
            conf, unit = _conf(name, mirror), f"{_mirror(name)}.service"
            secret = settings.registry_secrets[mirror.login.password_secret].get_secret_value()
            text = _mirror_conf(name, mirror, settings, secret)
            # The process, which the other bundle has, reads it when it starts.
            again = f"! systemctl is-active --quiet {unit} || systemctl restart {unit}\n"
            parts += [
                File(conf, text, f"root:{USER}", "0640"),
                Command(f"login-{name}", again, on=(conf,), restarts=(unit,)),
            ]
    return Bundle(node, SECRETS_ROLE, parts)


def registry_bundle(node: str, settings: Settings) -> Bundle:
    """What the registry's host gets but the password."""
    registry, own = _registry(settings), certificate(settings)
    root = PurePosixPath(registry.root)
    moves = render("images/registry-moves.sh", conf=f"{FOLDER}/{_UNIT}.yml", root=root, unit=_UNIT)
    parts: list[Part] = [
        Guard("registry-moves", moves),
        Package(PACKAGE),
        # The package's own process speaks no TLS.
        Unit(f"{PACKAGE}.service", enabled=False, running=False),
        Directory(FOLDER, parents=True),
        _folder(root),
        *certificate_parts(own),
    ]
    for unit, port, htpasswd in (
        (_UNIT, registry.port, None),
        (f"{_UNIT}-{_PUSH}", registry.push_port, HTPASSWD),
    ):
        conf = f"{FOLDER}/{unit}.yml"
        given = {"port": port, "root": root, "pem": own.pem, "htpasswd": htpasswd}
        parts.append(File(conf, render("images/registry.yml", mirrored=None, **given)))
        parts += _process(unit, conf, root, (conf,))
    if registry.mirrors:
        parts.append(_folder(root / "mirrors"))
    for name, mirror in registry.mirrors.items():
        conf, folder = _conf(name, mirror), _kept(name, settings)
        parts.append(_folder(folder))
        if mirror.login is None:
            parts.append(File(conf, _mirror_conf(name, mirror, settings)))
        parts += _process(_mirror(name), conf, folder, () if mirror.login else (conf,))
    return Bundle(node, ROLE, parts)


def _mirror(name: str) -> str:
    """The process that mirrors a registry."""
    return f"{_UNIT}-mirror-{name}"


def _kept(name: str, settings: Settings) -> PurePosixPath:
    """Where it keeps what it has fetched."""
    return PurePosixPath(_registry(settings).root) / "mirrors" / name


def _conf(name: str, mirror: Mirror) -> str:
    """Its configuration. With a password in it, it is another file: a path belongs to one role."""
    return f"{FOLDER}/{_mirror(name)}{'.login' if mirror.login else ''}.yml"


def _mirror_conf(name: str, mirror: Mirror, settings: Settings, password: str = "") -> str:
    return render(
        "images/registry.yml", port=mirror.port, root=_kept(name, settings), htpasswd=None,
        pem=certificate(settings).pem, mirrored=mirror.url, login=mirror.login, password=password,
    )  # fmt: skip


def _folder(path: PurePosixPath) -> Directory:
    return Directory(str(path), owner=f"{USER}:{USER}", mode="0750", parents=True)


def _process(unit: str, conf: str, root: PurePosixPath, on: tuple[str, ...]) -> list[Part]:
    """One docker-registry; files of `on` and its unit's have it start anew."""
    service = f"/etc/systemd/system/{unit}.service"
    given = {"unit": unit, "main": _UNIT, "conf": conf, "root": root, "user": USER}
    return [
        File(service, render("images/registry.service", **given)),
        Unit(f"{unit}.service", restart_on=(*on, service)),
    ]


def client_bundle(node: str, settings: Settings, ca: str) -> Bundle:
    """What a host gets that fetches images: whom to trust, and which mirrors there are."""
    registry = _registry(settings)
    mirrors = {name: at(host_name(settings), it.port) for name, it in registry.mirrors.items()}
    parts: list[Part] = [
        Package("ca-certificates"),
        Package("openssl"),
        Package("curl"),
        File(CA, ca),
        Validate("registry-ca", render("images/ca-is-read.sh", ca=CA), on=(CA,)),
        Command(
            "trust",
            "update-ca-certificates >/dev/null 2>&1\n",
            on=(CA,),
            probe=f"test -e /etc/ssl/certs/{PurePosixPath(CA).stem}.pem\n",
        ),
        Command("distrust", render("images/distrust.sh", ca=CA), when="remove"),
    ]
    if mirrors:
        parts += [
            Directory(str(PurePosixPath(MIRRORS).parent), parents=True),
            File(MIRRORS, render("images/registries.conf", mirrors=mirrors)),
        ]
    reached = render(
        "images/registry-is-reached.sh", addresses=[address(settings), *mirrors.values()]
    )
    parts.append(Check("registry-is-reached", reached, timeout=60))
    return Bundle(node, CLIENT_ROLE, parts)
