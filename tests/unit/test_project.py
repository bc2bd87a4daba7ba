"""The project is a program: nothing of it is published, and its commands work from anywhere."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"


def run(*command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_a_wheel_holds_metadata_alone(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE", "settings", "components", "engine"):
        take = shutil.copytree if (PROJECT / name).is_dir() else shutil.copy
        take(PROJECT / name, tmp_path / name)
    done = run(sys.executable, "-c", BUILD, tmp_path, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    folders = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert folders == {f"{wheel.name.split('-py3')[0]}.dist-info"}


@pytest.mark.parametrize("package", ["components", "engine", "operations", "settings"])
def test_no_folder_is_a_package_of_the_environment(package: str, tmp_path: Path) -> None:
    done = run(sys.executable, "-c", f"import {package}", folder=tmp_path)
    assert "ModuleNotFoundError" in done.stderr


def test_slurmstack_is_a_command_in_every_folder(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(Path(sys.executable).parent / "slurmstack")
    done = run(link, "--version", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("slurmstack ")
