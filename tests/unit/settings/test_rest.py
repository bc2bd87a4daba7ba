"""``slurmstack:rest``: certificate, key, names and time, held against each other."""

from __future__ import annotations

import datetime
import ipaddress
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

from settings import parse
from tests.unit.settings.test_settings import lab, mistakes

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


def named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def certificate(
    key: ec.EllipticCurvePrivateKey,
    names: list[str],
    start: datetime.datetime = NOW - DAY,
    end: datetime.datetime = NOW + DAY,
    subject: str = "rest",
    issuer: str = "ca",
) -> str:
    builder = (
        x509.CertificateBuilder()
        .subject_name(named(subject))
        .issuer_name(named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )
    if names:
        found: list[x509.GeneralName] = []
        for name in names:
            try:
                found.append(x509.IPAddress(ipaddress.ip_address(name)))
            except ValueError:
                found.append(x509.DNSName(name))
        builder = builder.add_extension(x509.SubjectAlternativeName(found), critical=False)
    made = builder.sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


def pem(key: Any, passphrase: bytes | None = None) -> str:
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        encryption = serialization.BestAvailableEncryption(passphrase)
    text: bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
    return text.decode()


KEY = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
GOOD = certificate(KEY, ["10.73.0.10"])
JWT: dict[str, Any] = {"jwt": {}}


def with_certificate(text: str, key: str | None = None, **rest: Any) -> dict[str, Any]:
    return JWT | {"rest": {"certificate": text} | rest, "restTlsKey": key or pem(KEY)}


@pytest.mark.parametrize(
    ("changes", "path", "says"),
    [
        # With an id: processes that collect the tests in two minutes must find the same ones.
        pytest.param(
            with_certificate(certificate(KEY, ["10.73.0.10"], NOW - 3 * DAY, NOW - DAY)),
            "slurmstack:rest.certificate",
            f"CN=rest, expired on {NOW - DAY:%Y-%m-%d %H:%M} UTC",
            id="expired",
        ),
        (
            with_certificate(certificate(KEY, ["10.73.0.10"], NOW + DAY, NOW + 2 * DAY)),
            "slurmstack:rest.certificate",
            "valid from",
        ),
        (
            with_certificate(certificate(KEY, ["10.73.0.99", "*.example.org"])),
            "slurmstack:rest.certificate",
            "a certificate for 10.73.0.10 or ctl (subjectAltName); found one for *.example.org",
        ),
        (
            with_certificate(certificate(KEY, [])),
            "slurmstack:rest.certificate",
            "one for no name at all",
        ),
        (
            with_certificate(GOOD, serverName="rest.example.org"),
            "slurmstack:rest.certificate",
            "a certificate for rest.example.org (",
        ),
        (
            with_certificate(GOOD + certificate(OTHER, [], NOW - 3 * DAY, NOW - DAY, subject="ca")),
            "slurmstack:rest.certificate[1]",
            "CN=ca, expired on",
        ),
        (
            with_certificate(GOOD + certificate(OTHER, [], subject="another")),
            "slurmstack:rest.certificate[1]",
            "the issuer of the one before, CN=ca; found CN=another",
        ),
        (with_certificate(GOOD, pem(OTHER)), "slurmstack:restTlsKey", "of another certificate"),
        (with_certificate(GOOD, "nonsense"), "slurmstack:restTlsKey", "8 characters that are no"),
        (
            with_certificate(GOOD, pem(KEY, b"secret")),
            "slurmstack:restTlsKey",
            "a key with a passphrase",
        ),
        (
            with_certificate(GOOD, pem(ed25519.Ed25519PrivateKey.generate())),
            "slurmstack:restTlsKey",
            "a key of another kind",
        ),
        (JWT | {"rest": {"certificate": GOOD}}, "slurmstack:restTlsKey", "found nothing"),
        (
            with_certificate(GOOD + pem(KEY)),
            "slurmstack:rest.certificate",
            "the key goes to restTlsKey",
        ),
        (with_certificate("hello"), "slurmstack:rest.certificate", "text without PEM in it"),
        (with_certificate(GOOD, otherNames=["x"]), "slurmstack:rest.otherNames", "nothing beside"),
        (JWT | {"rest": {}, "restTlsKey": pem(KEY)}, "slurmstack:rest.certificate", "nothing"),
        (JWT | {"rest": {"port": 443}}, "slurmstack:rest.port", "1024"),
        (JWT | {"rest": {"port": 6821}}, "slurmstack:rest.loopbackPort", "the same"),
        (JWT | {"rest": {"tls": "1.1"}}, "slurmstack:rest.tls", "'1.2' or '1.3'"),
        (
            JWT | {"rest": {"certificateDays": 20}},
            "slurmstack:rest.renewDays",
            "less than certificateDays, 20; found 30",
        ),
        (
            JWT | {"rest": {"certificateDays": 30, "renewDays": 30}},
            "slurmstack:rest.renewDays",
            "less than certificateDays, 30; found 30",
        ),
        (JWT | {"rest": {"limits": {"boddy": 1}}}, "slurmstack:rest.limits.boddy", "unknown key"),
        (
            JWT | {"rest": {"serverName": "a b"}},
            "slurmstack:rest.serverName",
            "a host name or address",
        ),
        (JWT | {"rest": None, "restTlsKey": pem(KEY)}, "slurmstack:rest", "for slurmstack:restTls"),
    ],
)
def test_one_mistake(changes: dict[str, Any], path: str, says: str) -> None:
    found = mistakes(changes)
    assert says in found[path]
    assert set(found) == {path}
    for key in (KEY, OTHER):
        assert pem(key).splitlines()[1] not in str(found)


@pytest.mark.parametrize(
    ("names", "rest"),
    [
        (["10.73.0.10"], {}),
        (["ctl"], {}),
        (["REST.example.org"], {"serverName": "rest.example.org"}),
        (["*.example.org"], {"serverName": "rest.example.org"}),
    ],
)
def test_a_certificate_that_fits(names: list[str], rest: dict[str, Any]) -> None:
    settings = parse({**lab(), **with_certificate(certificate(KEY, names), **rest)})
    assert settings.rest_tls_key is not None
    # The key follows it in one file.
    assert settings.rest is not None
    assert settings.rest.certificate is not None
    assert settings.rest.certificate.endswith("-----END CERTIFICATE-----\n")
    assert pem(KEY).splitlines()[1] not in repr(settings)
