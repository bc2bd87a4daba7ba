"""How one machine is reached."""

import ipaddress
from dataclasses import dataclass

import asyncssh


def fingerprint(key: asyncssh.SSHKey | str) -> str:
    """`SHA256:…` as OpenSSH prints it. `key` may be a line `ssh-ed25519 AAAA… [comment]`.

    Raises ValueError if the line is not a public key.
    """
    if isinstance(key, str):
        try:
            key = asyncssh.import_public_key(key)
        except asyncssh.KeyImportError as error:
            raise ValueError(f"not an SSH public key: {error}") from None
    return key.get_fingerprint("sha256")


def is_ip(text: str) -> bool:
    """Whether it is an IP address; else it is a host name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def at(address: str, port: int) -> str:
    """An address and a port as URLs and targets have them."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


@dataclass(frozen=True)
class Host:
    """A machine and the one key it must show.

    `name` is the node's name in the cluster, `address` what is connected to. `host_key` is an
    authorized-key line (`ssh-ed25519 AAAA…`), the form that pulumi-command takes, too. The
    connection goes through `bastion` if there is one.
    """

    name: str
    address: str
    host_key: str
    port: int = 22
    user: str = "root"
    bastion: "Host | None" = None
    #: Failed dials after which it counts as unreachable, and seconds for each; pulumi-command's
    #: dialErrorLimit and perDialTimeout.
    dial_error_limit: int = 2
    per_dial_timeout: int = 10
    #: The machine is gone for good: nothing is sent to it.
    lost: bool = False

    def __str__(self) -> str:
        return f"{self.name} ({self.address}:{self.port})"
