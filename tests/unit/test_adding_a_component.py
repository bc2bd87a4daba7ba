"""docs/adding-a-component.md, followed to the letter in a copy of the project."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2]
PAGE = (PROJECT / "docs" / "adding-a-component.md").read_text()
#: A sentence that names a file and ends with a colon, then the file's text or a change of it.
BLOCK = re.compile(r"`([\w./-]+\.[\w.]+)`[^`]*:\n\n```(\w+)\n(.*?)```", re.DOTALL)
#: What the program, its unit tests and the page are made of.
COPIED = (
    "settings", "discovery", "components", "templates", "remote", "on_node", "operations", "docs",
)  # fmt: skip
PLAN = """
import json
from tests.unit.components.test_cluster import commands, deploy

made, outputs = deploy(clock={"servers": ["10.73.0.1"]})
print(json.dumps([sorted(commands(made)), outputs["inventory"]]))
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as it is once the page has been followed."""
    copy = tmp_path_factory.mktemp("copy")
    leave_out = shutil.ignore_patterns("__pycache__")
    for name in (*COPIED, "tests/unit"):
        shutil.copytree(PROJECT / name, copy / name, ignore=leave_out)
    for name in ("tests/__init__.py", "tests/conftest.py", "tests/prod.py"):
        shutil.copy(PROJECT / name, copy / name)
    for name in ("__main__.py", "pyproject.toml", "Pulumi.yaml", "Pulumi.prod.yaml"):
        shutil.copy(PROJECT / name, copy / name)
    for name in ("Pulumi.lab.yaml", "lab", "engine", ".venv"):
        if (PROJECT / name).exists():
            (copy / name).symlink_to(PROJECT / name)
    blocks = BLOCK.findall(PAGE)
    assert len(blocks) == PAGE.count("\n```\n"), "each block says which file it is"
    for name, language, text in blocks:
        if language == "diff":
            change(copy / name, text)
        else:
            assert not (copy / name).exists(), f"{name} is there already"
            (copy / name).parent.mkdir(exist_ok=True)
            (copy / name).write_text(text)
    return copy


def change(file: Path, diff: str) -> None:
    """Put in what is new at the one place that has the lines around it."""
    lines = diff.splitlines(keepends=True)
    before = "".join(line[1:] for line in lines if not line.startswith("+"))
    after = "".join(line[1:] for line in lines if not line.startswith("-"))
    text = file.read_text()
    assert text.count(before) == 1, f"{file.name} has no such place:\n{before}"
    file.write_text(text.replace(before, after))


def run(copy: Path, *arguments: str) -> str:
    environment = {
        **{name: value for name, value in os.environ.items() if name != "SSH_AUTH_SOCK"},
        "PULUMI_BACKEND_URL": f"file://{copy}/state",
        "PULUMI_CONFIG_PASSPHRASE": "not a secret",
    }
    done = subprocess.run(
        [sys.executable, *arguments], cwd=copy, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_in_the_plan_and_in_the_inventory(copy: Path) -> None:
    made, inventory = json.loads(run(copy, "-c", PLAN))
    assert set(inventory) == {"ctl", "cn01", "cn02"}
    for node, has in inventory.items():
        assert f"{node}-clock" in made
        assert "clock" in has["roles"]
        assert "/etc/chrony/sources.d/slurmstack.sources" in has["files"]
        assert "chrony" in has["packages"]


def test_it_is_in_the_plan_of_production(copy: Path) -> None:
    (copy / "state").mkdir()
    run(copy, "-m", "engine", "stack", "init", "prod", "--non-interactive")
    plan = run(copy, "-m", "engine", "preview", "--stack", "prod", "--non-interactive")
    assert "slurmstack:components:Clock cn64 create" in plan
    assert "command:remote:Command cn64-clock create" in plan


def test_its_test_and_those_that_know_all_components_pass(copy: Path) -> None:
    tests = (
        "components/host/test_clock.py",
        "components/test_cluster.py",
        "settings/test_documented.py",
    )
    paths = [f"tests/unit/{name}" for name in tests]
    run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", *paths)
