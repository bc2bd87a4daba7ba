"""How a change reaches compute nodes, one part of them after the other: ``slurmstack:rollout``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from settings.base import Model
from settings.duration import Duration
from settings.hostlist import expand

_SHARE = "a number of nodes such as 4, or a part of each class such as 10%"
_CANARY = "a number of nodes of each class such as 1, or a host list such as cn[01,33]"


def _share(least: int) -> BeforeValidator:
    """A number of nodes, or a percentage of them, of at least this many or more than none."""
    expected = _SHARE if least == 0 else f"{_SHARE}, and at least one node"

    def read(value: Any) -> int | str:
        match = re.fullmatch(r"([0-9]{1,6})(%?)", str(value).strip())
        if isinstance(value, bool) or not isinstance(value, int | str) or match is None:
            raise ValueError(expected)
        number = int(match[1])
        if number < least or (match[2] and number > 100):
            raise ValueError(expected)
        return f"{number}%" if match[2] else number

    return BeforeValidator(read)


def _canary(value: Any) -> int | str:
    """How many of each class, or which."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str):
        text = value.strip()
        if re.fullmatch(r"[0-9]{1,6}", text):
            return int(text)
        if text:
            expand(text)
            return text
    raise ValueError(_CANARY)


def number_of(share: int | str, nodes: int) -> int:
    """How many of so many nodes a share is; a percentage is rounded up."""
    if isinstance(share, int):
        return share
    return -(-int(share.removesuffix("%")) * nodes // 100)


class Rollout(Model):
    """``slurmstack:rollout``. Each class of nodes goes by itself."""

    #: Nodes that go first: so many of each class, or these.
    canary: Annotated[int | str, BeforeValidator(_canary)] = 1
    #: How many follow at a time.
    batch: Annotated[int | str, _share(1)] = "10%"
    #: How many of a class may fail without stopping those after them.
    may_fail: Annotated[int | str, _share(0)] = "5%"
    #: When a node is drained before it is changed: where a change needs it, or for each restart
    #: of slurmd.
    drain: Literal["never", "asNeeded", "always"] = "asNeeded"
    #: Seconds that a drained node's jobs have to end.
    drain_timeout: Annotated[Duration, Field(le=7 * 86400)] = 3600
    #: Jobs that still run then may be ended.
    end_jobs: bool = False

    def turns(self, nodes: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        """The nodes of a class as they follow one another: canaries, then the batches."""
        if isinstance(self.canary, int):
            first = tuple(nodes[: self.canary])
        else:
            named = set(expand(self.canary))
            first = tuple(name for name in nodes if name in named)
        rest = [name for name in nodes if name not in first]
        size = max(1, number_of(self.batch, len(nodes)))
        batches = [tuple(rest[at : at + size]) for at in range(0, len(rest), size)]
        return tuple(turn for turn in (first, *batches) if turn)

    def names(self, node: str) -> bool:
        """Whether it is one of the canaries by name."""
        return isinstance(self.canary, str) and node in expand(self.canary)
