"""Images by their names: what Pyxis asks, and what it is answered."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from components.compute.compute_node import compute_bundle
from components.containers.enroot_pyxis import IMPORTER, PYXIS_CONF
from components.controller.slurm_controller import controller_bundle
from remote.bundle import Bundle, File
from settings import Settings, parse
from settings.model import Hardware
from templates.rendering import render
from tests.unit.components.images.test_images import SMALL
from tests.unit.components.test_cluster import bare
from tests.unit.settings.test_containers import CONTAINERS, PYXIS

HARDWARE = Hardware(CPUs=2, SocketsPerBoard=1, CoresPerSocket=2, ThreadsPerCore=1, RealMemory=2000)
OPTION = f"importer={IMPORTER}"
ENROOT = """#!/bin/sh
[ "$1 $2" = "import --output" ] || exit 1
echo "fetching $4"
echo "$4" >"$3"
"""


def settings(version: str = "0.24.0", **options: str) -> Settings:
    pyxis = {**PYXIS, "version": version, "options": options}
    return parse(
        {**bare(), "enrootPyxis": {**CONTAINERS, "pyxis": pyxis},
         "images": {"root": "/srv/images", "images": {"small": SMALL}}}
    )  # fmt: skip


def files(of: Bundle) -> dict[str, str]:
    return {it.path: str(it.content) for it in of.parts if isinstance(it, File)}


def on_node(given: Settings) -> dict[str, str]:
    return files(compute_bundle("cn01", given, dict.fromkeys(given.compute, HARDWARE)))


def test_pyxis_asks_it_where_it_can() -> None:
    given = settings()
    placed = on_node(given)
    assert "/srv/images/" in placed[IMPORTER]
    assert placed[PYXIS_CONF].split()[-1] == OPTION
    # Where jobs are submitted, the line is the same, and nothing is fetched.
    controller = files(controller_bundle("ctl", given, dict.fromkeys(given.compute, HARDWARE)))
    assert controller[PYXIS_CONF] == placed[PYXIS_CONF]
    assert IMPORTER not in controller


@pytest.mark.parametrize(
    "given",
    [
        settings("0.20.0"),
        settings(importer="/opt/site/importer"),
        parse({**bare(), "enrootPyxis": {**CONTAINERS, "pyxis": {**PYXIS, "version": "0.24.0"}}}),
    ],
)
def test_it_is_not_asked_elsewhere(given: Settings) -> None:
    """A Pyxis that would refuse the option, a site's own, no images."""
    placed = on_node(given)
    assert IMPORTER not in placed
    assert OPTION not in placed[PYXIS_CONF]


@pytest.fixture
def asked(tmp_path: Path) -> Any:
    """Call the importer as Pyxis does, in a registry with an image in two versions."""
    root, programs = tmp_path / "images", tmp_path / "bin"
    for folder in (root, programs):
        folder.mkdir()
    for version in ("1", "2"):
        (root / f"small+{version}.sqsh").touch()
    (root / "small.sqsh").symlink_to("small+2.sqsh")
    (programs / "enroot").write_text(ENROOT)
    (programs / "enroot").chmod(0o755)
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYXIS_RUNTIME_PATH": str(tmp_path), "SLURM_JOB_UID": "5001",
        "SLURM_JOB_ID": "12", "SLURM_STEP_ID": "0",
    }  # fmt: skip
    script = render("containers/pyxis-importer.sh", root=str(root))

    def ask(*words: str) -> str:
        return subprocess.run(
            ["sh", "-c", script, "sh", *words],
            env=environment, capture_output=True, text=True, check=True, timeout=30,
        ).stdout.strip()  # fmt: skip

    return ask


@pytest.mark.parametrize(
    ("image", "file"), [("small", "small+2.sqsh"), ("small:1", "small+1.sqsh")]
)
def test_an_image_of_the_registry_is_taken_where_it_lies(
    asked: Any, tmp_path: Path, image: str, file: str
) -> None:
    path = tmp_path / "images" / file
    assert asked("get", f"docker://{image}") == str(path)
    asked("release")
    assert path.exists()


@pytest.mark.parametrize(
    "image",
    [
        "docker://ubuntu:24.04", "docker://small:3", "docker://nvcr.io#nvidia/small:1",
        "docker://me@site.example:5000#small", "docker://team/small", "dockerd://small",
        "docker://../images/small",
    ],
)  # fmt: skip
def test_others_are_fetched_and_taken_away(asked: Any, tmp_path: Path, image: str) -> None:
    path = tmp_path / "5001/12.0.squashfs"
    assert asked("get", image) == str(path)
    assert path.read_text().strip() == image
    assert path.parent.stat().st_mode & 0o777 == 0o700
    asked("release")
    asked("release")
    assert not path.exists()
