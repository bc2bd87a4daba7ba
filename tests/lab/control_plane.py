"""A real control plane of Kubernetes for the tests: etcd, kube-apiserver, kube-controller-manager.

They are one program of ``stand_in/control_plane`` (a main package of ours that imports theirs),
built with Go into the lab's cache: minutes of both processors, and gigabytes of Go's own caches. So
it is built only where ``SLURMSTACK_TEST_KUBERNETES=1`` asks for it; what lies there is taken.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lab.image import cache_folder

SOURCE = Path(__file__).parent / "stand_in" / "control_plane"
ASKED = "SLURMSTACK_TEST_KUBERNETES"
VERSION = "v1.34.4"
#: On the lab's own address.
PORT = 6443


def program() -> Path:
    """The program, built when it is asked for; the test is skipped where it cannot be had."""
    files = ("main.go", "go.mod", "go.sum")
    text = b"".join((SOURCE / name).read_bytes() for name in files)
    place = cache_folder() / f"kubernetes-{VERSION}-{hashlib.sha256(text).hexdigest()[:12]}"
    if place.exists():
        return place
    if not os.environ.get(ASKED):
        pytest.skip(f"{ASKED}=1 builds a control plane of Kubernetes with Go (minutes, once)")
    if shutil.which("go") is None:
        pytest.skip("there is no Go by which a control plane of Kubernetes could be built")
    new = place.with_name(f"{place.name}.new")
    flags = f"-s -w -X k8s.io/component-base/version.gitVersion={VERSION}"
    done = subprocess.run(
        ["nice", "-n", "10", "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", flags,
         "-o", str(new), "."],
        cwd=SOURCE, capture_output=True, text=True, timeout=3600, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        pytest.skip(f"the control plane of Kubernetes cannot be built: {done.stderr[-500:]}")
    new.rename(place)
    return place


@dataclass
class ControlPlane:
    """One that runs."""

    folder: Path
    address: str
    program: Path
    #: etcd's URL; on loopback, where others of these run, too.
    etcd: str = ""
    #: Who → token.
    tokens: dict[str, str] = field(default_factory=dict)
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def server(self) -> str:
        return f"https://{self.address}:{PORT}"

    @property
    def ca(self) -> str:
        """Certificates by which it is known: its own, which it made itself."""
        return (self.folder / "tls" / "apiserver.crt").read_text()

    def start(self) -> None:
        """All three, until they answer."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = self.folder / "accounts.key"
        words = ["openssl", "genrsa", "-out", str(key), "2048"]
        subprocess.run(words, check=True, capture_output=True, timeout=60)
        groups = {"admin": "system:masters"} | {
            f"system:node:{node}": "system:nodes" for node in ("cn01", "cn02")
        }
        self.tokens = {who: secrets.token_hex(16) for who in groups}
        lines = [f'{self.tokens[who]},{who},{who},"{groups[who]}"\n' for who in groups]
        (self.folder / "tokens.csv").write_text("".join(lines))
        self.etcd = f"http://127.0.0.1:{free_port()}"
        self._start(
            "etcd", "--data-dir", f"{self.folder}/data", "--unsafe-no-fsync",
            "--listen-client-urls", self.etcd, "--advertise-client-urls", self.etcd,
            "--listen-peer-urls", f"http://127.0.0.1:{free_port()}", "--log-level", "warn",
        )  # fmt: skip
        self.start_server()
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": {
                "server": self.server,
                "certificate-authority": f"{self.folder}/tls/apiserver.crt"}}],
            "users": [{"name": "it", "user": {"token": self.tokens["admin"]}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        }  # fmt: skip
        (self.folder / "admin.json").write_text(json.dumps(config))
        self._start(
            "kube-controller-manager", "--kubeconfig", f"{self.folder}/admin.json",
            "--leader-elect=false", "--service-account-private-key-file", str(key),
            "--bind-address=127.0.0.1", "--secure-port=0",
        )  # fmt: skip

    def start_server(self) -> None:
        """The API alone, also after `stop_server`."""
        key = self.folder / "accounts.key"
        self._start(
            "kube-apiserver", "--etcd-servers", self.etcd,
            "--bind-address", self.address, "--advertise-address", self.address,
            "--secure-port", str(PORT), "--cert-dir", f"{self.folder}/tls",
            "--endpoint-reconciler-type=none", "--authorization-mode=Node,RBAC",
            "--token-auth-file", f"{self.folder}/tokens.csv",
            "--service-account-issuer=https://slurmstack.invalid",
            "--service-account-key-file", str(key), "--service-account-signing-key-file", str(key),
            "--service-cluster-ip-range=10.96.0.0/16",
            "--kubelet-preferred-address-types=InternalIP",
            # Services that the API server asks for others have no proxy here that finds them.
            "--enable-aggregator-routing=true",
        )  # fmt: skip
        end = time.monotonic() + 180
        while True:
            with contextlib.suppress(OSError):
                self.call("GET", "/api/v1/namespaces/default")
                return
            assert self._running["kube-apiserver"].poll() is None, self.log("kube-apiserver")
            assert time.monotonic() < end, self.log("kube-apiserver")
            time.sleep(0.5)

    def stop_server(self) -> None:
        """The API goes away; what it has kept stays."""
        process = self._running.pop("kube-apiserver")
        process.kill()
        process.wait(60)

    def stop(self) -> None:
        for process in self._running.values():
            process.kill()
        for process in self._running.values():
            process.wait(60)
        shutil.rmtree(self.folder, ignore_errors=True)

    def call(
        self,
        verb: str,
        path: str,
        body: Any = None,
        token: str | None = None,
        kind: str = "application/json",
    ) -> dict[str, Any]:
        """Ask the API, as its administrator or by another's token."""
        trust = ssl.create_default_context(cafile=self.folder / "tls" / "apiserver.crt")
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.server}{path}", data, method=verb)
        request.add_header("Authorization", f"Bearer {token or self.tokens['admin']}")
        request.add_header("Content-Type", kind)
        with urllib.request.urlopen(request, timeout=20, context=trust) as answer:
            told: dict[str, Any] = json.loads(answer.read())
            return told

    def log(self, part: str) -> str:
        """The end of what a part has said."""
        return (self.folder / f"{part}.log").read_text(errors="replace")[-3000:]

    def _start(self, part: str, *words: str) -> None:
        link = self.folder / part
        if not link.is_symlink():
            link.symlink_to(self.program)
        with (self.folder / f"{part}.log").open("ab") as log:
            self._running[part] = subprocess.Popen(
                [str(link), *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )


def free_port() -> int:
    """One of loopback's that nobody has now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextlib.contextmanager
def running(folder: Path, address: str) -> Iterator[ControlPlane]:
    """A control plane on an address of this machine."""
    plane = ControlPlane(folder, address, program())
    try:
        plane.start()
        yield plane
    finally:
        plane.stop()
