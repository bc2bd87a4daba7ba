"""The product on the lab: the engine, `pulumi up`, and a first job to see that it works."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lab import machine, stack
from lab.errors import LabError
from lab.image import cache_folder
from lab.names import USER, Lab
from lab.progress import Progress
from lab.system import is_alive, processes, wait_for

# The SDK's installer alone may take a minute where the way out is a black hole.
ENGINE_SECONDS = 300
DEPLOY_SECONDS = 1800
ENGINE_GRACE_SECONDS = 30


def choose_engine(checkout: Path, log: Path) -> str:
    """Choose the Pulumi engine (`engine.choose`); its last line says which one it is."""
    command = [sys.executable, "-m", "engine.choose"]
    try:
        done = subprocess.run(
            command,
            cwd=checkout,
            # Where a release that the site keeps has its plugins: see prepare().
            env=os.environ | {"PULUMI_HOME": str(cache_folder() / "pulumi-home")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ENGINE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(
            f"choosing the engine took over {ENGINE_SECONDS} s: PULUMI_ENGINE=embedded make lab"
        ) from error
    log.write_text(done.stdout + done.stderr)
    lines = (done.stdout + done.stderr).strip().splitlines() or ["it printed nothing"]
    if done.returncode != 0:
        raise LabError(f"no engine could be chosen: {lines[-1]} (all of it: {log})")
    return lines[-1]


def prepare(lab: Lab) -> None:
    """Make the folders and the settings file that the stack of the lab needs."""
    lab.state.mkdir(exist_ok=True)
    lab.pulumi_home.mkdir(exist_ok=True)
    # Plugins are large; they lie in the cache for the next lab.
    plugins = lab.pulumi_home / "plugins"
    if not plugins.is_symlink() and not plugins.exists():
        target = cache_folder() / "pulumi-home" / "plugins"
        target.mkdir(parents=True, exist_ok=True)
        plugins.symlink_to(target)
    stack.prepare_settings(lab, project(lab.checkout))


def project(checkout: Path) -> str:
    """The project's name, as Pulumi.yaml has it."""
    match = re.search(r"^name:\s*(\S+)", (checkout / "Pulumi.yaml").read_text(), re.MULTILINE)
    if match is None:
        raise LabError(f"{checkout / 'Pulumi.yaml'} names no project")
    return match[1]


def make_stack(lab: Lab, progress: Progress) -> bool:
    """`pulumi stack init` where the state has no such stack; whether it was made."""
    if stack.has_stack(lab, project(lab.checkout)):
        return False
    stack.keep_before_init(lab)
    _checked(lab, ["pulumi", "stack", "init", lab.name, "--non-interactive"])
    stack.keep_after_init(lab)
    progress.say(f"stack {lab.name} made; its state lies in {lab.state}")
    return True


def deploy(lab: Lab) -> None:
    """`pulumi up`, its progress shown as it comes. Raises `LabError` when it fails."""
    command = ["pulumi", "up", "--yes", "--skip-preview", "--non-interactive"]
    # `pulumi stack output` has them; what was done where is to be on the last screen.
    command += ["--suppress-outputs"]
    done = pulumi(lab, [*command[1:], "--stack", lab.name], capture=False)
    if done.returncode != 0:
        raise LabError(
            f"`pulumi up --stack {lab.name}` failed: what it says above names node, step and "
            "remedy; `make lab` again goes on from there"
        )


def pulumi(
    lab: Lab, arguments: Sequence[str], *, capture: bool = True, timeout: float = DEPLOY_SECONDS
) -> subprocess.CompletedProcess[str]:
    """Run `pulumi` on the lab's state, from the checkout."""
    return program(lab, ["pulumi", *arguments], capture=capture, timeout=timeout)


def show(lab: Lab, progress: Progress) -> None:
    """Run a job of the lab's user on two nodes; print its output and sinfo."""
    computes = [node for node in lab.nodes() if node.startswith("cn")]
    count = min(2, len(computes))
    if count:
        # Where users work, if there is such a place.
        place = next((node for node in lab.nodes() if node.startswith("login")), "ctl")
        job = f"srun -N{count} hostname"
        progress.title(f"{USER} on {place}: {job}")
        command = f"cd / && runuser -u {USER} -- timeout 120 {job}"
        _print(machine.ssh(lab, place, command, timeout=150).stdout)
    progress.title("sinfo")
    _print(machine.ssh(lab, "ctl", "sinfo").stdout)


def program_environment(lab: Lab) -> dict[str, str]:
    """The environment that `make env` gives a shell."""
    environment = {
        name: value
        for name, value in os.environ.items()
        # A passphrase of the caller's own would be taken instead of the lab's.
        if name not in {"PULUMI_CONFIG_PASSPHRASE", "PULUMI_STACK"}
    }
    programs = str(lab.checkout / ".venv" / "bin")
    environment["PATH"] = os.pathsep.join(
        [programs, environment.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")]
    )
    return {**environment, **stack.environment(lab)}


def program(
    lab: Lab, command: Sequence[str], *, capture: bool = True, timeout: float = DEPLOY_SECONDS
) -> subprocess.CompletedProcess[str]:
    """Run a program of .venv on the lab's state, from the checkout; `timeout` is in seconds."""
    path = lab.checkout / ".venv" / "bin" / command[0]
    if not path.exists():
        raise LabError(f"{path} is missing: `make lab` makes it")
    sys.stdout.flush()
    pipe = subprocess.PIPE if capture else None
    process = subprocess.Popen(
        [str(path), *command[1:]],
        cwd=lab.checkout,
        env=program_environment(lab),
        stdin=subprocess.DEVNULL,
        stdout=pipe,
        stderr=pipe,
        text=True,
    )
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired as error:
        _end(process)
        raise LabError(f"`{' '.join(command)}` did not end within {timeout:.0f} s") from error
    except BaseException:
        _end(process)
        raise
    return subprocess.CompletedProcess(command, process.returncode, out or "", err or "")


def end_leftovers(lab: Lab) -> None:
    """End engines that still work on the lab's state, as after a `make lab` that was killed."""
    mark = f"PULUMI_HOME={lab.pulumi_home}".encode()
    engines = []
    for pid, words in processes():
        engine = any(Path(word).name.startswith("pulumi") for word in words[:3])
        engine = engine or any(word.split(".")[0] == "engine" for word in words[1:4])
        with contextlib.suppress(OSError):
            if engine and mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                engines.append(pid)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in engines:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        with contextlib.suppress(LabError):
            wait_for(lambda: not any(map(is_alive, engines)), seconds=10, what="")
            return


def _end(process: subprocess.Popen[str]) -> None:
    """Let an engine end its step and save its state (it heard of Ctrl-C, too), then kill it."""
    process.send_signal(signal.SIGINT)
    try:
        process.communicate(timeout=ENGINE_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def _checked(lab: Lab, command: Sequence[str]) -> str:
    done = program(lab, command, capture=True, timeout=300)
    if done.returncode != 0:
        raise LabError(f"`{' '.join(command)}` failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
