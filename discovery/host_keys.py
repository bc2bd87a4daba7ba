"""The hosts of the settings as they are reached: address, user, and the pinned host key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import asyncssh
import pulumi

from remote.contact import scan_host_key, wait_for
from remote.host import Host, fingerprint
from remote.known_hosts import HostKeyError, KnownHosts
from settings import Settings

_BASTION = "bastion"


class UnknownHostKey(Exception):
    """Hosts for which no key can be pinned: nothing is sent to them."""


def hosts(settings: Settings, project: Path) -> dict[str, Host]:
    """Name → host with its pinned key.

    Raises:
        UnknownHostKey: hosts without a usable key, each with the reason and the fingerprint that
            it shows. In a preview, which sends nothing, this is a warning.
    """
    known = _known_hosts(settings, project)
    problems: dict[str, str] = {}
    ssh = settings.ssh

    def host(
        name: str, address: str, user: str, port: int, key: str | None, through: Host | None
    ) -> Host:
        if key is None:
            try:
                key = known.key_for(name, address, port)
            except HostKeyError as error:
                problems[name] = str(error)
        return Host(
            name=name,
            address=address,
            host_key=key or "",
            port=port,
            user=user,
            bastion=through,
            dial_error_limit=ssh.dial_error_limit,
            per_dial_timeout=ssh.per_dial_timeout,
            lost=name in settings.lost,
        )

    jump = ssh.bastion
    bastion = None
    if jump is not None:
        bastion = host(_BASTION, jump.address, jump.user, jump.port, jump.host_key, None)
    reached = {
        name: host(
            name,
            entry.address,
            entry.user or ssh.user,
            entry.port or ssh.port,
            entry.host_key,
            bastion,
        )
        for name, entry in settings.members.items()
    }
    unpinned = {name: problem for name, problem in problems.items() if name not in settings.lost}
    if unpinned:
        _refuse(unpinned, reached | ({_BASTION: bastion} if bastion else {}))
    return reached


def _known_hosts(settings: Settings, project: Path) -> KnownHosts:
    named = settings.ssh.known_hosts
    if named is None:
        return KnownHosts.parse("", "no file (slurmstack:ssh.knownHosts names none)")
    try:
        return KnownHosts.read(project / named)
    except HostKeyError as error:
        # Hosts whose key is in the settings do without it; the others are refused one by one.
        pulumi.log.warn(str(error))
        return KnownHosts.parse("", named)


def _refuse(unpinned: Mapping[str, str], reached: Mapping[str, Host]) -> None:
    if pulumi.runtime.is_dry_run():
        names = ", ".join(unpinned)
        pulumi.log.warn(f"no host key is known for {names}; `pulumi up` refuses them")
        return
    lines = [
        f"  - {problem}; it shows {_shown(reached[name])}" for name, problem in unpinned.items()
    ]
    raise UnknownHostKey(
        "nothing was sent to any host, since these have no known key (in the file, or as "
        "slurmstack:hosts.NAME.hostKey):\n" + "\n".join(lines)
    )


def _shown(host: Host) -> str:
    if host.bastion is not None:
        return "its key to the bastion only"
    try:
        return fingerprint(wait_for(scan_host_key(host.address, host.port)))
    except (OSError, asyncssh.Error) as error:
        return f"none ({error or type(error).__name__})"
