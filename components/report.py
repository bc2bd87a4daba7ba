"""What a person sees at the end of `pulumi up`: what was done where, what was not, what is next.

Pulumi prints it among its diagnostics. The stack's outputs cannot say it: they show the values of
the last run beside those of this one.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import pulumi

from components.assembly import Deployed
from components.compute.compute_node import OURS
from components.controller import slurm_controller
from components.inventory import was_applied
from remote.answer import Answer
from remote.commands import FIND_APPLIER, MISSING_APPLIER
from remote.contact import ContactError, run_on_hosts
from remote.host import Host
from settings import Settings
from settings.hostlist import fold

#: Seconds for what is asked of the nodes at the end.
_SECONDS = 15.0
#: Lines of what was done and of sinfo, so that the report stays on one screen with the outputs.
_LINES = 7
_DAEMON = re.compile(r"(started|restarted|reloaded|stopped) (\S+)\.(service|socket|timer|mount)")
#: sinfo's own lines, then a line for each node that our own drain has, with its reason.
_SINFO = (
    "timeout 10 sinfo 2>&1; timeout 10 sinfo --noheader --Node --format='%N: %E' 2>/dev/null | "
    f"sort -u | grep -F ': {OURS}'; true"
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


def outputs_before() -> pulumi.Output[dict[str, Any]]:
    """The stack's outputs as the last run left them."""
    root = pulumi.runtime.get_root_resource()
    assert root is not None
    stored: pulumi.Output[Any] = pulumi.runtime.invoke_output(
        "pulumi:pulumi:getResource", {"urn": root.urn}
    )
    # What was a secret in it (see __main__.py) must not make one of what is told from it.
    return pulumi.Output.unsecret(stored).apply(lambda resource: dict(resource["state"]))


def report(
    deployed: Sequence[Deployed],
    answers: pulumi.Output[list[Answer | None]],
    before: pulumi.Output[dict[str, Any]],
    hosts: Mapping[str, Host],
    settings: Settings,
    stopped: Collection[tuple[str, str]],
) -> None:
    """Print the report when all that can be applied has been.

    Args:
        deployed: the bundles.
        answers: what each of them answered.
        before: the stack's outputs before this run.
        hosts: how nodes are reached.
        settings: the stack's.
        stopped: what a rollout passed over.
    """

    controller = settings.roles.controller

    async def tell(told: list[Any]) -> Any:
        inventory = told[1].get("inventory", {})
        applied = [
            answer for answer in told[0] if answer is not None and was_applied(answer, inventory)
        ]
        failed = not_applied(deployed, told[0])
        standing = stands(deployed, told[0], settings.compute, stopped) if stopped else {}
        await _tell(applied, failed, standing, hosts, hosts[controller])
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


async def _tell(
    answers: Sequence[Answer],
    failed: Sequence[Deployed],
    standing: Mapping[str, Sequence[str]],
    hosts: Mapping[str, Host],
    controller: Host,
) -> None:
    stack = pulumi.get_stack()
    passed_over = standing.get("not begun", ())
    nodes = [
        node for node in dict.fromkeys(bundle.node for bundle in failed) if node not in passed_over
    ]
    problems, queue = await asyncio.gather(
        _problems([hosts[node] for node in nodes]), _sinfo(controller)
    )
    queue, left = left_drained(queue)
    left = [node for node in left if node not in nodes]
    # Beside what Pulumi reports of the first that failed: a block of their own takes more lines.
    place = failed[0].resource if failed else None
    for problem in problems:
        pulumi.log.error(problem, place)
    if left:
        pulumi.log.warn(
            f"{fold(left)}: drained by a run that did not come to its end; give back what is fit: "
            f"slurmstack reapply {fold(left)} --stack {stack}",
            place,
        )
    lines = done(answers)
    if failed:
        # A line for each: there are the errors and the outputs on the same screen.
        lines = [f"done: {' | '.join(lines) or 'nothing'}", f"sinfo: {'; '.join(_brief(queue))}"]
        if passed_over:
            words = [f"{what} {fold(names)}" for what, names in standing.items() if names]
            lines.insert(0, f"rollout stopped: {' | '.join(words)}")
        follows = f"do what the errors say, then pulumi up --stack {stack}"
    else:
        lines = lines or ["nothing was to be done: all is as it was"]
        lines += queue if len(lines) + len(queue) <= _LINES else _brief(queue)
        follows = f"slurmstack inventory --stack {stack} (what each node holds)"
    pulumi.log.info("\n".join([*lines, f"next: {follows}"]), place)


def left_drained(lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """sinfo's own lines, and the nodes that a run has drained and not given back."""
    found = [line.partition(f": {OURS}") for line in lines]
    own = [line for line, ours, _ in found if not ours]
    return own, [node for node, ours, _ in found if ours]


def _brief(queue: Sequence[str]) -> list[str]:
    """sinfo's lines without its header, and of those without time limits and availability."""
    words = [line.split() for line in queue[1:]]
    if not words or any(len(line) != 6 for line in words):
        return list(queue)
    return [f"{part} {count} {state} {nodes}" for part, _up, _limit, count, state, nodes in words]


async def _problems(hosts: Sequence[Host]) -> list[str]:
    """Of those that cannot be reached, or have no applier: what was found, and the remedy."""
    replies = await run_on_hosts(hosts, FIND_APPLIER, seconds=_SECONDS)
    return [
        str(reply)
        if isinstance(reply, ContactError)
        else f"{name}: {MISSING_APPLIER}".replace(" NODE ", f" {name} ")
        for name, reply in replies.items()
        if isinstance(reply, ContactError) or reply.status != 0
    ]


async def _sinfo(controller: Host) -> list[str]:
    reply = (await run_on_hosts([controller], _SINFO, seconds=_SECONDS))[controller.name]
    if isinstance(reply, ContactError):
        return [str(reply)]
    return reply.stdout.strip().splitlines() or ["it printed nothing"]
