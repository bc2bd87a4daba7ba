"""Host keys from an OpenSSH `known_hosts` file."""

from dataclasses import dataclass
from pathlib import Path

import asyncssh

# What pulumi-command 1.2.1 can pin: it offers the server exactly the key's type as algorithm
# (provider/remote/connection.go, HostKeyAlgorithms), and for RSA that is the SHA-1 signature
# `ssh-rsa`, which OpenSSH refuses since 8.8.
_PREFERENCE = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
)


class HostKeyError(ValueError):
    """No usable key for a host: names host, what was found, and what to do."""


@dataclass(frozen=True)
class KnownHosts:
    """The keys of one `known_hosts` file. `source` names the file in errors."""

    source: str
    entries: asyncssh.SSHKnownHosts

    @classmethod
    def read(cls, path: Path) -> "KnownHosts":
        """Raises `HostKeyError` if the file cannot be read or is not in the format."""
        try:
            return cls.parse(path.read_text(encoding="utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise HostKeyError(f"known hosts file {path} cannot be read: {reason}") from None

    @classmethod
    def parse(cls, text: str, source: str) -> "KnownHosts":
        """Understands hashed names, `[host]:port`, patterns, `@revoked` and `@cert-authority`."""
        try:
            return cls(source, asyncssh.import_known_hosts(text))
        except ValueError as error:
            raise HostKeyError(f"{source}: {error}") from None

    def key_for(self, name: str, address: str, port: int = 22) -> str:
        """The key of a host known by its name or its address, as a line `ssh-ed25519 AAAA…`.

        Ed25519 is preferred, then ECDSA. Raises `HostKeyError` if there is none that can be pinned,
        or if two different ones of the preferred kind are listed.
        """
        where = f"{name}: host key: {self.source}"
        named, authorities, revoked = self._match(name, address, port)
        usable = [key for key in named if key not in revoked]
        for algorithm in _PREFERENCE:
            keys = {key for key in usable if key.get_algorithm() == algorithm}
            if len(keys) > 1:
                raise HostKeyError(
                    f"{where} has {len(keys)} different {algorithm} keys for {name} and {address}; "
                    f"remove the outdated one (ssh-keygen -R {address} -f {self.source})"
                )
            if keys:
                return keys.pop().export_public_key("openssh").decode().strip()
        target = address if port == 22 else f"-p {port} {address}"
        remedy = (
            f"compare with the machine's console and add it "
            f"(ssh-keyscan -t ed25519 {target} >> {self.source})"
        )
        if usable:
            kinds = ", ".join(sorted({key.get_algorithm() for key in usable}))
            raise HostKeyError(f"{where} has only {kinds}, which cannot be pinned; {remedy}")
        if named:
            raise HostKeyError(f"{where} has only revoked keys for {name} and {address}; {remedy}")
        if authorities:
            raise HostKeyError(f"{where} has only a certificate authority; {remedy}")
        raise HostKeyError(f"{where} has no key for {name} or {address}, port {port}; {remedy}")

    def _match(
        self, name: str, address: str, port: int
    ) -> tuple[list[asyncssh.SSHKey], list[asyncssh.SSHKey], list[asyncssh.SSHKey]]:
        keys: list[asyncssh.SSHKey] = []
        authorities: list[asyncssh.SSHKey] = []
        revoked: list[asyncssh.SSHKey] = []
        # None stands for the default port, where names are written without one.
        at = None if port == 22 else port
        for host in dict.fromkeys((name, address)):
            match = self.entries.match(host, "", at)  # it sees by itself what is an address
            keys += match[0]
            authorities += match[1]
            revoked += match[2]
        return keys, authorities, revoked
