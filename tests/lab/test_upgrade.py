"""From the version before to this one, with jobs running: what stands is taken over as it is."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.conftest import CHECKOUT, environment, own_name, why_not

pytestmark = pytest.mark.lab

#: The last commit of the first version.
BEFORE = "cc04f9850bc72df4d547f3e2469d7baa5eee11b9"

UNITS = [
    ("ctl", "slurmctld"), ("ctl", "slurmdbd"), ("ctl", "mariadb"), ("ctl", "munge"),
    ("ctl", "slurmrestd"), ("ctl", "haproxy"), ("login01", "munge"), ("login01", "sackd"),
    ("cn01", "slurmd"), ("cn01", "munge"), ("cn02", "slurmd"), ("cn02", "munge"),
]  # fmt: skip


class Clone:
    """A checkout of its own, whose commit changes under a running lab."""

    def __init__(self, folder: Path, lab: str) -> None:
        self.folder, self.lab = folder, lab

    def run(self, *command: str, timeout: float = 900) -> str:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=environment("VIRTUAL_ENV"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode != 0:
            pytest.fail(f"{' '.join(command)}: {done.stdout}\n{done.stderr}", pytrace=False)
        return done.stdout

    def ssh(self, node: str, command: str) -> str:
        config = str(self.folder / ".lab" / self.lab / "ssh_config")
        return self.run("ssh", "-F", config, node, command, timeout=60).strip()

    def pulumi(self, words: str) -> str:
        script = f'eval "$(make -s env LAB={self.lab})" && pulumi {words} --stack {self.lab}'
        return self.run("sh", "-c", script)

    def invocations(self) -> dict[tuple[str, str], str]:
        """Another one where a unit was restarted."""
        return {
            (node, unit): self.ssh(node, f"systemctl show -P InvocationID {unit}")
            for node, unit in UNITS
        }


@pytest.fixture
def clone() -> Iterator[Clone]:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    known = subprocess.run(
        ["git", "-C", str(CHECKOUT), "cat-file", "-e", f"{BEFORE}^{{commit}}"],
        capture_output=True,
        check=False,
    )
    if known.returncode != 0:
        pytest.skip(f"this checkout's history does not reach back to {BEFORE}")
    # A short path: the lab's agent has its socket below it.
    with tempfile.TemporaryDirectory(prefix="slurmstack-") as folder:
        subprocess.run(["git", "clone", "--quiet", str(CHECKOUT), folder], check=True)
        made = Clone(Path(folder), own_name("up"))
        try:
            yield made
        finally:
            made.run("make", "lab-down", f"LAB={made.lab}")


def test_jobs_and_daemons_go_on(clone: Clone) -> None:
    present = clone.run("git", "rev-parse", "HEAD").strip()
    clone.run("git", "checkout", "--quiet", BEFORE)
    clone.run("make", "lab", f"LAB={clone.lab}")
    running = clone.ssh("ctl", "sbatch --parsable -N2 --wrap 'sleep 900'")
    waiting = clone.ssh("ctl", "sbatch --parsable -N2 --exclusive --wrap 'sleep 900'")
    clone.ssh(
        "ctl",
        f"timeout 240 sh -c 'until [ $(squeue -h -j {running} -o %T) = RUNNING ]; do :; done'",
    )
    clone.ssh(
        "ctl",
        "scontrol create reservation=planned starttime=now+1days duration=60 users=root nodes=cn01",
    )
    before = clone.invocations()

    clone.run("git", "checkout", "--quiet", present)
    clone.run("make", "venv")
    printed = clone.pulumi("up --yes --skip-preview --non-interactive")
    assert not re.search(r"\b(replaced|deleted)\b", printed), printed
    after = clone.invocations()
    assert {unit for unit in UNITS if before[unit] != after[unit]} == set()
    assert clone.ssh("ctl", f"squeue -h -j {running} -o '%T %M'").startswith("RUNNING")
    assert clone.ssh("ctl", f"squeue -h -j {waiting} -o %T") == "PENDING"
    assert "planned" in clone.ssh("ctl", "scontrol show reservation -o")
    assert "unchanged" in clone.pulumi("up --yes --expect-no-changes --non-interactive")
