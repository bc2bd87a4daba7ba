"""Hosts: their names and addresses, and the roles that settings give them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from settings.checks.draft import Draft
from settings.hostlist import expand
from settings.problems import Problem

_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


def names_and_addresses(draft: Draft) -> Iterator[Problem]:
    """Names that slurmd can know itself by, and addresses that can be some."""
    path = draft.path("hosts")
    for name, host in (draft.hosts or {}).items():
        if not _LABEL.fullmatch(name):
            expected = "a host name (letters, digits and hyphens)"
            if all(_LABEL.fullmatch(label) for label in name.split(".")):
                short = name.partition(".")[0]
                expected = (
                    f"the host's name without its domain, {short}, by which slurmd knows itself "
                    "(address takes the whole name)"
                )
            yield Problem(f"{path}.{name}", expected, repr(name))
        if not _is_address(host.address):
            yield Problem(f"{path}.{name}.address", "an IP address or a host name", host.address)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        # Digits and dots that are no address are a slip of the finger, not a host name.
        return not re.fullmatch(r"[0-9.]+", text) and all(
            _LABEL.fullmatch(label) for label in text.split(".")
        )
    return True


def controller(draft: Draft) -> Iterator[Problem]:
    """The controller is a host that is there."""
    if draft.hosts is None or draft.roles is None:
        return
    path, name = draft.path("roles.controller"), draft.roles.controller
    if name not in draft.hosts:
        yield Problem(path, "a host of slurmstack:hosts", name)
    elif draft.hosts[name].lost:
        yield Problem(path, "a host that is not lost", f"{name}, marked lost")


def login(draft: Draft) -> Iterator[Problem]:
    """Login nodes are hosts with no other role that users would disturb."""
    if draft.hosts is None or draft.roles is None:
        return
    path = draft.path("roles.login")
    for name in expand(draft.roles.login) if draft.roles.login else ():
        if name not in draft.hosts:
            yield Problem(path, "hosts of slurmstack:hosts", name)
        elif name in draft.compute:
            yield Problem(path, "hosts that are no compute nodes", name)
        elif name == draft.roles.controller:
            yield Problem(path, "other hosts than the controller", name)


def there(draft: Draft, path: str, name: str) -> Iterator[Problem]:
    """What a host that a setting names has against it: it is none, or it is lost."""
    hosts = draft.hosts or {}
    if name not in hosts:
        yield Problem(path, f"a host of {draft.path('hosts')}", name)
    elif hosts[name].lost:
        yield Problem(path, "a host that is not lost", name)
