"""Whether an image is in its registry (distribution's HTTP API v2)."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request

from on_node.kubernetes.job_file import Image

_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)


class NotNow(Exception):
    """It cannot be told at present; why."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """What a registry says of an image, it says itself."""

    def redirect_request(self, *_: object) -> None:
        return None


def has(image: Image, scheme: str, seconds: float, ca: str | None = None) -> bool:
    """Whether the registry has it.

    Args:
        image: which.
        scheme: https or http.
        seconds: within which it must answer.
        ca: a file of certificates that are trusted; None for those of the system.

    Raises:
        NotNow: it did not answer in time, or not so that one knows.
    """
    path = f"{image.name}/manifests/{image.reference}"
    return _status(image.registry, path, scheme, seconds, ca) != 404


def answers(registry: str, scheme: str, seconds: float, ca: str | None = None) -> None:
    """Ask a registry whether it is one; that it wants a login (401) is an answer, too.

    Args:
        registry: its name, as images have it.
        scheme: https or http.
        seconds: within which it must answer.
        ca: a file of certificates that are trusted; None for those of the system.

    Raises:
        NotNow: it did not answer in time, or not as one.
    """
    if _status(registry, "", scheme, seconds, ca, good=(401,)) == 404:
        raise NotNow(f"registry {registry} answers 404: no registry (HTTP API v2) is there")


def _status(
    registry: str,
    path: str,
    scheme: str,
    seconds: float,
    ca: str | None,
    good: tuple[int, ...] = (),
) -> int:
    """How it answers: well, 404, or one of `good`."""
    url = f"{scheme}://{registry}/v2/{path}"
    request = urllib.request.Request(url, method="HEAD", headers={"Accept": ", ".join(_TYPES)})
    handlers: list[urllib.request.BaseHandler] = [_NoRedirect, urllib.request.ProxyHandler({})]  # type: ignore[list-item]
    if scheme == "https":
        try:
            handlers.append(
                urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca))
            )
        except OSError as error:
            raise NotNow(f"{ca}: {error.strerror or error}") from None
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=seconds) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        if error.code == 404 or error.code in good:
            return error.code
        raise NotNow(f"registry {registry} answers {error.code} {error.reason}") from None
    except OSError as error:
        raise NotNow(f"registry {registry} does not answer: {error}") from None
