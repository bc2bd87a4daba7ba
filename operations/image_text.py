"""What `slurmstack image …` prints."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from operations.images import OnNode
from settings.hostlist import fold

_SHORT = 12


def built(known: Mapping[str, Any]) -> list[str]:
    """A candidate, and what comes next."""
    words = f"{_size(known['size'])}, {known['packages']} packages, {known['seconds']} s"
    return [
        f"{known['name']} {known['version']}: built from {known['base']}: {words}",
        f"sha256 {known['sha256']}",
        f"next: slurmstack image test {known['name']}",
    ]


def tested(known: Mapping[str, Any]) -> list[str]:
    """A line a test."""
    lines = [
        f"{'passed' if it['passed'] else 'FAILED'}  {it['run']}"
        + (f"  ({it['words']})" if it["words"] else "")
        for it in known["tests"]
    ]
    title = f"{known['name']} {known['version']}"
    if not lines:
        lines = [f"{title}: the settings have no tests of it; it can be unpacked"]
    if all(it["passed"] for it in known["tests"]):
        lines.append(f"next: slurmstack image publish {known['name']}")
    return lines


def published(entry: Mapping[str, Any], root: str) -> list[str]:
    """What users write from now on."""
    path = f"{root}/{entry['name']}.sqsh"
    return [
        f"{entry['name']} {entry['version']}: is what {path} stands for",
        f"users: srun --container-image={path} …, or apptainer exec {path} …",
    ]


def listing(told: Mapping[str, Any]) -> list[str]:
    """The registry on one screen; what is wrong comes last."""
    rows = [
        (
            it["name"],
            it["version"] + (" *" if it["current"] else ""),
            _size(it["size"]),
            it["sha256"][:_SHORT],
            it["published"][:10],
            fold(it["nodes"]) if it["nodes"] else "-",
        )
        for it in told["published"]
    ]
    lines = _table([("IMAGE", "VERSION", "SIZE", "SHA256", "PUBLISHED", "COPIES ON"), *rows])
    if not rows:
        lines = [f"{told['root']}: nothing is published"]
    for it in told["candidates"]:
        state = "tested" if it.get("tested") == it["sha256"] else "not tested"
        lines.append(f"built, not published: {it['name']} {it['version']}, {state}")
    bound = f" of {_size(told['limit'])}" if told["limit"] else ""
    lines.append(
        f"{told['root']}: {_size(told['taken'])}{bound} taken; * is what the name stands for"
    )
    if told["silent"]:
        lines.append(f"cannot be asked: {fold(told['silent'])}")
    lines += [
        f"{it['name']} {it['version']}: {it['wrong']}; nobody is to run it: put it back from a "
        f"copy, or slurmstack image rm {it['name']} {it['version']}"
        for it in told["published"]
        if it["wrong"]
    ]
    lines += [
        f"{told['root']}/{name}: is not published by slurmstack; move it away"
        for name in told["strangers"]
    ]
    return lines


def on_nodes(told: Sequence[OnNode]) -> list[str]:
    """A line for nodes alike."""
    alike: dict[str, list[str]] = defaultdict(list)
    for it in told:
        alike[it.words if it.there else f"failed: {it.words}"].append(it.node)
    return [f"{fold(nodes)}: {what}" for what, nodes in alike.items()]


def collected(done: Mapping[str, Any], dry: bool) -> list[str]:
    """What went, and what stays although it might go."""
    verb = "would be taken away" if dry else "taken away"
    lines = [f"{it['name']} {it['version']}: {verb}, {_size(it['size'])}" for it in done["gone"]]
    lines += [f"{it['title']}: stays, {it['why']}" for it in done["kept"]]
    return lines or ["nothing is to be taken away"]


def _size(size: int) -> str:
    mebibytes = size / (1 << 20)
    return f"{mebibytes / 1024:.1f} GiB" if mebibytes >= 1024 else f"{mebibytes:.1f} MiB"


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return [
        "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
