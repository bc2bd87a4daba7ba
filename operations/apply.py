"""`slurmstack apply`: `pulumi up` of what was planned, and nothing else; its progress in nodes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from pulumi import automation
from pulumi.automation import EngineEvent

from operations import plan as plans
from operations.plan import NoPlan, Planned
from operations.refused import Refused
from operations.stack import reason
from settings.hostlist import fold

#: Seconds between two lines about the same role.
_PAUSE = 2.0


class NotApplied(Refused):
    """The run ended early; what stands where was said before."""


class _Workspace(automation.LocalWorkspace):
    """One in which the operator's selected stack stays selected: each call names its stack."""

    def select_stack(self, stack_name: str) -> None:
        self._run_pulumi_cmd_sync(["stack", "output", "--json", "--stack", stack_name])


def planned(
    name: str | None, project: Path, file: Path | None, only: str | None, offline: bool = False
) -> Planned:
    """What `apply` is to do: the plan made anew and, of a saved one, found to be the same.

    Args:
        name: the stack; None for that of the saved plan, else the selected one.
        project: the project's folder, or one below it.
        file: a saved plan; None to apply what would be planned now.
        only: a host list to which it is confined.
        offline: do not ask the controller for jobs.

    Raises:
        NoPlan: settings, state or steps have moved since, or a guard would refuse it now.
    """
    if file is None:
        made = plans.make(name, project, only, offline)
    else:
        saved = plans.load(file)
        if only is not None and only != saved["only"]:
            raise NoPlan(f"{file} is a plan for {saved['only'] or 'all nodes'}, not for {only}")
        if name is not None and name != saved["stack"]:
            raise NoPlan(f"{file} is a plan of stack {saved['stack']}, not of {name}")
        made = plans.make(saved["stack"], project, saved["only"], offline)
        plans.refuse_if_moved(saved, made, file)
    if made.plan.refused:
        raise NoPlan("; ".join(made.plan.refused))
    return made


def up(what: Planned, say: Callable[[str], None]) -> None:
    """Do what was planned; of a plan that is confined to some nodes, nothing for others.

    Args:
        what: the plan.
        say: is given each line about the progress, and all that the program and the engine say.

    Raises:
        NotApplied: it failed, or the stack is locked.
    """
    workspace = _Workspace(work_dir=str(what.project))
    targets = [urn for urns in what.plan.targets.values() for urn in urns]
    watch = Progress(what.plan.targets, say)
    try:
        run = automation.Stack.select(what.stack, workspace)
        run.up(target=targets if what.confined else None, on_event=watch, show_secrets=False)
    except automation.ConcurrentUpdateError as error:
        raise NotApplied(f"stack {what.stack} is locked: {_lock(str(error))}") from None
    except automation.CommandError as error:
        told = "" if watch.failed else f": {reason(str(error))}"
        raise NotApplied(f"stack {what.stack}: not all of it was done{told}") from None


def _lock(text: str) -> str:
    """Who holds it, from what the engine printed."""
    lines = [line.strip() for line in text.splitlines()]
    held = [line for line in lines if line.startswith("file://") or "created by" in line]
    return held[0] if held else reason(text)


class Progress:
    """Events of a run as lines: how many nodes have a role done, what failed, what was said."""

    def __init__(self, targets: Mapping[str, Collection[str]], say: Callable[[str], None]) -> None:
        self._say = say
        self._wanted: dict[str, set[str]] = defaultdict(set)
        self._of: dict[str, tuple[str, str]] = {}
        for node, urns in targets.items():
            for urn in urns:
                role = urn.rpartition("::")[2].removeprefix(f"{node}-")
                self._of[urn] = node, role
                self._wanted[role].add(node)
        self._done: dict[str, set[str]] = defaultdict(set)
        self._told: dict[str, float] = {}
        #: Whether something was said of a failure.
        self.failed = False

    def __call__(self, event: EngineEvent) -> None:
        if event.res_outputs_event is not None:
            self._finished(event.res_outputs_event.metadata.urn)
        elif event.res_op_failed_event is not None:
            node, role = self._of.get(event.res_op_failed_event.metadata.urn, ("", ""))
            if role:
                self.failed = True
                self._say(f"{role}: {node} failed")
        elif event.policy_event is not None:
            broken = event.policy_event
            self.failed = self.failed or broken.enforcement_level != "advisory"
            self._say(f"{broken.policy_name}: {' '.join(broken.message.split())}")
        elif event.diagnostic_event is not None:
            self._diagnosed(event.diagnostic_event)

    def _finished(self, urn: str) -> None:
        node, role = self._of.get(urn, ("", ""))
        if not role or node in self._done[role]:
            return
        self._done[role].add(node)
        done, wanted = self._done[role], self._wanted[role]
        if len(done) == len(wanted) or time.monotonic() - self._told.get(role, 0.0) > _PAUSE:
            self._told[role] = time.monotonic()
            self._say(f"{role}: {_count(done, wanted)}")

    def _diagnosed(self, diagnostic: Any) -> None:
        if diagnostic.ephemeral or diagnostic.severity == "debug":
            return
        text = str(diagnostic.message).strip()
        if text:
            self.failed = self.failed or diagnostic.severity == "error"
            prefix = f"{diagnostic.severity}: " if diagnostic.severity != "info" else ""
            self._say(f"{'' if prefix == 'info#err: ' else prefix}{text}")


def _count(done: Collection[str], wanted: Collection[str]) -> str:
    return f"{len(done)} of {len(wanted)} nodes done ({fold(done)})"
