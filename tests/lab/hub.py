"""What stands in for Docker Hub: the distribution's docker-registry, which lets in whoever has a
token, and a service of this process that gives tokens to one user with a password (distribution's
spec/auth/token.md), by TLS of a CA that nobody knows by himself."""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from secrets import token_hex
from urllib.parse import parse_qs, urlsplit

import jwt

from tests.lab.conftest import RunningLab

PORT = 5443
FOLDER = "/srv/hub"
_CA = "/usr/local/share/ca-certificates/hub.crt"
_CONF = """\
version: 0.1
log: {{level: warn}}
storage: {{filesystem: {{rootdirectory: {folder}/images}}}}
auth:
  token: {{realm: "https://{realm}/token", service: hub, issuer: hub,
          rootcertbundle: {folder}/pem}}
http: {{addr: ":{port}", tls: {{certificate: {folder}/pem, key: {folder}/pem}}}}
"""


@dataclass
class Hub:
    """The registry, on a host of the lab."""

    lab: RunningLab
    node: str
    user: str = "anna"
    password: str = field(default_factory=lambda: f"hub-{token_hex(12)}")
    #: Who asked for a token, and what he may do with it.
    asked: list[tuple[str, str]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"{self.lab.address(self.node)}:{PORT}"

    def start(self) -> None:
        self.lab.ssh(self.node, "systemd-run --quiet --unit=hub docker-registry serve "
                                f"{FOLDER}/config.yml")  # fmt: skip

    def stop(self) -> None:
        self.lab.ssh(self.node, "systemctl stop hub", check=False)


@contextmanager
def running(lab: RunningLab, node: str, folder: Path) -> Iterator[Hub]:
    """Have it on a node, which trusts its CA, until the end.

    Args:
        lab: whose.
        node: where docker-registry is installed.
        folder: of this machine, empty.
    """
    hub = Hub(lab, node)
    key, crt = _certificate(folder, lab.address(node), lab.lab.gateway)
    server = ThreadingHTTPServer((lab.lab.gateway, 0), _tokens(hub, key, crt))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(crt, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        conf = _CONF.format(
            folder=FOLDER, port=PORT, realm=f"{lab.lab.gateway}:{server.server_port}"
        )
        pem = key.read_bytes() + crt.read_bytes()
        lab.send(node, f"mkdir -m 0700 {FOLDER} && cat >{FOLDER}/pem", pem)
        lab.send(node, f"cat >{FOLDER}/config.yml", conf.encode())
        trust = f"openssl x509 -in {FOLDER}/pem -out {_CA} && update-ca-certificates"
        lab.ssh(node, trust)
        hub.start()
        yield hub
    finally:
        hub.stop()
        server.shutdown()
        server.server_close()
        lab.ssh(node, f"rm -rf {FOLDER} {_CA}; update-ca-certificates --fresh")


def _certificate(folder: Path, *addresses: str) -> tuple[Path, Path]:
    """Key and certificate of the registry, the service and its tokens, which is its own CA."""
    key, crt = folder / "key", folder / "crt"
    names = ",".join(f"IP:{it}" for it in addresses)
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-subj", "/CN=hub", "-days", "2", "-addext", f"subjectAltName={names}",
             "-keyout", str(key), "-out", str(crt)]  # fmt: skip
    subprocess.run(words, check=True, capture_output=True, timeout=60)
    return key, crt


def _tokens(hub: Hub, key: Path, crt: Path) -> type[BaseHTTPRequestHandler]:
    certificate = base64.b64encode(ssl.PEM_cert_to_DER_cert(crt.read_text())).decode()
    private = key.read_text()

    class Tokens(BaseHTTPRequestHandler):
        timeout = 30

        def do_GET(self) -> None:
            given = self.headers.get("Authorization", "").removeprefix("Basic ")
            user, _, password = base64.b64decode(given).decode().partition(":")
            if (user, password) != (hub.user, hub.password):
                return self.answer(401, {"errors": [{"code": "UNAUTHORIZED"}]})
            query = parse_qs(urlsplit(self.path).query)
            scopes = [it for text in query.get("scope", []) for it in text.split()]
            hub.asked += [(user, scope) for scope in scopes]
            access = [
                {"type": kind, "name": name, "actions": actions.split(",")}
                for kind, name, actions in (it.split(":") for it in scopes)
            ]
            now = int(time.time())
            claims = {"iss": "hub", "aud": "hub", "sub": user, "jti": token_hex(8), "iat": now,
                      "nbf": now - 10, "exp": now + 300, "access": access}  # fmt: skip
            token = jwt.encode(claims, private, "ES256", headers={"x5c": [certificate]})
            return self.answer(200, {"token": token, "expires_in": 300})

        def answer(self, status: int, told: object) -> None:
            content = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Nothing is printed."""

    return Tokens
