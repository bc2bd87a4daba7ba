"""slurmstack, Ansible and pyinfra on the same four machines of a lab, one after the other."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from bench.fleet import PROJECT
from bench.measure import Measured
from bench.peers.tools import Site, site, tools
from bench.peers.work import Work, works
from bench.steps import OnLab
from components.controller.slurm_controller import SLURM_CONF
from lab import deploy, lifecycle, machine
from lab.names import DEFAULT_NODES, Lab
from lab.progress import Progress
from operations.stack import applied
from remote.bundle import File
from remote.reading import is_bundle, read

NAME = "peers"
OURS = "slurmstack"
_NEW = "cn03"
_SECONDS = 90
_NODES = "sinfo -hN -p main -o '%N %T'"
_LINE = re.compile(r"^MessageTimeout=(\d+)$", re.MULTILINE)
#: Step → tool → what it took, each time.
Figures = dict[str, dict[str, list[Measured]]]
_UP = ("up", "--yes", "--skip-preview", "--suppress-outputs")


@contextmanager
def bare_lab() -> Iterator[Lab]:
    """Four machines on which nothing is deployed; they go in the end."""
    progress = Progress()
    try:
        lab, _ = lifecycle.up(NAME, DEFAULT_NODES, progress)
        log = lifecycle.log_file(lab, "engine")
        deploy.choose_engine(PROJECT, log)
        deploy.make_stack(lab, progress)
        yield lab
    finally:
        lifecycle.down(NAME, progress)


def deploy_ours(lab: Lab) -> Measured:
    """slurmstack's deployment of the lab."""
    return OnLab(lab).pulumi(*_UP)


def measured(lab: Lab, times: int, say: Callable[[str], None]) -> Figures:
    """All steps on a lab of bare machines.

    Args:
        lab: as `bare_lab` makes it.
        times: how often a step is measured that can be done again as it was.
        say: is told each figure as it comes.

    Raises:
        RuntimeError: a tool failed, or what it did is not so.
    """
    figures: Figures = defaultdict(lambda: defaultdict(list))
    figures["first deployment"][OURS].append(deploy_ours(lab))
    with race(lab, figures, say) as all_of_them:
        for peer in all_of_them.peers:
            # It takes up what it finds; from then on nothing is to be done.
            peer.run_first(all_of_them.before)
        for number in range(times):
            all_of_them.no_op()
            all_of_them.check()
            all_of_them.one_line(61 + number * (1 + len(all_of_them.peers)))
        all_of_them.one_node()
        all_of_them.first()
    return figures


@dataclass(frozen=True)
class Race:
    """slurmstack and the others on one lab; each step is done by all of them, one after the
    other."""

    lab: Lab
    ours: OnLab
    peers: Sequence[Site]
    #: What slurmstack put on each host.
    before: Mapping[str, Work]
    figures: Figures
    say: Callable[[str], None]

    def _note(self, step: str, tool: str, took: Measured) -> None:
        self.figures[step][tool].append(took)
        self.say(f"{step}, {tool}: {took.seconds:.1f} s, processors {took.cpu:.1f} s")

    def no_op(self) -> None:
        """Nothing is to be done. slurmstack goes by its state; the others look at the hosts."""
        self._note("no-op", OURS, self.ours.pulumi(*_UP, "--expect-no-changes"))
        for peer in self.peers:
            peer.give(self.before)
            self._note("no-op", peer.tool.name, _unchanged(peer.run(), peer))

    def check(self) -> None:
        """What is other on the hosts than it should be; nothing is."""
        self._note("drift, or --check", OURS, self.ours.slurmstack("drift"))
        for peer in self.peers:
            peer.give(self.before)
            self._note("drift, or --check", peer.tool.name, _unchanged(peer.check(), peer))

    def one_line(self, timeout: int) -> None:
        """A line of slurm.conf, until slurmctld has taken it up; each tool another number, from
        this one, and then all as it was."""
        self.ours.set_to(2, timeout)
        self._note("one line", OURS, self.ours.pulumi(*_UP))
        self._await_line(timeout)
        for number, peer in enumerate(self.peers, timeout + 1):
            peer.give(_with_line(self.before, number))
            self._note("one line", peer.tool.name, peer.run())
            self._await_line(number)
        # The next step is to find what each of them knows.
        self.ours.set_to(2, _line_of(self.before))
        self.ours.pulumi(*_UP)

    def one_node(self) -> None:
        """One compute node more, which is bare and runs before the clock does."""
        lifecycle.node_up(self.lab, _NEW, Progress())
        self.ours.set_to(3, _line_of(self.before))
        self._note("one node added", OURS, self.ours.pulumi(*_UP))
        self._await_new()
        after = held(self.lab)
        for peer in self.peers:
            lifecycle.node_up(self.lab, _NEW, Progress(), fresh=True)
            peer.give(self.before)
            peer.run()
            peer.give(after)
            self._note("one node added", peer.tool.name, peer.run_first([_NEW]))
            self._await_new()

    def first(self) -> None:
        """All from bare machines, by the others; slurmstack did so before."""
        for peer in self.peers:
            _again_bare(self.lab)
            peer.give(self.before)
            took = peer.run_first(self.before)
            self._note("first deployment", peer.tool.name, took)
            _await(self.lab, r"^cn01 idle\ncn02 idle$", _NODES)

    def _await_line(self, timeout: int) -> None:
        _await(self.lab, f"MessageTimeout *= {timeout} ", "scontrol show config")

    def _await_new(self) -> None:
        _await(self.lab, rf"^{_NEW} idle$", _NODES)


@contextmanager
def race(lab: Lab, figures: Figures, say: Callable[[str], None]) -> Iterator[Race]:
    """On a lab that slurmstack has deployed. The others' folders go in the end."""
    addresses = {node: lab.address(node) for node in (*DEFAULT_NODES, _NEW)}
    with ExitStack() as stack:
        peers = [stack.enter_context(site(tool, lab, addresses)) for tool in tools()]
        before = held(lab)
        for peer in peers:
            peer.give(before)
        yield Race(lab, OnLab(lab), peers, before, figures, say)


def held(lab: Lab) -> dict[str, Work]:
    """What the stack's state puts on each host."""
    os.environ.update(deploy.program_environment(lab))
    return works(read(one.text) for one in applied(lab.name, PROJECT) if is_bundle(one.text))


def _again_bare(lab: Lab) -> None:
    """The same machines as they were when they were installed."""
    with lifecycle.locked(lab):
        for node in lab.nodes():
            machine.remove(lab, node)
            (lab.node_folder(node) / "node.json").unlink()
        shutil.rmtree(lab.node_folder(_NEW), ignore_errors=True)
    lifecycle.up(lab.name, DEFAULT_NODES, Progress())


def _with_line(works: Mapping[str, Work], timeout: int) -> dict[str, Work]:
    """The same with another MessageTimeout in slurm.conf."""

    def changed(file: File) -> File:
        if file.path != SLURM_CONF:
            return file
        return replace(file, content=_LINE.sub(f"MessageTimeout={timeout}", _text(file)))

    return {
        host: replace(work, files=[changed(file) for file in work.files])
        for host, work in works.items()
    }


def _line_of(works: Mapping[str, Work]) -> int:
    files = (file for work in works.values() for file in work.files)
    match = _LINE.search(next(_text(file) for file in files if file.path == SLURM_CONF))
    if match is None:
        raise RuntimeError("slurm.conf has no MessageTimeout")
    return int(match[1])


def _text(file: File) -> str:
    return file.content if isinstance(file.content, str) else file.content.decode()


#: What each prints where something was changed.
_CHANGED = {"Ansible": r"changed=[1-9]", "pyinfra": r"Grand total +\d+ +[1-9]"}


def _unchanged(took: Measured, peer: Site) -> Measured:
    if re.search(_CHANGED[peer.tool.name], took.output):
        raise RuntimeError(f"{peer.tool.name} changed something:\n{took.output}")
    return took


def _await(lab: Lab, wanted: str, command: str) -> None:
    """Wait until slurmctld says so, after the clock has stopped."""
    until = time.monotonic() + _SECONDS
    found = ""
    while time.monotonic() < until:
        words = ["ssh", "-F", str(lab.ssh_config), "ctl", command]
        found = subprocess.run(words, capture_output=True, text=True, check=False).stdout
        if re.search(wanted, found, re.MULTILINE):
            return
        time.sleep(0.2)
    raise RuntimeError(f"ctl: {command} did not come to show {wanted}:\n{found}")
