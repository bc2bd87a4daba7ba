"""Ansible and pyinfra as programs that are run: installed beside the project, each in a folder with
the work that it is given."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.fleet import PROJECT
from bench.measure import Measured, measure
from bench.peers import deploy, playbook
from bench.peers.work import Work
from lab.names import Lab

PROGRAMS = PROJECT / "build" / "peers"
#: None of these is a dependency of the project.
REQUIREMENTS = ("ansible-core==2.19.*", "pyinfra==3.10.*")
#: What Ansible's modules need of a host. pyinfra and slurmstack need a shell.
_PYTHON = "apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -y install python3-apt"


def install() -> None:
    """Have both at `PROGRAMS`."""
    if not (PROGRAMS / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", PROGRAMS], check=True)
    pip = [str(PROGRAMS / "bin" / "python"), "-m", "pip", "--quiet", "install"]
    subprocess.run([*pip, "--disable-pip-version-check", *REQUIREMENTS], check=True)


@dataclass(frozen=True)
class Tool:
    """One of the two."""

    name: str
    write: Callable[[Path, Mapping[str, Work], Mapping[str, str]], None]
    run: Sequence[str]
    #: What it would change, changing nothing.
    check: Sequence[str]
    #: What makes it ready for hosts that are bare, run before `run`.
    first: Sequence[str] = ()
    #: What it prints where hosts failed, since not every tool says so by its exit code.
    failed: str = r"(failed|unreachable)=[1-9]"


def tools() -> list[Tool]:
    """Both, each with what its own documentation says makes it fast."""
    ansible = str(PROGRAMS / "bin" / "ansible")
    play = (f"{ansible}-playbook", playbook.PLAYBOOK)
    program = (deploy.INVENTORY, str(Path(deploy.__file__)))
    pyinfra = (str(PROGRAMS / "bin" / "pyinfra"), "--parallel", "64")
    return [
        Tool(
            "Ansible",
            playbook.write,
            play,
            (*play, "--check", "--diff"),
            (ansible, "all", "-m", "ansible.builtin.raw", "-a", _PYTHON),
        ),
        Tool(
            "pyinfra",
            deploy.write,
            (*pyinfra, "-y", *program),
            (*pyinfra, "--dry", *program),
            failed=r"Grand total +\d+ +\S+ +[1-9]",
        ),
    ]


@dataclass(frozen=True)
class Site:
    """A tool's folder with the work of some hosts, as long as it is there."""

    tool: Tool
    folder: Path
    addresses: Mapping[str, str]

    def give(self, works: Mapping[str, Work]) -> None:
        """The work to be done from now on."""
        self.tool.write(self.folder, works, self.addresses)

    def run(self) -> Measured:
        return self._measure(self.tool.run)

    def check(self) -> Measured:
        return self._measure(self.tool.check)

    def run_first(self, bare: Iterable[str]) -> Measured:
        """On these bare hosts what the tool needs of them, if anything, then the work on all."""
        if not self.tool.first:
            return self.run()
        limited = (*self.tool.first, "--limit", ",".join(bare))
        before, then = self._measure(limited), self.run()
        return Measured(
            before.seconds + then.seconds,
            max(before.peak_mib, then.peak_mib),
            before.output + then.output,
            cpu=before.cpu + then.cpu,
        )

    def _measure(self, command: Sequence[str]) -> Measured:
        environment = {
            **{key: value for key, value in os.environ.items() if key != "SSH_AUTH_SOCK"},
            "ANSIBLE_CONFIG": str(self.folder / "ansible.cfg"),
            "ANSIBLE_LOCAL_TEMP": str(self.folder / "local"),
            "PATH": f"{PROGRAMS / 'bin'}:{os.environ['PATH']}",
        }
        took = measure(command, self.folder, environment)
        if re.search(self.tool.failed, took.output):
            raise RuntimeError(f"{self.tool.name} failed:\n{took.output}")
        return took


@contextmanager
def site(tool: Tool, lab: Lab, addresses: Mapping[str, str], key_of: str = "") -> Iterator[Site]:
    """A folder of root's alone, which goes with all secrets in it.

    Args:
        tool: which.
        lab: whose machines these are.
        addresses: host → where it is reached.
        key_of: the machine that shows its key at all of them, where it is one machine.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(lab.key, folder / "key")
        known = folder / "known_hosts"
        if key_of:
            key = next(
                line.split(" ", 1)[1]
                for line in lab.known_hosts.read_text().splitlines()
                if line.split()[0].endswith(f",{key_of}")
            )
            known.write_text("".join(f"{address} {key}\n" for address in addresses.values()))
        else:
            # That of a node comes into it with the node.
            known.symlink_to(lab.known_hosts)
        config = lab.ssh_config.read_text()
        config = config.replace(str(lab.known_hosts), str(known))
        (folder / "ssh_config").write_text(config)
        try:
            yield Site(tool, folder, addresses)
        finally:
            # Ansible's connections outlive it by a minute.
            for socket in (folder / "control").glob("*"):
                ended = ["ssh", "-O", "exit", "-S", str(socket), "any"]
                subprocess.run(ended, check=False, capture_output=True)
