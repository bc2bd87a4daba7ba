"""Container images: which host builds, which fetch, and what a build is told."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from components.images.images import fetching, images_bundle
from remote.bundle import Bundle, Directory, File, Package, Unit
from settings import Settings, parse
from tests.unit.components.test_cluster import bare, commands, deploy, deployed

SMALL = {
    "version": "1", "base": {"suite": "trixie"}, "packages": ["python3-minimal", "busybox"],
    "environment": {"WORDS": "it's"}, "labels": {"org.example.owner": "us"},
    "tests": [{"run": "python3 -c 'import json'"}],
}  # fmt: skip


def settings(**more: Any) -> Settings:
    return parse({**bare(), "images": {"images": {"small": SMALL}}, **more})


def file(of: Bundle, path: str) -> str:
    (found,) = [it for it in of.parts if isinstance(it, File) and it.path == path]
    return str(found.content)


def recipe(given: Settings) -> dict[str, Any]:
    told = json.loads(file(images_bundle("ctl", given), "/etc/slurmstack/images.json"))
    found: dict[str, Any] = told["images"]["small"]
    return found


def test_it_is_on_all_hosts_that_run_or_submit() -> None:
    hosts = {**bare()["hosts"], "in": "10.73.0.12"}
    made, _ = deploy(
        hosts=hosts, roles={"controller": "ctl", "login": "in"},
        images={"images": {"small": SMALL}},
    )  # fmt: skip
    sent = {name for name in commands(made) if name.endswith("-images")}
    assert sent == {"ctl-images", "cn01-images", "cn02-images", "in-images"}
    without, _ = deployed()
    assert not [name for name in commands(without) if name.endswith("-images")]


def test_one_host_builds_and_serves() -> None:
    of = images_bundle("ctl", settings())
    assert {"mmdebstrap", "squashfs-tools", "busybox"} <= {
        it.name for it in of.parts if isinstance(it, Package)
    }
    assert [it.name for it in of.parts if isinstance(it, Unit)] == ["slurmstack-images.service"]
    node = images_bundle("cn01", settings())
    assert not [it for it in node.parts if isinstance(it, Unit)]
    assert "/opt/containers" in {it.path for it in node.parts if isinstance(it, Directory)}


def test_a_share_needs_no_fetching() -> None:
    share = {"server": "ctl", "path": "/opt/containers", "clients": "cn[01-02]"}
    given = settings(storage={"images": share})
    assert fetching(given) == ()
    for node in ("ctl", "cn01"):
        parts = images_bundle(node, given).parts
        # Its owner is the export's to say, and the mount's to show.
        assert "/opt/containers" not in {it.path for it in parts if isinstance(it, Directory)}
        assert not [it for it in parts if isinstance(it, Unit)]


def test_what_is_not_bootstrapped_needs_no_bootstrapping() -> None:
    base = {"tarball": {"url": "file:///srv/base.tar", "sha256": "a" * 64}}
    given = parse({**bare(), "images": {"images": {"small": {**SMALL, "base": base}}}})
    assert "mmdebstrap" not in {
        it.name for it in images_bundle("ctl", given).parts if isinstance(it, Package)
    }
    assert recipe(given)["base"] == {"url": "file:///srv/base.tar", "sha256": "a" * 64}


def test_a_python_environment_comes_from_its_lock_file(tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text(f"torch==2.6.0 --hash=sha256:{'a' * 64}\n")
    for index, wheels, source in (
        ("https://pypi.example/simple", "", "--index-url https://pypi.example/simple"),
        ("http://pypi.example:8080/simple", "",
         "--index-url http://pypi.example:8080/simple --trusted-host pypi.example:8080"),
        ("/mnt/wheels", "/mnt/wheels", "--no-index --find-links /mnt/wheels"),
    ):  # fmt: skip
        image = {**SMALL, "python": {"lock": str(lock), "index": index}}
        given = parse({**bare(), "images": {"images": {"small": image}}})
        told = recipe(given)
        assert told["lock"] == lock.read_text()
        assert told["wheels"] == wheels
        assert f" {source} -r /tmp/slurmstack/lock.txt\n" in told["script"]
        assert " --require-hashes " in told["script"]
        # An index with TLS is believed by whom the build host believes.
        names = {it.name for it in images_bundle("ctl", given).parts if isinstance(it, Package)}
        assert ("ca-certificates" in names) == index.startswith("https")


def test_its_script_is_one_of_the_shell(tmp_path: Path) -> None:
    site = tmp_path / "more.sh"
    site.write_text("#!/bin/sh\ncat <<'end'\n$HOME is `kept`\nend\n")
    image = {**SMALL, "script": str(site)}
    told = recipe(parse({**bare(), "images": {"images": {"small": image}}}))
    subprocess.run(["sh", "-n"], input=told["script"], text=True, check=True)
    assert "install busybox python3-minimal\n" in told["script"]
    # The site's own script arrives as it is written.
    lines = told["script"].split("cat >/tmp/slurmstack/site")[1]
    place = tmp_path / "site"
    text = f"cat >{place}{lines.split('chmod')[0]}"
    subprocess.run(["sh", "-e"], input=text, text=True, check=True)
    assert place.read_text() == site.read_text()


def test_the_definition_quotes_what_it_sets() -> None:
    definition = file(images_bundle("ctl", settings()), "/etc/slurmstack/images/small.def")
    assert "From: /opt/containers/small+1.sqsh\n" in definition
    line = next(it.strip() for it in definition.splitlines() if "WORDS" in it)
    done = subprocess.run(
        ["sh", "-c", f'{line}; printf %s "$WORDS"'], capture_output=True, text=True, check=True
    )
    assert done.stdout == "it's"


@pytest.mark.parametrize("nodes", [0, 2])
def test_tests_on_nodes_are_not_the_build_hosts(nodes: int) -> None:
    image = {**SMALL, "tests": [{"run": "true", "nodes": nodes}]}
    told = recipe(parse({**bare(), "apptainer": {}, "images": {"images": {"small": image}}}))
    assert told["tests"] == ([] if nodes else [{"run": "true", "timeout": 600}])
