"""What a job file asks for, held against the cluster and the site's rules.

Whether the user's association allows it is asked of Slurm itself when the file is submitted: its
own words are better than a second reading of them.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from on_node.kubernetes.job_file import JobFile, Mistake
from on_node.slurm_state import Config, Node, Partition, gres_of_node, seconds

_MEMORY = re.compile(r"([0-9]{1,12})([KMGT]?)B?", re.IGNORECASE | re.ASCII)
_TO_MEBIBYTES = {"": 1.0, "K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1048576.0}
#: Options that name files on the share.
_PATHS = ("output", "error", "chdir")


@dataclass(frozen=True)
class Rules:
    """What the site allows."""

    #: Registries, as images name them.
    registries: tuple[str, ...]
    #: Folders in which scripts, logs and results lie.
    folders: tuple[str, ...]


@dataclass(frozen=True)
class Person:
    """Whose job it is to be."""

    name: str
    uid: int
    groups: frozenset[str]


def mistakes(job: JobFile, rules: Rules, config: Config, person: Person) -> list[Mistake]:
    """All that a file asks for and cannot have."""
    return sorted([*allowed(job, rules), *_in_partitions(job, config, person)])


def allowed(job: JobFile, rules: Rules) -> Iterator[Mistake]:
    image = job.image
    if image is not None and image.registry not in rules.registries:
        line = job.kubernetes["IMAGE"][1]
        known = ", ".join(rules.registries)
        yield Mistake(
            line, f"K8S_IMAGE: registry {image.registry} is not allowed; expected {known}"
        )
    places = [(f"--{name}", *job.options[name]) for name in _PATHS if name in job.options]
    if "SCRIPT" in job.kubernetes:
        places.append(("K8S_SCRIPT", *job.kubernetes["SCRIPT"]))
    for name, path, line in places:
        if not _inside(path, rules.folders):
            allowed = ", ".join(rules.folders)
            yield Mistake(line, f"{name}: expected a whole path in {allowed}; found {path}")


def _inside(path: str, folders: Sequence[str]) -> bool:
    if not path.startswith("/") or ".." in path.split("/"):
        return False
    whole = posixpath.normpath(path)
    return any(whole == folder or whole.startswith(f"{folder}/") for folder in folders)


def _in_partitions(job: JobFile, config: Config, person: Person) -> Iterator[Mistake]:
    limit, wrong_time = _time(job)
    memory, wrong_size = _memory(job)
    yield from (*wrong_time, *wrong_size)
    cpus, nodes = _count(job, "cpus-per-task", 1) * _tasks_on_a_node(job), _nodes(job)
    gres = dict(_gres(job))
    named = (job.value("partition") or "").split(",") if job.value("partition") else [""]
    for name in named:
        partition = config.partitions.get(name) if name else _default(config)
        if partition is None and not name:
            yield Mistake(0, "names no partition (--partition), and none is the default")
            continue
        if partition is None:
            close = get_close_matches(name, list(config.partitions), 1)
            hint = (
                f"; is {close[0]} meant?"
                if close
                else f"; there are {', '.join(config.partitions)}"
            )
            yield Mistake(job.line("partition"), f"--partition: there is no {name}{hint}")
            continue
        yield from _may_use(job, partition, person)
        if limit is not None and limit > partition.max_time:
            yield Mistake(job.line("time"), f"--time: partition {partition.name} allows less")
        there = [config.nodes[it] for it in sorted(partition.nodes) if it in config.nodes]
        if nodes > len(there):
            where = f"partition {partition.name} has {len(there)} nodes"
            yield Mistake(job.line("nodes"), f"--nodes: {where}, {nodes} are wanted")
            continue
        yield from _fits(job, partition.name, there, memory, cpus, gres)


def _default(config: Config) -> Partition | None:
    return next((it for it in config.partitions.values() if it.default), None)


def _may_use(job: JobFile, partition: Partition, person: Person) -> Iterator[Mistake]:
    line, rules = job.line("partition"), partition.rules
    if partition.state not in ("UP", "DOWN"):  # one that is DOWN takes jobs, which wait
        yield Mistake(line, f"--partition: {partition.name} takes no jobs ({partition.state})")
    groups = rules.get("AllowGroups")
    if groups is not None and not groups & person.groups:
        yield Mistake(line, f"--partition: {partition.name} is not for {person.name}")
    for option, what in (("account", "Accounts"), ("qos", "Qos")):
        value = job.value(option)
        if value is not None and not partition.takes(what, value):
            text = f"--{option}: partition {partition.name} does not take {value}"
            yield Mistake(job.line(option), text)


def _fits(
    job: JobFile, name: str, nodes: Sequence[Node], memory: float, cpus: int, gres: dict[str, int]
) -> Iterator[Mistake]:
    """Nothing where a node offers all; else what none offers, or that none offers it together."""
    if any(
        node.memory >= memory
        and node.cpus >= cpus
        and all(node.count(*_split(wanted)) >= number for wanted, number in gres.items())
        for node in nodes
    ):
        return
    alone = True
    most = max((node.memory for node in nodes), default=0)
    if memory > most:
        alone = False
        line = job.line("mem") or job.line("mem-per-cpu")
        text = f"--mem: no node of {name} has {memory:.0f} MiB; the largest has {most} MiB"
        yield Mistake(line, text)
    most = max((node.cpus for node in nodes), default=0)
    if cpus > most:
        alone = False
        text = f"--cpus-per-task: no node of {name} has {cpus} CPUs; the largest has {most}"
        yield Mistake(job.line("cpus-per-task"), text)
    for wanted, number in gres.items():
        most = max((node.count(*_split(wanted)) for node in nodes), default=0)
        if number > most:
            alone = False
            text = f"--gres: no node of {name} has {number} {wanted}; the most is {most}"
            yield Mistake(job.line("gres") or job.line("gpus-per-node"), text)
    if alone:
        text = f"no node of {name} has the memory, CPUs and GRES together"
        yield Mistake(job.line("partition"), text)


def _split(gres: str) -> tuple[str, str]:
    what, _, kind = gres.partition(":")
    return what, kind


def _time(job: JobFile) -> tuple[float | None, list[Mistake]]:
    """Seconds; None where there is no limit of the job's own."""
    value = job.value("time")
    if value is None:
        return None, []
    number = "[0-9]{1,9}"
    form = rf"({number}-)?{number}(:[0-9][0-9]){{0,2}}|UNLIMITED|INFINITE"
    if not re.fullmatch(form, value, re.IGNORECASE | re.ASCII):
        text = f"--time: expected D-HH:MM:SS or HH:MM:SS; found {value}"
        return None, [Mistake(job.line("time"), text)]
    return seconds(value), []


def _memory(job: JobFile) -> tuple[float, list[Mistake]]:
    """MiB on each node."""
    for option in ("mem", "mem-per-cpu"):
        value = job.value(option)
        if value is None:
            continue
        match = _MEMORY.fullmatch(value)
        if match is None:
            text = f"--{option}: expected a size such as 16G; found {value}"
            return 0, [Mistake(job.line(option), text)]
        size = int(match[1]) * _TO_MEBIBYTES[match[2].upper()]
        if option == "mem-per-cpu":
            size *= _count(job, "cpus-per-task", 1) * _tasks_on_a_node(job)
        return size, []
    return 0, []


def _gres(job: JobFile) -> Iterator[tuple[str, int]]:
    """(name, or name:type; number on each node)."""
    if value := job.value("gres"):
        for what, kinds in gres_of_node(value).items():
            for kind, number in kinds.items():
                yield (f"{what}:{kind}" if kind else what), number
    if (value := job.value("gpus-per-node")) and (
        match := re.fullmatch(r"(?:(\w+):)?([0-9]{1,9})", value)
    ):
        yield (f"gpu:{match[1]}" if match[1] else "gpu"), int(match[2])


def _count(job: JobFile, option: str, otherwise: int) -> int:
    value = job.value(option) or ""
    return int(value) if re.fullmatch("[0-9]{1,9}", value) else otherwise


def _nodes(job: JobFile) -> int:
    """The least number."""
    match = re.match("[0-9]{1,9}", job.value("nodes") or "")
    return int(match[0]) if match else 1


def _tasks_on_a_node(job: JobFile) -> int:
    return _count(job, "ntasks-per-node", 1)
