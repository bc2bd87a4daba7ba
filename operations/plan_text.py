"""A plan in words: for a terminal, and for the comment on a merge request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from operations.planned import Change, Daemon, Plan
from settings.hostlist import fold

#: Jobs that are named; the rest are counted.
_JOBS = 20
_REASONS = 4


def text(plan: Plan) -> RenderableType:
    """For a terminal or a pipe: what changes, what that does to daemons, whose jobs are there."""
    parts: list[RenderableType] = [Text(headline(plan))]
    if plan.changes:
        parts += ["", _table((fold(it.nodes), _said(it)) for it in plan.changes)]
    if plan.daemons or plan.reconfigured or plan.drained:
        parts += ["", "daemons:", _table(_daemons(plan))]
    for refusal in plan.refused:
        parts += ["", Text(f"would be refused: {refusal}")]
    if plan.unasked is not None:
        parts += ["", Text(f"jobs not asked for: {plan.unasked}")]
    elif plan.jobs is not None and plan.any:
        parts += ["", _jobs(plan)]
        if plan.jobs:
            parts.append(_table((job["nodes"], _job(job)) for job in plan.jobs[:_JOBS]))
    return Group(*parts)


def markdown(plan: Plan) -> str:
    """The same for a comment on a merge request."""
    lines = [f"### {headline(plan)}"]
    if plan.changes:
        lines += ["", "| nodes | change | what it needs |", "|---|---|---|"]
        lines += [f"| {_cell(fold(it.nodes))} | {_cell(it.difference)} | {_cell(it.effect)} |"
                  for it in plan.changes]  # fmt: skip
    if plan.daemons or plan.reconfigured or plan.drained:
        lines += ["", "| nodes | daemons |", "|---|---|"]
        lines += [f"| {_cell(nodes)} | {_cell(words)} |" for nodes, words in _daemons(plan)]
    lines += [f"\n**Would be refused:** {_cell(refusal)}" for refusal in plan.refused]
    if plan.unasked is not None:
        lines += ["", f"Jobs not asked for: {_cell(plan.unasked)}"]
    elif plan.jobs is not None and plan.any:
        lines += ["", _jobs(plan)]
        lines += [f"- {_cell(job['nodes'])}: {_cell(_job(job))}" for job in plan.jobs[:_JOBS]]
    return "\n".join(lines) + "\n"


def headline(plan: Plan) -> str:
    """One line that says whether anything changes, and how much."""
    if not plan.any:
        return f"stack {plan.stack}: no change"
    number = len(plan.changes)
    return (
        f"stack {plan.stack}: {number} change{'' if number == 1 else 's'} on {len(plan.nodes)} "
        f"node{'' if len(plan.nodes) == 1 else 's'} ({fold(plan.nodes)})"
    )


def _said(change: Change) -> str:
    return f"{change.difference}: {change.effect}"


def _daemons(plan: Plan) -> Iterable[tuple[str, str]]:
    for nodes, because in plan.drained.items():
        booted = set(nodes) & set(plan.rebooted)
        for names, word in ((booted, "rebooted by Slurm where needed, "), ({*nodes} - booted, "")):
            if names:
                words = f"drained first, {word}given back afterwards ({_some(because)})"
                yield fold(sorted(names)), words
    for it in plan.daemons:
        yield fold(it.nodes), _because(it)
    if plan.reconfigured:
        yield fold(plan.reconfigured), "take the configuration anew from slurmctld, no restart"


def _because(daemon: Daemon) -> str:
    return daemon.words + (f" ({', '.join(daemon.because)})" if daemon.because else "")


def _some(words: Sequence[str]) -> str:
    """The first of them, and how many more: a driver is a dozen packages."""
    more = len(words) - _REASONS
    return ", ".join(words[:_REASONS]) + (f" and {more} more" if more > 0 else "")


def _jobs(plan: Plan) -> str:
    jobs = plan.jobs or ()
    if not jobs:
        return "no job is on these nodes now"
    more = f", {_JOBS} of them named" if len(jobs) > _JOBS else ""
    return f"jobs on these nodes now: {len(jobs)}{more}"


def _job(job: Mapping[str, str]) -> str:
    return f"{job['id']} {job['user']} {job['state'].lower()} {job['partition']}"


def _table(rows: Iterable[tuple[str, str]]) -> Table:
    """Node sets on the left, folded where they are long."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(overflow="fold", max_width=40)
    table.add_column(overflow="fold")
    for nodes, words in rows:
        # As they are: brackets of node lists and of values are no markup.
        table.add_row(Text(nodes), Text(words))
    return table


def _cell(text: str) -> str:
    """As a table of Markdown takes it: what a value holds must neither end a cell nor format it."""
    escaped = text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
    for sign in "`*_<>[]":
        escaped = escaped.replace(sign, f"\\{sign}")
    return escaped
