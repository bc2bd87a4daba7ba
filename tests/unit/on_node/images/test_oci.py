"""Images of registries as bases, without one (tests/lab/test_registry.py has it)."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from on_node.images import oci, rootfs
from on_node.images.refused import Refused

PINNED = f"10.0.0.10:5000#a/b@sha256:{'a' * 64}"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ubuntu:24.04", "docker.io/ubuntu:24.04"),
        ("nvcr.io#nvidia/pytorch:25.01-py3", "nvcr.io/nvidia/pytorch:25.01-py3"),
        (PINNED, f"10.0.0.10:5000/a/b@sha256:{'a' * 64}"),
    ],
)
def test_a_name_as_skopeo_reads_it(name: str, expected: str) -> None:
    assert oci.reference(name) == expected


def skopeo(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """What stands in for Skopeo: what it prints where it cannot be."""
    program = folder / "skopeo"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_the_digest_is_that_of_the_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skopeo(tmp_path, monkeypatch, 'printf "%s" "$*"')
    words = "inspect --raw docker://docker.io/ubuntu:24.04"
    assert oci.digest("ubuntu:24.04") == f"sha256:{hashlib.sha256(words.encode()).hexdigest()}"
    with pytest.raises(Refused, match="its registry has another image by that name: sha256:"):
        oci.digest(PINNED)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("reading manifest 1 in 10.0.0.10:5000/a: manifest unknown", "has no such image: reading"),
        ("unauthorized: authentication required", "skopeo login --authfile /root/.config/contai"),
        ("requested access to the resource is denied", "wants a login that may read it"),
        ("dial tcp 10.0.0.10:5999: connect: connection refused", "cannot be asked: dial tcp"),
    ],
)
def test_why_it_cannot_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str, words: str
) -> None:
    line = f'time="2026-01-01T00:00:00Z" level=fatal msg="Error \\\\"x\\\\": {told}"'
    skopeo(tmp_path, monkeypatch, f"printf '{line}\\n' >&2; exit 1")
    with pytest.raises(Refused) as refused:
        oci.digest("10.0.0.10:5000#a:1")
    assert words in str(refused.value).replace('Error "x": ', "")


def test_what_an_image_says_of_its_containers(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("stays")
    root = tmp_path / "rootfs"
    (root / "etc").mkdir(parents=True)
    (root / "etc/environment").symlink_to(outside)
    here = tmp_path / "it's here"
    config = {
        "Env": ["A=it's", "PATH=/x:/bin"], "WorkingDir": str(here),
        "Entrypoint": ["env", "B=two words"], "Cmd": ["sh", "-c", "pwd; echo $B"],
    }  # fmt: skip
    oci.configured(root, config)
    assert outside.read_text() == "stays"
    assert rootfs.environment(root) == {"A": "it's", "PATH": "/x:/bin"}
    assert {int((root / "etc" / it).stat().st_mtime) for it in ("rc", "environment", "fstab")} == {
        0
    }

    def run(*words: str) -> str:
        command = ["sh", str(root / "etc/rc"), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert run() == f"{here}\ntwo words\n"
    assert run("sh", "-c", "echo $B $0", "x") == "two words x\n"
    oci.configured(root, {})
    assert rootfs.environment(root) == {}
    assert run("echo", "x") == "x\n"
