"""`slurmstack status` on one screen: 80 columns, at most 30 lines, whatever the cluster's size."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from operations.status import Status, Thing
from settings.hostlist import fold

WIDTH = 80
#: Lines of states of nodes, of excluded ones, of keys, and of what waits; then how many are left.
_NODES, _EXCLUDED, _KEYS, _WAITS = 8, 2, 5, 4
_LABEL = 10
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def lines(status: Status) -> list[str]:
    """The screen."""
    now = datetime.strptime(status.time, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    head = f"cluster {status.cluster} (stack {status.stack})"
    rows = [_cut(f"{head:<{WIDTH - 21}} {status.time}")]
    versions = status.versions
    told = [f"slurmstack {versions['slurmstack']}"]
    told += [f"Slurm {versions['slurm']} on {status.controller}"] if versions.get("slurm") else []
    told += [f"slurmd {versions['slurmd']} nodes"] if versions.get("slurmd") else []
    rows += _row("versions", [", ".join(told)], 2)
    rows += _row("daemons", [_daemons(status)], 2)
    rows += _row("nodes", list(_nodes(status)), _NODES)
    excluded = [f"{name}: {reason}" for name, reason in status.excluded.items()]
    rows += _row("excluded", excluded, _EXCLUDED) if excluded else []
    rows += _row("jobs", [_jobs(status)], 2)
    rows += _row("keys", [_key(thing, now) for thing in status.keys] or ["not known"], _KEYS)
    rows += _row("dumps", [_dumps(status.dumps, now)], 1)
    rows += _row("last", [_last(status, now)], 2)
    rows += _row("drift", [_drift(status, now)], 2)
    rows += _row("validated", [_validated(status, now)], 1) if status.validated else []
    rows += _row("waits", status.waits or ["nothing"], _WAITS)
    return rows


def _row(label: str, texts: list[str], most: int) -> list[str]:
    """Texts beside a label, a line each; the last one may take what is left of the lines."""
    shown = texts[:most] if len(texts) <= most else [*texts[: most - 1]]
    rows: list[str] = []
    for index, text in enumerate(shown):
        room = most - len(rows) - (len(shown) - index - 1)
        rows += _wrapped(text, room if len(texts) <= most else 1)
    if len(texts) > most:
        rows.append(f"and {len(texts) - most + 1} more: slurmstack status --json")
    return [f"{label if at == 0 else '':<{_LABEL}}{row}" for at, row in enumerate(rows)]


def _wrapped(text: str, most: int) -> list[str]:
    parts = textwrap.wrap(text, WIDTH - _LABEL, subsequent_indent="  ") or [""]
    if len(parts) <= most:
        return parts
    return [*parts[: most - 1], _cut(" ".join([parts[most - 1], *parts[most:]]), WIDTH - _LABEL)]


def _cut(text: str, width: int = WIDTH) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _daemons(status: Status) -> str:
    up = [unit for unit, state in status.daemons.items() if state == "active"]
    down = [f"{unit} {state}" for unit, state in status.daemons.items() if state != "active"]
    return "; ".join(filter(None, [", ".join(down).upper(), ", ".join(up)])) or "not known"


def _nodes(status: Status) -> Iterator[str]:
    if not status.nodes:
        yield "not known"
    for group in status.nodes:
        why = f": {group.reason}" if group.reason else ""
        whose = f" ({group.by})" if group.reason and group.by else ""
        yield f"{group.count:>4} {group.state}  {group.nodes}{why}{whose}"


def _jobs(status: Status) -> str:
    if not status.jobs:
        return "none"
    counted = ", ".join(f"{number} {state}" for state, number in status.jobs.items())
    why = ", ".join(f"{number} {reason}" for reason, number in status.waiting.items())
    return f"{counted}; waiting for: {why}" if why else counted


def _key(thing: Thing, now: float) -> str:
    age = f"{_ago(now - thing.since)} old" if thing.since is not None else "of a time not known"
    if thing.until is None:
        return f"{thing.name}: {age}, no end"
    day = datetime.fromtimestamp(thing.until, UTC).strftime("%Y-%m-%d")
    left = thing.until - now
    due = f"ends {day} (in {_ago(left)})" if left > 0 else f"ENDED {day}"
    return ", ".join(filter(None, [f"{thing.name}: {age}", due, thing.note]))


def _dumps(dumps: Iterable[Thing], now: float) -> str:
    ages = sorted(now - dump.since for dump in dumps if dump.since is not None)
    if not ages:
        return "none of the database"
    return f"{len(ages)} of the database, the newest {_ago(ages[0])} old"


def _last(status: Status, now: float) -> str:
    last = status.last
    if not last:
        return "nothing was noted"
    return f"{last['what']} by {last['by']}, {_since(last['time'], now)}: {last['result']}"


def _validated(status: Status, now: float) -> str:
    it = status.validated or {}
    failed = f"{fold(it['failed'])} failed" if it["failed"] else "all well"
    return f"{it['nodes']} nodes, {failed}, last {_since(it['time'], now)}"


def _drift(status: Status, now: float) -> str:
    if status.drift is None:
        return "nobody has looked from here (slurmstack drift)"
    nodes, when = status.drift["nodes"], _since(status.drift["time"], now)
    found = f"{sum(nodes.values())} things on {fold(nodes)}" if nodes else "nothing differs"
    return f"{found}, {when} (by {status.drift['by']})"


def _since(time: str, now: float) -> str:
    at = datetime.strptime(time[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC).timestamp()
    return f"{_ago(now - at)} ago"


def _ago(seconds: float) -> str:
    """``3 d``, ``2 h``, ``5 min``."""
    for length, unit in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
