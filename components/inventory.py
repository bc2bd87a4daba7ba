"""Who holds what: the nodes' own answers, joined by node."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from components.keys.munge_key import PATH as MUNGE_KEY
from remote.answer import Answer

#: The fact by which slurmctld's role tells what slurmd must be started with at the same time.
TOGETHER = "together"
#: The fact by which a node tells that it was to be rebooted and was not, and for what.
REBOOT_WAITS = "boot-waits"


def join(
    answers: Sequence[Answer],
    lost: Sequence[str] = (),
    before: Mapping[str, Any] | None = None,
    failed: Collection[str] = (),
) -> dict[str, Any]:
    """Node → roles, keys, files, packages, units, as each node read them back when the role was
    last applied there, and that time (UTC, None where it is not known). What is true now it does
    not say.

    Args:
        answers: one for each role of each node.
        lost: nodes that are listed as such, with nothing else.
        before: the inventory of the last run.
        failed: nodes with a role that this run could not apply. What they held before counts on,
            where no answer of this run says otherwise.
    """
    nodes: dict[str, dict[str, Any]] = {
        name: copy.deepcopy(before[name])
        for name in failed
        if before is not None and "roles" in before.get(name, {})
    }
    for answer in answers:
        node = nodes.setdefault(
            answer.node,
            {
                "roles": [],
                "applied": {},
                "keys": {},
                "files": {},
                "packages": {},
                "units": {},
                "answers": {},
            },
        )
        if answer.role not in node["roles"]:
            node["roles"].append(answer.role)
        node.setdefault("applied", {})[answer.role] = answer.time
        node["files"].update({path: file.sha256 for path, file in answer.files.items()})
        node["packages"].update(answer.packages)
        node["units"].update(answer.units)
        node.setdefault("answers", {})[answer.role] = digest(answer)
        if "jwt-kid" in answer.facts:
            node["keys"]["jwt"] = answer.facts["jwt-kid"]
        if TOGETHER in answer.facts:
            node[TOGETHER] = answer.facts[TOGETHER]
        if REBOOT_WAITS in answer.facts:
            node["rebootWaits"] = answer.facts[REBOOT_WAITS]
        if MUNGE_KEY in answer.files:
            node["keys"]["munge"] = answer.files[MUNGE_KEY].sha256
    for node in nodes.values():
        node["roles"].sort()
    return {**nodes, **{name: {"lost": True} for name in lost}}


def digest(answer: Answer) -> str:
    """Tells one answer of a role from the next: another one means that the role was applied."""
    # Only what it said: a field that the program learns later is no other answer.
    text = answer.model_dump_json(exclude_unset=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def was_applied(answer: Answer, before: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a role was applied since the inventory ``before`` was made.

    A role without a change is not applied: Pulumi then gives the answer that it gave last time.
    """
    node = before.get(answer.node, {})
    if "answers" in node:
        return bool(node["answers"].get(answer.role) != digest(answer))
    if answer.role not in node.get("roles", ()):
        return True
    # An inventory without digests, of an older version: what a role holds has to tell it.
    files = {path: file.sha256 for path, file in answer.files.items()}
    return not (
        files.items() <= node["files"].items()
        and answer.packages.items() <= node["packages"].items()
    )
