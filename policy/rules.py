"""The rules, as functions of what Pulumi is about to do. Each yields what breaks it, a line each.

They know of a bundle's text no more than how its lines begin (remote/README.md), and import nothing
of the program: what is edited there cannot loosen them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Properties = Mapping[str, Any]

#: Commands on hosts, the types of which a policy is asked about.
REMOTE = "command:remote:"
_ROLE = re.compile(r"^role (\S+)$", re.M)
_GUARD = re.compile(r"^guard (\S+)", re.M)
#: A file that its group and others may not read.
_CLOSED = re.compile(r"^(?:file|file-base64) (\S+) \S+ 0?[0-7]00(?: |$)", re.M)
_PRIVATE = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY")
_PASSWORD = re.compile(r"^ *\w*Pass(?:word)?=\S", re.M)
#: Role → the guards that its bundle must have: what they refuse, docs/decisions/0050 says.
_GUARDS = {
    "slurmctld": ("state-stays", "jobs-stay"),
    "slurmdbd": ("state-stays",),
    "destroy-guard": ("jobs-end",),
}
#: Settings that are secrets.
_SECRET_SETTINGS = (
    "mungeKey", "restTlsKey", "accountingPassword", "monitoringPassword", "kubernetesToken",
    "directoryBindPassword", "registryPassword",
)  # fmt: skip
#: Settings each of whose values is one.
_SECRET_TABLES = ("monitoringSecrets", "registrySecrets")


def host_keys_pinned(properties: Properties) -> Iterator[str]:
    """A host and the host before it are spoken to by their known keys alone."""
    connection = properties.get("connection") or {}
    for host in (connection, connection.get("proxy")):
        if host is not None and not host.get("hostKey"):
            yield (
                f"no host key is pinned for {host.get('host') or 'its host'}: "
                "slurmstack:hosts, hostKey, or a line in known_hosts"
            )


def logging_off(properties: Properties) -> Iterator[str]:
    """What a command with stdin prints is not shown: it may tell of what came in."""
    if properties.get("stdin") and properties.get("logging") != "none":
        yield f"logging is {properties.get('logging') or 'not set'}: with stdin it must be none"


def guarded(properties: Properties) -> Iterator[str]:
    """The bundles of controller and database refuse themselves what would lose jobs or state."""
    text = str(properties.get("stdin") or "")
    role = _ROLE.search(text)
    present = _GUARD.findall(text)
    for guard in _GUARDS.get(role[1], ()) if role else ():
        if guard not in present:
            yield f"role {role[1] if role else ''} has no guard {guard} (slurmstack:guards)"


def deletion_guarded(texts: Iterable[str]) -> Iterator[str]:
    """Where a slurmctld or a slurmdbd is, something refuses `pulumi destroy` while jobs are there.

    Args:
        texts: stdin of all commands that are to be.
    """
    roles = {found[1] for text in texts if (found := _ROLE.search(text))}
    for role in sorted(roles & {"slurmctld", "slurmdbd"}):
        if "destroy-guard" not in roles:
            yield f"{role} is there without a destroy-guard"


def cleartext(properties: Properties) -> Iterator[str]:
    """No key and no password in what the state would keep readable.

    Args:
        properties: inputs without those that are secrets.
    """
    for name, value in properties.items():
        for text in _texts(value):
            for path in _CLOSED.findall(text):
                yield f"{name} holds {path}, which only its owner may read, and is no secret"
            if _PRIVATE.search(text):
                yield f"{name} holds a private key and is no secret"
            if _PASSWORD.search(text):
                yield f"{name} holds a password and is no secret"


def settings_encrypted(config: Mapping[str, Any], project: str = "slurmstack") -> Iterator[str]:
    """Keys and passwords stand encrypted in the stack's file.

    Args:
        config: `config` of the file.
        project: the prefix of its keys.
    """
    values = {f"{project}:{key}": config.get(f"{project}:{key}") for key in _SECRET_SETTINGS}
    for key in _SECRET_TABLES:
        table = config.get(f"{project}:{key}") or {}
        # The whole of it may be one secret, too.
        entries = table if isinstance(table, Mapping) and "secure" not in table else {}
        values |= {f"--path {project}:{key}.{entry}": value for entry, value in entries.items()}
    for name, value in values.items():
        if value is not None and not (isinstance(value, Mapping) and "secure" in value):
            setting = name.removeprefix("--path ")
            yield f"{setting} is in cleartext: make a new one, pulumi config set --secret {name}"


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, Iterable):
        for part in value:
            yield from _texts(part)
