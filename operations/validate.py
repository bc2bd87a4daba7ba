"""`slurmstack validate`: nodes proven by Slurm jobs of their own, on a reservation of their own.

The reservation takes idle nodes only, so that nobody's job is touched or waits for it longer than a
validation takes. It ends by itself after its time, goes with the command however that ends, and one
that a killed run left behind is removed by the next.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from components import history
from operations.cluster import Cluster
from operations.refused import Refused
from settings.hostlist import expand, fold
from templates.rendering import render

Level = Literal["quick", "full", "burnin"]
Verdict = Literal["proven", "stand-in", "failed", "not here"]
VERDICTS: tuple[Verdict, ...] = ("proven", "stand-in", "failed", "not here")
LEVELS: tuple[Level, ...] = ("quick", "full", "burnin")
#: Reservations of ours, one a run.
PREFIX = "slurmstack-validate-"
#: Minutes that a reservation stands at most.
_MINUTES: Mapping[Level, int] = {"quick": 10, "full": 20, "burnin": 60}
#: A node is slower than it was once it has less than this part of its best figure.
_SLOWER = 0.8
_KEPT = 20
#: On the controller, held while tests run.
_LOCK = "/run/slurmstack-validate.lock"


@dataclass(frozen=True)
class Word:
    """What one test said of one node, or of all together (node: "")."""

    test: str
    node: str
    verdict: Verdict
    words: str = ""
    #: A figure and its unit, compared with the node's own best.
    figure: float | None = None
    unit: str = ""


@dataclass
class Validation:
    """A run."""

    time: str
    by: str
    level: Level
    nodes: list[str]
    versions: dict[str, str] = field(default_factory=dict)
    words: list[Word] = field(default_factory=list)

    @property
    def failed(self) -> list[Word]:
        return [word for word in self.words if word.verdict == "failed"]


def validate(
    cluster: Cluster,
    names: Sequence[str],
    level: Level,
    patience: float,
    say: Callable[[str], None],
) -> Validation:
    """Run the tests of a level on nodes.

    Args:
        cluster: whose.
        names: compute nodes.
        level: what is tested.
        patience: seconds that nodes may take to become idle.
        say: told of each step.

    Raises:
        Refused: nodes are not idle in time; nothing was run.
    """
    for left in _left_behind(cluster):
        _remove(cluster, left)
        say(f"removed {left}, which a run that was killed had left")
        patience = max(patience, 60)
    homeless = [node for node in names if _partition(cluster, [node]) is None]
    if homeless:
        raise Refused(f"{fold(homeless)}: in no partition, so no job can run there")
    _await_idle(cluster, names, patience, say)
    found = Validation(history.now(), history.operator(), level, list(names))
    name = f"{PREFIX}{int(time.time())}"
    cluster.ask(
        f"scontrol create reservation={name} nodes={fold(list(names))} users=root starttime=now"
        f" duration={_MINUTES[level]}",
        "scontrol create reservation",
    )
    try:
        script = render(
            "operations/validate.sh",
            reservation=name,
            partitions={node: _partition(cluster, [node]) for node in names},
            together=_partition(cluster, names),
            lock=_LOCK,
            nodes=list(names),
            hostlist=fold(list(names)),
            level=LEVELS.index(level),
            rest=cluster.settings.rest is not None,
            accounting=cluster.settings.accounting is not None,
            container=cluster.settings.job_container is not None,
            cgroup=cluster.settings.confinement is not None
            and "cgroup" in cluster.settings.slurm.ProctrackType,
            gres=_gres(cluster, names),
        )
        told = cluster.ask(script, "validate", _MINUTES[level] * 60 + 60.0)
    finally:
        # Also after Ctrl-C: its jobs go with it.
        _remove(cluster, name)
    found.words = [*words(told)]
    found.versions = dict(re.findall(r"^version (\S+) (.+)$", told, re.MULTILINE))
    found.words += slower(found, last(cluster.place))
    keep(cluster.place, found)
    result = f"{len(found.failed)} failed" if found.failed else "all passed"
    history.note(cluster.place, f"validate {fold(list(names))} --level {level}", result, [])
    return found


def words(told: str) -> list[Word]:
    """Lines ``word TEST|NODE|VERDICT|FIGURE|UNIT|WORDS`` of the script on the controller."""
    verdicts: dict[str, Verdict] = {it: it for it in VERDICTS}
    found = []
    for line in told.splitlines():
        if line.startswith("word ") and line.count("|") >= 5:
            test, node, verdict, figure, unit, text = line[5:].split("|", 5)
            number = float(figure) if re.fullmatch(r"\d+(\.\d+)?", figure) else None
            found.append(Word(test, node, verdicts[verdict], text.strip(), number, unit))
    return found


def slower(now: Validation, before: Sequence[Validation]) -> list[Word]:
    """Nodes whose figure is well below their own best."""
    best: dict[tuple[str, str], float] = {}
    for run in before:
        for word in run.words:
            if word.figure is not None:
                key = word.test, word.node
                best[key] = max(best.get(key, 0), word.figure)
    found = []
    for word in now.words:
        was = best.get((word.test, word.node))
        if word.figure is not None and was is not None and word.figure < _SLOWER * was:
            text = f"{word.figure:g} {word.unit}, its best was {was:g}"
            found.append(Word(f"{word.test}, baseline", word.node, "failed", text))
    return found


def keep(place: Path, found: Validation) -> None:
    """Note a run; the last ones are kept."""
    runs = [*last(place), found][-_KEPT:]
    place.mkdir(parents=True, exist_ok=True)
    new = place / "validations.json.new"
    new.write_text(json.dumps([asdict(run) for run in runs], indent=1))
    new.replace(place / "validations.json")


def last(place: Path) -> list[Validation]:
    """Runs from here, the latest last."""
    try:
        runs = json.loads((place / "validations.json").read_text())
        return [
            Validation(**{**run, "words": [Word(**word) for word in run["words"]]}) for run in runs
        ]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def _partition(cluster: Cluster, names: Sequence[str]) -> str | None:
    """One that has all these nodes, the default one if it can be."""
    partitions = sorted(cluster.settings.partitions.items(), key=lambda it: not it[1].Default)
    for title, partition in partitions:
        if partition.Nodes == "ALL" or {*names} <= {*expand(partition.Nodes)}:
            return title
    return None


def waiting(place: Path) -> list[str]:
    """For `slurmstack status`: the last run, where a test failed in it."""
    found = []
    for run in last(place)[-1:]:
        if run.failed:
            nodes = sorted({word.node for word in run.failed if word.node}) or run.nodes
            tests = ", ".join(sorted({word.test for word in run.failed}))
            found.append(f"{fold(nodes)}: {tests} failed at slurmstack validate, {run.time}")
    return found


def _gres(cluster: Cluster, names: Sequence[str]) -> dict[str, tuple[str, int]]:
    """Node → the GRES to ask for and how many it has, where the settings declare GPUs."""
    found = {}
    for name in names:
        for gres in cluster.settings.compute[name].Gres or ():
            if gres.Name == "gpu" and gres.count:
                found[name] = (gres.kind, gres.count)
    return found


def _await_idle(
    cluster: Cluster, names: Sequence[str], patience: float, say: Callable[[str], None]
) -> None:
    end = time.monotonic() + patience
    told = False
    while True:
        states = cluster.states(list(names))
        busy = [name for name in names if name not in states or states[name].flags != {"IDLE"}]
        if not busy:
            return
        if time.monotonic() >= end:
            flags = {name: states[name].flags for name in busy if name in states}
            shown = "; ".join(
                f"{name}: {'+'.join(sorted(flags.get(name, {'not known'}))).lower()}"
                for name in busy
            )
            raise Refused(
                f"{shown}: only idle nodes are validated, nothing was run; --wait 2h waits"
            )
        if not told:
            say(f"waiting for {fold(busy)} to be idle")
            told = True
        time.sleep(2)


def _left_behind(cluster: Cluster) -> list[str]:
    """Reservations of ours in which nothing works any more.

    Raises:
        Refused: somebody validates: the script on the controller holds a lock.
    """
    free = f"flock -n {_LOCK} true || {{ echo 'somebody validates nodes already' >&2; exit 1; }}"
    script = f"{free}; timeout 20 scontrol -o show reservation 2>/dev/null || true"
    shown = cluster.ask(script, "validate")
    return re.findall(rf"ReservationName=({PREFIX}\d+)", shown)


def _remove(cluster: Cluster, name: str) -> None:
    cluster.ask(
        f"scancel --reservation={name} 2>/dev/null; for try in 1 2 3 4 5 6 7 8 9 10; do"
        f" scontrol delete reservation={name} 2>/dev/null && exit 0; sleep 1; done;"
        f" ! scontrol show reservation={name} 2>/dev/null | grep -q {name}",
        f"the reservation {name} could not be removed",
    )
