"""The lab's bridge: made, recognised as this checkout's, removed."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.names import Lab
from lab.system import SEARCH, run

# A route wider than this is somebody's default or company network; the bridge's own is narrower
# and wins.
WIDEST_CONFLICT = 16


def taken_networks(without: str) -> list[ipaddress.IPv4Network]:
    """Networks this machine has addresses in or routes to, those of one interface left out."""
    taken = []
    for link in _ip("-4", "address", "show"):
        if link.get("ifname") != without:
            for entry in link.get("addr_info", []):
                text = f"{entry['local']}/{entry['prefixlen']}"
                taken.append(ipaddress.IPv4Interface(text).network)
    for route in _ip("-4", "route", "show"):
        if route.get("dev") != without and route.get("dst", "default") != "default":
            taken.append(ipaddress.IPv4Network(route["dst"], strict=False))
    return [network for network in taken if network.prefixlen >= WIDEST_CONFLICT]


def owner(bridge: str) -> str | None:
    """The checkout whose bridge this is; "" if it names none; None if there is no such link."""
    links = _ip("link", "show", "dev", bridge, check=False)
    if not links:
        return None
    return str(links[0].get("ifalias", "")).removeprefix("slurmstack lab of ")


def up(lab: Lab) -> bool:
    """Make the bridge with the gateway's address; False if it was there already.

    Raises `LabError` where the name belongs to something else.
    """
    holder = owner(lab.bridge)
    if holder is None:
        own = ipaddress.IPv4Network(f"{lab.gateway}/24", strict=False)
        if any(own.overlaps(other) for other in taken_networks(without=lab.bridge)):
            raise LabError(
                f"{own}, the subnet of the lab {lab.name}, is in use on this machine by now: find "
                f"it with `ip route`, or make the lab anew: make lab-down LAB={lab.name}"
            )
        _make(lab)
    elif holder != str(lab.checkout):
        raise LabError(
            f"the bridge {lab.bridge} belongs to {holder or 'something else'}: take that lab down "
            "there with `make lab-down`, or take another one here with LAB=name"
        )
    # Both are idempotent, so that a bridge left half-made by a crash is finished here.
    run(["ip", "address", "replace", f"{lab.gateway}/24", "dev", lab.bridge])
    run(["ip", "link", "set", "dev", lab.bridge, "up"])
    _let_bridged_packets_pass(lab.bridge)
    return holder is None


def down(lab: Lab) -> bool:
    """Remove the bridge if it is this checkout's; False if there was none."""
    if owner(lab.bridge) != str(lab.checkout):
        return False
    _filter("-D", lab.bridge)
    run(["ip", "link", "delete", "dev", lab.bridge], check=False)
    return True


def tap_up(lab: Lab, node: str) -> str:
    """The interface that a virtual machine is plugged into, on the lab's bridge; its name."""
    tap = _tap(lab, node)
    if not _ip("link", "show", "dev", tap, check=False):
        run(["ip", "tuntap", "add", "dev", tap, "mode", "tap"])
    run(["ip", "link", "set", "dev", tap, "master", lab.bridge, "up"])
    return tap


def tap_down(lab: Lab, node: str) -> None:
    """Remove it, where it is there."""
    run(["ip", "link", "delete", "dev", _tap(lab, node)], check=False)


def _tap(lab: Lab, node: str) -> str:
    return f"slurm-{lab.subnet}-{lab.address(node).rpartition('.')[2]}"


@contextlib.contextmanager
def claiming() -> Iterator[None]:
    """One lab of this machine at a time chooses its subnet and makes its bridge."""
    # A folder that is always there; the lock leaves no file.
    descriptor = os.open("/run", os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _make(lab: Lab) -> None:
    try:
        run(["ip", "link", "add", "name", lab.bridge, "type", "bridge"])
    except LabError as error:
        raise LabError(
            f"cannot make a network bridge ({error}): the kernel needs CONFIG_BRIDGE, and this "
            "shell CAP_NET_ADMIN (not an unprivileged container)"
        ) from error
    run(["ip", "link", "set", "dev", lab.bridge, "alias", f"slurmstack lab of {lab.checkout}"])
    # A bridge without an address of its own takes its lowest port's, and changes it with them.
    run(["ip", "link", "set", "dev", lab.bridge, "address", f"02:73:00:00:{lab.subnet:02x}:01"])


def _let_bridged_packets_pass(bridge: str) -> None:
    """Where bridged packets go through iptables (Docker turns that on), accept this bridge's."""
    setting = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    with contextlib.suppress(OSError):
        if setting.read_text().strip() == "1" and not _filter("-C", bridge):
            _filter("-I", bridge)


def _filter(action: str, bridge: str) -> bool:
    if shutil.which("iptables", path=SEARCH) is None:
        return False
    rule = ["FORWARD", "-i", bridge, "-o", bridge, "-j", "ACCEPT"]
    return run(["iptables", "-w", action, *rule], check=False).returncode == 0


def _ip(*words: str, check: bool = True) -> list[dict[str, Any]]:
    answer = run(["ip", "-json", "-details", *words], check=check).stdout.strip()
    # iproute2 prints an empty object for what it leaves out.
    return [entry for entry in json.loads(answer or "[]") if entry]
