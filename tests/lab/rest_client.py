"""A plain HTTPS client of the REST API, and settings that hold for the length of a test."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import threading
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tests.lab.conftest import RunningLab

API = "/slurm/v0.0.42"


def cluster(lab: RunningLab) -> dict[str, Any]:
    """The output of that name."""
    found: dict[str, Any] = json.loads(lab.pulumi("stack", "output", "cluster", "--json").stdout)
    return found


def token(lab: RunningLab, user: str, *options: str) -> str:
    """A token as an operator gets one."""
    return lab.run("slurmstack", "token", user, "--stack", lab.name, *options).stdout.strip()


@dataclass(frozen=True)
class Client:
    """One server, and the CA that its clients know."""

    url: str
    ca: str | None

    @classmethod
    def of(cls, lab: RunningLab) -> Client:
        found = cluster(lab)
        return cls(found["restUrl"], found["restCa"])

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self.ca)

    def connect(self) -> http.client.HTTPSConnection:
        parts = urlsplit(self.url)
        return http.client.HTTPSConnection(
            str(parts.hostname), parts.port, timeout=60, context=self.context()
        )

    def ask(
        self,
        path: str = "/jobs",
        token: str | None = None,
        user: str | None = None,
        method: str = "GET",
        body: Any = None,
        **headers: str,
    ) -> tuple[int, str]:
        """Status and body of one request on a connection of its own."""
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, API + path, body, self.headers(token, user) | headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")

    @staticmethod
    def headers(token: str | None, user: str | None = None) -> dict[str, str]:
        found = {}
        if token is not None:
            found["X-SLURM-USER-TOKEN"] = token
        if user is not None:
            found["X-SLURM-USER-NAME"] = user
        return found

    def serial(self) -> int:
        """Of the certificate that is served now."""
        from cryptography import x509

        with contextlib.closing(self.connect()) as connection:
            connection.connect()
            shown = connection.sock.getpeercert(binary_form=True)
            assert shown is not None
            return x509.load_der_x509_certificate(shown).serial_number


@dataclass
class Load:
    """Requests without a pause: half of the clients keep their connection, half do not."""

    client: Client
    token: str
    answers: dict[int, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Load:
        self._threads = [
            threading.Thread(target=self._run, args=(keeps,), daemon=True)
            for keeps in (True, False) * 3
        ]
        for thread in self._threads:
            thread.start()
        self.more(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def count(self) -> int:
        with self._lock:
            return sum(self.answers.values()) + len(self.failures)

    def more(self, requests: int) -> None:
        """Wait until so many more were answered."""
        wanted, end = self.count() + requests, time.monotonic() + 240
        while self.count() < wanted:
            assert time.monotonic() < end, f"no more answers: {self.failures[-1:]}"
            time.sleep(0.02)

    def _run(self, keeps: bool) -> None:
        connection = self.client.connect()
        while not self._stop.is_set():
            try:
                connection.request("GET", f"{API}/jobs", headers=self.client.headers(self.token))
                answer = connection.getresponse()
                answer.read()
                with self._lock:
                    self.answers[answer.status] = self.answers.get(answer.status, 0) + 1
            except (OSError, http.client.HTTPException) as error:
                with self._lock:
                    self.failures.append(f"{'kept' if keeps else 'new'} connection: {error!r}")
                connection.close()
            if not keeps:
                connection.close()
            # A client that keeps its connection is idle now and then; that is when it is cut off.
            time.sleep(0.01 if keeps else 0.002)
        connection.close()
