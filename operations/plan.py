"""`slurmstack plan`: what `pulumi up` would do, told in daemons and nodes; saved for `apply`."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from pulumi import automation

from discovery.host_keys import UnknownHostKey, hosts
from operations import jobs_now, preview, stack
from operations.hosts import chosen
from operations.planned import VERSION, Plan
from operations.planning import plan
from operations.refused import Refused
from settings import Settings

#: In a saved plan: what it is.
_FORMAT = "slurmstack-plan"


class NoPlan(Refused):
    """There is no plan, or it cannot be applied as it stands; nothing was changed."""


@dataclass(frozen=True)
class Planned:
    """A plan, and what it is of."""

    plan: Plan
    settings: Settings
    project: Path
    stack: str
    #: Whether it is of some nodes only.
    confined: bool = False


def make(
    name: str | None, project: Path, only: str | None = None, offline: bool = False
) -> Planned:
    """The plan of a stack as its settings are now. Nothing is changed.

    Args:
        name: the stack; None for the selected one.
        project: the project's folder, or one below it.
        only: a host list to which the plan is confined.
        offline: the controller is not asked for jobs; hosts whose hardware the settings leave out
            are asked for it all the same, by the program.

    Raises:
        Refused: the host list names no host of the stack.
        NoPreview, NoSuchStack, SettingsError: there is nothing to be told.
    """
    read, folder, name = stack.settings(name, project)
    names = None if only is None else tuple(chosen(only, read, read.hosts))
    workspace = automation.LocalWorkspace(work_dir=str(folder))
    before = preview.state(workspace, name)
    steps = preview.steps(name, folder, before)
    made = plan(name, steps, before, names)
    digests = {
        "settings": _of_settings(folder, name),
        "state": before.digest,
        "steps": sha256("\n".join(sorted(step.digest for step in steps)).encode()).hexdigest(),
    }
    made = replace(made, digests=digests)
    if not offline and made.any:
        made = _asked(made, read, folder, steps)
    return Planned(made, read, folder, name, confined=names is not None)


def _asked(made: Plan, settings: Settings, project: Path, steps: Collection[preview.Step]) -> Plan:
    controller = settings.roles.controller
    bundles = [
        step.new
        for step in steps
        if step.new is not None and not step.secret and step.new.node == controller
        and step.old is not None
    ]  # fmt: skip
    try:
        reached = hosts(settings, project)[controller]
    except UnknownHostKey as error:
        return replace(made, unasked=str(error))
    return jobs_now.asked(made, reached, bundles)


def _of_settings(project: Path, name: str) -> str:
    """A hash of the stack's files as they lie there, secrets encrypted as they are."""
    files = [project / "Pulumi.yaml", project / f"Pulumi.{name}.yaml"]
    content = b"\0".join(file.read_bytes() for file in files if file.exists())
    return sha256(content).hexdigest()


def save(planned: Planned, file: Path, only: str | None) -> None:
    """Write a plan for `apply`: what it says, and hashes; no secret.

    Raises:
        NoPlan: the file cannot be written.
    """
    document = {"format": _FORMAT, "only": only, **planned.plan.as_dict()}
    new = file.with_name(f".{file.name}.new")
    try:
        new.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        new.replace(file)
    except OSError as error:
        raise NoPlan(f"{file} cannot be written: {error.strerror}") from None


def load(file: Path) -> Mapping[str, Any]:
    """A saved plan.

    Raises:
        NoPlan: it is none, or of another version of slurmstack.
    """
    try:
        document = json.loads(file.read_text())
    except OSError as error:
        raise NoPlan(f"{file} cannot be read: {error.strerror}") from None
    except ValueError:
        document = None
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise NoPlan(f"{file} is no plan; slurmstack plan --save {file} makes one")
    if document.get("version") != VERSION:
        raise NoPlan(
            f"{file} is a plan of version {document.get('version')}, this is version {VERSION}; "
            "plan again"
        )
    return document


def refuse_if_moved(saved: Mapping[str, Any], planned: Planned, file: Path) -> None:
    """Whether what was planned is still what would be done.

    Raises:
        NoPlan: with what has moved since.
    """
    if saved["stack"] != planned.stack:
        raise NoPlan(f"{file} is a plan of stack {saved['stack']}, not of {planned.stack}")
    words = {
        "settings": f"the settings (Pulumi.{planned.stack}.yaml) have changed",
        "state": "the stack has been deployed to",
        "steps": "what would be done is not what was planned (the program, a file it reads, or a "
        "host has changed)",
    }
    for what, moved in words.items():
        if saved["digests"].get(what) != planned.plan.digests[what]:
            raise NoPlan(f"{file}: {moved} since the plan was made; plan again, and look at it")
