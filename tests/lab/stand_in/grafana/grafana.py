#!/usr/bin/python3
"""A stand-in for Grafana: it reads grafana.ini and what is provisioned as Grafana does, as its
user, asks Prometheus by the data source, and answers the few paths of its API that are looked at.
It draws nothing.

    grafana server --config FILE
    grafana cli --homepath … --config FILE admin reset-admin-password --password-from-stdin
"""

from __future__ import annotations

import base64
import configparser
import http.server
import ipaddress
import json
import re
import ssl
import sys
import urllib.request
from pathlib import Path

DATABASE = Path("/var/lib/grafana/grafana.db")


def expanded(text: str) -> str:
    return re.sub(r"\$__file\{(.+?)\}", lambda match: Path(match[1]).read_text().strip(), text)


def provisioned(folder: str, kind: str) -> dict[str, str]:
    """The keys of the one file of a kind, whatever they are below."""
    (file,) = Path(folder, kind).glob("*.yaml")
    lines = re.findall(r"^[ -]*(\w+): *(.+)$", file.read_text(), re.MULTILINE)
    return {key: expanded(value.strip('"')) for key, value in lines}


def read(path: str) -> configparser.ConfigParser:
    config = configparser.ConfigParser(interpolation=None)
    assert config.read(path) == [path]
    return config


def reaches(source: dict[str, str]) -> bool:
    """Whether Prometheus answers by the data source."""
    assert re.search(r"BEGIN CERTIFICATE", source["tlsCACert"])
    word = f"{source['basicAuthUser']}:{source['basicAuthPassword']}".encode()
    request = urllib.request.Request(f"{source['url']}/api/v1/query?query=up")
    request.add_header("Authorization", f"Basic {base64.b64encode(word).decode()}")
    context = ssl.create_default_context(cadata=source["tlsCACert"])
    with urllib.request.urlopen(request, timeout=10, context=context) as answer:
        return bool(json.loads(answer.read())["data"]["result"])


def serve(path: str) -> None:
    config = read(path)
    server = config["server"]
    source = provisioned(config["paths"]["provisioning"], "datasources")
    boards = provisioned(config["paths"]["provisioning"], "dashboards")
    assert len(expanded(config["security"]["secret_key"])) >= 32
    if not DATABASE.exists():
        DATABASE.write_text(expanded(config["security"]["admin_password"]))
    proxy = config["auth.proxy"] if config.has_section("auth.proxy") else None

    class Page(http.server.BaseHTTPRequestHandler):
        def who(self) -> str | None:
            if proxy is not None and proxy["header_name"] in self.headers:
                networks = [
                    ipaddress.ip_network(it.strip()) for it in proxy["whitelist"].split(",")
                ]
                if any(ipaddress.ip_address(self.client_address[0]) in it for it in networks):
                    return self.headers[proxy["header_name"]]
            word = self.headers.get("Authorization", "").removeprefix("Basic ")
            good = f"admin:{DATABASE.read_text()}"
            return "admin" if word == base64.b64encode(good.encode()).decode() else None

        def do_GET(self) -> None:
            name = self.who()
            if self.path == "/api/health":
                self.tell(200, {"database": "ok"})
            elif name is None:
                self.tell(401, {})
            elif self.path == "/api/user":
                self.tell(200, {"login": name})
            elif self.path == "/api/search":
                files = sorted(Path(boards["path"]).glob("*/*.json"))
                found = [(file.parent.name, json.loads(file.read_text())) for file in files]
                self.tell(200, [{"folderTitle": it, "uid": one["uid"], **one} for it, one in found])
            elif self.path == f"/api/datasources/uid/{source['uid']}/health":
                try:
                    self.tell(200 if reaches(source) else 400, {})
                except OSError as error:
                    self.tell(400, {"message": str(error)})
            else:
                self.tell(404, {})

        def tell(self, status: int, what: object) -> None:
            body = json.dumps(what).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    pages = http.server.ThreadingHTTPServer(("", int(server["http_port"])), Page)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(server["cert_file"], server["cert_key"])
    pages.socket = context.wrap_socket(pages.socket, server_side=True)
    pages.serve_forever()


if __name__ == "__main__":
    words = sys.argv[1:]
    config_file = words[words.index("--config") + 1]
    if words[0] == "server":
        serve(config_file)
    elif words[-3:] == ["admin", "reset-admin-password", "--password-from-stdin"]:
        read(config_file)
        DATABASE.write_text(sys.stdin.read().strip())
    else:
        sys.exit(f"a stand-in does not know {words}")
