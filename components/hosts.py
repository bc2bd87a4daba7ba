"""The hosts of the settings as they are reached: address, user, and the pinned host key."""

from __future__ import annotations

from pathlib import Path

import pulumi

from remote.contact import scan_keys
from remote.host import Host
from remote.hostkeys import HostKeyError, KnownHosts, fingerprint
from settings import Settings
from settings.model import Host as HostSetting


class UnknownHostKey(Exception):
    """Hosts for which no key is pinned: nothing is sent to them."""


def hosts(settings: Settings, project: Path) -> dict[str, Host]:
    """Name → host with its pinned key.

    Raises:
        HostKeyError: the known_hosts file cannot be read.
        UnknownHostKey: hosts without a known key, each with the fingerprint that it shows. In a
            preview, which sends nothing, this is a warning.
    """
    known = _known_hosts(settings, project)
    bastion = _bastion(settings, known)
    found = {
        name: _host(name, host, settings, known, bastion) for name, host in settings.hosts.items()
    }
    unpinned = [host for host in found.values() if host.host_key is None and not host.lost]
    if unpinned:
        _refuse(unpinned, settings.ssh.known_hosts)
    return found


def _known_hosts(settings: Settings, project: Path) -> KnownHosts:
    if settings.ssh.known_hosts is None:
        return KnownHosts.empty()
    path = project / settings.ssh.known_hosts
    if pulumi.runtime.is_dry_run() and not path.exists():
        return KnownHosts.empty()
    return KnownHosts.read(path)


def _host(
    name: str, host: HostSetting, settings: Settings, known: KnownHosts, bastion: Host | None
) -> Host:
    port = host.port or settings.ssh.port
    return Host(
        name=name,
        address=host.address,
        user=host.user or settings.ssh.user,
        port=port,
        host_key=host.host_key or known.key(host.address, port) or known.key(name, port),
        dial_error_limit=settings.ssh.dial_error_limit,
        per_dial_timeout=settings.ssh.per_dial_timeout,
        bastion=bastion,
        lost=host.lost,
    )


def _bastion(settings: Settings, known: KnownHosts) -> Host | None:
    bastion = settings.ssh.bastion
    if bastion is None:
        return None
    return Host(
        name="bastion",
        address=bastion.address,
        user=bastion.user,
        port=bastion.port,
        host_key=bastion.host_key or known.key(bastion.address, bastion.port),
        dial_error_limit=settings.ssh.dial_error_limit,
        per_dial_timeout=settings.ssh.per_dial_timeout,
    )


def _refuse(unpinned: list[Host], known_hosts: str | None) -> None:
    where = known_hosts or "a known_hosts file named by slurmstack:ssh.knownHosts"
    if pulumi.runtime.is_dry_run():
        names = ", ".join(host.name for host in unpinned)
        pulumi.log.warn(f"no host key is known for {names}; `pulumi up` refuses them")
        return
    lines = []
    for host in unpinned:
        seen = scan_keys([host]).get(host.name)
        shows = (
            f"it shows {fingerprint(seen)}"
            if isinstance(seen, str)
            else f"it could not be asked for one ({seen})"
        )
        lines.append(f"  - {host.name} ({host.address}): {shows}")
    raise UnknownHostKey(
        "no host key is known for these hosts, so nothing was sent to them. Compare the "
        f"fingerprints on the machines' consoles (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub)"
        f" and add the keys to {where}, or to slurmstack:hosts as hostKey:\n" + "\n".join(lines)
    )


__all__ = ["HostKeyError", "UnknownHostKey", "hosts"]
