"""Stands for what is outside of a cluster and is told by it: a webhook, Slack, PagerDuty, a mail
relay, and a Prometheus of the site. Runs on a lab machine:

    python3 outside.py FOLDER CERTIFICATE KEY

What each was sent is in FOLDER, a line each: `hook`, `slack`, `pagerduty`, `mail`, `written`.
"""

from __future__ import annotations

import http.server
import socketserver
import ssl
import sys
import threading
from pathlib import Path


class Web(http.server.BaseHTTPRequestHandler):
    """The first word of the path says which; of what Prometheus writes only the size is kept."""

    folder: Path

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        kinds = {"slack": "slack", "v2": "pagerduty", "write": "written"}
        kind = kinds.get(self.path.split("/")[1], "hook")
        if kind == "written":
            body = f"{self.headers['Authorization']} {len(body)}".encode()
        with (self.folder / kind).open("ab") as log:
            log.write(self.path.encode() + b" " + body.replace(b"\n", b"") + b"\n")
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.end_headers()
        self.wfile.write(b"ok")


class Relay(socketserver.StreamRequestHandler):
    """As much of SMTP as a client needs that sends one mail."""

    folder: Path

    def handle(self) -> None:
        self.wfile.write(b"220 relay\r\n")
        told: list[bytes] = []
        while line := self.rfile.readline().strip():
            verb = line.upper().split(b" ")[0]
            if verb in (b"MAIL", b"RCPT"):
                told.append(line)
            if verb == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                while (line := self.rfile.readline()) not in (b".\r\n", b""):
                    told.append(line.strip())
                with (self.folder / "mail").open("ab") as log:
                    log.write(b" | ".join(told) + b"\n")
            self.wfile.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 well\r\n")
            if verb == b"QUIT":
                return


def main(folder: str, certificate: str, key: str) -> None:
    Web.folder = Relay.folder = Path(folder)
    Web.folder.mkdir(exist_ok=True)
    plain = http.server.ThreadingHTTPServer(("", 8099), Web)
    pager = http.server.ThreadingHTTPServer(("127.0.0.1", 443), Web)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    pager.socket = context.wrap_socket(pager.socket, server_side=True)
    relay = socketserver.ThreadingTCPServer(("127.0.0.1", 25), Relay)
    for server in (pager, relay):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    plain.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
