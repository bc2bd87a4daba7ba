"""What `slurmstack drift` found, by node set."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from operations.drift import Finding, Report
from settings.hostlist import fold

#: Lines of one file's difference; `--json` has all that the node told.
_LINES = 40
_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


def as_dict(report: Report) -> dict[str, Any]:
    """All of it, for programs. A key that is null is nothing's."""
    return {
        "compared": sorted(report.compared),
        "differs": [
            {
                "node": one.node,
                "kind": one.kind,
                "name": one.name,
                "found": one.found,
                "role": one.role,
                "command": one.command,
                "on": one.where,
                "diff": list(one.diff),
            }
            for one in report.findings
        ],
        "unreachable": report.unreachable,
        "failed": report.failed,
    }


def table(report: Report) -> RenderableType:
    """What differs, a row for each thing that differs alike on some nodes; then what could not be
    seen; in the last line how many of each."""
    shown = Table(box=None, pad_edge=False)
    for column in ("nodes", "", "what", "is", "put right by"):
        shown.add_column(column, overflow="fold")
    for one, nodes in alike(report.findings):
        name = fold(nodes) if one.name == one.node else one.name
        row = (fold(nodes), one.kind, name, one.found, _mend(one, nodes))
        shown.add_row(*map(escape, row))
    lines: list[RenderableType] = [shown, ""] if report.findings else []
    for one, nodes in alike(report.findings):
        if one.diff:
            lines.append(f"[bold]{escape(fold(nodes))}: {escape(one.name)}[/]")
            lines += [_line(line) for line in one.diff[2:_LINES]]
    for why, nodes in _by_reason(report).items():
        lines.append(escape(f"{fold(nodes)}: not asked: {why}"))
    lines += [escape(f"not compared: {line}") for line in report.failed]
    lines.append(_total(report))
    return Group(*lines)


def _line(text: str) -> str:
    colour = _COLOURS.get(text[:1])
    return f"[{colour}]{escape(text)}[/]" if colour else escape(text)


def alike(findings: list[Finding]) -> list[tuple[Finding, list[str]]]:
    """Findings that differ in nothing but their node, and on which they are."""
    groups: dict[tuple[Any, ...], list[Finding]] = defaultdict(list)
    for one in findings:
        own = one.where == one.node
        mend = (one.command or "").replace(one.node, "NODE") if one.where is None else one.command
        name = "NODE" if one.name == one.node else one.name
        groups[
            one.kind, name, one.found, one.role, mend, own or one.where, one.diff[2:]
        ].append(one)  # fmt: skip
    return [(group[0], [one.node for one in group]) for group in groups.values()]


def _mend(one: Finding, nodes: list[str]) -> str:
    if one.command is None:
        return f"--fix ({one.role})"
    if one.where is None:
        return one.command.replace(one.node, fold(nodes))
    return f"on {fold(nodes) if one.where == one.node else one.where}: {one.command}"


def _by_reason(report: Report) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = defaultdict(list)
    for node, why in report.unreachable.items():
        reasons[why].append(node)
    return reasons


def _total(report: Report) -> str:
    number, nodes = len(report.findings), len({one.node for one in report.findings})
    words = [f"{len(report.compared)} hosts compared"]
    words += [f"{number} differences on {nodes}" if number else "nothing differs"]
    words += [f"{len(report.unreachable)} not asked"] if report.unreachable else []
    return ", ".join(words)
