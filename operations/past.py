"""The operations on a stack: Pulumi's own history of it, and what was noted beside the program."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from typing import Any

from components import history
from operations.cluster import Cluster
from operations.refused import Refused

_PULUMI = {"update": "pulumi up", "destroy": "pulumi destroy", "refresh": "pulumi refresh"}


@dataclass
class Deed:
    """An operation: when it ended, what, by whom, how it ended, and what happened where."""

    time: str
    what: str
    by: str
    result: str
    deeds: list[str] = field(default_factory=list)
    #: Resources that Pulumi changed, by kind.
    changes: dict[str, int] = field(default_factory=dict)


def past(cluster: Cluster, most: int) -> list[Deed]:
    """The last operations, the latest first.

    An update of Pulumi's and what the program noted of it are one: the note was made between the
    update's beginning and its end. An update that ran elsewhere has no note here: who ran it is
    what Pulumi recorded (the author of the commit, where it ran in a Git repository).

    Raises:
        Refused: Pulumi's history cannot be read.
    """
    noted = list(history.entries(cluster.place))
    deeds: list[Deed] = []
    for update in updates(cluster, most):
        began, ended = str(update["startTime"])[:19], str(update["endTime"])[:19]
        mine = [
            entry
            for entry in noted
            if entry["what"] == "pulumi up" and began <= entry["time"][:19] <= ended
        ]
        noted = [entry for entry in noted if entry not in mine]
        environment = update.get("environment", {})
        deeds.append(
            Deed(
                f"{ended}Z",
                _PULUMI.get(update["kind"], f"pulumi {update['kind']}"),
                mine[0]["by"] if mine else environment.get("git.author", "not noted here"),
                mine[0]["result"] if mine else str(update["result"]),
                [deed for entry in mine for deed in entry["deeds"]],
                {
                    kind: number
                    for kind, number in (update.get("resourceChanges") or {}).items()
                    if kind != "same"
                },
            )
        )
    names = ("time", "what", "by", "result", "deeds")
    deeds += [Deed(*(entry[name] for name in names)) for entry in noted]
    return sorted(deeds, key=lambda deed: deed.time, reverse=True)[:most]


def updates(cluster: Cluster, most: int) -> list[dict[str, Any]]:
    """Pulumi's history of the stack, the latest first.

    Raises:
        Refused: it cannot be read.
    """
    words = ["pulumi", "stack", "history", "--json", "--page-size", str(most), "--page", "1"]
    words += ["--stack", cluster.stack, "--cwd", str(cluster.project)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout or "[]")
    except ValueError:
        found = []
    if done.returncode != 0:
        raise Refused(f"pulumi stack history: {(done.stderr or done.stdout).strip()}")
    return found
