"""What follows from a lab's name: paths, bridge, machine names and addresses. Nothing runs here."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError

DEFAULT_NAME = "lab"
DEFAULT_NODES = ("ctl", "login01", "cn01", "cn02")

# Who can log in on every machine besides root, and run jobs (Pulumi.lab.yaml has the account).
USER, USER_ID = "alice", 5001

# Host parts of the addresses. Compute nodes follow at .20 plus their number.
SERVICES = {
    "ctl": 10, "ctl2": 11, "login01": 12, "dbd": 13, "rest": 14, "mon": 15, "sm01": 16,
}  # fmt: skip
GATEWAY = 1
COMPUTE_BASE = 20
COMPUTE_LAST = 254

# Linux gives an interface's name 15 characters.
INTERFACE_NAME = 15

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")
_COMPUTE = re.compile(r"cn(\d{2,3})")


def check_name(name: str) -> str:
    """The name itself, if it may be part of a machine's and a stack's name."""
    if not _NAME.fullmatch(name) or name == "prod":
        raise LabError(
            f"LAB={name!r} cannot name a lab: take up to 32 lower-case letters, digits and "
            "inner hyphens (and not 'prod', which is a stack of its own)"
        )
    return name


def host_part(node: str) -> int:
    """The last number of a node's address: ctl 10, cn01 21, cn02 22, …"""
    if node in SERVICES:
        return SERVICES[node]
    match = _COMPUTE.fullmatch(node)
    if match and COMPUTE_BASE < COMPUTE_BASE + int(match[1]) <= COMPUTE_LAST:
        return COMPUTE_BASE + int(match[1])
    raise LabError(
        f"node {node!r} has no place in the lab: take one of {', '.join(SERVICES)} "
        f"or cn01 … cn{COMPUTE_LAST - COMPUTE_BASE}"
    )


def places() -> list[str]:
    """Every node that a lab can have."""
    return [*SERVICES, *(f"cn{number:02}" for number in range(1, COMPUTE_LAST - COMPUTE_BASE + 1))]


def parse_nodes(text: str) -> list[str]:
    """Nodes from `4` (ctl, login01 and two compute nodes) or from a list `ctl,cn01,cn07`."""
    text = text.strip()
    if text.isdigit():
        count = int(text)
        if count < 1:
            raise LabError("NODES counts machines, ctl and login01 among them: take 1 or more")
        nodes = ["ctl", "login01", *(f"cn{number:02}" for number in range(1, count - 1))][:count]
    else:
        nodes = [node for node in re.split(r"[,\s]+", text) if node]
    for node in nodes:
        host_part(node)
    if len(set(nodes)) != len(nodes):
        raise LabError(f"NODES names a node twice: {text}")
    return nodes


def bridge_name(name: str) -> str:
    """`slurm-NAME`, or a hash in NAME's place where that is too long for an interface."""
    bridge = f"slurm-{name}"
    if len(bridge) <= INTERFACE_NAME:
        return bridge
    return f"slurm-{hashlib.sha256(name.encode()).hexdigest()[: INTERFACE_NAME - 6]}"


def choose_subnet(name: str, taken: Collection[ipaddress.IPv4Network]) -> int:
    """The N of 10.73.N.0/24: 0 for the lab named `lab`, else from a hash, past what is taken.

    Raises `LabError` where nothing is free.
    """
    if name == DEFAULT_NAME:
        candidates = [0]
    else:
        first = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % 254
        candidates = [1 + (first + step) % 254 for step in range(254)]
    for number in candidates:
        network = ipaddress.IPv4Network(f"10.73.{number}.0/24")
        if not any(network.overlaps(other) for other in taken):
            return number
    raise LabError(
        "10.73.0.0/24 is in use on this machine: find it with `ip route`, or take another lab "
        "with LAB=name"
        if name == DEFAULT_NAME
        else "no free subnet left in 10.73.0.0/16: take labs down with `make lab-down LAB=name`"
    )


@dataclass(frozen=True)
class Lab:
    """One lab: its name, the checkout it belongs to, and the N of its subnet 10.73.N.0/24."""

    name: str
    checkout: Path
    subnet: int

    @property
    def folder(self) -> Path:
        return lab_folder(self.checkout, self.name)

    @property
    def bridge(self) -> str:
        return bridge_name(self.name)

    @property
    def gateway(self) -> str:
        return f"10.73.{self.subnet}.{GATEWAY}"

    def address(self, node: str) -> str:
        return f"10.73.{self.subnet}.{host_part(node)}"

    def machine(self, node: str) -> str:
        return f"{self.name}-{node}"

    def node_folder(self, node: str) -> Path:
        return self.folder / "nodes" / node

    @property
    def agent_socket(self) -> Path:
        return self.folder / "agent.sock"

    @property
    def key(self) -> Path:
        return self.folder / "key"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    @property
    def ssh_config(self) -> Path:
        return self.folder / "ssh_config"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def pulumi_home(self) -> Path:
        return self.folder / "pulumi-home"

    @property
    def passphrase(self) -> Path:
        return self.folder / "passphrase"

    @property
    def stack_file(self) -> Path:
        return self.checkout / f"Pulumi.{self.name}.yaml"

    def nodes(self) -> list[str]:
        """The nodes made so far, running or not, the services first."""
        folder = self.folder / "nodes"
        if not folder.is_dir():
            return []
        names = [entry.name for entry in folder.iterdir() if entry.is_dir()]
        return sorted(names, key=host_part)


def lab_folder(checkout: Path, name: str) -> Path:
    return checkout / ".lab" / name
