"""The whole plan of production, without a network; how long it takes stands in `bench/`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PROGRAM = (
    "__main__.py", "settings", "discovery", "components", "templates", "remote", "on_node",
    "engine", ".venv",
)  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The program beside settings of its own, since `stack init` writes into them."""
    for name in PROGRAM:
        if (PROJECT / name).exists():
            (tmp_path / name).symlink_to(PROJECT / name)
    for name in ("Pulumi.yaml", "Pulumi.prod.yaml"):
        shutil.copy(PROJECT / name, tmp_path / name)
    (tmp_path / "state").mkdir()
    return tmp_path


def run(project: Path, *arguments: str) -> str:
    # A network namespace of its own: nothing but loopback is there to be reached.
    alone = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    prefix = alone if os.geteuid() == 0 and shutil.which("ip") else []
    environment = {
        **{name: value for name, value in os.environ.items() if name != "SSH_AUTH_SOCK"},
        "PULUMI_BACKEND_URL": f"file://{project}/state",
        "PULUMI_CONFIG_PASSPHRASE": "not a secret",
    }
    command = [*prefix, sys.executable, "-m", "engine", *arguments, "--non-interactive"]
    done = subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_plan_of_64_nodes(project: Path) -> None:
    run(project, "stack", "init", "prod")
    plan = run(project, "preview", "--stack", "prod")
    for name in ("sm02-slurmctld", "sm03-login", "cn01-slurmd", "cn64-slurmd", "cn64-system"):
        assert f"command:remote:Command {name} create" in plan
    assert "warning: no host key is known for cn01" in plan
    assert not list(project.glob(".slurmstack/**/facts.json")), "no node is asked for its hardware"
