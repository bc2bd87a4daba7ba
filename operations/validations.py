"""What validations found, kept beside the stack, and what is said against nodes because of it."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Literal

from on_node.acceptance.figures import better, tolerated, worse
from settings.hostlist import fold

Level = Literal["quick", "full", "burnin"]
Verdict = Literal["proven", "stand-in", "failed", "not here"]
VERDICTS: tuple[Verdict, ...] = ("proven", "stand-in", "failed", "not here")
LEVELS: tuple[Level, ...] = ("quick", "full", "burnin")
_KEPT = 20


@dataclass(frozen=True)
class Word:
    """What one test said of one node, or of all together (node: "")."""

    test: str
    node: str
    verdict: Verdict
    words: str = ""
    #: A figure and its unit, compared with the node's own best and with its class.
    figure: float | None = None
    unit: str = ""


@dataclass(frozen=True)
class Pair:
    """A figure between two nodes; None where they did not reach each other."""

    test: str
    nodes: tuple[str, str]
    verdict: Verdict
    figure: float | None
    unit: str
    words: str = ""


@dataclass
class Validation:
    """A run."""

    time: str
    by: str
    level: Level
    nodes: list[str]
    #: Of the cluster: Slurm, the controller's kernel, the hash of its configuration.
    versions: dict[str, str] = field(default_factory=dict)
    words: list[Word] = field(default_factory=list)
    #: Node → what it ran: kernel, driver, packages.
    of_nodes: dict[str, dict[str, str]] = field(default_factory=dict)
    #: What these nodes showed before counts no longer.
    new_baseline: bool = False

    @property
    def failed(self) -> list[Word]:
        return [word for word in self.words if word.verdict == "failed"]


@dataclass(frozen=True)
class Standing:
    """What the last validation of a node said of it."""

    time: str
    level: Level
    failed: tuple[str, ...]
    #: Test → figure with its unit.
    figures: Mapping[str, str]
    versions: Mapping[str, str]


def words(told: str) -> Iterator[Word]:
    """Lines ``word TEST|NODE|VERDICT|FIGURE|UNIT|WORDS``, and ``reduced`` without a node."""
    for line in told.splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "reduced" and rest.count("|") >= 4:
            test, left = rest.split("|", 1)
            rest = f"{test}||{left}"
        if kind in ("word", "reduced") and rest.count("|") >= 5:
            test, node, verdict, figure, unit, text = rest.split("|", 5)
            yield Word(test, node, _verdict(verdict), text.strip(), _number(figure), unit)


def pairs(told: str) -> list[Pair]:
    """Lines ``pair TEST|NODE|NODE|VERDICT|FIGURE|UNIT|WORDS``."""
    found = []
    for line in told.splitlines():
        if line.startswith("pair ") and line.count("|") >= 6:
            test, one, other, verdict, figure, unit, text = line[5:].split("|", 6)
            number = _number(figure)
            found.append(Pair(test, (one, other), _verdict(verdict), number, unit, text.strip()))
    return found


def _verdict(text: str) -> Verdict:
    return next((it for it in VERDICTS if it == text), "failed")


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"\d+(\.\d+)?(e[+-]?\d+)?", text) else None


def rounds(nodes: Sequence[str], number: int) -> list[list[tuple[str, str]]]:
    """Pairs so that a node meets another partner in each round (the circle method).

    Args:
        nodes: at least two; of an odd number one rests in each round.
        number: of rounds, at most; with three a node that is sick in itself can be told from one
            that met a sick one.
    """
    circle: list[str | None] = [*nodes, *([None] if len(nodes) % 2 else [])]
    found = []
    for _ in range(min(number, len(circle) - 1)):
        half = len(circle) // 2
        met = zip(circle[:half], reversed(circle[half:]), strict=True)
        found.append([(one, other) for one, other in met if one and other])
        circle = [circle[0], circle[-1], *circle[1:-1]]
    return found


def paired(found: Sequence[Pair], nodes: Sequence[str], tolerance: float) -> Iterator[Word]:
    """A figure a node, and the nodes that are sick by it.

    A node counts by the best of its pairs, so that it is not blamed for a sick partner; it is sick
    where that is worse than the median of the nodes by more than is tolerated.

    Args:
        found: of all rounds.
        nodes: that were to be paired.
        tolerance: of figures of the real thing.
    """
    for test in dict.fromkeys(pair.test for pair in found):
        alike = [pair for pair in found if pair.test == test]
        unit = alike[0].unit
        verdict: Verdict = next((it.verdict for it in alike if it.figure), "failed")
        by_node: dict[str, list[float]] = defaultdict(list)
        for pair in alike:
            for node in pair.nodes:
                by_node[node] += [pair.figure] if pair.figure else []
        best = {node: better(unit, it) for node, it in by_node.items() if it}
        middle = median(best.values()) if best else 0
        for node in nodes:
            if node not in by_node:
                continue
            partners = fold(it for pair in alike if node in pair.nodes for it in pair.nodes
                            if it != node)  # fmt: skip
            if node not in best:
                yield Word(f"{test}, pairing", node, "failed", f"no figure with {partners}")
                continue
            yield Word(test, node, verdict, f"with {partners}", best[node], unit)
            if len(best) > 2 and worse(best[node], middle, unit, tolerated(verdict, tolerance)):
                text = f"{best[node]:g} {unit} at best with {partners}, the median is {middle:g}"
                yield Word(f"{test}, pairing", node, "failed", text)


def slower(now: Validation, before: Sequence[Validation], tolerance: float = 0.8) -> list[Word]:
    """Nodes whose figure is well below their own best."""
    best: dict[tuple[str, str], float] = {}
    for run in before:
        if run.new_baseline:
            best = {key: it for key, it in best.items() if key[1] not in run.nodes}
        for word in run.words:
            if word.figure is not None:
                key = word.test, word.node
                best[key] = better(word.unit, [word.figure, *([best[key]] if key in best else [])])
    found = []
    for word in now.words if not now.new_baseline else ():
        was = best.get((word.test, word.node))
        least = tolerated(word.verdict, tolerance)
        if word.figure is not None and was and worse(word.figure, was, word.unit, least):
            text = f"{word.figure:g} {word.unit}, its best was {was:g}"
            found.append(Word(f"{word.test}, baseline", word.node, "failed", text))
    return found


def outliers(
    now: Validation,
    before: Sequence[Validation],
    classes: Mapping[str, int | str],
    tolerance: float = 0.8,
) -> list[Word]:
    """Nodes whose figure is well below the median of the others of their class, as these were
    measured now or last."""
    last = {
        (word.test, word.node): word
        for run in [*before, now]
        for word in run.words
        if word.figure is not None and word.node
    }
    found = []
    for word in now.words:
        if word.figure is None or not word.node or word.test.startswith("pair"):
            continue
        others = [
            other.figure
            for (test, node), other in last.items()
            if test == word.test and node != word.node and other.figure is not None
            and classes.get(node, "") == classes.get(word.node)
        ]  # fmt: skip
        least = tolerated(word.verdict, tolerance)
        if others and worse(word.figure, middle := median(others), word.unit, least):
            text = f"{word.figure:g} {word.unit}, its class has {middle:g} (median)"
            found.append(Word(f"{word.test}, class", word.node, "failed", text))
    return found


def keep(place: Path, found: Validation) -> None:
    """Note a run; the last ones are kept, and the last of each node."""
    runs = [*last(place), found]
    needed = {node: run for run in runs for node in run.nodes}
    runs = [
        run for number, run in enumerate(runs)
        if number >= len(runs) - _KEPT or any(run is it for it in needed.values())
    ]  # fmt: skip
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


def standings(place: Path) -> dict[str, Standing]:
    """Node → what its last validation from here said of it."""
    found = {}
    for run in last(place):
        for node in run.nodes:
            mine = [word for word in run.words if word.node == node]
            found[node] = Standing(
                run.time,
                run.level,
                tuple(dict.fromkeys(it.test for it in mine if it.verdict == "failed")),
                {it.test: f"{it.figure:g} {it.unit}" for it in mine if it.figure is not None},
                {**run.versions, **run.of_nodes.get(node, {})},
            )
    return found


def waiting(place: Path) -> list[str]:
    """For `slurmstack status`: nodes that failed when they were validated last, and what failed of
    no single one in the last run."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for node, it in standings(place).items():
        if it.failed:
            groups[", ".join(sorted(it.failed)), it.time].append(node)
    for run in last(place)[-1:]:
        tests = sorted({word.test for word in run.failed if not word.node})
        if tests:
            groups[", ".join(tests), run.time] += run.nodes
    return [
        f"{fold(nodes)}: {tests} failed at slurmstack validate, {time}"
        for (tests, time), nodes in groups.items()
    ]
