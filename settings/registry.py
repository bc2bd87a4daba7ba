"""``slurmstack:registry``: a registry of container images, for names that begin with docker://."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from settings.base import HostName, Model, Path, matching
from settings.monitoring import SecretName
from settings.rest import Port, ServerName

MirrorName = Annotated[
    str, matching(r"[a-z0-9]([a-z0-9.-]{0,60}[a-z0-9])?", "a registry's name, such as docker.io")
]


class MirrorLogin(Model):
    """By whose name another registry is asked."""

    username: Annotated[str, matching(r"[!-~]{1,255}", "a user's name of one word, such as anna")]
    password_secret: SecretName


class Mirror(Model):
    """One entry of ``slurmstack:registry.mirrors``: another registry, fetched from once."""

    #: Where that registry is.
    url: Annotated[
        str,
        matching(
            r"https://[A-Za-z0-9.-]+(:[0-9]{1,5})?",
            "an https:// address without a path, such as https://registry-1.docker.io",
        ),
    ]
    #: Where what it has is served.
    port: Port
    #: Who asks there, and the name of the secret in ``slurmstack:registrySecrets`` that lets him
    #: in.
    login: MirrorLogin | None = None


class Registry(Model):
    """``slurmstack:registry``; present, one host keeps images of containers for the others."""

    #: Left out, the host that serves packages (slurmstack:packages.host).
    host: HostName | None = None
    #: Where everybody may read.
    port: Port = 5000
    #: Where the user may push.
    push_port: Port = 5001
    user: Annotated[str, matching(r"[a-z][a-z0-9_-]{0,31}", "a user's name, such as push")] = "push"
    #: The name by which the host is reached; left out, its address.
    server_name: ServerName | None = None
    #: Where images lie.
    root: Path = "/var/lib/docker-registry"
    #: Days that the certificate is valid, and is left when it is renewed.
    certificate_days: Annotated[int, Field(ge=1, le=3650)] = 90
    renew_days: Annotated[int, Field(ge=0, le=3650)] = 30
    #: Registry, as image names have it → where it is.
    mirrors: dict[MirrorName, Mirror] = Field(default_factory=dict)

    @property
    def secrets(self) -> dict[str, str]:
        """Key of the settings → the secret that it names."""
        return {
            f"mirrors.{name}.login.passwordSecret": it.login.password_secret
            for name, it in self.mirrors.items()
            if it.login is not None
        }

    @property
    def ports(self) -> dict[str, int]:
        """Key of the settings → the port that it says."""
        mirrors = {f"mirrors.{name}.port": it.port for name, it in self.mirrors.items()}
        return {"port": self.port, "pushPort": self.push_port, **mirrors}
