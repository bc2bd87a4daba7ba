"""JwtKeyPair and SlurmRestd: what lands on the controller, and what never does."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pulumi
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from components.configuration.slurm_conf import slurm_conf
from components.keys.certificate import ca_pem
from components.keys.jwt_key_pair import jwt_bundle, trusted_lines
from components.rest.slurmrestd import rest_bundle, tls_bundle, url
from remote.answer import Answer
from remote.bundle import Bundle, Check, Command, File, Unit, Validate
from settings import Settings, parse
from tests.unit.components.test_cluster import bare, commands, deploy, deployed, is_secret, plain
from tests.unit.settings.test_jwt import public
from tests.unit.settings.test_rest import DAY, GOOD, KEY, NOW, certificate, pem, with_certificate

SHELLCHECK = Path(sys.executable).parent / "shellcheck"
ON: dict[str, Any] = {"jwt": {}, "rest": {}}


def settings(**changes: Any) -> Settings:
    return parse({**bare(), **ON, **changes})


def scripts(bundle: Bundle) -> dict[str, str]:
    """Every shell text that a bundle brings to its node."""
    found = {}
    for part in bundle.parts:
        if isinstance(part, Command | Check | Validate):
            found[part.key] = part.script
        if isinstance(part, File) and str(part.content).startswith("#!/bin/sh"):
            found[part.path] = str(part.content)
    return found


def file(bundle: Bundle, path: str) -> str:
    (found,) = [part for part in bundle.parts if isinstance(part, File) and part.path == path]
    return str(found.content)


@pytest.mark.parametrize(
    ("jwt", "parameters"),
    [
        (
            {},
            "jwks=/etc/slurm/slurm.jwks,jwt_key=/etc/slurm/jwt.key,max_token_lifespan=86400",
        ),
        (
            {"maxLifetime": "8h", "userTokens": False, "userClaim": "preferred_username"},
            "jwks=/etc/slurm/slurm.jwks,jwt_key=/etc/slurm/jwt.key,max_token_lifespan=28800,"
            "disable_token_creation,userclaimfield=preferred_username",
        ),
    ],
)
def test_slurm_conf_knows_of_tokens(jwt: dict[str, Any], parameters: str) -> None:
    nodes = [{"hosts": "cn01", "hardware": {
        "CPUs": 1, "SocketsPerBoard": 1, "CoresPerSocket": 1, "ThreadsPerCore": 1, "RealMemory": 9,
    }}]  # fmt: skip
    found = settings(jwt=jwt, nodes=nodes)
    hardware = {name: one.hardware for name, one in found.compute.items() if one.hardware}
    text = slurm_conf(found, hardware)
    assert "\nAuthAltTypes=auth/jwt\n" in text
    # A long value goes on in the next line.
    assert f"\nAuthAltParameters={parameters}\n" in text.replace("\\\n", "")
    without = slurm_conf(parse({**bare(), "nodes": nodes}), hardware)
    assert "AuthAlt" not in without


@pytest.mark.parametrize(
    "bundle",
    [
        jwt_bundle(settings()),
        rest_bundle(settings()),
        rest_bundle(settings(**with_certificate(GOOD))),
        tls_bundle(settings(**with_certificate(GOOD))),
    ],
    ids=lambda bundle: bundle.role,
)
def test_scripts_pass_shellcheck(bundle: Bundle, tmp_path: Path) -> None:
    bundle.render()
    for name, text in scripts(bundle).items():
        script = tmp_path / name.replace("/", "_").replace(" ", "_")
        script.write_text(text)
        done = subprocess.run(
            [SHELLCHECK, "--shell=dash", script], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout


def test_the_tls_key_is_in_one_secret_stdin_alone() -> None:
    node, outputs = deploy(**(ON | with_certificate(GOOD)))
    line = pem(KEY).splitlines()[1]
    for name, inputs in commands(node).items():
        held = line in str(plain(inputs["stdin"])) if "stdin" in inputs else False
        assert held is (name == "ctl-rest-tls")
        if held:
            assert is_secret(inputs["stdin"])
    assert line not in str(outputs)


def test_two_commands_more_on_the_controller_and_none_elsewhere() -> None:
    before, _ = deployed()
    after, outputs = deploy(**ON)
    assert set(commands(after)) - set(commands(before)) == {"ctl-jwt", "ctl-slurmrestd"}
    assert outputs["inventory"]["ctl"]["keys"]["jwt"] == "kid-of-a"
    assert outputs["cluster"]["restUrl"] == "https://10.73.0.10:6820"


def test_slurmrestd_listens_on_its_socket_and_loopback_only() -> None:
    unit = file(rest_bundle(settings()), "/etc/systemd/system/slurmrestd.service.d/slurmstack.conf")
    begin = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    assert begin[0] == "ExecStart=", "the package's own line must go: it listens on 0.0.0.0"
    assert begin[1].split()[-2:] == ["unix:/run/slurmrestd/slurmrestd.sock", "127.0.0.1:6821"]
    assert "-a rest_auth/jwt -s slurmctld -t" in begin[1], "another way in would need no token"
    assert "\nUser=slurmrestd\n" in unit


def test_haproxy_takes_changes_up_without_dropping_a_request() -> None:
    units = {part.name: part for part in rest_bundle(settings()).parts if isinstance(part, Unit)}
    assert units["haproxy.service"].reload_on == ("/etc/haproxy/haproxy.cfg",)
    assert units["haproxy.service"].restart_on == ("package:haproxy",)
    unit_conf = "/etc/systemd/system/slurmrestd.service.d/slurmstack.conf"
    assert unit_conf in units["slurmrestd.service"].restart_on


def test_the_answer_is_looked_at_as_a_client_of_the_clusters_ca_does() -> None:
    looks = scripts(rest_bundle(settings()))["check rest-answers"]
    assert "--cacert /etc/slurm/tls/ca.crt" in looks
    assert "--insecure" not in looks


def test_slurmrestd_serves_accounting_where_there_is_some() -> None:
    slurm = {"AccountingStorageType": "accounting_storage/slurmdbd"}
    unit = file(
        rest_bundle(settings(slurm=slurm)),
        "/etc/systemd/system/slurmrestd.service.d/slurmstack.conf",
    )
    assert "-s slurmctld,slurmdbd -t" in unit


def test_limits_reach_haproxy() -> None:
    limits = {"body": 2048, "requestsPerClient": 7, "connectionsPerClient": 3, "answer": 9}
    text = file(
        rest_bundle(settings(rest={"limits": limits, "tls": "1.3"})), "/etc/haproxy/haproxy.cfg"
    )
    for line in (
        "ssl-default-bind-options ssl-min-ver TLSv1.3 no-tls-tickets",
        "tcp-request connection reject if { sc_conn_cur(0) gt 3 }",
        "http-request deny deny_status 429 if { sc_http_req_rate(0) gt 7 }",
        "http-request deny deny_status 413 if { req.hdr_val(content-length) gt 2048 }",
        "timeout server 9s",
        "bind :6820 ssl crt /etc/slurm/tls/cluster.pem alpn http/1.1",
    ):
        assert f"\n  {line}\n" in text


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ({}, "https://10.73.0.10:6820"),
        ({"port": 8443, "serverName": "rest.example.org"}, "https://rest.example.org:8443"),
    ],
)
def test_the_url(rest: dict[str, Any], expected: str) -> None:
    assert url(settings(rest=rest)) == expected


def test_foreign_keys_are_one_a_line() -> None:
    jwt = parse(
        {**bare(), "jwt": {"trustedJwks": {"idp": {"keys": [public("x"), public("y")]}}}}
    ).jwt
    assert jwt is not None
    lines = trusted_lines(jwt).splitlines()
    assert [json.loads(line) for line in lines] == [public("x"), public("y")]
    # jwt-keys.sh reads the kid out of them as they are.
    assert all(" " not in line for line in lines)


def test_no_ca_with_a_certificate_of_the_settings() -> None:
    assert ca_pem(Answer(node="ctl", role="slurmrestd"), "rest-ca") is None


def test_the_ca_that_the_controller_made_is_told_in_pem() -> None:
    der = x509.load_pem_x509_certificate(GOOD.encode()).public_bytes(Encoding.DER)
    facts = {"rest-ca": base64.b64encode(der).decode()}
    assert ca_pem(Answer(node="ctl", role="slurmrestd", facts=facts), "rest-ca") == GOOD


@pytest.mark.parametrize(("days", "warns"), [(29, True), (31, False)])
def test_a_certificate_is_warned_of_a_month_before_it_expires(
    days: int, warns: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", lambda text, *_: warnings.append(text))
    end = NOW + days * DAY
    deploy(**with_certificate(certificate(KEY, ["10.73.0.10"], end=end)))
    text = (
        f"the certificate of slurmstack:rest expires on {end:%Y-%m-%d}: put a new one into the "
        "settings before"
    )
    assert warnings == ([text] if warns else [])
