"""What slurmctld runs by and what its jobs hold, from scontrol's text or from a slurm.conf."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

#: Folds out a host list; scontrol does it on a host, without asking a daemon.
Expand = Callable[[str], "tuple[str, ...]"]

UNLIMITED = float("inf")
#: Values by which Slurm's commands say that there is none.
_NOTHING = ("", "(null)", "N/A", "NONE", "None")
_SUFFIXES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50}
#: States of a job that waits for its start (JobState of scontrol(1)).
WAITING = frozenset(
    ("PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT")
)
#: States of a job that has nodes and can lose something. One that is COMPLETING has ended.
ACTIVE = frozenset(("RUNNING", "SUSPENDED", "CONFIGURING", "SIGNALING", "STAGE_OUT", "STOPPED"))


@dataclass(frozen=True)
class Node:
    """A compute node's line. Memory in MiB, what is kept for the system already taken off."""

    name: str
    address: str
    cores: int
    cpus: int
    memory: int
    #: Name of the GRES → type ("" without one) → number.
    gres: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    features: frozenset[str] = frozenset()
    #: Flags of `scontrol show node`'s State; empty when read from a file.
    state: tuple[str, ...] = ()

    def count(self, name: str, kind: str = "") -> int:
        """How many of a GRES there are, of one type or of all."""
        kinds = self.gres.get(name, {})
        return kinds.get(kind, 0) if kind else sum(kinds.values())

    @property
    def answers(self) -> bool:
        """Whether slurmctld reaches it."""
        return not any(flag.startswith("DOWN") or flag.endswith("*") for flag in self.state)


@dataclass(frozen=True)
class Partition:
    """A partition's line. Times in seconds."""

    name: str
    nodes: frozenset[str]
    max_time: float = UNLIMITED
    max_nodes: float = UNLIMITED
    state: str = "UP"
    #: AllowAccounts, DenyAccounts, AllowQos, DenyQos, AllowGroups → names; absent: no rule.
    rules: Mapping[str, frozenset[str]] = field(default_factory=dict)
    #: Whether jobs that name none run in it: no matter for jobs that there are.
    default: bool = field(default=False, compare=False)

    def takes(self, what: str, own: str) -> bool:
        """Whether its rules let a job in that has this one of ``Accounts`` or ``Qos``."""
        allowed = self.rules.get(f"Allow{what}")
        return (allowed is None or own in allowed) and own not in self.rules.get(f"Deny{what}", ())


@dataclass(frozen=True)
class Config:
    """What is compared between the configuration that runs and the one that is to come."""

    nodes: Mapping[str, Node]
    partitions: Mapping[str, Partition]
    #: Lower-case name → value of the parameters that are not a node's or a partition's.
    parameters: Mapping[str, str] = field(default_factory=dict)
    #: Sets of nodes that no switch joins to the others, by topology.conf; none: all are joined.
    apart: tuple[frozenset[str], ...] = ()

    @property
    def licenses(self) -> dict[str, int]:
        """Name → number, of those that slurm.conf has."""
        return dict(_licenses(self.parameters.get("licenses", "")))

    @property
    def max_jobs(self) -> int:
        """MaxJobCount."""
        return _integer(self.parameters.get("maxjobcount"), 10000)


@dataclass(frozen=True)
class Held:
    """What a job holds on one node; memory in MiB."""

    cpus: int
    memory: int
    #: (name, type, number, whether Slurm keeps which devices) of each GRES.
    gres: tuple[tuple[str, str, int, bool], ...] = ()


@dataclass(frozen=True)
class Job:
    """A job that waits or has nodes."""

    id: str
    user: str
    state: str
    partitions: tuple[str, ...]
    nodes: tuple[str, ...]
    time_limit: float
    account: str = ""
    qos: str = ""
    features: str = ""
    demanded: tuple[str, ...] = ()
    node_count: int = 1
    cpus_per_node: int = 1
    memory_per_node: int = 0
    #: GRES demanded of each node: (name, type, number).
    gres_per_node: tuple[tuple[str, str, int], ...] = ()
    #: GRES demanded of all its nodes together.
    gres_of_job: tuple[tuple[str, str, int], ...] = ()
    held: Mapping[str, Held] = field(default_factory=dict)
    #: (name, number) of each that it needs all the time.
    licenses: tuple[tuple[str, int], ...] = ()
    #: Its number, and its nodes, as Slurm writes them.
    number: int = 0
    node_list: str = ""
    #: Whether Slurm may requeue it: 1 or 0, as scontrol tells it.
    requeue: str = ""

    @property
    def waits(self) -> bool:
        return self.state in WAITING


def command(*words: str, seconds: int = 20) -> str:
    """A command's output.

    Raises:
        RuntimeError: it failed or took too long, with its own words.
    """
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeError(f"{' '.join(words)}: {error}") from None
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def expand(hosts: str) -> tuple[str, ...]:
    """The hosts of a host list, by scontrol."""
    return tuple(command("scontrol", "show", "hostnames", hosts).split())


def running() -> Config:
    """The configuration that slurmctld runs by.

    Raises:
        RuntimeError: slurmctld does not answer.
    """
    return config_of_scontrol(
        command("scontrol", "--oneliner", "show", "node"),
        command("scontrol", "--oneliner", "show", "partition"),
        command("scontrol", "show", "config"),
        expand,
    )


def jobs() -> list[Job]:
    """The jobs that wait or have nodes.

    Raises:
        RuntimeError: slurmctld does not answer.
    """
    return jobs_of_scontrol(shown_jobs(), expand)


def shown_jobs() -> str:
    """A line for each job that slurmctld keeps, finished ones among them.

    Raises:
        RuntimeError: slurmctld does not answer.
    """
    return command("scontrol", "--oneliner", "--details", "show", "job")


def count_of_jobs(shown: str) -> int:
    """How many MaxJobCount counts: each task of an array, and finished jobs as well."""
    count = 0
    for line in shown.splitlines():
        if line.startswith("JobId="):
            tasks = re.search(r" ArrayTaskId=([\d,:-]+)", line)
            count += len(_tasks(tasks[1])) if tasks else 1
    return count


def _tasks(text: str) -> set[int]:
    """Of an array's tasks, such as ``1-5,8`` or ``0-10:2``."""
    tasks: set[int] = set()
    for first, last, step in re.findall(r"(\d+)(?:-(\d+))?(?::(\d+))?", text):
        tasks |= {*range(int(first), int(last or first) + 1, int(step or 1))}
    return tasks


def reservations() -> list[dict[str, str]]:
    """Fields of the reservations.

    Raises:
        RuntimeError: slurmctld does not answer.
    """
    shown = command("scontrol", "--oneliner", "show", "reservation")
    return [
        reservation
        for line in shown.splitlines()
        if "ReservationName" in (reservation := fields(line))
    ]


def file_of_bundle(bundle: str, path: str) -> str | None:
    """The text of a file in a bundle (remote/README.md), None where the bundle has no such."""
    lines = iter(bundle.splitlines())
    for line in lines:
        if line.startswith(f"file {path} "):
            break
    else:
        return None
    text = []
    for line in lines:
        if line and not line.startswith("  "):
            break
        text.append(line[2:])
    return "\n".join(text) + "\n"


def config_of_text(text: str, expand: Expand) -> Config:
    """A slurm.conf as slurmstack writes it: a line for each node and partition."""
    nodes: dict[str, Node] = {}
    partitions: dict[str, Partition] = {}
    parameters: dict[str, str] = {}
    lines = lines_of(text)
    for line in lines:
        values = {name.lower(): value for name, value in fields(line).items()}
        if "nodename" in values:
            for name in expand(values["nodename"]):
                nodes[name] = _node_of_file(name, values)
        elif line and not line.lower().startswith("partitionname="):
            name, _, value = line.partition("=")
            parameters[name.strip().lower()] = value.strip()
    for line in lines:
        if line.lower().startswith("partitionname="):
            values = {name.lower(): value for name, value in fields(line).items()}
            partitions[values["partitionname"]] = _partition(values, tuple(nodes), expand)
    return Config(nodes, partitions, parameters)


def apart(topology: str, expand: Expand) -> tuple[frozenset[str], ...]:
    """What a topology.conf of switches leaves apart; nothing where one switch is above all."""
    below: dict[str, frozenset[str]] = {}
    children: dict[str, tuple[str, ...]] = {}
    for line in lines_of(topology):
        values = {name.lower(): value for name, value in fields(line).items()}
        if "switchname" in values:
            name = values["switchname"]
            below[name] = frozenset(expand(values["nodes"]) if "nodes" in values else ())
            children[name] = expand(values["switches"]) if "switches" in values else ()

    def nodes(name: str) -> frozenset[str]:
        return below.get(name, frozenset()).union(
            *(nodes(child) for child in children.get(name, ()))
        )

    joined = {child for some in children.values() for child in some}
    tops = tuple(nodes(name) for name in below if name not in joined)
    return tops if len(tops) > 1 else ()


def lines_of(text: str) -> list[str]:
    """The lines of a slurm.conf, comments left out and continued ones (\\) joined."""
    whole = re.sub(r"\\\n\s*", "", text)
    return [line.strip() for line in whole.splitlines() if not line.strip().startswith("#")]


def config_of_scontrol(nodes: str, partitions: str, config: str, expand: Expand) -> Config:
    """From `scontrol -o show node`, `scontrol -o show partition` and `scontrol show config`."""
    known = {}
    for line in nodes.splitlines():
        values = {name.lower(): value for name, value in fields(line).items()}
        if "nodename" in values and "cputot" in values:
            known[values["nodename"]] = Node(
                values["nodename"],
                values.get("nodeaddr", ""),
                _integer(values.get("sockets")) * _integer(values.get("corespersocket")),
                _integer(values["cputot"]),
                _integer(values.get("realmemory")) - _integer(values.get("memspeclimit")),
                gres_of_node(values.get("gres", "")),
                frozenset(_names(values.get("availablefeatures"))),
                tuple(values.get("state", "").split("+")),
            )
    groups = {}
    for line in partitions.splitlines():
        values = {name.lower(): value for name, value in fields(line).items()}
        if "partitionname" in values:
            groups[values["partitionname"]] = _partition(values, tuple(known), expand)
    parameters = {}
    for line in config.splitlines():
        name, separator, value = line.partition("=")
        if separator:
            parameters[name.strip().lower()] = value.strip()
    return Config(known, groups, parameters)


def jobs_of_scontrol(text: str, expand: Expand) -> list[Job]:
    """From `scontrol -o -d show job`."""
    jobs = []
    for line in text.splitlines():
        # A job's name is its user's own text.
        values = fields(re.sub(r" JobName=.*? UserId=", " UserId=", line, count=1))
        state = values.get("JobState", "")
        if state in WAITING | ACTIVE:
            jobs.append(_job(values, state, line, expand))
    return jobs


def _job(values: Mapping[str, str], state: str, line: str, expand: Expand) -> Job:
    array, tasks = values.get("ArrayJobId"), values.get("ArrayTaskId")
    held = {}
    if state in ACTIVE:
        for nodes, cpus, memory, gres in re.findall(
            r" Nodes=(\S+) CPU_IDs=(\S*) Mem=(\d+) GRES=(\S*)", line
        ):
            for node in expand(nodes):
                held[node] = Held(_numbers(cpus), int(memory), _gres_held(gres))
    cpus, memory_per = _integer(values.get("MinCPUsNode")), 0
    if "MinMemoryNode" in values:
        memory_per = megabytes(values["MinMemoryNode"])
    elif "MinMemoryCPU" in values:
        memory_per = megabytes(values["MinMemoryCPU"]) * max(cpus, 1)
    nodes = values.get("NodeList", "")
    return Job(
        id=f"{array}_[{tasks}]" if array and tasks and not tasks.isdigit()
        else f"{array}_{tasks}" if array and tasks else values["JobId"],
        user=values.get("UserId", "").split("(")[0],
        state=state,
        partitions=_names(values.get("Partition")),
        nodes=expand(nodes) if state in ACTIVE and nodes not in _NOTHING else (),
        time_limit=seconds(values.get("TimeLimit", "")),
        account=_text(values.get("Account")),
        qos=_text(values.get("QOS")),
        features=_text(values.get("Features")),
        demanded=expand(values["ReqNodeList"])
        if values.get("ReqNodeList", "") not in _NOTHING else (),
        node_count=_integer(values.get("NumNodes", "1").split("-")[0]) or 1,
        cpus_per_node=cpus or 1,
        memory_per_node=memory_per,
        gres_per_node=_gres_demanded(values.get("TresPerNode", "")),
        gres_of_job=_gres_demanded(values.get("TresPerJob", "")),
        held=held,
        licenses=_licenses(values.get("Licenses", "")),
        number=_integer(values.get("JobId")),
        node_list=nodes,
        requeue=values.get("Requeue", ""),
    )  # fmt: skip


def fields(line: str) -> dict[str, str]:
    """`Name=value` words of a line, the first of each name; a value may be quoted."""
    values: dict[str, str] = {}
    for name, quoted, plain in re.findall(r'(?:^|\s)([A-Za-z][\w/:]*)=(?:"([^"]*)"|(\S*))', line):
        values.setdefault(name, quoted or plain)
    return values


def _node_of_file(name: str, values: Mapping[str, str]) -> Node:
    boards = _integer(values.get("boards"), 1)
    sockets = _integer(values.get("sockets")) or boards * _integer(values.get("socketsperboard"), 1)
    cores = sockets * _integer(values.get("corespersocket"), 1)
    threads = _integer(values.get("threadspercore"), 1)
    return Node(
        name,
        values.get("nodeaddr", name),
        cores,
        _integer(values.get("cpus")) or cores * threads,
        _integer(values.get("realmemory"), 1) - _integer(values.get("memspeclimit")),
        gres_of_node(values.get("gres", "")),
        frozenset(_names(values.get("features") or values.get("feature"))),
    )


def _partition(values: Mapping[str, str], all_nodes: tuple[str, ...], expand: Expand) -> Partition:
    hosts = values.get("nodes", "")
    nodes: frozenset[str] = frozenset()
    if hosts.upper() == "ALL":
        nodes = frozenset(all_nodes)
    elif hosts not in _NOTHING:
        nodes = frozenset(expand(hosts))
    rules = {}
    for name in ("AllowAccounts", "DenyAccounts", "AllowQos", "DenyQos", "AllowGroups"):
        value = values.get(name.lower(), "")
        if value not in _NOTHING and value.upper() != "ALL":
            rules[name] = frozenset(_names(value))
    maximum = values.get("maxnodes", "")
    return Partition(
        values["partitionname"],
        nodes,
        seconds(values.get("maxtime", "")),
        float(maximum) if maximum.isdigit() else UNLIMITED,
        values.get("state", "UP").upper(),
        rules,
        values.get("default", "").upper() == "YES",
    )


def seconds(text: str) -> float:
    """A time of Slurm's: minutes, M:S, H:M:S, D-H, D-H:M, D-H:M:S; anything else is no limit."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if not match:
        return UNLIMITED
    days, first, second, third = (None if part is None else int(part) for part in match.groups())
    if days is not None:
        return ((days * 24 + (first or 0)) * 60 + (second or 0)) * 60 + (third or 0)
    if third is not None:
        return ((first or 0) * 60 + (second or 0)) * 60 + third
    return (first or 0) * 60 + (second or 0)


def megabytes(text: str) -> int:
    """Memory as scontrol prints it (``100M``, ``1.50G``), in MiB."""
    match = re.fullmatch(r"([\d.]+)([KMGTP]?)", text)
    if not match:
        return 0
    return int(float(match[1]) * _SUFFIXES[match[2] or "M"] / _SUFFIXES["M"])


def gres_of_node(text: str) -> dict[str, dict[str, int]]:
    """A Gres value such as ``gpu:h100:4(S:0),shard:8``: name → type → number."""
    numbers: dict[str, dict[str, int]] = {}
    for name, kind, count in _gres(text):
        kinds = numbers.setdefault(name, {})
        kinds[kind] = kinds.get(kind, 0) + count
    return numbers


def _gres(text: str) -> list[tuple[str, str, int]]:
    entries: list[tuple[str, str, int]] = []
    if text in _NOTHING:
        return entries
    for entry in re.split(r",(?![^(]*\))", text):
        words = [word for word in entry.split("(")[0].split(":") if word != "no_consume"]
        number = re.fullmatch(r"(\d+)([KMGTP]?)", words[-1].upper()) if len(words) > 1 else None
        count = int(number[1]) * _SUFFIXES[number[2]] if number else 1
        kinds = words[1:-1] if number else words[1:]
        entries.append((words[0], ":".join(kinds), count))
    return entries


def _licenses(text: str) -> tuple[tuple[str, int], ...]:
    """Licenses such as ``matlab:2,fluent``; of alternatives (``|``) none is needed all the time,
    and those of a server (``@``) are no business of slurm.conf's."""
    if text in _NOTHING or "|" in text:
        return ()
    entries = (re.split(r"[:=*]", entry, maxsplit=1) for entry in text.split(","))
    return tuple(
        (name, _integer(number[0], 1) if number else 1)
        for name, *number in entries
        if name and "@" not in name
    )


def _gres_held(text: str) -> tuple[tuple[str, str, int, bool], ...]:
    entries = re.split(r",(?![^(]*\))", text) if text not in _NOTHING else []
    return tuple((*_gres(entry)[0], "IDX" in entry) for entry in entries)


def _gres_demanded(text: str) -> tuple[tuple[str, str, int], ...]:
    entries = [
        entry.removeprefix("gres/").removeprefix("gres:").replace("=", ":")
        for entry in text.split(",")
        if entry.startswith("gres")
    ]
    return tuple(_gres(",".join(entries)))


def _numbers(text: str) -> int:
    """How many numbers a list such as ``0-3,8`` has."""
    total = 0
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            total += int(last or first) - int(first) + 1
    return total


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name for name in (text or "").split(",") if name not in _NOTHING)


def _text(text: str | None) -> str:
    return "" if text is None or text in _NOTHING else text


def _integer(text: str | None, otherwise: int = 0) -> int:
    return int(text) if text is not None and text.isdigit() else otherwise
