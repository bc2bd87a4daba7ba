"""`slurmstack check`: what each host is, asked all at once; nothing is changed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from components.host.precheck import needs_cgroup_v2, real_gpus, report
from remote.contact import ContactError, run_on_hosts, wait_for
from remote.host import Host
from settings import Settings

_SECONDS = 60.0


@dataclass
class Found:
    """One host: what it said, what will fail, what deserves a look."""

    values: dict[str, str] = field(default_factory=dict)
    infiniband: list[str] = field(default_factory=list)
    fails: list[str] = field(default_factory=list)
    warns: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {
            **self.values,
            "infiniband": self.infiniband,
            "fails": self.fails,
            "warns": self.warns,
        }


def check(settings: Settings, hosts: Mapping[str, Host]) -> dict[str, Found]:
    """Host → what was found there. A host that cannot be reached is a failure of its own."""
    present = [host for host in hosts.values() if not host.lost]
    began = time.time()
    replies = wait_for(run_on_hosts(present, report(), seconds=_SECONDS))
    ended = time.time()
    found: dict[str, Found] = {}
    for name, reply in replies.items():
        if isinstance(reply, ContactError):
            found[name] = Found(fails=[f"{reply.step}: {reply.found}; {reply.remedy}"])
        else:
            found[name] = judge(name, reply.stdout, settings, began, ended)
    return found


def judge(name: str, text: str, settings: Settings, began: float, ended: float) -> Found:
    """What a report means for this host.

    Args:
        name: the host.
        text: lines ``key value`` of the report.
        settings: the stack's.
        began, ended: seconds since the epoch between which the host's clock was read.
    """
    found = Found()
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == "ib":
            found.infiniband.append(value)
        else:
            found.values[key] = value
    _failures(found, name, settings)
    _warnings(found, name, settings)
    skew = max(began - _number(found, "clock") - 1, _number(found, "clock") - ended, 0.0)
    found.values["skew"] = f"{skew:.0f}"
    # munge(7): a credential lives 300 s, and none is accepted from the future.
    if skew >= 300:
        found.fails.append(f"its clock is {skew:.0f} s off: MUNGE refuses it; start NTP")
    elif skew > settings.precheck.clock_skew:
        found.warns.append(f"its clock is {skew:.0f} s off")
    return found


def _number(found: Found, key: str) -> int:
    text = found.values.get(key, "")
    return int(text) if text.isdigit() else 0


def _failures(found: Found, name: str, settings: Settings) -> None:
    """As the guard on the node has them (templates/host/precheck-guard.sh.j2)."""
    values = found.values
    if values.get("node") != name:
        found.fails.append(f"its name is {values.get('node')}: hostnamectl hostname {name}")
    if values.get("packages") != "apt":
        found.fails.append(f"no apt-get on {values.get('os')}")
    if values.get("init") != "systemd":
        found.fails.append("systemd does not run")
    for key, place in (("free_root", "/"), ("free_var", "/var")):
        if _number(found, key) < settings.precheck.free_disk:
            found.fails.append(
                f"{values.get(key)} MiB free on {place}, {settings.precheck.free_disk} needed"
            )
    if needs_cgroup_v2(name, settings):
        if values.get("cgroup") != "v2":
            found.fails.append(f"cgroups are {values.get('cgroup')}, not v2")
        elif "memory" not in values.get("cgroup_controllers", "").split():
            found.fails.append("cgroup v2 has no memory controller")
    gpus = sum(one.count or 0 for one in real_gpus(name, settings))
    if gpus and _number(found, "gpu_devices") != gpus:
        found.fails.append(
            f"{gpus} GPUs declared, {values.get('gpu_devices')} device files and "
            f"{values.get('gpu_bus')} cards on the bus (driver: {values.get('driver')})"
        )


def _warnings(found: Found, name: str, settings: Settings) -> None:
    values, wanted = found.values, settings.precheck
    if values.get("synchronized") == "no":
        found.warns.append("its clock is not synchronised")
    if not values.get("resolves"):
        found.warns.append("its own name does not resolve")
    if name not in settings.compute:
        return
    active = [port.split() for port in found.infiniband]
    up = [port for port in active if len(port) > 2 and port[1] == "ACTIVE"]
    if wanted.infiniband_ports is not None and len(up) < wanted.infiniband_ports:
        found.warns.append(f"{len(up)} InfiniBand ports are active, not {wanted.infiniband_ports}")
    if wanted.infiniband_rate is not None:
        slow = [port[0] for port in up if float(port[2]) < wanted.infiniband_rate]
        if slow:
            found.warns.append(f"slower than {wanted.infiniband_rate} Gb/s: {', '.join(slow)}")
    if real_gpus(name, settings) and values.get("dcgm") == "none":
        found.warns.append("no DCGM")


def table(found: Mapping[str, Found]) -> Table:
    """One row a host."""
    shown = Table(title="precheck: what each host is, before anything is changed")
    columns = (
        "host", "OS and kernel", "driver, GPUs", "MOFED, ports", "DCGM", "clock", "free MiB",
        "resolves", "cgroup", "verdict",
    )  # fmt: skip
    for column in columns:
        shown.add_column(column, overflow="fold")
    for name, one in sorted(found.items()):
        values = one.values
        ports = one.infiniband or ["no InfiniBand"]
        said = [*(f"FAILS: {text}" for text in one.fails), *(f"note: {text}" for text in one.warns)]
        shown.add_row(
            name,
            f"{values.get('os', '')}\n{values.get('kernel', '')}",
            f"{values.get('driver', '')}\n"
            + (values.get("gpu_models") or f"{values.get('gpu_devices', '')} GPUs"),
            "\n".join([values.get("ofed", ""), *ports]),
            values.get("dcgm", ""),
            f"{values.get('skew', '?')} s off",
            f"/ {values.get('free_root', '')}\n/var {values.get('free_var', '')}",
            values.get("resolves", ""),
            values.get("cgroup", ""),
            "\n".join(said) or "fit",
            end_section=True,
        )
    return shown
