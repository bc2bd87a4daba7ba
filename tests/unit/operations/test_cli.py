"""The verbs of `slurmstack`."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from operations.check import HostReport
from operations.check import table as checked
from operations.cli import main
from operations.inventory import summary

PROJECT = Path(__file__).parents[3]


def test_every_verb_that_the_docs_show_is_there() -> None:
    pages = [PROJECT / "README.md", *(PROJECT / "docs").glob("*.md")]
    text = "\n".join(page.read_text() for page in pages)
    # In a block of commands or in backticks; elsewhere it is the product's name.
    shown = set(re.findall(r"(?:^ *|`)slurmstack ([a-z]+)\b", text, re.MULTILINE))
    assert shown == set(typer.main.get_command(main).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "words", [["inventory"], ["check"], ["token", "alice"], ["topology", __file__]], ids=str
)
def test_a_wrong_folder_is_one_clear_line(words: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(main, [*words, "--stack", "lab", "--cwd", str(tmp_path)])
    assert done.exit_code == 1
    assert done.output == (
        f"slurmstack: no Pulumi.yaml in {tmp_path} or above it; "
        "go to the project's folder, or name it with --cwd\n"
    )


def test_a_verb_that_is_not_there_is_told_with_the_nearest() -> None:
    done = CliRunner().invoke(main, ["tokn"])
    assert done.exit_code == 2
    assert "No such command 'tokn'. Did you mean 'token'?" in done.output


def test_only_the_verb_that_is_called_is_loaded() -> None:
    loads = "import sys; from operations.cli import main; main(['topology', '--help'], "
    loads += (
        "standalone_mode=False); print(*(m for m in sys.modules if m.startswith('operations.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", loads], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    loaded = done.stdout.splitlines()[-1].split()
    assert "operations.commands.topology" in loaded
    assert not {"operations.commands.check", "operations.commands.token"} & set(loaded)


def test_the_shell_completes_verbs(tmp_path: Path) -> None:
    words = {"_SLURMSTACK_COMPLETE": "complete_bash", "COMP_WORDS": "slurmstack to"}
    done = subprocess.run(
        [Path(sys.executable).parent / "slurmstack"],
        env={**os.environ, **words, "COMP_CWORD": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["token", "topology"]


def test_the_version_is_that_of_the_project() -> None:
    done = CliRunner().invoke(main, ["--version"])
    project = (PROJECT / "pyproject.toml").read_text()
    match = re.search(r'^version = "(.*)"$', project, re.MULTILINE)
    assert match
    assert done.output == f"slurmstack {match[1]}\n"


def printed(table: Any, width: int) -> list[str]:
    sink = io.StringIO()
    Console(file=sink, width=width).print(table)
    return sink.getvalue().splitlines()


def test_check_keeps_words_whole_in_80_columns_and_has_no_frame() -> None:
    values = {
        "os": "Debian GNU/Linux 13 (trixie)", "kernel": "6.1.0-40-cloud-amd64", "driver": "570.1",
        "gpu_models": "8 × NVIDIA H100 80GB HBM3", "dcgm": "4.2", "ofed": "MLNX_OFED-24.10",
        "skew": "0", "cgroup": "v2", "free_root": "90000", "free_var": "90000",
        "resolves": "10.10.1.1",
    }  # fmt: skip
    found = HostReport(
        values,
        infiniband=["mlx5_0/1 ACTIVE 400 InfiniBand"],
        fails=["no apt-get on it"],
        warns=["no DCGM"],
    )
    lines = printed(checked({"cn01": found}), 80)
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert not set(text) & set("│┃─━┏")
    for word in (*" ".join(values.values()).split(), "FAILS:", "InfiniBand", "cn01"):
        assert word in text


def test_the_inventory_is_a_line_a_node() -> None:
    node = {
        "roles": ["munge-key", "slurmd"], "keys": {"munge": "ab" * 32},
        "files": {"/a": "", "/b": ""}, "packages": {"munge": "1"}, "units": {},
    }  # fmt: skip
    lines = printed(summary({"cn01": node, "cn02": node, "cn03": {"lost": True}, "cn04": node}), 80)
    assert len(lines) == 5
    assert re.search(r"cn01 +munge-key, slurmd +abababababab +2 +1 +0$", lines[1].rstrip())
    assert re.search(r"cn03 +lost$", lines[3].rstrip())
    assert lines[4].startswith("cn04 ")


def test_every_documented_command_takes_secrets_from_stdin() -> None:
    pages = [PROJECT / "README.md", *(PROJECT / "docs").rglob("*.md")]
    commands = [
        (page.name, match[0])
        for page in pages
        for match in re.finditer(r"config set [^`\n]*--secret[^`\n]*", page.read_text())
    ]
    assert len(commands) > 3
    for name, command in commands:
        key, *rest = command.partition("--secret")[2].split()
        assert key == "KEY" or key.startswith("slurmstack:"), (name, command)
        # From a file, a pipe or a prompt; never among the arguments, which /proc shows to all.
        assert not rest or rest[0].startswith("<"), (name, command)
