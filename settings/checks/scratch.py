"""Local disks: whose they are, how many an array takes, and where they are mounted."""

from __future__ import annotations

from collections.abc import Iterator

from settings.checks.draft import Draft
from settings.hostlist import expand
from settings.problems import Problem
from settings.scratch import Scratch
from settings.storage import Share

#: mdadm(8): the disks that a level takes at least.
_LEAST = {0: 2, 1: 2, 5: 3, 6: 4, 10: 2}


def disks(draft: Draft) -> Iterator[Problem]:
    """Nodes that there are, disks enough, and a place that is nobody else's."""
    scratches: dict[str, Scratch] = draft.part("scratch", dict) or {}
    shares: dict[str, Share] = draft.part("storage", dict) or {}
    nodes = [name for node_class in draft.nodes for name in node_class.names]
    #: Place, and the node alone that has it there → whose it is.
    taken: dict[tuple[str, str | None], str] = {
        (share.mounted_at, None): f"storage.{name}" for name, share in shares.items()
    }
    for name, scratch in scratches.items():
        path = f"{draft.path('scratch')}.{name}"
        named = nodes if scratch.nodes == "ALL" else expand(scratch.nodes)
        for node in named:
            if node not in nodes:
                yield Problem(f"{path}.nodes", "compute nodes", node)
        if scratch.quota is not None and not scratch.per_user:
            expected = "nothing, since perUser is false: it is set where a user's folder is made"
            yield Problem(f"{path}.quota", expected, "a quota")
        if scratch.count == 1 and "level" in scratch.model_fields_set:
            yield Problem(f"{path}.level", "nothing, since count is 1", str(scratch.level))
        elif 1 < scratch.count < _LEAST[scratch.level]:
            yield Problem(
                f"{path}.count",
                f"at least {_LEAST[scratch.level]}, since level is {scratch.level}",
                str(scratch.count),
            )
        for node in [None, *named]:
            if (scratch.path, node) in taken:
                yield Problem(
                    f"{path}.path",
                    "a place of its own",
                    f"{scratch.path}, already of {taken[scratch.path, node]}",
                )
                break
        taken |= {(scratch.path, node): f"scratch.{name}" for node in named}
