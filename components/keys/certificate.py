"""A certificate that a host makes itself, from a CA of its own, and renews in time.

The CA's key and the certificate's never leave the host; the CA's certificate is a fact of the
bundle's answer, so that others can be told whom to trust.
"""

from __future__ import annotations

import base64
import textwrap
from dataclasses import dataclass

from remote.answer import Answer
from remote.bundle import Command, Directory, File, Package, Part, Unit
from remote.host import is_ip
from templates.rendering import render


@dataclass(frozen=True)
class Certificate:
    """What is made on a host, by whom it is read, and for how long it is good."""

    #: Of the program and the timer that make and renew it, and of the facts that tell of it.
    name: str
    #: Whose it is, in comments and in systemd's words.
    of: str
    of_what: str
    #: CN of the CA.
    authority: str
    folder: str
    #: Names and addresses of the server, the first of which becomes the CN.
    names: tuple[str, ...]
    days: int
    #: Days that are left when it is renewed.
    renew_days: int
    #: What it is for: extendedKeyUsage of x509v3_config(5).
    usage: str = "serverAuth"
    #: The user who reads certificate and key, besides root; the CA's key is root's alone.
    owner: str | None = None
    #: The service that is reloaded for a new one; None where each connection reads the file.
    told: str | None = None

    @property
    def ca(self) -> str:
        """The CA's certificate: what clients must know."""
        return f"{self.folder}/ca.crt"

    @property
    def pem(self) -> str:
        """Certificate and key in one file, so that they change at one moment."""
        return f"{self.folder}/cluster.pem"

    @property
    def program(self) -> str:
        return f"/usr/local/lib/slurmstack/{self.name}-certificate"

    @property
    def timer(self) -> str:
        return f"slurmstack-{self.name}-certificate"

    @property
    def fact(self) -> str:
        """Under which the answer has the CA's certificate."""
        return f"{self.name}-ca"

    @property
    def alternative_names(self) -> str:
        """As x509v3_config(5) writes subjectAltName."""
        return ",".join(f"IP:{name}" if is_ip(name) else f"DNS:{name}" for name in self.names)


def certificate_parts(certificate: Certificate) -> list[Part]:
    """What makes it, keeps it good, and takes it away with the role; the folder above is there."""
    timer = f"/etc/systemd/system/{certificate.timer}.timer"
    return [
        Package("openssl"),
        Directory(certificate.folder),
        File(
            certificate.program,
            render("keys/certificate.sh", certificate=certificate),
            mode="0755",
        ),
        File(
            f"/etc/systemd/system/{certificate.timer}.service",
            render("keys/certificate.service", certificate=certificate),
        ),
        File(timer, render("keys/certificate.timer", certificate=certificate)),
        Command(
            f"{certificate.name}-certificate",
            f"exec {certificate.program}\n",
            on=(certificate.program,),
            timeout=120,
            probe=f"exec {certificate.program} check\n",
            reloads=(f"{certificate.told}.service",) if certificate.told else (),
        ),
        Command(
            "forget-certificate",
            render("keys/forget-certificate.sh", certificate=certificate),
            when="remove",
        ),
        Unit(f"{certificate.timer}.timer", restart_on=(timer,)),
    ]


def ca_pem(answer: Answer, fact: str) -> str | None:
    """The CA that a host has made, as it said itself."""
    der = answer.facts.get(fact)
    if der is None:
        return None
    body = "\n".join(textwrap.wrap(base64.b64encode(base64.b64decode(der)).decode(), 64))
    return f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"
