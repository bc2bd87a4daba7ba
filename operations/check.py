"""`slurmstack check`: what each host is, asked all at once; nothing is changed."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from components.directory.local_people import homes
from components.host.precheck import Devices, gpus, precheck
from discovery.identities import differing, numbers, people
from remote.contact import ContactError, run_on_hosts, wait_for
from remote.host import Host
from settings import Settings

_SECONDS = 60.0
_RATE = re.compile(r"\d+(\.\d+)?", re.ASCII)


@dataclass
class HostReport:
    """One host: what it reported, what will fail, what deserves a look."""

    values: dict[str, str] = field(default_factory=dict)
    infiniband: list[str] = field(default_factory=list)
    #: User → number, of those that hosts share.
    users: dict[str, int] = field(default_factory=dict)
    fails: list[str] = field(default_factory=list)
    warns: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {
            **self.values,
            "infiniband": self.infiniband,
            "users": self.users,
            "fails": self.fails,
            "warns": self.warns,
        }


def check(settings: Settings, hosts: Mapping[str, Host]) -> dict[str, HostReport]:
    """Host → what was found there. A host that cannot be reached is a failure of its own."""
    present = [host for host in hosts.values() if not host.lost]
    began = time.time()
    users = people(settings)
    replies = wait_for(
        run_on_hosts(present, lambda host: _script(host.name, settings, users), seconds=_SECONDS)
    )
    ended = time.time()
    reports: dict[str, HostReport] = {}
    for name, reply in replies.items():
        if isinstance(reply, ContactError):
            reports[name] = HostReport(fails=[f"{reply.step}: {reply.found}; {reply.remedy}"])
        else:
            reports[name] = judge(name, reply.stdout, settings, began, ended)
    _disagreements(reports, settings)
    return reports


def _script(name: str, settings: Settings, users: list[str]) -> str:
    """The precheck, and for what people of the directory cannot be made there."""
    script = precheck(name, settings, users)
    if settings.directory is None or settings.directory.local is None:
        return script
    folders = [(it.name, it.uid, it.folder) for it in homes(name, settings)]
    taken = numbers(settings, folders)
    return f"{script}\npeople() {{\n{taken}\n}}\npeople | sed 's/^/fails /'\n"


def judge(name: str, text: str, settings: Settings, began: float, ended: float) -> HostReport:
    """What a report means for this host.

    Args:
        name: the host.
        text: lines ``key value`` of the precheck.
        settings: the stack's.
        began, ended: seconds since the epoch between which the host's clock was read.
    """
    report = HostReport()
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == "ib":
            report.infiniband.append(value)
        elif key == "fails":
            report.fails.append(value)
        elif key == "user":
            user, _, number = value.partition(" ")
            if number.isdigit():
                report.users[user] = int(number)
        else:
            report.values[key] = value
    _warnings(report, name, settings)
    skew = max(began - _number(report, "clock") - 1, _number(report, "clock") - ended, 0.0)
    report.values["skew"] = f"{skew:.0f}"
    # munge(7): a credential lives 300 s, and none is accepted from the future.
    if skew >= 300:
        report.fails.append(f"its clock is {skew:.0f} s off: MUNGE refuses it; start NTP")
    elif skew > settings.precheck.clock_skew:
        report.warns.append(f"its clock is {skew:.0f} s off")
    return report


def _number(report: HostReport, key: str) -> int:
    text = report.values.get(key, "")
    return int(text) if text.isdigit() else 0


def _disagreements(reports: Mapping[str, HostReport], settings: Settings) -> None:
    """Users whose numbers are not the controller's, and people without a login there.

    A job runs by the number that its user has where it was submitted.
    """
    head = reports.get(settings.roles.controller)
    if head is None or not head.values:
        return
    declared_people = people(settings)
    missing = [name for name in declared_people if name not in head.users]
    if missing:
        head.warns.append(
            f"no login of declared users: {', '.join(missing)}; Slurm refuses their jobs"
        )
    declared = {name for name, identity in settings.identities if identity.uid is not None}
    controller = settings.roles.controller
    numbers = {
        name: {user: str(number) for user, number in report.users.items()}
        for name, report in reports.items()
    }
    for name, user in differing(numbers, controller):
        # The numbers of the settings were compared on the node itself.
        if user in declared:
            continue
        here, there = numbers[name][user], numbers[controller][user]
        text = f"user {user} has the number {here}, and {there} on {controller}"
        if user in declared_people:
            text = f"{text}: their jobs run as somebody else; give it one number"
            reports[name].fails.append(text)
        else:
            reports[name].warns.append(text)


def _warnings(report: HostReport, name: str, settings: Settings) -> None:
    values, wanted = report.values, settings.precheck
    if values.get("synchronized") == "no":
        report.warns.append("its clock is not synchronised")
    if not values.get("resolves"):
        report.warns.append("its own name does not resolve")
    if name not in settings.compute:
        return
    active = [port.split() for port in report.infiniband]
    up = [port for port in active if len(port) > 2 and port[1] == "ACTIVE"]
    if wanted.infiniband_ports is not None and len(up) < wanted.infiniband_ports:
        report.warns.append(f"{len(up)} InfiniBand ports are active, not {wanted.infiniband_ports}")
    if wanted.infiniband_rate is not None:
        rates = {port[0]: port[2] for port in up}
        unread = [name for name, rate in rates.items() if not _RATE.fullmatch(rate)]
        slow = [
            name
            for name, rate in rates.items()
            if name not in unread and float(rate) < wanted.infiniband_rate
        ]
        if unread:
            report.warns.append(f"no rate can be read of: {', '.join(unread)}")
        if slow:
            report.warns.append(f"slower than {wanted.infiniband_rate} Gb/s: {', '.join(slow)}")
    if gpus(name, settings) != Devices(0, False, ()) and values.get("dcgm") == "none":
        report.warns.append("no DCGM")


def table(reports: Mapping[str, HostReport]) -> Table:
    """One row a host, for 80 columns and for pipes."""
    shown = Table(box=None, pad_edge=False)
    for column in ("host", "is", "verdict"):
        shown.add_column(column, overflow="fold")
    for name, report in sorted(reports.items()):
        verdict = [
            *(f"FAILS: {text}" for text in report.fails),
            *(f"note: {text}" for text in report.warns),
        ]
        shown.add_row(name, "\n".join(_facts(report)), "\n".join(verdict) or "fit")
    return shown


def _facts(report: HostReport) -> list[str]:
    """What a host is, on a few short lines; nothing of one that did not answer."""
    values = report.values
    if not values:
        return []
    gpus = values.get("gpu_models") or f"{values.get('gpu_devices', '?')} GPUs"
    ports = ", ".join(report.infiniband) or "no InfiniBand"
    return [
        f"{values.get('os', '?')}, {values.get('kernel', '?')}",
        f"{gpus}, driver {values.get('driver', '?')}, DCGM {values.get('dcgm', '?')}",
        f"MOFED {values.get('ofed', '?')}, {ports}",
        f"clock {values.get('skew', '?')} s off, cgroup {values.get('cgroup', '?')}",
        f"free / {values.get('free_root', '?')}, /var {values.get('free_var', '?')} MiB",
        f"resolves to {values.get('resolves') or 'nothing'}",
    ]
