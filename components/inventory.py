"""Who holds what: the nodes' own answers, joined by node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pulumi

from components.assembly import Deployed
from components.keys.munge_key import PATH as MUNGE_KEY
from remote.answer import Answer


def inventory(deployed: Sequence[Deployed], lost: Sequence[str]) -> pulumi.Output[dict[str, Any]]:
    """Node → roles, keys, files, packages, units, from what each node said it holds."""
    return pulumi.Output.all(*(one.answer for one in deployed)).apply(
        lambda answers: join([*answers], lost)
    )


def join(answers: Sequence[Answer], lost: Sequence[str] = ()) -> dict[str, Any]:
    """The inventory of these answers; a lost node is listed as such, with nothing else."""
    nodes: dict[str, dict[str, Any]] = {}
    for answer in answers:
        node = nodes.setdefault(
            answer.node, {"roles": [], "keys": {}, "files": {}, "packages": {}, "units": {}}
        )
        node["roles"].append(answer.role)
        node["files"].update({path: file.sha256 for path, file in answer.files.items()})
        node["packages"].update(answer.packages)
        node["units"].update(answer.units)
        if "jwt-kid" in answer.facts:
            node["keys"]["jwt"] = answer.facts["jwt-kid"]
        if MUNGE_KEY in answer.files:
            node["keys"]["munge"] = answer.files[MUNGE_KEY].sha256
    for node in nodes.values():
        node["roles"].sort()
    return {**nodes, **{name: {"lost": True} for name in lost}}
