"""Container images in the settings: what is read, and every mistake at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from settings import SettingsError, parse
from tests.unit.components.test_cluster import bare

SMALL = {"version": "1", "base": {"suite": "trixie"}}


def mistakes(images: dict[str, Any], **more: Any) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        parse({**bare(), "images": images, **more})
    return [str(it).removeprefix("slurmstack:images.") for it in refused.value.problems]


def test_what_is_left_out() -> None:
    images = parse({**bare(), "images": {"images": {"small": SMALL}}}).images
    assert images is not None
    assert (images.root, images.keep, images.keep_days) == ("/opt/containers", 3, 14)
    assert images.images["small"].tests == ()


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ({**SMALL, "base": {}}, "base: expected exactly one of suite, tarball and docker"),
        (
            {**SMALL, "base": {"suite": "trixie", "docker": "a:1"}},
            "base: expected exactly one of suite, tarball and docker",
        ),
        ({**SMALL, "version": "2-6"}, "version: expected a version in quotes"),
        ({**SMALL, "base": {"docker": "nvcr.io/pytorch"}}, "base.docker: expected REGISTRY#IMAGE"),
        (
            {**SMALL, "base": {"tarball": {"url": "ftp://x/y", "sha256": "a" * 64}}},
            "base.tarball.url: expected an http, https or file URL",
        ),
        ({**SMALL, "packages": ["a b"]}, "packages[0]: expected the name of a package"),
        ({**SMALL, "environment": {"A-B": "x"}}, "environment"),
        ({**SMALL, "tests": [{"run": "a\nb"}]}, "tests[0].run: expected a command on one line"),
        ({**SMALL, "script": "no/such.sh"}, "script: expected a file"),
    ],
)
def test_what_an_image_cannot_be(image: dict[str, Any], expected: str) -> None:
    (found,) = mistakes({"images": {"small": image}})
    assert found.startswith(f"images.small.{expected}")


def test_a_script_says_by_what_it_runs(tmp_path: Path) -> None:
    script = tmp_path / "more.sh"
    script.write_text("touch /x\n")
    (found,) = mistakes({"images": {"small": {**SMALL, "script": str(script)}}})
    assert "names its interpreter" in found
    script.write_text("#!/bin/sh\ntouch /x\n")
    parse({**bare(), "images": {"images": {"small": {**SMALL, "script": str(script)}}}})


def test_all_that_is_wrong_between_settings_at_once() -> None:
    fetched = {"version": "1", "base": {"docker": "a:1"}, "tests": [{"run": "true", "nodes": 3}]}
    found = mistakes({"host": "nowhere", "root": "/opt", "port": 8460, "images": {"a": fetched}})
    places = sorted(it.split(":")[0] for it in found)
    # No runtime is there, nor so many nodes.
    test = "images.a.tests[0].nodes"
    assert places == ["host", test, test, "root"]


def test_a_port_belongs_to_one_service() -> None:
    (found,) = mistakes({"port": 8460, "images": {"a": SMALL}})
    assert found == "port: expected another one than slurmstack:packages.port; found ctl"


def test_a_share_has_the_registry_where_it_is_published() -> None:
    share = {"server": "ctl", "path": "/srv/containers", "mount": "/opt/containers"}
    with pytest.raises(SettingsError) as refused:
        parse({**bare(), "images": {"images": {"a": SMALL}}, "storage": {"images": share}})
    (found,) = refused.value.problems
    assert found.path == "slurmstack:storage.images.path"
    good = {"server": "ctl", "path": "/opt/containers"}
    parse({**bare(), "images": {"images": {"a": SMALL}}, "storage": {"images": good}})
