"""A stack as the verbs work on it: its settings, its hosts, its folder, and its controller."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from components import history
from discovery.host_keys import hosts
from on_node import node_states
from operations.refused import Refused
from operations.stack import prefix, settings
from operations.stack_file import StackFile
from remote.contact import ContactError, Reply, run_on_hosts, wait_for
from remote.host import Host
from settings import Settings
from settings.hostlist import fold

#: Seconds within which the controller must have answered.
_SECONDS = 30.0


@dataclass(frozen=True)
class Cluster:
    """What every verb needs first; `Cluster.of` reads it."""

    settings: Settings
    project: Path
    stack: str

    @staticmethod
    def of(stack: str | None, project: Path) -> Cluster:
        """
        Raises:
            NoSuchStack, SettingsError: the stack or its settings cannot be read.
        """
        return Cluster(*settings(stack, project))

    @cached_property
    def hosts(self) -> dict[str, Host]:
        """Name → host with its pinned key. Raises UnknownHostKey."""
        return hosts(self.settings, self.project)

    @property
    def controller(self) -> str:
        return self.settings.roles.controller

    @property
    def place(self) -> Path:
        """What is kept of the stack beside the program."""
        return history.folder(self.project, self.stack)

    def file(self) -> StackFile:
        """The stack's file, to be edited."""
        return StackFile(self.project, self.stack, prefix(self.project))

    def ask(self, script: str, what: str, seconds: float = _SECONDS) -> str:
        """What a script prints on the controller.

        Args:
            script: POSIX sh.
            what: what it is for, said when it fails.

        Raises:
            Refused: it ended with another code than 0: the last line of what it said.
            ContactError: the controller cannot be asked.
        """
        reply = self.run([self.controller], script, seconds)[self.controller]
        if isinstance(reply, ContactError):
            raise reply
        if reply.status != 0:
            lines = (reply.stderr or reply.stdout).strip().splitlines()
            said = lines[-1] if lines else f"exit {reply.status}"
            raise Refused(f"{self.controller}: {what}: {said}")
        return reply.stdout

    def run(self, names: list[str], script: str, seconds: float) -> dict[str, Reply | ContactError]:
        """A script on some hosts at once."""
        return wait_for(run_on_hosts([self.hosts[name] for name in names], script, seconds=seconds))

    def states(self, names: list[str]) -> dict[str, node_states.State]:
        """Nodes as slurmctld sees them; those that it does not know are left out."""
        known = self.ask("timeout 20 scontrol show node", "scontrol show node")
        return {name: it for name, it in node_states.states(known).items() if name in names}

    def sinfo(self, names: list[str]) -> str:
        """What sinfo says of these nodes."""
        words = f"timeout 20 sinfo -N -n {fold(names)} -o '%.12N %.12T %.10u %E'"
        return self.ask(f"{words} | awk '!seen[$1]++'", "sinfo").rstrip()
