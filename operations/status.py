"""`slurmstack status`: what one look at a cluster should tell, asked of its controller at once."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from components import history
from components.keys import jwt_key_pair, munge_key
from components.rest import slurmrestd
from on_node import job_hold, node_states
from operations import drain, last_drift, node_power, operation, pulumi_lock, validations
from operations.cluster import Cluster
from operations.past import past
from operations.refused import Refused
from remote.contact import ContactError
from settings.hostlist import fold
from templates.rendering import render

#: Seconds for all that is asked of the controller.
_SECONDS = 15.0


@dataclass
class NodesAlike:
    """Nodes of one state, with one reason of one person."""

    nodes: str
    count: int
    state: str
    reason: str = ""
    by: str = ""


@dataclass
class Thing:
    """A key, a certificate or a dump: since when, and until when it holds, seconds since 1970."""

    name: str
    since: float | None = None
    until: float | None = None
    note: str = ""


@dataclass
class Status:
    """What stands, as far as it could be asked. Times are UTC."""

    cluster: str
    stack: str
    controller: str
    time: str
    #: Program → its versions, and on how many nodes.
    versions: dict[str, str] = field(default_factory=dict)
    #: Unit of the controller → what systemd says of it.
    daemons: dict[str, str] = field(default_factory=dict)
    nodes: list[NodesAlike] = field(default_factory=list)
    excluded: dict[str, str] = field(default_factory=dict)
    #: State of jobs → how many.
    jobs: dict[str, int] = field(default_factory=dict)
    #: Why jobs wait → how many.
    waiting: dict[str, int] = field(default_factory=dict)
    keys: list[Thing] = field(default_factory=list)
    dumps: list[Thing] = field(default_factory=list)
    #: The last operation: what, when, by whom, how it ended.
    last: dict[str, str] = field(default_factory=dict)
    drift: dict[str, Any] | None = None
    #: Nodes that were validated from here: how many, how many failed, when last.
    validated: dict[str, Any] | None = None
    #: What somebody should look at, a line each.
    waits: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def status(cluster: Cluster) -> Status:
    """Ask the controller, and Pulumi for the last update. Changes nothing.

    A controller that does not answer is part of what there is to tell.
    """
    settings = cluster.settings
    found = Status(settings.cluster.name, cluster.stack, cluster.controller, history.now())
    found.versions["slurmstack"] = version("slurmstack")
    found.excluded = dict(settings.excluded)
    with ThreadPoolExecutor(1) as pool:
        update = pool.submit(_last, cluster)
        try:
            _of_controller(found, cluster.ask(script(cluster), "status", _SECONDS))
        except (ContactError, Refused) as error:
            found.waits.append(str(error))
        found.last = update.result()
    _beside_the_program(found, cluster)
    return found


def script(cluster: Cluster) -> str:
    """What the controller runs: sections, each after a line ``== NAME``."""
    settings = cluster.settings
    dump = settings.accounting.dump.directory if settings.accounting is not None else ""
    return render(
        "controller/status.sh",
        munge_key=munge_key.PATH,
        jwt=jwt_key_pair,
        rest=slurmrestd.certificate(settings) if settings.rest is not None else None,
        site_pem=slurmrestd.SITE_PEM,
        dumps=dump,
        held=str(job_hold.HELD),
    )


def _of_controller(found: Status, text: str) -> None:
    sections: dict[str, list[str]] = defaultdict(list)
    name = ""
    for line in text.splitlines():
        if line.startswith("== "):
            name = line[3:]
        else:
            sections[name].append(line)
    found.versions["slurm"] = "".join(sections["version"]).rpartition(" ")[2]
    shown = "\n".join(sections["nodes"])
    if shown:
        found.nodes = list(_alike(node_states.states(shown)))
        versions = Counter(re.findall(r"\bVersion=(\S+)", shown))
        found.versions["slurmd"] = ", ".join(f"{v} on {n}" for v, n in versions.most_common())
    else:
        found.waits.append(f"{found.controller}: slurmctld does not answer")
    found.daemons = dict(_pairs(sections["units"]))
    found.waits += [
        f"{found.controller}: {unit} is {state}; journalctl -u {unit} there"
        for unit, state in found.daemons.items()
        if state != "active"
    ]
    states = Counter(line.partition("|")[0] for line in sections["jobs"])
    found.jobs = {state.lower(): number for state, number in states.most_common()}
    reasons = (line.partition("|")[2] for line in sections["jobs"] if line.startswith("PENDING|"))
    found.waiting = dict(Counter(reasons).most_common())
    held = " ".join(sections["held"]).split()
    if held:
        found.waits.append(f"nodes that a change of slurm.conf holds: {' '.join(held)}")
    found.keys = list(_things(sections["keys"]))
    found.dumps = list(_things(sections["dumps"]))


def _alike(states: Mapping[str, node_states.State]) -> Iterator[NodesAlike]:
    groups: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for name, state in states.items():
        flags = "+".join(sorted(state.flags)).lower() + ("" if state.answers else "*")
        by = drain.owner(state) or state.by
        groups[flags, drain.without_owner(state.reason), by].append(name)
    for (flags, reason, by), names in sorted(groups.items(), key=lambda it: -len(it[1])):
        yield NodesAlike(fold(names), len(names), flags, reason, by)


def _pairs(lines: list[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        name, _, value = line.partition(" ")
        yield name, value


def _things(lines: list[str]) -> Iterator[Thing]:
    """Lines ``NAME|since|until|note``, times in seconds since 1970 or as openssl prints them."""
    for line in lines:
        name, since, until, note = [*line.split("|"), "", "", ""][:4]
        yield Thing(name, _seconds(since), _seconds(until), note)


def _seconds(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        # As openssl-x509(1) prints a date.
        at = datetime.strptime(text, "%b %d %H:%M:%S %Y GMT")
    except ValueError:
        return None
    return at.replace(tzinfo=UTC).timestamp()


def _last(cluster: Cluster) -> dict[str, str]:
    try:
        deeds = past(cluster, 1)
    except Refused as error:
        return {"what": str(error), "time": history.now(), "by": "", "result": ""}
    return (
        {name: getattr(deeds[0], name) for name in ("what", "time", "by", "result")}
        if deeds
        else {}
    )


def _beside_the_program(found: Status, cluster: Cluster) -> None:
    drift = last_drift.last(cluster.place)
    found.drift = asdict(drift) if drift is not None else None
    left = operation.unfinished(cluster.place)
    if left is not None:
        busy = operation.running(cluster.place)
        found.waits.append(f"being done: {left}" if busy else left.left)
    found.validated = _validated(cluster)
    found.waits += validations.waiting(cluster.place)
    found.waits += [
        f"{node}: slurmstack validate powered it off; slurmstack validate {node} switches it on"
        for node in node_power.switched_off(cluster.place)
    ]
    found.waits += [
        lock.told(cluster.stack) for lock in pulumi_lock.locks(cluster.stack, cluster.project)
    ]


def _validated(cluster: Cluster) -> dict[str, Any] | None:
    known = validations.standings(cluster.place)
    there = {name: it for name, it in known.items() if name in cluster.settings.compute}
    if not there:
        return None
    failed = [name for name, it in there.items() if it.failed]
    last = max(it.time for it in there.values())
    return {"nodes": len(there), "failed": failed, "time": last}
