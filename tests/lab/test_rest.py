"""The REST API as its clients meet it: tokens, TLS, limits, and certificates that change."""

from __future__ import annotations

import datetime
import http.client
import ipaddress
import json
import socket
import ssl
import subprocess
import time
import warnings

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lab.deploy import program_environment
from tests.lab.conftest import RunningLab
from tests.lab.rest_client import API, Client, Load, token

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("users")]

NOW = datetime.datetime.now(datetime.UTC)


@pytest.fixture(scope="module")
def client(users: RunningLab) -> Client:
    return Client.of(users)


@pytest.fixture(scope="module")
def alice(lab: RunningLab, client: Client) -> str:
    return token(lab, "alice", "--lifetime", "1h")


def test_a_good_token(client: Client, alice: str) -> None:
    status, body = client.ask(token=alice)
    assert (status, json.loads(body)["errors"]) == (200, [])
    assert client.ask("/jobs", Authorization=f"Bearer {alice}")[0] == 200


def test_a_job_runs_as_the_user_of_the_token(lab: RunningLab, client: Client, alice: str) -> None:
    job = {
        "script": "#!/bin/sh\nid -un >/home/alice/who\n",
        "job": {
            "name": "rest",
            "current_working_directory": "/home/alice",
            "environment": ["PATH=/usr/bin:/bin"],
            "required_nodes": ["cn01"],
        },
    }
    status, body = client.ask(
        "/job/submit", alice, None, "POST", json.dumps(job), **{"Content-Type": "application/json"}
    )
    assert status == 200, body
    number = json.loads(body)["job_id"]
    lab.ssh(
        "ctl", f"timeout 240 sh -c 'while squeue -h -j {number} | grep -q .; do sleep 0.2; done'"
    )
    assert lab.ssh("cn01", "cat /home/alice/who").stdout.strip() == "alice"


def test_a_missing_token(client: Client) -> None:
    assert client.ask()[0] == 401


def test_an_expired_token(lab: RunningLab, client: Client) -> None:
    short = token(lab, "alice", "--lifetime", "1s")
    end = time.monotonic() + 120
    while client.ask(token=short)[0] == 200:
        assert time.monotonic() < end, "a token of one second is still accepted"
        time.sleep(0.2)
    assert client.ask(token=short)[0] == 511


def test_an_altered_token(client: Client, alice: str) -> None:
    head, claims, signature = alice.split(".")
    turned = "A" if signature[10] != "A" else "B"
    for altered in (
        f"{head}.{claims}.{signature[:10]}{turned}{signature[11:]}",
        f"{head}.{claims[:-4]}AAAA.{signature}",
        f"{head}.{claims}.",
        # {"alg":"none"}
        f"eyJhbGciOiJub25lIn0.{claims}.",
    ):
        status, body = client.ask(token=altered)
        assert status == 511, body


def test_a_token_of_another_user(client: Client, alice: str) -> None:
    assert client.ask(token=alice, user="alice")[0] == 200
    assert client.ask(token=alice, user="bob")[0] == 511
    assert client.ask(token=alice, user="root")[0] == 511


def test_plain_http_is_not_spoken(client: Client, alice: str) -> None:
    host, port = client.url.removeprefix("https://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    connection.request("GET", f"{API}/jobs", headers=client.headers(alice))
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        connection.getresponse()


def test_old_tls_is_not_spoken(client: Client) -> None:
    host, port = client.url.removeprefix("https://").split(":")
    context = client.context()
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with socket.create_connection((host, int(port)), 10) as raw, pytest.raises(ssl.SSLError):
        context.wrap_socket(raw, server_hostname=host)


def test_the_certificate_is_for_this_server(client: Client) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        Client(client.url, None).ask()
    host, port = client.url.removeprefix("https://").split(":")
    with (
        socket.create_connection((host, int(port)), 10) as raw,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        client.context().wrap_socket(raw, server_hostname="elsewhere.example")


def test_who_listens_where(lab: RunningLab) -> None:
    listening = lab.ssh("ctl", "ss -Hltnp | awk '{ print $4, $6 }'").stdout
    of_restd = [line.split()[0] for line in listening.splitlines() if "slurmrestd" in line]
    assert of_restd == ["127.0.0.1:6821"]
    assert "slurmrestd.sock" in lab.ssh("ctl", "ss -Hlx").stdout
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((lab.address("ctl"), 6821), 5)
    processes = lab.ssh("ctl", "ps -C slurmrestd -o user:20=").stdout.split()
    assert set(processes) == {"slurmrestd"}
    # Who is neither haproxy nor slurmrestd does not reach the socket.
    shut = lab.ssh("ctl", "su alice -s /bin/sh -c 'ls /run/slurmrestd'", check=False)
    assert "Permission denied" in shut.stderr


def test_limits_on_requests(lab: RunningLab, client: Client, alice: str) -> None:
    limits = {"body": 2048, "requestsPerClient": 60}
    with lab.having(rest={"limits": limits}):
        assert client.ask("/job/submit", alice, None, "POST", b"x" * 2049)[0] == 413
        chunks = iter([b"x" * 100] * 100)
        assert client.ask("/job/submit", alice, None, "POST", chunks)[0] == 400
        found = [client.ask(token=alice)[0] for _ in range(80)]
        assert set(found) == {200, 429}
        assert found[0] == 200
        assert found[-1] == 429


def test_a_made_certificate_is_renewed_without_a_dropped_request(
    lab: RunningLab, client: Client, alice: str
) -> None:
    with lab.having(rest={"limits": {"requestsPerClient": 1_000_000}}):
        serials = [client.serial()]
        with Load(client, alice) as load:
            for _ in range(3):
                lab.ssh("ctl", "/usr/local/lib/slurmstack/rest-certificate renew")
                load.more(100)
                serials.append(client.serial())
        assert len(set(serials)) == 4, "the same certificate is still served"
        assert load.failures == []
        assert set(load.answers) == {200}


#: A certificate by the cluster's CA with four days to go, less than the thirty of renewDays.
SHORT_LIVED = """
set -e
umask 077
cd /etc/slurm/tls
openssl pkey -in cluster.pem -out /root/short.key
openssl req -new -key /root/short.key -subj /CN=short |
    openssl x509 -req -CA ca.crt -CAkey ca.key -set_serial 4 -days 4 -out /root/short.crt
cat /root/short.crt /root/short.key >cluster.pem
rm /root/short.*
"""


def test_renewal_is_by_the_timer_and_only_when_due(lab: RunningLab, client: Client) -> None:
    assert "slurmstack-rest-certificate.timer" in lab.ssh("ctl", "systemctl list-timers").stdout
    before = client.serial()
    lab.ssh("ctl", "systemctl start slurmstack-rest-certificate.service")
    assert client.serial() == before
    lab.ssh("ctl", SHORT_LIVED)
    lab.ssh("ctl", "systemctl start slurmstack-rest-certificate.service")
    assert client.serial() != before


class Authority:
    """A site's CA, as its operator has one."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "A site's CA")])
        self.certificate = self._sign(
            self.name, self.key, x509.BasicConstraints(ca=True, path_length=0), NOW, 30
        )

    def _sign(
        self,
        name: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        extension: x509.ExtensionType,
        start: datetime.datetime,
        days: int,
    ) -> x509.Certificate:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start - datetime.timedelta(hours=1))
            .not_valid_after(start + datetime.timedelta(days=days))
            .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
            .sign(self.key, hashes.SHA256())
        )

    def issue(
        self, address: str, start: datetime.datetime = NOW, days: int = 10
    ) -> tuple[str, str, int]:
        """Certificate, key, serial number."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, address)])
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        certificate = self._sign(name, key, names, start, days)
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return _pem(certificate), pem.decode(), certificate.serial_number


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def test_a_certificate_of_the_settings(lab: RunningLab, client: Client, alice: str) -> None:
    authority = Authority()
    site = Client(client.url, _pem(authority.certificate))
    limits = {"requestsPerClient": 1_000_000}
    before = lab.settings.read_text()
    serials = []
    try:
        for attempt in range(2):
            certificate, key, serial = authority.issue(lab.address("ctl"))
            set_secret(lab, "restTlsKey", key)
            text = json.dumps({"certificate": certificate, "limits": limits})
            lab.set(rest=json.loads(text))
            if attempt == 0:
                lab.pulumi("up", "--yes", "--skip-preview")
            else:
                with Load(site, alice) as load:
                    lab.pulumi("up", "--yes", "--skip-preview")
                    load.more(100)
                assert load.failures == []
                assert set(load.answers) == {200}
            serials.append(site.serial())
            assert serials[-1] == serial
            line = key.splitlines()[1]
            assert line not in lab.pulumi("stack", "export").stdout
            assert line not in lab.settings.read_text()
            assert line not in lab.pulumi("preview", "--diff").stdout
        assert len(set(serials)) == 2
    finally:
        lab.settings.write_text(before)
        lab.pulumi("up", "--yes", "--skip-preview")
    assert client.ask(token=alice)[0] == 200
    assert lab.ssh("ctl", "ls /etc/slurm/tls").stdout.split() == [
        "ca.crt", "ca.key", "cluster.pem", "names", "told",
    ]  # fmt: skip


def set_secret(lab: RunningLab, key: str, value: str) -> None:
    """As docs/rest-api.md says: through stdin, where no list of processes shows it."""
    subprocess.run(
        ["pulumi", "config", "set", "--secret", f"slurmstack:{key}", "--stack", lab.name],
        cwd=lab.lab.checkout,
        env=program_environment(lab.lab),
        input=value,
        text=True,
        check=True,
        capture_output=True,
        timeout=60,
    )


def test_an_expired_certificate_is_refused(lab: RunningLab) -> None:
    start = NOW - datetime.timedelta(days=20)
    certificate, key, _ = Authority().issue(lab.address("ctl"), start, 10)
    before = lab.settings.read_text()
    try:
        set_secret(lab, "restTlsKey", key)
        lab.set(rest={"certificate": certificate})
        done = lab.pulumi("up", "--yes", "--skip-preview", check=False)
    finally:
        lab.settings.write_text(before)
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "slurmstack:rest.certificate" in said
    assert "expired on" in said
    assert key.splitlines()[1] not in said


def test_the_second_time_nothing_changes(lab: RunningLab) -> None:
    done = lab.pulumi("preview", "--expect-no-changes")
    assert "update" not in done.stdout.split("Resources:")[-1]
