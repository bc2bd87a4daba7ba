"""The stack as Pulumi's Automation API gives it."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pulumi import automation

from operations.refused import Refused
from operations.stack_file import StackFile
from settings import Settings
from settings.load import from_config

#: The type of the resources that are bundles.
COMMAND = "command:remote:Command"
#: How a bundle begins (remote/README.md).
_BUNDLE = re.compile(r"slurmstack-bundle 1\nnode (\S+)\nrole (\S+)\n")


class NoSuchStack(Refused):
    """There is no project or engine, the stack is not there, or it has not been deployed."""


def outputs(stack: str | None, project: Path) -> dict[str, Any]:
    """The stack's outputs, by name.

    Args:
        stack: its name; None for the selected one.
        project: the project's folder, or one below it.

    Raises:
        NoSuchStack: there is no such project or stack, or it has no outputs yet.
    """
    workspace = _workspace(project)
    name = stack or selected(workspace)
    try:
        recorded = workspace.stack_outputs(name)
    except automation.CommandError as error:
        raise NoSuchStack(f"stack {name} cannot be read: {reason(str(error))}") from error
    if not recorded:
        raise NoSuchStack(f"stack {name} has no outputs yet; run pulumi up --stack {name}")
    return {key: output.value for key, output in recorded.items()}


def settings(stack: str | None, project: Path) -> tuple[Settings, Path, str]:
    """The stack's settings as they are in its file now, the project's folder, the stack's name.

    Raises:
        NoSuchStack: there is no such project or stack, or its secrets cannot be opened.
        SettingsError: with all mistakes at once.
    """
    workspace = _workspace(project)
    name = stack or selected(workspace)
    read = from_config(_config(workspace, name), workspace.project_settings().name, name)
    return read, Path(workspace.work_dir), name


def edited(file: StackFile, stack: str, project: Path) -> Settings:
    """The settings as they would be with an edited file, which is not written yet.

    Raises:
        NoSuchStack: the stack's secrets cannot be opened.
        SettingsError: with all mistakes at once.
    """
    workspace = _workspace(project)
    values = file.over(_config(workspace, stack))
    return from_config(values, workspace.project_settings().name, stack)


def prefix(project: Path) -> str:
    """What the keys of the stack's file begin with: the project's name."""
    name: str = _workspace(project).project_settings().name
    return name


def _config(workspace: automation.LocalWorkspace, stack: str) -> dict[str, str]:
    """Key → value, secrets opened."""
    try:
        config = workspace.get_all_config(stack)
    except automation.CommandError as error:
        raise NoSuchStack(f"stack {stack} cannot be read: {reason(str(error))}") from error
    return {key: item.value for key, item in config.items()}


@dataclass(frozen=True)
class Applied:
    """What the state holds of one role of one node."""

    urn: str
    node: str
    role: str
    #: stdin of its command, decrypted: a bundle, or the applier. It may hold secrets.
    text: str = field(repr=False)
    #: What the node answered.
    answer: str = field(repr=False)


def applied(stack: str | None, project: Path) -> list[Applied]:
    """The bundles of the stack's state, and each node's applier, in the order of their creation.

    Raises:
        NoSuchStack: there is no such project or stack, or its secrets cannot be opened.
    """
    workspace = _workspace(project)
    found = []
    for resource in resources(workspace, stack or selected(workspace)):
        inputs, outputs = resource.get("inputs", {}), resource.get("outputs", {})
        text = opened(inputs.get("stdin", ""))
        if resource["type"] != COMMAND or not text:
            continue
        if match := _BUNDLE.match(text):
            node, role = match.groups()
        else:
            node, role = resource["urn"].rpartition("::")[2].removesuffix("-node"), "node"
        answer = opened(outputs.get("stdout", ""))
        found.append(Applied(resource["urn"], node, role, text, answer))
    return found


def resources(workspace: automation.LocalWorkspace, stack: str) -> list[dict[str, Any]]:
    """The resources of the stack's state, in the order of their creation, with opened secrets.

    Raises:
        NoSuchStack: there is no such stack, or its secrets cannot be opened.
    """
    try:
        exported = workspace.export_stack(stack)
    except automation.CommandError as error:
        raise NoSuchStack(f"stack {stack} cannot be read: {reason(str(error))}") from error
    found: list[dict[str, Any]] = (exported.deployment or {}).get("resources", [])
    return found


def opened(value: Any) -> str:
    """A text among the properties of a resource; that of a secret is JSON in an object."""
    if isinstance(value, dict):
        value = json.loads(value.get("plaintext", '""'))
    return value if isinstance(value, str) else ""


def selected(workspace: automation.LocalWorkspace) -> str:
    """The stack that `pulumi stack select` chose.

    Raises:
        NoSuchStack: none is selected.
    """
    try:
        selected = workspace.stack()
    except automation.CommandError as error:
        raise NoSuchStack(f"no stack can be read: {reason(str(error))}") from error
    if selected is None:
        raise NoSuchStack("no stack is selected; name one with --stack, or pulumi stack select it")
    return selected.name.rpartition("/")[2]


def _workspace(project: Path) -> automation.LocalWorkspace:
    # The engine that belongs to this installation, not whichever else is on PATH.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    start = project.resolve()
    for folder in (start, *start.parents):
        if (folder / "Pulumi.yaml").is_file():
            try:
                return automation.LocalWorkspace(work_dir=str(folder))
            except FileNotFoundError:
                raise NoSuchStack(
                    "there is no pulumi beside this program or on PATH; python -m engine.choose "
                    "puts one there (docs/pulumi.md)"
                ) from None
            except automation.InvalidVersionError as error:
                raise NoSuchStack(f"pulumi on PATH is not for this program: {error}") from None
    raise NoSuchStack(
        f"no Pulumi.yaml in {start} or above it; go to the project's folder, or name it with --cwd"
    )


def reason(text: str) -> str:
    """What a ``pulumi`` command printed as its error, without what the SDK puts around it."""
    lines = [line.strip() for line in text.splitlines()]
    errors = [line.removeprefix("stderr:").strip() for line in lines if "error:" in line]
    return errors[0].removeprefix("error:").strip() if errors else " ".join(filter(None, lines))
