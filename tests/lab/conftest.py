"""A lab of its own for the tests on real nodes, so that a lab in use is never disturbed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab import deploy, lifecycle, machine
from lab.names import Lab

CHECKOUT = Path(__file__).resolve().parents[2]
#: People of the lab: the same on every node. alice is in an account of the settings.
USERS = {"alice": 5001, "bob": 5002, "worker": 5003}


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
    """A name that no other run of the tests has; its own run takes it down in the end by it."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    run = os.getppid() if worker else os.getpid()
    return f"test-{run}{worker}{suffix}"


def environment(*further: str) -> dict[str, str]:
    """This process's environment without what `make` puts there for its own lab."""
    left_out = {"LAB", "NODES", "LAB_STARTED", "MAKEFLAGS", "MAKELEVEL", *further}
    return {key: value for key, value in os.environ.items() if key not in left_out}


def lab_command(
    name: str, *arguments: str, check: bool = True, timeout: float = 2400
) -> subprocess.CompletedProcess[str]:
    """`python -m lab --lab NAME …`, as the Makefile runs it; its output is captured."""
    done = subprocess.run(
        # It ends with the tests, however these end: whoever takes the lab down then needs its lock.
        [
            *("setpriv", "--pdeathsig", "TERM"),
            *(sys.executable, "-m", "lab", "--lab", name, *arguments),
        ],
        cwd=CHECKOUT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if check and done.returncode != 0:
        pytest.fail(f"lab {' '.join(arguments)}: {done.stdout}\n{done.stderr}", pytrace=False)
    return done


#: Whether commands are given to look again and again, for which one connection to a node is enough.
#: What a test itself does logs in, as its user would.
_WAITING: ContextVar[bool] = ContextVar("_WAITING", default=False)


def await_that(condition: Callable[[], bool], seconds: float = 240) -> None:
    """Wait until it comes about."""
    end = time.monotonic() + seconds
    before = _WAITING.set(True)
    try:
        while not condition():
            assert time.monotonic() < end, "it did not come about in time"
            time.sleep(0.2)
    finally:
        _WAITING.reset(before)


def lasting_states(told: str) -> str:
    """What sinfo tells, without what comes and goes by itself: that a node has missed a message
    (`*`), and that a waiting job is planned for it (`-`, or `planned` where it is idle)."""
    return re.sub(r"\bplanned\b", "idle", re.sub(r"(?<=[a-z])[*-]+(?=[| \n]|$)", "", told))


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
        self, node: str, command: str, *, check: bool = True, timeout: float = 480
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command on a node as root."""
        shared = machine.sharing() if _WAITING.get() else []
        return machine.ssh(self.lab, node, command, check=check, timeout=timeout, shared=shared)

    def login(self, user: str, key: Path, node: str, command: str = "id -un") -> tuple[int, str]:
        """A person's login by their own key: exit code, and what they read."""
        words = ["ssh", "-F", str(self.lab.ssh_config), "-i", str(key), "-l", user, node, command]
        done = subprocess.run(
            words, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False
        )
        return done.returncode, done.stdout + done.stderr

    def shown(self, node: str, what: str) -> str:
        """What sinfo tells of a node in the columns `what` (--format of sinfo(1)), once the Epilog
        of a job that has ended there is over: its end does not wait for it."""
        told: list[str] = []

        def lasts() -> bool:
            told[:] = [self.ssh("ctl", f"sinfo -h -N -n {node} -o '{what}' | head -n 1").stdout]
            return "completing" not in told[0]

        await_that(lasts)
        return lasting_states(told[0].strip())

    def send(
        self,
        node: str,
        command: str,
        content: bytes,
        *,
        ends: tuple[int, ...] = (0,),
        timeout: float = 240,
    ) -> bytes:
        """Give a command on a node bytes to read; what it writes. `ends`: its good exit codes."""
        words = ["ssh", "-F", str(self.lab.ssh_config), node, command]
        done = subprocess.run(
            words, input=content, capture_output=True, timeout=timeout, check=False
        )
        assert done.returncode in ends, done.stderr.decode()
        return done.stdout

    def pulumi(
        self, *arguments: str, check: bool = True, timeout: float = 2400
    ) -> subprocess.CompletedProcess[str]:
        """Run a `pulumi` verb on the lab's stack; `--stack` is added."""
        words = [*arguments, "--stack", self.name, "--non-interactive"]
        done = deploy.pulumi(self.lab, words, timeout=timeout)
        if check and done.returncode != 0:
            pytest.fail(f"pulumi {' '.join(words)}:\n{done.stdout}\n{done.stderr}", pytrace=False)
        return done

    def change(self, how: Callable[[dict[str, Any]], None]) -> None:
        """Edit the stack's settings: `how` gets them by key, without the project's name."""
        content = yaml.safe_load(self.settings.read_text())
        config = {key.removeprefix("slurmstack:"): it for key, it in content["config"].items()}
        how(config)
        content["config"] = {f"slurmstack:{key}": value for key, value in config.items()}
        self.settings.write_text(yaml.safe_dump(content, sort_keys=False))

    def set(self, **values: Any) -> None:
        """Set keys of the stack's settings; None takes one out."""

        def how(config: dict[str, Any]) -> None:
            for key, value in values.items():
                if value is None:
                    del config[key]
                else:
                    config[key] = value

        self.change(how)

    def secret(self, key: str, value: str) -> None:
        """Set a secret of the stack's settings, such as ``monitoringSecrets.slack``."""
        subprocess.run(
            ["pulumi", "config", "set", "--secret", "--path", f"slurmstack:{key}",
             "--stack", self.name],
            cwd=self.lab.checkout, env=deploy.program_environment(self.lab), input=value, text=True,
            check=True, capture_output=True, timeout=60,
        )  # fmt: skip

    @contextmanager
    def having(self, **values: Any) -> Iterator[None]:
        """Deployed with some keys of the settings set, and back in the end."""
        before = self.settings.read_text()
        try:
            self.set(**values)
            self.up()
            yield
        finally:
            self.settings.write_text(before)
            self.up()

    def up(self, *options: str, check: bool = True) -> str:
        """`pulumi up`: what it says. It must fail where `check` is False."""
        done = self.pulumi("up", "--yes", "--skip-preview", *options, check=check)
        assert check or done.returncode != 0, f"it was to fail: {done.stdout}"
        return done.stdout + done.stderr

    def run(
        self, *command: str, check: bool = True, timeout: float = 2400
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
        machine.hang_up(self.lab, node)
        lab_command(self.name, "node-down", node)

    def address(self, node: str) -> str:
        """A node's IPv4 address."""
        return self.lab.address(node)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that failed is told with what its cluster looked like then: it is gone afterwards."""
    report = yield
    fixtures = getattr(item, "funcargs", {})
    labs = (it for it in fixtures.values() if isinstance(it, RunningLab))
    if report.when == "call" and report.failed and (lab := next(labs, None)) is not None:
        words = (
            "timeout 20 sh -c 'sinfo -N; squeue; scontrol show node' | grep -vE '^ +[^ SRJ0-9]'"
            "; tail -n 25 /var/log/slurm/slurmctld.log"
        )
        try:
            shown = lab.ssh("ctl", f"date; {words}", check=False, timeout=60)
            report.sections.append(("the cluster", shown.stdout + shown.stderr))
        except (OSError, subprocess.SubprocessError) as error:
            report.sections.append(("the cluster", f"cannot be asked: {error}"))
    return report


class Run(threading.Thread):
    """`pulumi up`, while the test looks."""

    def __init__(self, lab: RunningLab) -> None:
        super().__init__()
        self.lab, self.status, self.said = lab, -1, ""

    def run(self) -> None:
        done = self.lab.pulumi("up", "--yes", "--skip-preview", check=False)
        self.status, self.said = done.returncode, done.stdout + done.stderr

    def comes_to(self, condition: Callable[[], bool]) -> None:
        """Wait until it comes about, as long as the run goes on."""
        await_that(lambda: condition() or not self.is_alive())
        assert condition(), self.said


@pytest.fixture(scope="module")
def machines() -> Iterator[RunningLab]:
    """Four bare machines of a lab of their own, nothing deployed on them."""
    yield from _lab(own_name("m"), "--machines-only")


@pytest.fixture(scope="session")
def lab() -> Iterator[RunningLab]:
    """A whole lab of its own, deployed by `pulumi up`, as `make lab` makes it."""
    yield from _lab(own_name())


@pytest.fixture(scope="session")
def users(lab: RunningLab) -> RunningLab:
    """The lab with people who have a login on every node."""
    words = "; ".join(
        f"id {name} >/dev/null 2>&1 || useradd --uid {uid} --create-home --shell /bin/bash {name}"
        for name, uid in USERS.items()
    )
    for node in ("ctl", "login01", "cn01", "cn02"):
        lab.ssh(node, words)
    # slurmctld looks for logins that were missing when it started only once an hour.
    lab.ssh("ctl", "scontrol reconfigure")
    return lab


@pytest.fixture
def kept(lab: RunningLab) -> Iterator[RunningLab]:
    """The lab for a test that changes its settings and deploys nothing by them."""
    before = lab.settings.read_text()
    yield lab
    lab.settings.write_text(before)


@pytest.fixture
def restored(lab: RunningLab) -> Iterator[RunningLab]:
    """The lab for a test that changes it by its settings; afterwards it is as it was."""
    before = lab.settings.read_text()
    yield lab
    if lab.settings.read_text() != before:
        lab.settings.write_text(before)
        lab.up()


def _lab(name: str, *options: str) -> Iterator[RunningLab]:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    try:
        lab_command(name, "up", *options)
        yield RunningLab(lifecycle.require(name))
    finally:
        lab_command(name, "down")
