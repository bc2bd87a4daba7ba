"""What is measured: a stack deployed, looked at, changed and grown, on simulated or real nodes, and
production's plan."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from bench.cluster import PRODUCTION, settings
from bench.fleet import PROJECT, fleet
from bench.measure import Measured, measure
from bench.simulated import address
from lab.names import Lab

PULUMI = PROJECT / ".venv" / "bin" / "pulumi"
SLURMSTACK = PULUMI.with_name("slurmstack")
Step = tuple[str, Measured]
Pulumi = Callable[..., Measured]


@contextmanager
def _agent(folder: Path) -> Iterator[str]:
    """An SSH agent with a key of its own; its socket."""
    socket, key = folder / "agent", folder / "key"
    for left in folder.glob("key*"):
        left.unlink()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    with subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL) as agent:
        try:
            words = {**os.environ, "SSH_AUTH_SOCK": str(socket)}
            # 2: there is none to talk to yet (ssh-add(1)).
            while subprocess.run(["ssh-add", "-l"], env=words, capture_output=True).returncode == 2:
                time.sleep(0.01)
            subprocess.run(["ssh-add", "-q", key], env=words, check=True)
            yield str(socket)
        finally:
            agent.terminate()


@dataclasses.dataclass(frozen=True)
class _Stack:
    """A stack with a state folder of its own."""

    pulumi: Pulumi
    #: A verb of slurmstack with its arguments, and the exit codes that it may have.
    slurmstack: Callable[..., Measured]
    #: Its settings.
    file: Path
    folder: Path


@contextmanager
def _stack(stack: str) -> Iterator[_Stack]:
    file = PROJECT / f"Pulumi.{stack}.yaml"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "state").mkdir()
        environment = {
            **{key: value for key, value in os.environ.items() if key != "SSH_AUTH_SOCK"},
            "PULUMI_BACKEND_URL": f"file://{folder / 'state'}",
            "PULUMI_HOME": str(folder / "home"),
            "PULUMI_CONFIG_PASSPHRASE": "bench",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
        }

        def pulumi(*arguments: str) -> Measured:
            words = [str(PULUMI), *arguments, "--stack", stack, "--non-interactive"]
            return measure(words, PROJECT, environment)

        def slurmstack(verb: str, *arguments: str, ends: tuple[int, ...] = (0,)) -> Measured:
            with _agent(folder) as agent:
                words = [str(SLURMSTACK), verb, "--stack", stack, *arguments]
                return measure(words, PROJECT, {**environment, "SSH_AUTH_SOCK": agent}, ends)

        try:
            measure([str(PULUMI), "stack", "init", stack], PROJECT, environment)
            yield _Stack(pulumi, slurmstack, file, folder)
        finally:
            file.unlink(missing_ok=True)


def _write(file: Path, config: dict[str, Any]) -> None:
    """The stack's settings, beside what `stack init` put there."""
    text = file.read_text() if file.exists() else ""
    # By its first line, the settings that a lab made for itself are known, and go with it.
    head = "".join(line for line in text.splitlines(keepends=True)[:1] if line.startswith("#"))
    kept = yaml.safe_load(text) or {}
    file.write_text(head + yaml.safe_dump({**kept, "config": config}, sort_keys=False))


def simulated(nodes: int) -> list[Step]:
    """A stack with every component on, whose nodes only answer and count."""
    with _stack(f"bench-{nodes}") as stack, fleet(nodes + 3, stack.folder) as hosts:

        def counted(run: Callable[[], Measured], *dying: int) -> Measured:
            hosts.commands(*dying)
            result = run()
            sent = hosts.commands()
            others = [count for place, count in sent.items() if place != address(0)]
            return dataclasses.replace(
                result,
                commands=sent.total(),
                on_controller=sent[address(0)],
                on_a_node=max(others, default=0),
            )

        def set_to(count: int, timeout: int) -> None:
            _write(stack.file, settings(count, hosts.port, hosts.host_key, timeout))

        def pulumi(*arguments: str) -> Measured:
            return counted(lambda: stack.pulumi(*arguments))

        set_to(nodes, 30)
        # Of the controller, the login node and nodes + 1 compute nodes.
        dead = range(2, nodes + 3, 10)
        return [
            *_steps(pulumi, set_to, nodes),
            *_verbs(lambda *words, **ends: counted(lambda: stack.slurmstack(*words, **ends))),
            ("drift, a tenth dead", counted(lambda: stack.slurmstack("drift", ends=(1,)), *dead)),
            ("status, a tenth dead", counted(lambda: stack.slurmstack("status", ends=(0, 1)))),
        ]


def production() -> list[Step]:
    """The plan of Pulumi.prod.yaml, which reaches no host."""
    with _stack("bench-prod") as stack:
        shutil.copy(PRODUCTION, stack.file)
        preview = ("preview", "--suppress-outputs")
        again = stack.pulumi(*preview), stack.pulumi(*preview)
        return [("first preview", again[0]), ("the same again", again[1])]


def _steps(pulumi: Pulumi, set_to: Callable[[int, int], None], nodes: int) -> Iterator[Step]:
    up = ("up", "--yes", "--skip-preview", "--suppress-outputs")
    yield "first deployment", pulumi(*up)
    yield "no-op preview", pulumi("preview", "--expect-no-changes", "--suppress-outputs")
    yield "no-op up", pulumi(*up, "--expect-no-changes")
    set_to(nodes, 60)
    yield "one line changed", pulumi(*up)
    set_to(nodes + 1, 60)
    yield "one node added", pulumi(*up)


def on_the_lab() -> list[Step]:
    """The same on real nodes, in a lab of its own that is made and removed."""
    environment = {**os.environ, "LAB": "bench"}
    command = [str(PROJECT / ".venv/bin/python"), "-m", "lab", "--lab", "bench"]
    try:
        made = measure([*command, "up"], PROJECT, environment)
        from lab import lifecycle

        real = OnLab(lifecycle.require("bench"))

        def set_to(count: int, timeout: int) -> None:
            if count > 2:
                measure([*command, "node-up", "cn03"], PROJECT, environment)
            real.set_to(count, timeout)

        steps = [("make lab, image and packages in the cache", made)]
        steps += list(_steps(real.pulumi, set_to, 2))[1:]
        return [*steps, *_verbs(real.slurmstack)]
    finally:
        measure([*command, "down"], PROJECT, environment)


@contextmanager
def lab_of_its_own() -> Iterator[OnLab]:
    """A lab as `make lab` makes it, which goes in the end."""
    environment = {**os.environ, "LAB": "bench"}
    command = [str(PROJECT / ".venv/bin/python"), "-m", "lab", "--lab", "bench"]
    try:
        measure([*command, "up"], PROJECT, environment)
        from lab import lifecycle

        yield OnLab(lifecycle.require("bench"))
    finally:
        measure([*command, "down"], PROJECT, environment)


def timed(lab: Lab, node: str, script: str, limit: float) -> float:
    """Seconds that a script takes, by the node's own clock. `limit`: seconds that it may."""
    from lab import machine

    words = (
        f"a=$(date +%s%N); {{ {script}\n}} >/dev/null && echo $((($(date +%s%N) - a) / 1000000))"
    )
    return int(machine.ssh(lab, node, words, timeout=limit).stdout) / 1000


@dataclasses.dataclass(frozen=True)
class OnLab:
    """The stack of a lab, as `make lab` makes it."""

    lab: Lab

    def pulumi(self, *arguments: str) -> Measured:
        words = [str(PULUMI), *arguments, "--stack", self.lab.name, "--non-interactive"]
        return measure(words, PROJECT, self._environment())

    def slurmstack(self, verb: str, *arguments: str, ends: tuple[int, ...] = (0,)) -> Measured:
        words = [str(SLURMSTACK), verb, *arguments, "--stack", self.lab.name]
        return measure(words, PROJECT, self._environment(), ends)

    def _environment(self) -> dict[str, str]:
        from lab.deploy import program_environment

        return program_environment(self.lab)

    def change(self, how: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Edit the stack's settings, which `how` gets by key, with their project's name."""
        file = self.lab.stack_file
        _write(file, how(yaml.safe_load(file.read_text())["config"]))

    def set_to(self, computes: int, timeout: int) -> None:
        """Settings with two or three compute nodes, and slurm.conf's MessageTimeout in seconds."""

        def how(config: dict[str, Any]) -> dict[str, Any]:
            config["slurmstack:slurm"]["MessageTimeout"] = timeout
            if computes > 2:
                config["slurmstack:hosts"]["cn03"] = self.lab.address("cn03")
                config["slurmstack:nodes"][1]["hosts"] = "cn[02-03]"
                config["slurmstack:topology"]["switches"]["leaf2"]["Nodes"] = "cn[02-03]"
            return config

        self.change(how)


def _verbs(slurmstack: Callable[..., Measured]) -> Iterator[Step]:
    """What looks, where nothing is to be done."""
    yield "slurmstack plan", slurmstack("plan", "--offline")
    yield "slurmstack apply", slurmstack("apply", "--offline", "--yes")
    yield "slurmstack drift", slurmstack("drift")
    # Simulated nodes answer, but have no slurmctld, which it says by 1.
    yield "slurmstack status", slurmstack("status", ends=(0, 1))
