"""``slurmstack:rest``: Slurm's REST API behind TLS, and ``slurmstack:restTlsKey``, its secret."""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Iterator
from typing import Annotated, Literal

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from pydantic import Field, SecretStr, field_validator

from settings.base import Model, matching
from settings.problems import Problem, refused

Port = Annotated[int, Field(ge=1024, le=65535)]
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
ServerName = Annotated[
    str,
    matching(
        rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*",
        "a host name or address, such as api.cluster.example",
    ),
]


class RestLimits(Model):
    """What one client, and all together, may ask for. Beyond it a request is refused."""

    #: Open connections, in all and from one address.
    connections: Annotated[int, Field(ge=1, le=50000)] = 512
    connections_per_client: Annotated[int, Field(ge=1, le=50000)] = 64
    #: Requests from one address within ten seconds.
    requests_per_client: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    #: Bytes of a request's body; slurmrestd itself takes up to 50 MiB (http.c, MAX_BODY_BYTES).
    body: Annotated[int, Field(ge=1024, le=52_428_800)] = 4_194_304
    #: Seconds until slurmrestd must have answered.
    answer: Annotated[int, Field(ge=1, le=3600)] = 60
    #: Requests that slurmrestd works on at once; each may be a call to slurmctld.
    at_once: Annotated[int, Field(ge=1, le=1000)] = 20


class Rest(Model):
    """``slurmstack:rest``; present, the controller serves the REST API."""

    #: Where TLS is spoken, on all addresses of the controller.
    port: Port = 6820
    #: Where slurmrestd listens without TLS, on 127.0.0.1 only.
    loopback_port: Port = 6821
    #: The name by which clients reach it; left out, the controller's address.
    server_name: ServerName | None = None
    #: Further names and addresses in the certificate that is made.
    other_names: tuple[ServerName, ...] = ()
    #: A certificate with its chain, in PEM, in place of the one that is made.
    certificate: str | None = None
    #: Days that a certificate made on the controller is valid, and is left when it is renewed.
    certificate_days: Annotated[int, Field(ge=1, le=3650)] = 90
    renew_days: Annotated[int, Field(ge=0, le=3649)] = 30
    tls: Literal["1.2", "1.3"] = "1.2"
    limits: RestLimits = RestLimits()

    @field_validator("certificate")
    @classmethod
    def _chain(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if "PRIVATE KEY" in value:
            raise refused("certificates alone; the key goes to restTlsKey", "a private key, too")
        try:
            x509.load_pem_x509_certificates(value.encode())
        except ValueError:
            raise refused("certificates in PEM, the server's first", _kind(value)) from None
        return value.strip() + "\n"

    @property
    def chain(self) -> list[x509.Certificate]:
        """The certificates of the settings, the server's first."""
        return x509.load_pem_x509_certificates((self.certificate or "").encode())


def _kind(value: str) -> str:
    begin = re.search(r"-----BEGIN ([A-Z0-9 ]+)-----", value)
    return f"{begin[1].lower()} that cannot be read" if begin else "text without PEM in it"


def read_key(text: str) -> SecretStr:
    """The TLS key of the settings.

    Raises:
        ValueError: what was found instead; the text is not quoted.
    """
    try:
        key = serialization.load_pem_private_key(text.encode(), password=None)
    except TypeError:
        raise ValueError("a key with a passphrase") from None
    except Exception:
        # cryptography's own message may quote what it could not read.
        raise ValueError(f"{len(text)} characters that are no such key") from None
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise ValueError(f"a key of another kind ({type(key).__name__})")
    return SecretStr(text.strip() + "\n")


def names(rest: Rest, controller: str, address: str) -> tuple[str, ...]:
    """What clients may call the server by: its certificate must have one of these."""
    return (rest.server_name,) if rest.server_name is not None else (address, controller)


def problems(
    rest: Rest,
    key: SecretStr | None,
    names: tuple[str, ...],
    path: str,
    key_path: str,
    now: datetime.datetime | None = None,
) -> Iterator[Problem]:
    """Mistakes between port and port, and between certificate, key, time and names.

    Args:
        rest: the setting.
        key: the TLS key of the settings.
        names: names and addresses of which the certificate must have one.
        path: of the setting.
        key_path: of the key's setting.
        now: the time to compare with, UTC.
    """
    if rest.port == rest.loopback_port:
        yield Problem(f"{path}.loopbackPort", f"another port than port, {rest.port}", "the same")
    if rest.certificate is None:
        if rest.renew_days >= rest.certificate_days:
            yield Problem(
                f"{path}.renewDays",
                f"less than certificateDays, {rest.certificate_days}",
                str(rest.renew_days),
            )
        if key is not None:
            yield Problem(f"{path}.certificate", f"the certificate of {key_path}", "nothing")
        return
    if rest.other_names:
        yield Problem(
            f"{path}.otherNames", "nothing beside a certificate of your own", "names for one"
        )
    yield from _certificate(rest, names, f"{path}.certificate", now)
    if key is None:
        yield Problem(key_path, "the secret key of the certificate", "nothing")
    elif _public(key) != _spki(rest.chain[0].public_key()):
        yield Problem(key_path, f"the key of {path}.certificate", "the key of another certificate")


def _certificate(
    rest: Rest, names: tuple[str, ...], path: str, now: datetime.datetime | None
) -> Iterator[Problem]:
    moment = now or datetime.datetime.now(datetime.UTC)
    chain = rest.chain
    for index, certificate in enumerate(chain):
        which = f"{path}[{index}]" if len(chain) > 1 else path
        subject = certificate.subject.rfc4514_string()
        if certificate.not_valid_after_utc <= moment:
            yield Problem(
                which,
                f"a certificate that is valid now, {moment:%Y-%m-%d %H:%M} UTC",
                f"{subject}, expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC",
            )
        if certificate.not_valid_before_utc > moment:
            yield Problem(
                which,
                f"a certificate that is valid now, {moment:%Y-%m-%d %H:%M} UTC",
                f"{subject}, valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC",
            )
        if index and chain[index - 1].issuer != certificate.subject:
            yield Problem(
                which,
                f"the issuer of the one before, {chain[index - 1].issuer.rfc4514_string()}",
                subject,
            )
    has = _names_in(chain[0])
    if not any(_covers(pattern, name) for pattern in has for name in names):
        yield Problem(
            path,
            f"a certificate for {' or '.join(names)} (subjectAltName)",
            f"one for {', '.join(has) or 'no name at all'}",
        )


def expires(rest: Rest) -> datetime.datetime:
    """When the first of the settings' certificates expires, UTC."""
    return min(certificate.not_valid_after_utc for certificate in rest.chain)


def _names_in(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses = names.get_values_for_type(x509.IPAddress)
    return [*names.get_values_for_type(x509.DNSName), *(str(address) for address in addresses)]


def _covers(pattern: str, name: str) -> bool:
    """RFC 6125: a wildcard stands for one whole first label, and never for an address."""
    try:
        return ipaddress.ip_address(pattern) == ipaddress.ip_address(name)
    except ValueError:
        pass
    pattern, name = pattern.lower(), name.lower()
    if pattern.startswith("*."):
        return "." in name and name.partition(".")[2] == pattern[2:]
    return pattern == name


def _public(key: SecretStr) -> bytes:
    private = serialization.load_pem_private_key(key.get_secret_value().encode(), password=None)
    return _spki(private.public_key())


def _spki(key: object) -> bytes:
    done: bytes = key.public_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return done
