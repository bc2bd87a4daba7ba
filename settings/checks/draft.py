"""What checks between settings are given: each key, as far as it could be read by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from pydantic.alias_generators import to_snake

from settings.model import Host, NodeClass, Partition, Roles
from settings.problems import Problem
from settings.slurm_conf import SlurmConf

Part = TypeVar("Part")


@dataclass(frozen=True)
class Draft:
    """Settings that are not accepted yet. What could not be read is reported already: a check
    passes over it, so that one mistake is not reported as many."""

    #: Attribute of :class:`settings.model.Settings` → its value, of those that could be read.
    parts: Mapping[str, Any]
    #: Key → value, as the stack gives them.
    raw: Mapping[str, Any]
    #: The prefix of keys.
    project: str

    def path(self, key: str) -> str:
        """Where a key stands in the stack's file."""
        return f"{self.project}:{key}"

    def part(self, attribute: str, kind: type[Part]) -> Part | None:
        """The value of a key, where it is given and could be read."""
        value: Part | None = self.parts.get(attribute)
        return value

    def unknown_secrets(
        self, path: str, named: Iterable[tuple[str, str]], key: str
    ) -> Iterator[Problem]:
        """Secrets that their table has not.

        Args:
            path: of what names them.
            named: where each is named below that, and its name.
            key: the table's.
        """
        secrets = self.parts.get(to_snake(key), {})
        # Those that cannot be read are reported already.
        if secrets or key not in self.raw:
            for where, name in named:
                if name not in secrets:
                    yield Problem(f"{path}.{where}", f"a name in {self.path(key)}", name)

    @property
    def hosts(self) -> Mapping[str, Host] | None:
        """Hosts whose entries could be read; None where nothing could."""
        return self.parts.get("hosts")

    @property
    def roles(self) -> Roles | None:
        return self.parts.get("roles")

    @property
    def nodes(self) -> tuple[NodeClass, ...]:
        """Node classes whose entries could be read."""
        nodes: tuple[NodeClass, ...] = self.parts.get("nodes", ())
        return nodes

    @property
    def partitions(self) -> Mapping[str, Partition]:
        partitions: Mapping[str, Partition] = self.parts.get("partitions", {})
        return partitions

    @property
    def slurm(self) -> SlurmConf:
        """Slurm's parameters, or their defaults."""
        slurm: SlurmConf = self.parts.get("slurm", SlurmConf())
        return slurm

    @cached_property
    def classes(self) -> list[tuple[int, NodeClass]]:
        """Node classes, each with its index in the stack's file, where wrong ones count."""
        entries = self.raw["nodes"] if self.nodes else ()
        hosts = [entry.get("hosts") if isinstance(entry, Mapping) else None for entry in entries]
        return [(hosts.index(node_class.hosts), node_class) for node_class in self.nodes]

    @cached_property
    def compute(self) -> list[str]:
        """Compute nodes that are hosts, lost ones left out."""
        hosts = self.hosts or {}
        return [
            name
            for node_class in self.nodes
            for name in node_class.names
            if name in hosts and not hosts[name].lost
        ]


#: A check between settings. All mistakes are wanted, each with its path.
Check = Callable[[Draft], Iterator[Problem]]
