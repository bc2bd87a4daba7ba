"""All bundles of some hosts applied once more: the way back for a machine that was installed anew.

The wish is a word in the settings (``slurmstack:reapply``), which makes another text of each of
the host's bundles, so that it is Pulumi that applies them. On a machine that holds all of it
already the applier changes nothing.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncssh
from pulumi import automation

from operations.refused import Refused
from remote.contact import scan_host_key, wait_for
from remote.host import Host, fingerprint
from settings import Settings
from settings.hostlist import expand


class NotReapplied(Refused):
    """Nothing was changed, and why."""


@dataclass(frozen=True)
class NewKey:
    """A host that shows another key than the pinned one."""

    host: Host
    #: As a line `ssh-ed25519 AAAA…`.
    key: str

    def __str__(self) -> str:
        return (
            f"{self.host.name} ({self.host.address}) shows the host key {fingerprint(self.key)}; "
            f"pinned is {fingerprint(self.host.host_key)}"
        )


def chosen(names: str, settings: Settings) -> list[str]:
    """The hosts of a host list.

    Raises:
        NotReapplied: it is none, or one of them has no role, or is lost.
    """
    try:
        wanted = expand(names)
    except ValueError as error:
        raise NotReapplied(f"{names}: expected {error}") from None
    unknown = [name for name in wanted if name not in settings.members]
    if unknown:
        raise NotReapplied(f"no host with a role in the settings: {', '.join(unknown)}")
    lost = [name for name in wanted if settings.hosts[name].lost]
    if lost:
        raise NotReapplied(f"lost in the settings (remove lost: true first): {', '.join(lost)}")
    return list(wanted)


def new_keys(hosts: Iterable[Host]) -> list[NewKey]:
    """Those that show another key than the pinned one.

    Raises:
        NotReapplied: a host shows none.
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
        raise NotReapplied("\n".join(problems))
    return changed


def pin(changed: Iterable[NewKey], settings: Settings, project: Path) -> None:
    """Put new keys in the place of old ones in the known_hosts file.

    Raises:
        NotReapplied: a key stands in the settings instead, where only a person can change it.
    """
    changed = list(changed)
    typed = [change.host.name for change in changed if settings.hosts[change.host.name].host_key]
    if typed or (changed and settings.ssh.known_hosts is None):
        raise NotReapplied(
            "host keys stand in the settings (slurmstack:hosts.NAME.hostKey); correct there: "
            + "; ".join(f"{change.host.name}: {change.key}" for change in changed)
        )
    for change in changed:
        file = project / str(settings.ssh.known_hosts)
        address = change.host.address
        place = address if change.host.port == 22 else f"[{address}]:{change.host.port}"
        for name in (place, change.host.name):
            subprocess.run(
                ["ssh-keygen", "-q", "-R", name, "-f", str(file)], check=True, capture_output=True
            )
        with file.open("a", encoding="utf-8") as lines:
            lines.write(f"{place},{change.host.name} {' '.join(change.key.split()[:2])}\n")


def wish(names: Iterable[str], stack: str, project: Path) -> None:
    """Write into the stack's settings that these hosts, or roles (role@host), are to be applied
    again."""
    workspace = automation.LocalWorkspace(work_dir=str(project))
    prefix = workspace.project_settings().name
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    for name in names:
        value = automation.ConfigValue(now)
        workspace.set_config(stack, f"{prefix}:reapply.{name}", value, path=True)


def targets(
    names: Iterable[str], inventory: Mapping[str, Any], stack: str, project: Path
) -> list[str]:
    """The URNs of all that is deployed on these hosts, by the inventory's roles."""
    exported = automation.LocalWorkspace(work_dir=str(project)).export_stack(stack)
    bundles = {
        f"{name}-{role}" for name in names for role in inventory.get(name, {}).get("roles", ())
    }
    return [
        resource["urn"]
        for resource in (exported.deployment or {}).get("resources", [])
        if resource["type"] == "command:remote:Command"
        and resource["urn"].rpartition("::")[2] in bundles
    ]


def up(urns: Iterable[str], stack: str, project: Path, yes: bool) -> int:
    """`pulumi up` of these resources, on this terminal; its exit code."""
    words = ["pulumi", "up", "--stack", stack, "--cwd", str(project)]
    words += [word for urn in urns for word in ("--target", urn)]
    words += ["--yes", "--skip-preview"] if yes else []
    return subprocess.run(words, check=False).returncode
