"""A package index of files alone (PEP 503) on the controller, with TLS and without, by a CA that
clients know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab.conftest import RunningLab

_SERVER = """
import functools, http.server, ssl, threading
serve = functools.partial(http.server.SimpleHTTPRequestHandler, directory="/srv/index")
plain = http.server.ThreadingHTTPServer(("", 8080), serve)
tls = http.server.ThreadingHTTPServer(("", 8443), serve)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/srv/index.crt", "/srv/index.key")
tls.socket = context.wrap_socket(tls.socket, server_side=True)
threading.Thread(target=plain.serve_forever, daemon=True).start()
tls.serve_forever()
"""
#: Where it is: by its host's name, since over TLS pip asks no address.
TLS, PLAIN = "https://ctl:8443/simple", "http://ctl:8080/simple"
_KNOWN = "/usr/local/share/ca-certificates/index.crt"


@dataclass(frozen=True)
class Index:
    """Its files."""

    lab: RunningLab

    def add(self, wheel: Path) -> None:
        """A wheel of ``stand_in_package``."""
        place = f"/srv/index/simple/stand-in-package/{wheel.name}"
        self.lab.send("ctl", f"cat >{place}", wheel.read_bytes())


@contextmanager
def served(lab: RunningLab, clients: Sequence[str]) -> Iterator[Index]:
    """It answers until the end.

    Args:
        lab: whose controller serves it.
        clients: nodes that believe its certificate.
    """
    certificate = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=index -keyout /srv/index.key "
        "-addext subjectAltName=DNS:ctl -out /srv/index.crt 2>/dev/null"
    )
    lab.ssh("ctl", f"mkdir -p /srv/index/simple/stand-in-package && {certificate}")
    lab.send("ctl", "cat >/srv/index.py", _SERVER.encode())
    lab.ssh("ctl", "systemd-run --quiet --unit=index python3 /srv/index.py")
    given = lab.ssh("ctl", "cat /srv/index.crt").stdout.encode()
    for node in clients:
        lab.send(node, f"cat >{_KNOWN} && update-ca-certificates >/dev/null 2>&1", given)
    try:
        yield Index(lab)
    finally:
        lab.ssh("ctl", "systemctl stop index; rm -r /srv/index*")
        for node in clients:
            lab.ssh(node, f"rm {_KNOWN}; update-ca-certificates --fresh >/dev/null 2>&1")
