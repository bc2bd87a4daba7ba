"""A caching package mirror on the bridge's address: nginx in front of this machine's own mirror.

Nodes have no route out; what one node fetched is on disk for the next node and the next lab.
"""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import socket
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from lab.errors import LabError
from lab.names import Lab
from lab.sources import Mirrors
from lab.system import processes, run, wait_for

PORT = 8073
# What nodes call the mirror. They reach it as apt's proxy, so that the name needs no DNS and the
# image's package lists, which apt names after the address, fit every lab.
HOST = "mirror.lab"

_CONFIG = """\
# Written by the lab; the cache is shared with other labs.
user root;  # the cache lies under root's home by default
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{}}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/tmp/body;
    proxy_temp_path {folder}/tmp/proxy;
    fastcgi_temp_path {folder}/tmp/fastcgi;
    uwsgi_temp_path {folder}/tmp/uwsgi;
    scgi_temp_path {folder}/tmp/scgi;
    proxy_cache_path {cache} levels=1:2 keys_zone=packages:8m inactive=90d max_size=8g
                     use_temp_path=off;
{upstreams}
    server {{
        listen {address}:{port};
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_connect_timeout 10s;
        proxy_read_timeout 60s;
        proxy_cache packages;
        proxy_cache_key $uri;
        proxy_cache_valid 200 90d;
        proxy_ignore_headers Cache-Control Expires Set-Cookie Vary X-Accel-Expires;
        # Nodes ask for the same package at the same moment: one fetches, the others wait.
        proxy_cache_lock on;
        proxy_cache_lock_timeout 300s;
        proxy_cache_lock_age 300s;
        proxy_cache_use_stale error timeout invalid_header http_500 http_502 http_503 http_504;
        proxy_ssl_server_name on;
        proxy_ssl_verify on;
        proxy_ssl_verify_depth 5;
        proxy_ssl_trusted_certificate /etc/ssl/certs/ca-certificates.crt;
{locations}
        location / {{ return 404; }}
    }}
}}
"""

_UPSTREAM = "    upstream {name} {{ server {server}; keepalive 8; }}"

# The few files that change under one name are asked for anew; all else is named by its content.
_LOCATION = """\
        location /{prefix}/ {{
            proxy_pass {scheme}://{name}{path}/;
{headers}
            location ~ ^/{prefix}/(?<rest>dists/.*/(InRelease|Release|Release\\.gpg))$ {{
                proxy_cache_valid 200 10m;
                proxy_cache_revalidate on;
                proxy_pass {scheme}://{name}{path}/$rest;
{headers}
            }}
        }}"""


def source_lines(suite: str) -> list[str]:
    """apt sources of a node, and of the image."""
    return [
        f"deb http://{HOST}/debian {suite} main",
        f"deb http://{HOST}/debian {suite}-updates main",
        f"deb http://{HOST}/debian-security {suite}-security main",
    ]


def proxy(lab: Lab) -> str:
    """The value of apt's Acquire::http::Proxy."""
    return f"http://{lab.gateway}:{PORT}"


def render(lab: Lab, mirrors: Mirrors, cache: Path) -> str:
    """nginx's configuration. Upstreams are resolved by the system's resolver when nginx starts."""
    upstreams, locations = [], []
    pairs = {"debian": mirrors.archive, "debian-security": mirrors.security}
    for prefix, address in pairs.items():
        url = urlsplit(address)
        name = f"{prefix.replace('-', '_')}_mirror"
        upstreams.append(_UPSTREAM.format(name=name, server=_server(url)))
        headers = "\n".join(f"            {line}" for line in _headers(url))
        locations.append(
            _LOCATION.format(
                prefix=prefix, scheme=url.scheme, name=name, path=url.path, headers=headers
            )
        )
    return _CONFIG.format(
        folder=_folder(lab),
        cache=cache / "packages",
        address=lab.gateway,
        port=PORT,
        upstreams="\n".join(upstreams),
        locations="\n".join(locations),
    )


def up(lab: Lab, mirrors: Mirrors, cache: Path) -> bool:
    """Start nginx; False if it runs already with this configuration."""
    folder = _folder(lab)
    for part in (folder / "tmp", cache / "packages"):
        part.mkdir(parents=True, exist_ok=True)
    config = folder / "nginx.conf"
    text = render(lab, mirrors, cache)
    running = bool(_processes(lab)) and _answers(lab)
    if running and config.exists() and config.read_text() == text:
        return False
    down(lab)
    # It may hold a mirror's password.
    config.touch(mode=0o600)
    config.write_text(text)
    run(["nginx", "-e", folder / "error.log", "-p", folder, "-c", config])
    wait_for(lambda: _answers(lab), seconds=10, what=f"the mirror at {proxy(lab)} did not answer")
    return True


def down(lab: Lab) -> bool:
    """End this lab's nginx, by force after 10 s; False if none ran."""
    told: set[int] = set()

    def gone() -> bool:
        # Looked for again and again: one that was being started becomes another process.
        running = _processes(lab)
        for pid in {*running} - told:
            told.add(pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        return not running

    try:
        wait_for(gone, seconds=10, what="nginx did not end")
    except LabError:
        for pid in _processes(lab):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    return bool(told)


def _folder(lab: Lab) -> Path:
    return lab.folder / "mirror"


def _processes(lab: Lab) -> list[int]:
    """nginx's master and workers that write this lab's log, and one that is about to.

    Found by what they hold open, not by a pid file: its number may be another process's by now.
    One that has just been started, by a command that was killed since, holds nothing open yet and
    has its arguments still.
    """
    log, config = _folder(lab) / "error.log", str(_folder(lab) / "nginx.conf")
    running = []
    for pid, words in processes():
        if words[0] == "nginx" and config in words:
            running.append(pid)
        if not words[0].startswith("nginx:"):
            continue
        with contextlib.suppress(OSError):
            if any(entry.readlink() == log for entry in Path(f"/proc/{pid}/fd").iterdir()):
                running.append(pid)
    return running


def _answers(lab: Lab) -> bool:
    try:
        with socket.create_connection((lab.gateway, PORT), timeout=2):
            return True
    except OSError:
        return False


def _server(url: SplitResult) -> str:
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        socket.getaddrinfo(url.hostname, port)
    except OSError:
        # No way out at the moment: what is in the cache is still served.
        return "127.0.0.1:9"
    return f"{url.hostname}:{port}"


def _headers(url: SplitResult) -> list[str]:
    host = f"{url.hostname}:{url.port}" if url.port else str(url.hostname)
    lines = [
        f"proxy_set_header Host {host};",
        'proxy_set_header Connection "";',
        f"proxy_ssl_name {url.hostname};",
    ]
    if url.username is not None:
        pair = f"{unquote(url.username)}:{unquote(url.password or '')}"
        token = base64.b64encode(pair.encode()).decode()
        lines.append(f'proxy_set_header Authorization "Basic {token}";')
    return lines
