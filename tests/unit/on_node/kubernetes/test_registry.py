"""What a registry says of itself and of an image; a server of a few lines stands for one."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator

import pytest

from on_node.kubernetes.job_file import Image
from on_node.kubernetes.registry import NotNow, answers, has

#: Path → status; 0: it says nothing.
STATUS = {
    "/v2/": 200,
    "/v2/tools/alpine/manifests/3.20": 200,
    "/v2/login/needed/manifests/1": 401,
    "/v2/moved/manifests/1": 302,
    "/v2/silent/manifests/1": 0,
}


class Registry(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        status = self.server.statuses.get(self.path, 404)  # type: ignore[attr-defined]
        if not status:
            time.sleep(2)
        self.send_response(status or 200)
        self.send_header("Location", "/v2/")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


@pytest.fixture
def statuses() -> dict[str, int]:
    return dict(STATUS)


@pytest.fixture
def registry(statuses: dict[str, int]) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry) as server:
        server.statuses = statuses  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_image_is_there_or_not(registry: str) -> None:
    assert has(Image(registry, "tools/alpine", "3.20"), "http", 5)
    assert not has(Image(registry, "tools/alpine", "9"), "http", 5)


@pytest.mark.parametrize(
    ("name", "why"),
    [("login/needed", "answers 401"), ("moved", "answers 302"), ("silent", "does not answer")],
)
def test_what_it_does_not_say_of_an_image_cannot_be_told(
    registry: str, name: str, why: str
) -> None:
    with pytest.raises(NotNow, match=f"^registry {registry} {why}"):
        has(Image(registry, name, "1"), "http", 0.3)


@pytest.mark.parametrize(("status", "well"), [(200, True), (401, True), (404, False), (503, False)])
def test_one_that_wants_a_login_answers(
    registry: str, statuses: dict[str, int], status: int, well: bool
) -> None:
    statuses["/v2/"] = status
    if well:
        answers(registry, "http", 5)
    else:
        with pytest.raises(NotNow, match=f"^registry {registry} answers {status}"):
            answers(registry, "http", 5)


def test_certificates_that_cannot_be_read_are_named() -> None:
    with pytest.raises(NotNow, match=r"^/nowhere/ca\.pem: No such file"):
        answers("hub:5000", "https", 1, "/nowhere/ca.pem")
