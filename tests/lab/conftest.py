"""A lab of its own for the tests on real nodes, so that a lab in use is never disturbed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab import deploy, lifecycle, machine
from lab.names import Lab

CHECKOUT = Path(__file__).resolve().parents[2]


def pytest_configure() -> None:
    """Told to end, pytest still takes its labs down, as it does after Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def why_not() -> str | None:
    """Why this machine cannot boot a lab, or None if it can be tried."""
    if os.geteuid() != 0:
        return "a lab needs root: run as root, or sudo make test"
    if "overlay" not in Path("/proc/filesystems").read_text():
        loaded = subprocess.run(["modprobe", "overlay"], capture_output=True, check=False)
        if loaded.returncode != 0:
            return "a lab needs overlayfs, which this kernel lacks"
    probe = ["unshare", "--mount", "--net", "--pid", "--fork", "true"]
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return f"systemd-nspawn cannot run here: {done.stderr.strip()}"
    return None


def own_name(suffix: str = "") -> str:
    """A lab's name that no other run of the tests has."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    return f"test-{os.getpid()}{worker}{suffix}"


def lab_command(
    name: str, *arguments: str, check: bool = True, timeout: float = 900
) -> subprocess.CompletedProcess[str]:
    """`python -m lab --lab NAME …`, as the Makefile runs it; its output is captured."""
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in {"LAB", "NODES", "LAB_STARTED", "MAKEFLAGS", "MAKELEVEL"}
    }
    done = subprocess.run(
        [sys.executable, "-m", "lab", "--lab", name, *arguments],
        cwd=CHECKOUT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if check and done.returncode != 0:
        pytest.fail(f"lab {' '.join(arguments)}: {done.stdout}\n{done.stderr}", pytrace=False)
    return done


@dataclass(frozen=True)
class RunningLab:
    """A lab that is up, as tests use it."""

    lab: Lab

    @property
    def name(self) -> str:
        """The lab's name, which is the stack's too."""
        return self.lab.name

    @property
    def settings(self) -> Path:
        """The stack's settings file; tests edit it."""
        return self.lab.stack_file

    def ssh(
        self, node: str, command: str, *, check: bool = True, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command on a node as root."""
        return machine.ssh(self.lab, node, command, check=check, timeout=timeout)

    def pulumi(
        self, *arguments: str, check: bool = True, timeout: float = 600
    ) -> subprocess.CompletedProcess[str]:
        """Run a `pulumi` verb on the lab's stack; `--stack` is added."""
        words = [*arguments, "--stack", self.name, "--non-interactive"]
        done = deploy.pulumi(self.lab, words, timeout=timeout)
        if check and done.returncode != 0:
            pytest.fail(f"pulumi {' '.join(words)}:\n{done.stdout}\n{done.stderr}", pytrace=False)
        return done

    def run(
        self, *command: str, check: bool = True, timeout: float = 600
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of .venv with the environment that `make env` gives."""
        done = deploy.program(self.lab, command, timeout=timeout)
        if check and done.returncode != 0:
            pytest.fail(f"{' '.join(command)}:\n{done.stdout}\n{done.stderr}", pytrace=False)
        return done

    def boot(self, node: str, *, fresh: bool = False) -> None:
        """Power a node on, a new one made first; `fresh` gives it a new disk."""
        lab_command(self.name, "node-up", node, *(["--fresh"] if fresh else []))

    def kill(self, node: str) -> None:
        """Cut a node's power; its disk stays."""
        lab_command(self.name, "node-down", node)

    def address(self, node: str) -> str:
        """A node's IPv4 address."""
        return self.lab.address(node)


@pytest.fixture(scope="session")
def machines() -> Iterator[RunningLab]:
    """Three bare machines of a lab of their own, nothing deployed on them."""
    yield from _lab(own_name("m"), "--machines-only")


@pytest.fixture(scope="session")
def lab() -> Iterator[RunningLab]:
    """A whole lab of its own, deployed by `pulumi up`, as `make lab` makes it."""
    yield from _lab(own_name())


def _lab(name: str, *options: str) -> Iterator[RunningLab]:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    try:
        lab_command(name, "up", *options)
        yield RunningLab(lifecycle.require(name))
    finally:
        lab_command(name, "down")
