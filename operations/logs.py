"""What daemons logged: of a node all of its daemons, of a role the daemon wherever it runs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from operations.cluster import Cluster
from operations.hosts import chosen
from operations.refused import Refused
from remote.contact import ContactError, follow_on_hosts, wait_for
from remote.host import Host
from settings import Settings
from settings.duration import seconds
from templates.rendering import render

#: Seconds for the logs of all hosts.
_SECONDS = 30.0
SLURMDBD_LOG = "/var/log/slurm/slurmdbd.log"


@dataclass(frozen=True)
class Source:
    """A role's units, its files, and the hosts that have it."""

    units: tuple[str, ...]
    files: tuple[str, ...]
    hosts: tuple[str, ...]


def sources(settings: Settings) -> dict[str, Source]:
    """Role → where its logs are."""
    head, slurm = (settings.roles.controller,), settings.slurm
    found = {
        "slurmctld": Source(("slurmctld",), (str(slurm.SlurmctldLogFile),), head),
        "slurmd": Source(("slurmd",), (str(slurm.SlurmdLogFile),), tuple(settings.compute)),
        "munge": Source(("munge",), ("/var/log/munge/munged.log",), tuple(settings.members)),
    }
    if settings.login:
        found["sackd"] = Source(("sackd",), (), settings.login)
    if settings.accounting is not None:
        units = ("slurmdbd", "mariadb", "slurmdbd-dump")
        found["slurmdbd"] = Source(units, (SLURMDBD_LOG,), head)
    if settings.rest is not None:
        units = ("slurmrestd", "haproxy", "slurmstack-rest-certificate")
        found["slurmrestd"] = Source(units, (), head)
    if settings.monitoring is not None:
        found |= _monitoring(settings)
    return found


def _monitoring(settings: Settings) -> dict[str, Source]:
    monitoring = settings.monitoring
    assert monitoring is not None
    everywhere = tuple(settings.members)
    units = (
        "prometheus-node-exporter",
        "slurmstack-host-metrics",
        "slurmstack-exporter-certificate",
    )
    found = {
        "node-exporter": Source(units, (), everywhere),
        "slurm-exporter": Source(("slurmstack-slurm-exporter",), (), (settings.roles.controller,)),
    }
    if monitoring.mode == "full":
        servers: tuple[str, ...] = ("prometheus", "prometheus-alertmanager")
        if monitoring.grafana is not None:
            servers += ("grafana-server", "slurmstack-grafana-certificate")
        found["monitoring"] = Source(servers, (), (settings.monitor,))
    return found


def of(name: str, settings: Settings) -> tuple[list[str], Source]:
    """Hosts, and what is looked at there, of a role or a host list.

    Raises:
        Refused: it is neither.
    """
    known = sources(settings)
    if name in known:
        return list(known[name].hosts), known[name]
    try:
        names = chosen(name, settings)
    except Refused as error:
        raise Refused(f"{error}; roles are {', '.join(known)}") from None
    there = [it for it in known.values() if set(names) & set(it.hosts)]
    units = tuple(unit for it in there for unit in it.units)
    return names, Source(units, tuple(file for it in there for file in it.files), tuple(names))


def logs(cluster: Cluster, name: str, since: str, lines: int) -> Iterator[tuple[str, str]]:
    """Host and line, oldest first.

    Args:
        cluster: whose.
        name: a role or a host list.
        since: such as ``30m``, or a date such as ``2026-11-25 21:00``, of the hosts' own zone.
        lines: at most so many of each host, the last ones.

    Raises:
        Refused: there is no such role or host, or the date is none.
        ContactError: a host cannot be asked.
    """
    names, source = of(name, cluster.settings)
    script = _script(source, since, lines)
    found: list[tuple[str, str]] = []
    for host, reply in cluster.run(names, script, _SECONDS).items():
        if isinstance(reply, ContactError):
            raise reply
        if reply.status != 0:
            raise Refused(f"{host}: logs: {reply.stderr.strip() or reply.status}")
        found += [(host, line) for line in reply.stdout.splitlines()]
    yield from sorted(found, key=lambda it: it[1].partition(" ")[0])


def follow(cluster: Cluster, name: str) -> None:
    """Print new lines as they come, until Ctrl-C.

    Raises:
        Refused: there is no such role or host.
        ContactError: a host cannot be asked, or its connection broke.
    """
    names, source = of(name, cluster.settings)
    script = render("host/logs.sh", since=0, follow=True, lines=0, **_places(source))

    def show(host: Host, line: str) -> None:
        print(f"{host.name} {line}" if len(names) > 1 else line, flush=True)

    try:
        wait_for(follow_on_hosts([cluster.hosts[name] for name in names], script, show))
    except* ContactError as several:
        raise several.exceptions[0] from None


def _script(source: Source, since: str, lines: int) -> str:
    try:
        begin: int | str = seconds(since)
    except ValueError:
        if not re.fullmatch(r"[0-9A-Za-z :.+-]{1,40}", since):
            raise Refused(f"--since {since}: expected 30m, 2h, or a date") from None
        begin = shlex.quote(since)
    return render("host/logs.sh", since=begin, follow=False, lines=lines, **_places(source))


def _places(source: Source) -> dict[str, tuple[str, ...]]:
    return {"units": source.units, "files": tuple(map(shlex.quote, source.files))}
