"""What a person sees at the end of `pulumi up`: what was done where, what was not, what is next.

Pulumi prints it among its diagnostics. The stack's outputs cannot say it: they show the values of
the last run beside those of this one.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pulumi
from pulumi.resource import DependencyResource

from components import history
from components.asked_again import ask_again
from components.assembly import Deployed
from components.boot import node_boot
from components.compute import compute_node
from components.controller import slurm_controller
from components.gpu import nvidia
from components.inventory import was_applied
from components.last_outputs import LastOutputs
from on_node import node_drain
from remote.answer import Answer
from remote.commands import FIND_APPLIER, MISSING_APPLIER, RUN_OF, runs
from remote.contact import ContactError, run_on_hosts
from remote.host import Host
from settings import Settings
from settings.hostlist import fold

#: Seconds for what is asked of the nodes at the end.
_SECONDS = 15.0
#: Lines of what was done and of sinfo, so that the report stays on one screen with the outputs.
_LINES = 7
#: Lines of what failed; columns of a terminal, and those that Pulumi indents the first line by.
_ERRORS, _COLUMNS, _INDENTED = 3, 100, 4
_CUT_OFF = "was cut off, or its answer was; run again"
_DAEMON = re.compile(r"(started|restarted|reloaded|stopped) (\S+)\.(service|socket|timer|mount)")
#: sinfo's own lines, then a line for each node that a drain of ours has, with its reason.
#: Reason of a drain that a node's own roles make → those that give it back, in their order.
_OF_NODES: dict[str, tuple[str, ...]] = {
    compute_node.OURS: (compute_node.ROLE,),
    nvidia.OURS: (nvidia.ROLE,),
    # Who was drained for a boot may not have had it.
    node_boot.OURS: (node_boot.ROLE, node_boot.BOOTED_ROLE),
}
_OURS = (*_OF_NODES, node_drain.OURS)
_REASONS = " ".join(f"-e ': {reason}'" for reason in _OURS)
_SINFO = (
    "timeout 10 sinfo 2>&1; timeout 10 sinfo --noheader --Node --format='%N: %E' 2>/dev/null | "
    f"sort -u | grep -F {_REASONS}; true"
)
_FILE = re.compile(r"(wrote|removed|restored) /")


def done(answers: Iterable[Answer]) -> list[str]:
    """A line for each set of nodes to which the same was done."""
    nodes: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        nodes[answer.node].append(answer)
    alike: dict[str, list[str]] = defaultdict(list)
    for node, of_node in nodes.items():
        alike[_deeds(of_node)].append(node)
    return [f"{fold(names)}: {deeds}" for deeds, names in alike.items()]


def _deeds(answers: Sequence[Answer]) -> str:
    """What was done to one node: its daemons by name, everything else by number."""
    daemons: dict[str, list[str]] = defaultdict(list)
    files = packages = 0
    for action in (action for answer in answers for action in answer.actions):
        if match := _DAEMON.fullmatch(action):
            daemons[match[1]].append(match[2])
        elif _FILE.match(action):
            files += 1
        elif action.startswith("installed "):
            packages += len(action.split()) - 1
    words = [f"{verb} {', '.join(dict.fromkeys(names))}" for verb, names in daemons.items()]
    words += [
        f"{number} {what}{'s' if number > 1 else ''}"
        for number, what in ((files, "file"), (packages, "package"))
        if number
    ]
    return "; ".join(words) or f"applied {', '.join(answer.role for answer in answers)}"


def not_applied(deployed: Sequence[Deployed], answers: Sequence[Answer | None]) -> list[Deployed]:
    """Those without an answer."""
    return [bundle for bundle, answer in zip(deployed, answers, strict=True) if answer is None]


def stands(
    deployed: Sequence[Deployed],
    answers: Sequence[Answer | None],
    nodes: Collection[str],
    stopped: Collection[tuple[str, str]],
) -> dict[str, list[str]]:
    """What became of nodes: ``done``, ``failed``, ``not begun`` → nodes.

    Args:
        deployed: the bundles.
        answers: what each of them answered.
        nodes: those in question.
        stopped: node and role of what a rollout passed over.
    """
    failed = not_applied(deployed, answers)
    resources = [bundle.resource for bundle in failed]
    became = dict.fromkeys(nodes, "done")
    for bundle in reversed(failed):
        # The first of a node says what became of it: the others stand on it, or on what stopped it.
        passed_over = (bundle.node, bundle.role) in stopped or any(
            one is other for one in bundle.after for other in resources
        )
        became[bundle.node] = "not begun" if passed_over else "failed"
    found: dict[str, list[str]] = {"done": [], "failed": [], "not begun": []}
    for node in nodes:
        found[became[node]].append(node)
    return found


def report(
    deployed: Sequence[Deployed],
    answers: pulumi.Output[list[Answer | None]],
    before: pulumi.Output[LastOutputs],
    hosts: Mapping[str, Host],
    settings: Settings,
    stopped: Collection[tuple[str, str]],
    place: Path,
) -> None:
    """Print the report when all that can be applied has been, and note it in the history.

    Args:
        deployed: the bundles.
        answers: what each of them answered.
        before: the stack's outputs before this run.
        hosts: how nodes are reached.
        settings: the stack's.
        stopped: what a rollout passed over.
        place: the stack's folder beside the program.
    """

    began = time.monotonic()
    controller = settings.roles.controller

    async def tell(told: list[Any]) -> Any:
        inventory = told[1].inventory
        applied = [
            answer for answer in told[0] if answer is not None and was_applied(answer, inventory)
        ]
        failed = not_applied(deployed, told[0])
        standing = stands(deployed, told[0], settings.compute, stopped) if stopped else {}
        seconds = time.monotonic() - began
        _note(place, applied, failed)
        await _tell(applied, failed, standing, hosts, hosts[controller], seconds)
        if any(bundle.role == slurm_controller.ROLE for bundle in failed):
            # With --continue-on-error the engine would go on to what is no longer in the settings,
            # and take slurmd from a node that slurmctld still has, and its jobs with it.
            raise pulumi.RunError(
                f"{controller}: slurmctld is not as the settings say; nothing is taken from any "
                "node before it is"
            )

    if not pulumi.runtime.is_dry_run():
        whole: pulumi.Output[Any] = pulumi.Output.all(answers, before)
        whole.apply(tell)


def _note(place: Path, applied: Sequence[Answer], failed: Sequence[Deployed]) -> None:
    """A run that cannot be noted is no failed run."""
    nodes = fold({bundle.node for bundle in failed})
    try:
        history.note(place, "pulumi up", f"failed on {nodes}" if failed else "done", done(applied))
    except OSError as error:
        pulumi.log.warn(f"not noted in the history: {error}")


async def _tell(
    answers: Sequence[Answer],
    failed: Sequence[Deployed],
    standing: Mapping[str, Sequence[str]],
    hosts: Mapping[str, Host],
    controller: Host,
    seconds: float,
) -> None:
    stack = pulumi.get_stack()
    passed_over = standing.get("not begun", ())
    tried = [bundle for bundle in failed if bundle.node not in passed_over]
    problems, queue = await asyncio.gather(_problems(tried, hosts, seconds), _sinfo(controller))
    queue, left = left_drained(queue)
    left = {
        node: reason
        for node, reason in left.items()
        if (node if reason in _OF_NODES else controller.name)
        not in {bundle.node for bundle in tried}
    }
    for node, reason in left.items():
        # Who has drained it gives it back.
        for role in _OF_NODES.get(reason, ()):
            ask_again(f"{node}-{role}")
        if reason not in _OF_NODES:
            ask_again(f"{controller.name}-{slurm_controller.ROLE}")
    lines = done(answers)
    if failed:
        lines = [
            *alike(problems, {host.name: host.address for host in hosts.values()}),
            _cut(f"done: {' | '.join(lines) or 'nothing'}", 1),
            _cut(f"sinfo: {'; '.join(_brief(queue))}", 1),
        ]
        if passed_over:
            words = [f"{what} {fold(names)}" for what, names in standing.items() if names]
            lines.insert(-2, _cut(f"rollout stopped: {' | '.join(words)}", 1))
        follows = f"do what the errors say, then pulumi up --stack {stack}"
    else:
        lines = lines or ["nothing was to be done: all is as it was"]
        lines += queue if len(lines) + len(queue) <= _LINES else _brief(queue)
        follows = f"slurmstack inventory --stack {stack} (what each node holds)"
    if left:
        # Of a run that was killed, and whose change was taken back since.
        lines.append(f"left drained: {fold(left)}; the next pulumi up gives back what is fit")
    text = "\n".join([*lines, f"next: {follows}"])
    if not failed:
        pulumi.log.info(text)
        return
    # Of what has a place, the SDK sends a message some turns of the loop later, and does not wait
    # for it when the program ends.
    others = asyncio.all_tasks()
    pulumi.log.info(text, _last_place())
    await asyncio.gather(*(asyncio.all_tasks() - others))


def _last_place() -> pulumi.Resource:
    """A name under which Pulumi lists what is told. Pulumi's blocks follow one another as their
    resources were first heard of: of this one, now, after all that have failed."""
    place = DependencyResource("")
    place._name, place._type = "report", "slurmstack:components:Report"
    place.__dict__["urn"] = pulumi.create_urn(place._name, place._type)
    return place


def alike(problems: Sequence[tuple[str, str]], addresses: Mapping[str, str]) -> list[str]:
    """Lines for what failed on which nodes, no more than a screen has beside all else.

    Args:
        problems: node, and what was found there with the remedy.
        addresses: node → address. Texts that differ in these alone are one.
    """
    where: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for node, text in problems:
        same = re.sub(rf"(?<![\w.-]){re.escape(node)}(?![\w.-])", "NODE", text)
        where[same.replace(addresses.get(node, "\0"), "ADDRESS")].append((node, text))
    groups = sorted(where.items(), key=lambda group: -len(group[1]))
    shown = groups if len(groups) <= _ERRORS else groups[: _ERRORS - 1]
    lines = []
    for same, some in shown:
        text = some[0][1] if len(some) == 1 else same
        lines.append(_cut(f"{fold([node for node, _ in some])}: {text}", _ERRORS // len(shown)))
    left = list(dict.fromkeys(node for _, some in groups[len(shown) :] for node, _ in some))
    if left:
        lines.append(_cut(f"{len(groups) - len(shown)} further errors, on {fold(left)}: above", 1))
    return lines


def _cut(text: str, rows: int) -> str:
    """A text that takes no more rows of a terminal than that."""
    room = rows * _COLUMNS - _INDENTED
    return text if len(text) <= room else f"{text[: room - 1]}…"


def left_drained(lines: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """sinfo's own lines, and the nodes that a run has drained and not given back, with the reason
    of that run."""
    own, left = [], {}
    for line in lines:
        for reason in _OURS:
            node, ours, _ = line.partition(f": {reason}")
            if ours:
                left[node] = reason
                break
        else:
            own.append(line)
    return own, left


def _brief(queue: Sequence[str]) -> list[str]:
    """sinfo's lines without its header, and of those without time limits and availability."""
    words = [line.split() for line in queue[1:]]
    if not words or any(len(line) != 6 for line in words):
        return list(queue)
    return [f"{part} {count} {state} {nodes}" for part, _up, _limit, count, state, nodes in words]


async def _problems(
    failed: Sequence[Deployed], hosts: Mapping[str, Host], seconds: float
) -> list[tuple[str, str]]:
    """Node, and what was found there with the remedy: what its applier has said within the last
    seconds, or why there was none to say anything.

    Pulumi keeps the inputs of before with a failed update. Where the node has gone part of the
    way, a setting that goes back would be no change, and nothing would put the node right: what
    was begun is asked again by the next run, whatever it says then.
    """
    roles: dict[str, list[str]] = defaultdict(list)
    for bundle in failed:
        roles[bundle.node].append(bundle.role)
    script = f"{FIND_APPLIER} || exit 1\n{runs(seconds)}"
    replies = await run_on_hosts([hosts[node] for node in roles], script, seconds=_SECONDS)
    problems = []
    for name, reply in replies.items():
        if isinstance(reply, ContactError):
            problems.append((name, f"{reply.step}: {reply.found}; {reply.remedy}"))
            begun = roles[name]  # the connection may have broken on the way
        elif reply.status != 0:
            problems.append((name, MISSING_APPLIER.replace(" NODE ", f" {name} ")))
            begun = []
        else:
            said = dict(
                line.removeprefix(RUN_OF).split(":", 1) for line in reply.stdout.splitlines()
            )
            words = {role: said[role] for role in roles[name] if role in said}
            begun = [role for role, text in words.items() if ": guard " not in text]
            problems += [
                (name, text.removeprefix(f"slurmstack: {name}: ") or f"{role}: {_CUT_OFF}")
                for role, text in words.items()
            ]
        for role in begun:
            ask_again(f"{name}-{role}")
    return problems


async def _sinfo(controller: Host) -> list[str]:
    reply = (await run_on_hosts([controller], _SINFO, seconds=_SECONDS))[controller.name]
    if isinstance(reply, ContactError):
        return [str(reply)]
    return reply.stdout.strip().splitlines() or ["it printed nothing"]
