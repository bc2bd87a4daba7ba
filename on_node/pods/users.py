"""What is in users' namespaces: the bridge may look there, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from on_node.pods.api import Api, Away, Refused
from on_node.pods.manifests import LABEL, USER_LABEL, right
from on_node.pods.site import Site


def namespaces(api: Api, told: Site) -> list[str]:
    """All that the bridge has made.

    Raises:
        Away, Refused: it cannot be told.
    """
    items = api.get("/api/v1/namespaces", labelSelector=_selector(USER_LABEL))["items"]
    names = [str(it["metadata"]["name"]) for it in items]
    return [name for name in names if name.startswith(told.prefix)]


def pods(api: Api, name: str, **labels: str) -> Iterator[dict[str, Any]]:
    """The jobs' pods in one.

    Raises:
        Away, Refused: it cannot be told.
    """
    try:
        found = api.get(
            f"/api/v1/namespaces/{name}/pods", labelSelector=_selector({**LABEL, **labels})
        )
    except Refused as error:
        if error.status != 403:
            raise
        # Of a namespace that an earlier release made: it has the right from now on.
        api.apply(*right(name))
        raise Away(f"{name}: {error}") from None
    yield from found["items"]


def _selector(labels: dict[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in labels.items())
