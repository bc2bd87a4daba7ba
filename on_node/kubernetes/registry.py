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
    url = f"{scheme}://{image.registry}/v2/{image.name}/manifests/{image.reference}"
    request = urllib.request.Request(url, method="HEAD", headers={"Accept": ", ".join(_TYPES)})
    handlers: list[urllib.request.BaseHandler] = [_NoRedirect, urllib.request.ProxyHandler({})]  # type: ignore[list-item]
    if scheme == "https":
        try:
            handlers.append(
                urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca))
            )
        except OSError as error:
            raise NotNow(f"{ca}: {error}") from None
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=seconds):
            return True
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return False
        raise NotNow(f"registry {image.registry} answers {error.code} {error.reason}") from None
    except OSError as error:
        raise NotNow(f"registry {image.registry} does not answer: {error}") from None
