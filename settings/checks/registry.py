"""The registry of container images beside the hosts and what else listens there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from settings.checks import hosts
from settings.checks.draft import Draft
from settings.images import Images
from settings.packages import Packages
from settings.problems import Problem
from settings.registry import Registry


def host(draft: Draft) -> Iterator[Problem]:
    """The registry is on a host that is there."""
    registry = draft.part("registry", Registry)
    if registry is not None and registry.host is not None and draft.hosts is not None:
        yield from hosts.there(draft, f"{draft.path('registry')}.host", registry.host)


def ports(draft: Draft) -> Iterator[Problem]:
    """Each of its ports is its own."""
    registry, roles = draft.part("registry", Registry), draft.roles
    if registry is None or roles is None:
        return
    packages = draft.part("packages", Packages) or Packages()
    images = draft.part("images", Images)
    own = registry.host or packages.host or roles.controller
    taken = {packages.port: "packages.port"} if own == (packages.host or roles.controller) else {}
    if images is not None and own == (images.host or roles.controller):
        taken[images.port] = "images.port"
    often = Counter(registry.ports.values())
    for key, port in registry.ports.items():
        path = f"{draft.path('registry')}.{key}"
        if port in taken:
            yield Problem(path, f"another one than {draft.path(taken[port])}", str(port))
        elif often[port] > 1:
            yield Problem(path, "a port of its own", str(port))


def secrets(draft: Draft) -> Iterator[Problem]:
    """Passwords have a registry, and mirrors theirs."""
    for key in ("registryPassword", "registrySecrets"):
        if key in draft.raw and "registry" not in draft.raw:
            yield Problem(draft.path(key), f"{draft.path('registry')} beside it", "none")
    registry = draft.part("registry", Registry)
    if registry is not None:
        path = draft.path("registry")
        yield from draft.unknown_secrets(path, registry.secrets.items(), "registrySecrets")
