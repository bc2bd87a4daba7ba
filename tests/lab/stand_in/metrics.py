"""Stands for metrics-server: what kubelets measure, as ``metrics.k8s.io`` tells it.

The API server sends here who asks for it (aggregation); who may is decided there.
"""

from __future__ import annotations

import http.server
import json
import ssl
import threading
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

API = "/apis/metrics.k8s.io/v1beta1"
#: Seconds that a figure is of.
WINDOW = 5


class Metrics:
    """Those of some kubelets; it answers from when it is made until `close`."""

    def __init__(self, kubelets: Mapping[str, str], address: str, pem: Path) -> None:
        """`kubelets`: node → host:port. `pem`: a certificate and its key."""
        self.kubelets = kubelets
        self.now: dict[tuple[str, str], dict[str, Any]] = {}
        self._before: dict[str, tuple[float, int]] = {}
        self._over = threading.Event()
        metrics = self

        class Answers(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                said = metrics.answer(self.path.partition("?")[0])
                body = json.dumps(said or {"kind": "Status", "message": "not found"}).encode()
                self.send_response(200 if said else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer((address, 0), Answers)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        for target in (self._server.serve_forever, self._measure):
            threading.Thread(target=target, daemon=True).start()

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    def close(self) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str) -> dict[str, Any] | None:
        """An object of the API's; None where there is none."""
        if path == API:
            resource = {"name": "pods", "namespaced": True, "kind": "PodMetrics", "verbs": ["get"]}
            return {"kind": "APIResourceList", "apiVersion": "v1",
                    "groupVersion": "metrics.k8s.io/v1beta1", "resources": [resource]}  # fmt: skip
        words = path.removeprefix(f"{API}/namespaces/").split("/")
        if len(words) == 3:
            return self.now.get((words[0], words[2]))
        items = [it for (namespace, _), it in list(self.now.items()) if namespace == words[0]]
        return {"kind": "PodMetricsList", "items": items}

    def _measure(self) -> None:
        untrusted = ssl._create_unverified_context()
        while not self._over.wait(WINDOW):
            now = {}
            for address in self.kubelets.values():
                with suppress(OSError):
                    url = f"https://{address}/stats/summary"
                    with urllib.request.urlopen(url, timeout=5, context=untrusted) as answer:
                        for pod in json.load(answer)["pods"]:
                            if (it := self._pod(pod)) is not None:
                                of = pod["podRef"]
                                now[of["namespace"], of["name"]] = it
            self.now = now

    def _pod(self, of: dict[str, Any]) -> dict[str, Any] | None:
        """What it used between two looks."""
        (container,) = of["containers"]
        used, uid = container["cpu"]["usageCoreNanoSeconds"], of["podRef"]["uid"]
        before = self._before.get(uid)
        self._before[uid] = at, _ = time.monotonic(), used
        if before is None:
            return None
        rate = max(0, int((used - before[1]) / (at - before[0])))
        memory = container["memory"]["workingSetBytes"] >> 10
        return {
            "kind": "PodMetrics", "apiVersion": "metrics.k8s.io/v1beta1",
            "metadata": {it: of["podRef"][it] for it in ("name", "namespace")},
            "timestamp": container["cpu"]["time"], "window": f"{WINDOW}s",
            "containers": [{"name": container["name"],
                            "usage": {"cpu": f"{rate}n", "memory": f"{memory}Ki"}}],
        }  # fmt: skip
