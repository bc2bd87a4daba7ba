"""Host keys that machines show now, and pinning them once a person has compared them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from operations.refused import Refused
from remote.contact import scan_host_key, wait_for
from remote.host import Host, fingerprint
from remote.known_hosts import HostKeyError, KnownHosts
from settings import Settings


@dataclass(frozen=True)
class NewKey:
    """A host that shows another key than the pinned one."""

    host: Host
    #: As a line `ssh-ed25519 AAAA…`.
    key: str

    def __str__(self) -> str:
        pinned = fingerprint(self.host.host_key) if self.host.host_key else "none"
        return (
            f"{self.host.name} ({self.host.address}) shows the host key {fingerprint(self.key)}; "
            f"pinned is {pinned}"
        )


def reached(names: Iterable[str], settings: Settings, project: Path) -> list[Host]:
    """Hosts with the keys that are pinned for them; with none where there is none."""
    ssh, found = settings.ssh, []
    known = None
    through = Host("bastion", ssh.bastion.address, "") if ssh.bastion is not None else None
    if ssh.known_hosts is not None and (project / ssh.known_hosts).exists():
        known = KnownHosts.read(project / ssh.known_hosts)
    for name in names:
        entry = settings.hosts[name]
        port, key = entry.port or ssh.port, entry.host_key
        if key is None and known is not None:
            with suppress(HostKeyError):
                key = known.key_for(name, entry.address, port)
        user = entry.user or ssh.user
        found.append(Host(name, entry.address, key or "", port, user, bastion=through))
    return found


def new_keys(hosts: Iterable[Host]) -> list[NewKey]:
    """Those that show another key than the pinned one.

    Raises:
        Refused: a host shows none.
    """
    changed, problems = [], []
    for host in hosts:
        if host.bastion is not None:
            # It is reached through the bastion only; its key is compared when it is applied to.
            continue
        try:
            shown = wait_for(scan_host_key(host.address, host.port))
        except (OSError, asyncssh.Error) as error:
            problems.append(
                f"{host.name}: host key: {host.address}:{host.port} shows none "
                f"({error or type(error).__name__}); see that it is up and that sshd listens there"
            )
            continue
        if not host.host_key or fingerprint(shown) != fingerprint(host.host_key):
            changed.append(NewKey(host, shown))
    if problems:
        raise Refused("\n".join(problems))
    return changed


def pin(changed: Iterable[NewKey], settings: Settings, project: Path) -> None:
    """Put new keys in the place of old ones in the known_hosts file.

    Raises:
        Refused: a key stands in the settings instead, where only a person can change it.
    """
    changed = list(changed)
    typed = [change.host.name for change in changed if settings.hosts[change.host.name].host_key]
    if typed or (changed and settings.ssh.known_hosts is None):
        raise Refused(
            "host keys stand in the settings (slurmstack:hosts.NAME.hostKey); correct there: "
            + "; ".join(f"{change.host.name}: {change.key}" for change in changed)
        )
    if not changed:
        return
    file = project / str(settings.ssh.known_hosts)
    new = file.with_name(f".{file.name}.new")
    try:
        new.write_bytes(file.read_bytes() if file.exists() else b"")
        for change in changed:
            host = change.host
            place = host.address if host.port == 22 else f"[{host.address}]:{host.port}"
            for name in (place, host.name):
                words = ["ssh-keygen", "-q", "-R", name, "-f", str(new)]
                subprocess.run(words, check=True, capture_output=True)
            with new.open("a", encoding="utf-8") as lines:
                lines.write(f"{place},{host.name} {' '.join(change.key.split()[:2])}\n")
        # At once: without any key of a host, nothing could be sent to it.
        new.replace(file)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Refused(f"{file}: {error}; no key was pinned") from error
    finally:
        for left in (new, Path(f"{new}.old")):
            left.unlink(missing_ok=True)
