"""The fabric, declared: what topology.conf(5) says of it, and what of that cannot be."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from settings.base import SlurmObject, matching
from settings.hostlist import expand, left_of
from settings.problems import Problem

PartName = Annotated[
    str,
    matching(
        r"[^\s,\"'#=\\\[\]]{1,64}",
        "a name of at most 64 characters, without blanks, commas, quotes, brackets, # and =, "
        "such as leaf1",
    ),
]


class Switch(SlurmObject):
    """One switch: compute nodes or further switches below it."""

    Nodes: str | None = None
    Switches: str | None = None
    #: A number in any unit (slurmctld ends with a fatal error at 400Gb); Slurm does not use it yet.
    LinkSpeed: Annotated[int, Field(ge=1, lt=2**32 - 2)] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Switch:
        if (self.Nodes is None) == (self.Switches is None):
            raise ValueError("either Nodes or Switches below a switch")
        expand(self.Nodes or self.Switches or "")
        return self


class Block(SlurmObject):
    """One block: nodes between which communication is quickest, such as one NVLink domain."""

    Nodes: str

    @model_validator(mode="after")
    def _nodes(self) -> Block:
        expand(self.Nodes)
        return self


class Topology(SlurmObject):
    """``slurmstack:topology``."""

    plugin: Literal["tree", "block"]
    switches: dict[PartName, Switch] = Field(default_factory=dict)
    blocks: dict[PartName, Block] = Field(default_factory=dict)
    #: Nodes of a base block, then of the larger ones that are planned with.
    BlockSizes: tuple[Annotated[int, Field(ge=1)], ...] = ()

    @model_validator(mode="after")
    def _of_the_plugin(self) -> Topology:
        if self.plugin == "tree" and (not self.switches or self.blocks or self.BlockSizes):
            raise ValueError("switches, and neither blocks nor BlockSizes, with plugin tree")
        if self.plugin == "block" and (not self.blocks or self.switches):
            raise ValueError("blocks, and no switches, with plugin block")
        return self


def without(topology: Topology, lost: Collection[str]) -> Topology:
    """The fabric once these nodes are gone; a switch or block with nothing left goes, too."""
    blocks = {
        name: Block(Nodes=left)
        for name, block in topology.blocks.items()
        if (left := left_of(block.Nodes, lost))
    }
    switches, gone = dict(topology.switches), {*lost}
    while True:
        parts = {
            name: left_of(switch.Nodes or switch.Switches or "", gone)
            for name, switch in switches.items()
        }
        empty = {name for name, left in parts.items() if not left}
        if not empty:
            break
        gone |= empty
        switches = {name: switch for name, switch in switches.items() if name not in empty}
    switches = {
        name: switch.model_copy(update={"Nodes" if switch.Nodes else "Switches": parts[name]})
        for name, switch in switches.items()
    }
    return topology.model_copy(update={"switches": switches, "blocks": blocks})


def problems(topology: Topology, compute: Sequence[str], path: str) -> Iterator[Problem]:
    """Nodes in no place or in two, unknown ones, and trees that are none."""
    parts: Mapping[str, Switch | Block] = (
        topology.switches if topology.plugin == "tree" else topology.blocks
    )
    kind = "switches" if topology.plugin == "tree" else "blocks"
    place: dict[str, str] = {}
    for name, part in parts.items():
        if part.Nodes is None:
            continue
        for node in expand(part.Nodes):
            where = f"{path}.{kind}.{name}.Nodes"
            if node not in compute:
                yield Problem(where, "compute nodes of slurmstack:nodes", node)
            elif node in place:
                yield Problem(where, "each node in one place", f"{node}, already in {place[node]}")
            place.setdefault(node, name)
    left = [node for node in compute if node not in place]
    if left:
        # topology.conf(5): all nodes must be connected to at least one switch.
        yield Problem(f"{path}.{kind}", "a place for each compute node", f"none for {left[0]}")
    if topology.plugin == "tree":
        yield from _tree(topology.switches, f"{path}.switches")
    else:
        yield from _blocks(topology, path)


def _tree(switches: Mapping[str, Switch], path: str) -> Iterator[Problem]:
    above: dict[str, str] = {}
    for name, switch in switches.items():
        for child in expand(switch.Switches) if switch.Switches else ():
            where = f"{path}.{name}.Switches"
            if child not in switches:
                yield Problem(where, "switches of this topology", child)
            elif child in above:
                yield Problem(
                    where, "each switch below one", f"{child}, already below {above[child]}"
                )
            above.setdefault(child, name)
    for name in switches:
        seen, at = {name}, name
        while at in above:
            at = above[at]
            if at in seen:
                yield Problem(f"{path}.{name}", "a tree", f"a ring through {at}")
                break
            seen.add(at)


def _blocks(topology: Topology, path: str) -> Iterator[Problem]:
    sizes = topology.BlockSizes or (min(len(expand(b.Nodes)) for b in topology.blocks.values()),)
    for name, block in topology.blocks.items():
        if len(expand(block.Nodes)) < sizes[0]:
            yield Problem(
                f"{path}.blocks.{name}.Nodes",
                f"at least the {sizes[0]} nodes of the base block size",
                f"{len(expand(block.Nodes))}",
            )
    for smaller, larger in itertools.pairwise(sizes):
        factor, rest = divmod(larger, smaller)
        if rest or factor < 2 or factor & (factor - 1):
            yield Problem(
                f"{path}.BlockSizes",
                f"a power of two times {smaller} after it (topology.conf(5))",
                str(larger),
            )
