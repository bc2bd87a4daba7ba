"""`slurmstack report`: one page of HTML that is read without a network, of what stands now."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from on_node import node_states
from operations import drain, validations
from operations.cluster import Cluster
from operations.figures import HEIGHT, WIDTH, Drawing, drawings
from operations.past import Deed, past
from operations.refused import Refused
from operations.stack import NoSuchStack, outputs
from operations.status import Status, status
from operations.validations import Standing
from remote.contact import ContactError
from settings import Settings
from settings.hostlist import expand, fold
from templates.rendering import FOLDER

#: How many operations and running jobs the page shows.
DEEDS, JOBS = 30, 200
#: Letters of a hash that tell two apart by eye.
_SHORT = 12
#: What is asked of the controller beside what `slurmstack status` asks (squeue(1), scontrol(1)).
_SCRIPT = """export LC_ALL=C
timeout 10 scontrol --oneliner show node | sed 's/^/node /'
timeout 10 squeue -h -t RUNNING -S V -o 'job %A|%u|%a|%P|%D|%M|%l|%N|%b|%j' | head -n {jobs}
exit 0
"""
#: What a page says of each kind of state, in the order of its bar.
KINDS = {
    "busy": "at work",
    "idle": "idle",
    "drained": "drained or draining",
    "down": "down, failed or not fit",
    "silent": "not responding",
    "unknown": "not known",
}


@dataclass(frozen=True)
class Share:
    """How much of something is in use."""

    used: int = 0
    all: int = 0

    def __add__(self, other: Share) -> Share:
        return Share(self.used + other.used, self.all + other.all)

    @property
    def percent(self) -> int:
        return round(100 * self.used / self.all) if self.all else 0


@dataclass
class Node:
    """A compute node of the settings as slurmctld sees it."""

    name: str
    #: One of :data:`KINDS`.
    kind: str = "unknown"
    state: str = "not known to slurmctld"
    reason: str = ""
    by: str = ""
    cpus: Share = Share()
    gpus: Share = Share()


@dataclass
class Job:
    """A running job, in squeue's words."""

    number: str
    user: str
    account: str
    partition: str
    count: str
    time: str
    limit: str
    nodes: str
    gres: str
    name: str


@dataclass
class Holding:
    """A key or a file: hash → the hosts that hold it so."""

    what: str
    by_hash: dict[str, str]

    @property
    def varies(self) -> bool:
        return len(self.by_hash) > 1


@dataclass
class Group:
    """Nodes below one switch or in one block, and the groups below it."""

    name: str
    nodes: list[Node] = field(default_factory=list)
    below: list[Group] = field(default_factory=list)


@dataclass
class Report:
    """All that the page shows."""

    status: Status
    nodes: list[Node] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    fabric: list[Group] = field(default_factory=list)
    holdings: list[Holding] = field(default_factory=list)
    deeds: list[Deed] = field(default_factory=list)
    #: Of Prometheus, where the cluster has its own.
    drawings: list[Drawing] = field(default_factory=list)
    #: How far back these go.
    seconds: int = 0
    #: Node → what its last validation said of it.
    standings: dict[str, Standing] = field(default_factory=dict)

    @property
    def kinds(self) -> dict[str, int]:
        """Kind of state → how many nodes, those that there are."""
        numbers = {kind: sum(node.kind == kind for node in self.nodes) for kind in KINDS}
        return {kind: number for kind, number in numbers.items() if number}

    @property
    def cpus(self) -> Share:
        return sum((node.cpus for node in self.nodes), Share())

    @property
    def gpus(self) -> Share:
        return sum((node.gpus for node in self.nodes), Share())


def report(cluster: Cluster, seconds: int) -> Report:
    """Ask the controller, Prometheus and Pulumi; changes nothing. What does not answer is told on
    the page.

    Args:
        cluster: whose.
        seconds: how far back figures are drawn.
    """
    found = Report(status(cluster), seconds=seconds)
    text = ""
    if found.status.nodes:  # else it has just not answered
        try:
            text = cluster.ask(_SCRIPT.format(jobs=JOBS), "report")
        except (ContactError, Refused) as error:
            found.status.waits.append(str(error))
    shown = list(nodes(text))
    by_name = {node.name: node for node in shown}
    found.nodes = [by_name.get(name, Node(name)) for name in cluster.settings.compute]
    found.jobs = list(jobs(text))
    found.standings = {
        name: it
        for name, it in validations.standings(cluster.place).items()
        if name in cluster.settings.compute
    }
    found.fabric = fabric(cluster.settings, {node.name: node for node in found.nodes})
    try:
        found.drawings = drawings(cluster, seconds)
    except (ContactError, Refused) as error:
        found.status.waits.append(str(error))
    try:
        held = outputs(cluster.stack, cluster.project).get("inventory", {})
        found.holdings = holdings(held)
        found.deeds = past(cluster, DEEDS)
    except (NoSuchStack, Refused) as error:
        found.status.waits.append(str(error))
    return found


def nodes(text: str) -> Iterator[Node]:
    """From the lines of `scontrol --oneliner show node`, each after the word ``node``."""
    for line in text.splitlines():
        if not line.startswith("node NodeName="):
            continue
        # The reason stands last, and may hold what looks like another field.
        head, mark, reason = line.removeprefix("node ").partition(" Reason=")
        fields = dict(re.findall(r"(\w+)=(\S+)", head))
        # node_states reads the form of several lines.
        head = re.sub(r" (State|SlurmdStartTime)=", r"\n\1=", head)
        block = f"{head}\n{mark.strip()}{reason}"
        (state,) = node_states.states(block).values()
        flags = "+".join(sorted(state.flags - {"NOT_RESPONDING"})).lower()
        yield Node(
            state.name,
            kind(state),
            flags + ("" if state.answers else ", not responding"),
            drain.without_owner(state.reason),
            drain.owner(state) or state.by,
            Share(int(fields.get("CPUAlloc", 0)), int(fields.get("CPUTot", 0))),
            Share(_gpus(fields.get("AllocTRES", "")), _gpus(fields.get("CfgTRES", ""))),
        )


def kind(state: node_states.State) -> str:
    """Which of :data:`KINDS` a node's state is."""
    if {"DOWN", "FAIL", "FAILING", "ERROR", "INVALID_REG"} & state.flags:
        return "down"
    if "DRAIN" in state.flags:
        return "drained"
    if not state.answers:
        return "silent"
    if {"ALLOCATED", "MIXED", "COMPLETING"} & state.flags:
        return "busy"
    return "unknown" if "UNKNOWN" in state.flags else "idle"


def jobs(text: str) -> Iterator[Job]:
    """From the lines of squeue, each after the word ``job``; a name may hold the separator."""
    for line in text.splitlines():
        words = line.removeprefix("job ").split("|", 9)
        if line.startswith("job ") and len(words) == 10:
            yield Job(*words)


def fabric(settings: Settings, by_name: Mapping[str, Node]) -> list[Group]:
    """The declared switches or blocks with their nodes, from the top."""
    if settings.topology is None:
        return []
    declared = settings.topology.switches or settings.topology.blocks
    groups = {name: Group(name) for name in declared}
    top = dict(groups)
    for name, item in declared.items():
        members, lowers = item.Nodes, getattr(item, "Switches", None)
        names = expand(members) if members else []
        groups[name].nodes = [by_name[it] for it in names if it in by_name]
        for lower in expand(lowers) if lowers else []:
            groups[name].below.append(groups[lower])
            top.pop(lower, None)
    return list(top.values())


def holdings(inventory: Mapping[str, Any]) -> list[Holding]:
    """Keys first, then files; what is not the same wherever it is before what is."""
    held: dict[tuple[int, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for host, what in inventory.items():
        for name, digest in what.get("keys", {}).items():
            held[0, f"key {name}"][digest[:_SHORT]].append(host)
        for path, digest in what.get("files", {}).items():
            held[1, path][digest[:_SHORT]].append(host)
    ordered = sorted(held.items(), key=lambda it: (it[0][0], -len(it[1]), it[0][1]))
    return [
        Holding(name, {digest: fold(hosts) for digest, hosts in by_hash.items()})
        for (_, name), by_hash in ordered
    ]


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,  # names of jobs and reasons are anybody's
    )
    environment.filters["day"] = _day
    environment.filters["short"] = _short
    environment.filters["ago"] = _ago
    return environment.get_template("report/page.html.j2")


def page(found: Report) -> str:
    """The page's text; it refers to nothing outside itself."""
    return _template().render(report=found, status=found.status, kinds=KINDS, size=(WIDTH, HEIGHT))


def _day(seconds: float | None) -> str:
    """``2026-11-25 21:00``, of seconds since 1970; nothing of none."""
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"


def _short(value: float) -> str:
    """``950``, ``12.5k``, ``3.1G``."""
    for scale, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 10 * scale or (value >= scale and letter != "k"):
            return f"{value / scale:.1f}{letter}"
    return f"{value:.0f}" if abs(value - round(value)) < 0.05 else f"{value:.1f}"


def _ago(seconds: int) -> str:
    """``90 min``, ``24 h``, ``7 days``, the longest that fits."""
    if seconds >= 2 * 86400:
        return f"{seconds / 86400:.0f} days"
    return f"{seconds / 3600:.0f} h" if seconds >= 2 * 3600 else f"{seconds / 60:.0f} min"


def _gpus(tres: str) -> int:
    """GPUs of a list of TRES: ``cpu=4,mem=2G,gres/gpu=1,gres/gpu:h100=1``."""
    number = re.search(r"(?:^|,)gres/gpu=(\d+)", tres)
    return int(number[1]) if number else 0
