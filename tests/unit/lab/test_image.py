"""Which image is taken, and which are deleted."""

import os
import time
from pathlib import Path

import pytest

from lab import image

OLD = image.MAXIMUM_AGE + 60


def made(cache: Path, name: str, age: float = 0) -> Path:
    folder = cache / name
    (folder / "etc").mkdir(parents=True)
    os.utime(folder, (time.time() - age, time.time() - age))
    return folder


def test_the_newest_image_of_the_recipe_is_taken_while_it_is_young(tmp_path: Path) -> None:
    digest = image._digest({})
    assert image.find(tmp_path, {}) is None
    made(tmp_path, f"image-{digest}-20260101T000000", OLD)
    assert image.find(tmp_path, {}) is None
    young = made(tmp_path, f"image-{digest}-20260102T000000")
    made(tmp_path, "image-0123456789ab-20260103T000000")
    assert image.find(tmp_path, {}) == young
    assert image.find(tmp_path, {"Acquire::Check-Date": "false"}) is None


def test_old_images_go_and_young_ones_stay(tmp_path: Path) -> None:
    made(tmp_path, "image-0123456789ab-20250101T000000", OLD)
    young = made(tmp_path, "image-0123456789ab-20260101T000000")
    packages = made(tmp_path, "packages", OLD)
    image._prune(tmp_path)
    assert sorted(tmp_path.iterdir()) == [young, packages]


def test_the_cache_lies_where_the_user_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURMSTACK_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert image.cache_folder() == tmp_path / "caches" / "slurmstack"
    monkeypatch.setenv("SLURMSTACK_CACHE", str(tmp_path / "mine"))
    assert image.cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("SLURMSTACK_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert image.cache_folder() == tmp_path / ".cache" / "slurmstack"
