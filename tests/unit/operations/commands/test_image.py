"""`slurmstack image …`: exit codes (docs/images.md), and what is printed for programs."""

from __future__ import annotations

from typing import Any

import pytest

from operations.images import OnNode
from operations.refused import Refused
from tests.unit.operations.commands.console import Pulumi, Slurmstack, Standing
from tests.unit.operations.test_images import ENTRY, LISTED, SMALL

KNOWN = {
    "name": "small", "version": "2", "base": "trixie", "packages": 3, "seconds": 9, "size": 2 << 20,
    "sha256": "b" * 64, "tests": [{"run": "true", "passed": True, "words": ""}],
}  # fmt: skip
GOOD, BAD = OnNode("cn01", True, "fetched"), OnNode("cn02", False, "no space left")


@pytest.fixture(autouse=True)
def images(pulumi: Pulumi) -> None:
    """A stack that has them."""
    pulumi.config["images"] = {"images": {"small": SMALL}}


def test_where_an_image_is_made_is_told_before_it_is(
    slurmstack: Slurmstack, instead: Standing
) -> None:
    build = instead("operations.images.build", KNOWN)
    done = slurmstack("image", "build", "small", "--partition", "gpu")
    assert done.stderr == "small: is made on ctl\n"
    assert "next: slurmstack image test small" in done.stdout
    assert slurmstack.json("image", "build", "small", "--stack", "y") == KNOWN
    assert build.calls == [("x", "small", "gpu"), ("y", "small", "")]
    build.result = Refused("ctl: no space left")
    done = slurmstack("image", "build", "small", code=1)
    assert done.stderr.endswith("slurmstack: ctl: no space left\n")


def test_a_test_that_fails_is_exit_code_1(
    slurmstack: Slurmstack, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: dict[str, Any] = {**KNOWN}

    def tried(_: Any, name: str, say: Any) -> dict[str, Any]:
        say(f"on 2 nodes: {name}")
        return known

    monkeypatch.setattr("operations.images.tried", tried)
    done = slurmstack("image", "test", "small")
    assert (done.stdout.splitlines()[0], done.stderr) == ("passed  true", "on 2 nodes: small\n")
    known["tests"] = [*KNOWN["tests"], {"run": "false", "passed": False, "words": "exit 1"}]  # type: ignore[misc]
    assert "FAILED  false  (exit 1)" in slurmstack("image", "test", "small", code=1).stdout
    assert slurmstack.json("image", "test", "small", code=1) == known


def test_what_is_published_is_told_as_users_write_it(
    slurmstack: Slurmstack, instead: Standing
) -> None:
    publish = instead("operations.images.publish", ENTRY)
    page = slurmstack("image", "publish", "small").stdout
    assert "srun --container-image=/opt/containers/small.sqsh" in page
    assert slurmstack.json("image", "publish", "small", "--version", "1") == ENTRY
    assert publish.calls == [("x", "small", ""), ("x", "small", "1")]


def test_an_image_that_is_not_as_published_is_exit_code_1(
    slurmstack: Slurmstack, instead: Standing
) -> None:
    entry = {**ENTRY, "nodes": ["cn01"]}
    told = {**LISTED, "published": [entry], "silent": []}
    ls = instead("operations.images.listing", told)
    assert "small" in slurmstack("image", "ls").stdout
    assert slurmstack.json("image", "ls", "--quick") == told
    assert ls.calls == [("x", False), ("x", True)]
    ls.result = {**told, "published": [{**entry, "wrong": "its bytes are others"}]}
    page = slurmstack("image", "ls", code=1).stdout
    assert "its bytes are others; nobody is to run it" in page
    ls.result = {**told, "strangers": ["other.sqsh"]}
    assert "other.sqsh: is not published by slurmstack" in slurmstack("image", "ls", code=1).stdout


def test_a_node_that_has_not_got_an_image_is_named_with_exit_code_1(
    slurmstack: Slurmstack, instead: Standing
) -> None:
    pull = instead("operations.images.pull", [GOOD])
    assert slurmstack("image", "pull", "small").stdout == "cn01: fetched\n"
    slurmstack("image", "pull", "small", "--nodes", "@gpu", "--version", "1")
    every = ["cn01", "cn02", "cn03", "cn04", "gpu1", "gpu2", "gpu3"]
    assert [(*words[:3], [*words[3]]) for words in pull.calls] == [
        ("x", "small", "", every), ("x", "small", "1", ["gpu1", "gpu2", "gpu3"]),
    ]  # fmt: skip
    pull.result = [GOOD, BAD]
    page = slurmstack("image", "pull", "small", code=1).stdout
    assert page == "cn01: fetched\ncn02: failed: no space left\n"
    assert slurmstack.json("image", "pull", "small", code=1)[1] == {
        "node": "cn02", "there": False, "words": "no space left",
    }  # fmt: skip
    pull.result = []
    assert slurmstack("image", "pull", "small").stdout == "no node fetches images\n"
    assert slurmstack.refused("image", "pull", "small", "--nodes", "cn09").startswith("cn09: no")


def test_of_a_stack_without_images_nothing_is_pulled(
    slurmstack: Slurmstack, instead: Standing, pulumi: Pulumi
) -> None:
    pull = instead("operations.images.pull", [])
    del pulumi.config["images"]
    line = slurmstack.refused("image", "pull", "small")
    assert line == "stack x has no images: set slurmstack:images and run pulumi up"
    assert pull.calls == []


def test_a_version_is_taken_away_and_nodes_that_keep_it_are_named(
    slurmstack: Slurmstack, instead: Standing
) -> None:
    remove = instead("operations.images.remove", (ENTRY, [GOOD]))
    done = slurmstack("image", "rm", "small", "1")
    assert done.stdout == "small 1: taken away\ncn01: fetched\n"
    remove.result = ENTRY, [BAD]
    assert "cn02: failed: no space left" in slurmstack("image", "rm", "small", "1", code=1).stdout
    told = slurmstack.json("image", "rm", "small", "1", code=1)
    assert told["gone"] == [ENTRY]
    assert [it["node"] for it in told["nodes"]] == ["cn02"]
    assert remove.calls == [("x", "small", "1")] * 3
    remove.result = Refused("small 1: job 7 uses it")
    assert slurmstack.refused("image", "rm", "small", "1") == "small 1: job 7 uses it"


def test_a_dry_run_takes_nothing_away(slurmstack: Slurmstack, instead: Standing) -> None:
    kept = {"title": "small 2", "why": "job 7 uses it"}
    done = {"gone": [{"name": "small", "version": "1", "size": 3 << 20}], "kept": [kept]}
    collect = instead("operations.images.collect", (done, []))
    assert slurmstack("image", "gc", "--dry-run").stdout.splitlines() == [
        "small 1: would be taken away, 3.0 MiB", "small 2: stays, job 7 uses it",
    ]  # fmt: skip
    collect.result = done, [BAD]
    assert slurmstack("image", "gc", code=1).stdout.splitlines()[::2] == [
        "small 1: taken away, 3.0 MiB", "cn02: failed: no space left",
    ]  # fmt: skip
    assert slurmstack.json("image", "gc", code=1) == {
        **done, "nodes": [{"node": "cn02", "there": False, "words": "no space left"}],
    }  # fmt: skip
    assert collect.calls == [("x", True), ("x", False), ("x", False)]
