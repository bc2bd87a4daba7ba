"""What Prometheus has seen of late, as drawings that a page holds without a network."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.monitoring.places import certificate
from components.monitoring.prometheus import PASSWORD
from operations.cluster import Cluster
from operations.refused import Refused
from remote.contact import ContactError
from remote.host import at
from templates.rendering import render

#: Points of a line, at most.
_POINTS = 144
#: Seconds for all answers.
_PATIENCE = 60.0
#: Of a drawing, in units of its own.
WIDTH, HEIGHT = 600, 150
#: More lines than this cannot be told apart by colour.
_LINES = 8
_OTHERS = "others"


@dataclass(frozen=True)
class Ask:
    """What is drawn: one expression, and by which label its lines are told apart."""

    word: str
    title: str
    expression: str
    label: str
    unit: str = ""
    #: Parts of a whole lie upon each other.
    stacked: bool = True


#: What has no series is not drawn. Names are those of docs/monitoring.md; ``{C}`` is the cluster's.
ASKS = (
    Ask(
        "jobs",
        "Jobs over time",
        'sum by (state) (slurm_jobs{C,state=~"RUNNING|PENDING|COMPLETING"})',
        "state",
    ),
    Ask("reasons", "Why jobs wait", "sum by (reason) (slurm_jobs_pending{C})", "reason"),
    Ask("nodes", "Nodes by state", "max by (state) (slurm_nodes{C})", "state", stacked=False),
    Ask("gpus", "GPUs", "sum by (state) (slurm_gpus{C})", "state"),
    Ask("cpus", "CPUs", "max by (state) (slurm_cpus{C})", "state"),
    Ask(
        "work",
        "GPUs at work",
        "avg by (instance) (DCGM_FI_DEV_GPU_UTIL{C})",
        "instance",
        "%",
        False,
    ),
    Ask(
        "fabric",
        "InfiniBand, all that hosts received",
        "sum by (device) (rate(node_infiniband_port_data_received_bytes_total{C}[5m]))",
        "device",
        "B/s",
    ),
    Ask("alerts", "Alerts", 'count by (alertname) (ALERTS{C,alertstate="firing"})', "alertname"),
)


@dataclass(frozen=True)
class Line:
    """One line, or one layer, of a drawing."""

    name: str
    #: Points of SVG polygons or polylines: one each time that nothing was missing.
    runs: tuple[str, ...]
    last: float | None


@dataclass(frozen=True)
class Drawing:
    """One drawing: time to the right, from nothing upwards."""

    title: str
    unit: str
    stacked: bool
    lines: tuple[Line, ...]
    #: What its upper edge stands for.
    top: float


def drawings(cluster: Cluster, seconds: int) -> list[Drawing]:
    """What Prometheus of this cluster has seen; nothing where it has none of its own.

    Args:
        cluster: whose.
        seconds: how far back.

    Raises:
        Refused: it does not answer.
        ContactError: its host cannot be asked.
    """
    settings = cluster.settings
    monitoring = settings.monitoring
    if monitoring is None or monitoring.mode != "full":
        return []
    host = settings.monitor
    step = max(seconds // _POINTS, int(monitoring.interval))
    matcher = f'cluster="{settings.cluster.name}"'
    script = render(
        "report/figures.sh",
        password=PASSWORD,
        user=monitoring.user,
        ca=certificate(host, settings).ca,
        url=f"https://{at(settings.hosts[host].address, monitoring.port)}",
        seconds=seconds // step * step,
        step=step,
        expressions={
            ask.word: shlex.quote(ask.expression.replace("{C", "{" + matcher)) for ask in ASKS
        },
    )
    reply = cluster.run([host], script, _PATIENCE)[host]
    if isinstance(reply, ContactError):
        raise reply
    if reply.status != 0:
        said = (reply.stderr or reply.stdout).strip().splitlines() or [f"exit {reply.status}"]
        raise Refused(f"{host}: Prometheus: {said[-1]}")
    return list(read(reply.stdout, seconds // step * step, step))


def read(text: str, seconds: int, step: int) -> Iterator[Drawing]:
    """From lines of a word and Prometheus's answer to a range query (HTTP API of 2.53), of so many
    seconds and so many between two points."""
    answers = dict(line.split(" ", 1) for line in text.splitlines() if " " in line)
    for ask in ASKS:
        try:
            found = json.loads(answers.get(ask.word, "{}")).get("data", {}).get("result", [])
        except ValueError:
            raise Refused(f"Prometheus: no JSON for {ask.word}") from None
        if found:
            yield _drawn(ask, found, seconds, step)


def _drawn(ask: Ask, found: Sequence[Mapping[str, Any]], seconds: int, step: int) -> Drawing:
    """The lines of an answer, the largest first; what are too many are one."""
    series: dict[str, dict[int, float]] = {}
    for one in found:
        name = str(one["metric"].get(ask.label) or "")
        series[name] = {int(when): float(value) for when, value in one["values"]}
    names = sorted(series, key=lambda name: -sum(series[name].values()))
    if len(names) > _LINES:
        few = [series.pop(name) for name in names[_LINES - 1 :]]
        together = sum if ask.stacked else max
        series[_OTHERS] = {
            when: together(values.get(when, 0.0) for values in few)
            for when in {when for values in few for when in values}
        }
        names = [*names[: _LINES - 1], _OTHERS]
    times = sorted({when for values in series.values() for when in values})
    heights = {
        when: (sum if ask.stacked else max)(values.get(when, 0) for values in series.values())
        for when in times
    }
    top = max(heights.values()) or 1.0
    begin, end = times[-1] - seconds, times[-1]

    def point(when: int, value: float) -> str:
        x = WIDTH * (when - begin) / (end - begin)
        return f"{x:.1f},{HEIGHT - HEIGHT * value / top:.1f}"

    lines = []
    below = dict.fromkeys(times, 0.0)
    for name in names:
        values, runs = series[name], []
        # Where nothing at all is known, there is no line; in a stack what is not told is nothing.
        for run in _runs(times if ask.stacked else sorted(values), step):
            # Each point stands for the time before it: one alone is seen, too.
            across = [(max(run[0] - step, begin), run[0]), *((when, when) for when in run)]
            lower = [point(x, below[when]) for x, when in across] if ask.stacked else []
            upper = [point(x, below[when] + values.get(when, 0)) for x, when in across]
            runs.append(" ".join([*upper, *reversed(lower)]))
        if ask.stacked:
            below = {when: below[when] + values.get(when, 0) for when in times}
        lines.append(Line(name, tuple(runs), values.get(end)))
    return Drawing(ask.title, ask.unit, ask.stacked, tuple(lines), top)


def _runs(times: Sequence[int], step: int) -> Iterator[list[int]]:
    """Times that follow each other without one missing."""
    run: list[int] = []
    for when in times:
        if run and when - run[-1] > step:
            yield run
            run = []
        run.append(when)
    if run:
        yield run
