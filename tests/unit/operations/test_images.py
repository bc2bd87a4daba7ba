"""`slurmstack image …`: who is asked for what, in which order, and what is printed."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from operations import image_text, images
from operations.cluster import Cluster
from operations.refused import Refused
from remote.contact import ContactError, Reply
from remote.host import Host
from settings import parse
from settings.images import ImageTest
from tests.unit.components.test_cluster import bare

SMALL = {"version": "2", "base": {"suite": "trixie"}, "tests": [{"run": "true"}]}
ENTRY = {
    "name": "small", "version": "1", "file": "small+1.sqsh", "sha256": "a" * 64, "size": 3 << 20,
    "base": "trixie", "published": "2026-11-26T10:00:00Z", "followed": "", "wrong": "",
    "current": True,
}  # fmt: skip
LISTED = {
    "root": "/opt/containers", "limit": 5 << 30, "taken": 3 << 20, "published": [ENTRY],
    "candidates": [], "strangers": [],
}  # fmt: skip
Answers = Callable[[str, str, dict[str, Any]], Any]


@dataclass(frozen=True)
class Asked(Cluster):
    """A cluster whose hosts answer as a test says; what they were asked is kept."""

    answers: Answers = lambda host, verb, words: {}
    asked: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)

    def run(self, names: list[str], script: str, seconds: float) -> dict[str, Reply | ContactError]:
        found = re.search(r"-m on_node.images (\S+) (.*)\n", script)
        verb = found[1] if found else "sh"
        told = shlex.split(found[2])[0] if found and "srun" not in script else "{}"
        words = json.loads(told)
        replies: dict[str, Reply | ContactError] = {}
        for name in names:
            self.asked.append((name, verb, words))
            said = self.answers(name, verb, words)
            if isinstance(said, ContactError):
                replies[name] = said
            elif isinstance(said, str):
                replies[name] = Reply(said, "", 0)
            else:
                text = f"a word of a library\n{json.dumps(said)}\n"
                replies[name] = Reply(text, "", 3 if "refused" in said else 0)
        return replies


def cluster(answers: Answers, **more: Any) -> Asked:
    settings = parse({**bare(), "images": {"images": {"small": SMALL}}, **more})
    return Asked(settings, Path(), "lab", answers)


def silent(name: str) -> ContactError:
    return ContactError(Host(name, "10.0.0.1", "ssh-ed25519 AAAA"), "connect", "no answer", "see")


def test_names_that_are_none_are_refused_before_anybody_is_asked() -> None:
    of = cluster(lambda *_: {})
    for verb in (images.build, lambda it, name: images.tried(it, name, print)):
        with pytest.raises(
            Refused, match="nosuch: no image of slurmstack:images; there are: small"
        ):
            verb(of, "nosuch")
    without = Asked(parse(bare()), Path(), "lab")
    with pytest.raises(Refused, match="stack lab has no images: set slurmstack:images"):
        images.listing(without, quick=True)
    assert of.asked == without.asked == []


def test_the_hosts_words_are_told() -> None:
    of = cluster(lambda *_: {"refused": "the build of small 1 by anna is at it"})
    with pytest.raises(Refused, match=r"^ctl: the build of small 1 by anna is at it$"):
        images.build(of, "small")
    nothing = cluster(lambda *_: "")
    with pytest.raises(Refused, match="was pulumi up run with slurmstack:images"):
        images.build(nothing, "small")


def test_nothing_goes_while_nobody_knows_who_uses_it() -> None:
    """Over a share, a host that cannot be asked may have it open."""

    def answers(host: str, verb: str, words: dict[str, Any]) -> Any:
        if host == "cn02":
            return silent(host)
        return LISTED if verb == "ls" else {}

    share = {"images": {"server": "ctl", "path": "/opt/containers"}}
    of = cluster(answers, storage=share)
    with pytest.raises(ContactError):
        images.collect(of, False)
    with pytest.raises(ContactError):
        images.remove(of, "small", "1")
    assert {verb for _, verb, _ in of.asked} == {"ls", "used"}


def test_what_jobs_use_is_told_to_who_takes_away() -> None:
    def answers(host: str, verb: str, words: dict[str, Any]) -> Any:
        if verb == "used":
            assert host == "ctl"
            assert words["names"] == ["small+1.sqsh", "small.sqsh"]
            return {"small+1.sqsh": ["job 12"]}
        return LISTED if verb == "ls" else {"gone": [], "kept": []}

    of = cluster(answers)
    images.collect(of, dry=False)
    verbs = [(host, verb) for host, verb, _ in of.asked]
    assert verbs == [("ctl", "ls"), ("ctl", "used"), ("ctl", "gc"), ("ctl", "ls"),
                     ("cn01", "forget"), ("cn02", "forget")]  # fmt: skip
    assert of.asked[2][2]["users"] == {"small+1.sqsh": ["job 12"]}
    images.collect(of, dry=True)
    assert of.asked[-1][1] == "gc"


def test_nodes_fetch_what_is_as_it_was_published() -> None:
    def answers(host: str, verb: str, words: dict[str, Any]) -> Any:
        if verb == "pull":
            refused = {"refused": "3 MiB do not fit"}
            return refused if host == full else {"what": "fetched", "gone": []}
        return {"ls": LISTED, "used": {"small+0.sqsh": ["job 12"]}}.get(verb, {})

    full = "cn02"
    of = cluster(answers)
    told = images.pull(of, "small", "", ["cn01", "cn02"])
    assert [(it.node, it.there, it.words) for it in told] == [
        ("cn01", True, "fetched"), ("cn02", False, "3 MiB do not fit"),
    ]  # fmt: skip
    words = of.asked[-1][2]
    assert words["url"] == "http://10.73.0.10:8461/small+1.sqsh"
    assert words["entry"]["sha256"] == "a" * 64
    assert words["stay"] == ["small+0.sqsh", "small+1.sqsh"]
    assert image_text.on_nodes(told) == ["cn01: fetched", "cn02: failed: 3 MiB do not fit"]
    # Where one has not got it, the name stands for what it stood for on all.
    assert "point" not in {verb for _, verb, _ in of.asked}
    full = ""
    images.pull(of, "small", "", ["cn01", "cn02"])
    verbs = [(host, verb) for host, verb, _ in of.asked]
    assert verbs[-2:] == [("cn01", "point"), ("cn02", "point")]
    with pytest.raises(Refused, match="small: not published as 9; published of it: 1"):
        images.pull(of, "small", "9", ["cn01"])
    with pytest.raises(Refused, match=r"ctl: /opt/containers is the build host's own"):
        images.pull(of, "small", "", ["ctl"])
    changed = {**LISTED, "published": [{**ENTRY, "wrong": "it was changed"}]}
    other = cluster(lambda host, verb, words: changed)
    with pytest.raises(Refused, match="it was changed; no node was asked to fetch it"):
        images.pull(other, "small", "", ["cn01"])
    assert {verb for _, verb, _ in other.asked} == {"ls"}


def test_what_fails_on_one_host_is_not_tried_on_many() -> None:
    tests = [{"run": "true"}, {"run": "false", "nodes": 2}]
    given = {"images": {"images": {"small": {**SMALL, "tests": tests}}}, "apptainer": {}}
    known = {"tests": [{"run": "true", "passed": False, "words": "exit 1"}]}
    of = cluster(lambda *_: known, **given)
    assert images.tried(of, "small", print) == known
    assert [verb for _, verb, _ in of.asked] == ["test"]


def test_tests_on_nodes_run_in_the_runtime_that_users_have() -> None:
    tests = [{"run": "true"}, {"run": "echo $HOSTNAME", "nodes": 2}]
    given = {"images": {"images": {"small": {**SMALL, "tests": tests}}}, "apptainer": {}}
    known = {**ENTRY, "file": ".candidates/x.sqsh", "tests": [{"run": "true", "passed": True}]}

    def answers(host: str, verb: str, words: dict[str, Any]) -> Any:
        if verb == "tested":
            return {"results": words["results"]}
        if verb == "sh":
            return "cn01\ncn02\n"
        return known if verb == "test" else {}

    of = cluster(answers, **given)
    told = images.tried(of, "small", lambda _: None)
    assert told["results"] == [
        {"run": "echo $HOSTNAME", "passed": True, "words": "cn02", "nodes": 2}
    ]
    verbs = [(host, verb) for host, verb, _ in of.asked]
    assert verbs == [
        ("ctl", "test"), ("ctl", "sh"), ("cn01", "lend"), ("cn02", "lend"), ("ctl", "sh"),
        ("cn01", "give-back"), ("cn02", "give-back"), ("ctl", "tested"),
    ]  # fmt: skip


def test_a_compute_node_builds_in_a_job() -> None:
    """Its cores are of jobs."""
    of = cluster(lambda *_: {"name": "small"}, images={"host": "cn01", "images": {"small": SMALL}})
    images.build(of, "small", "main")
    (asked,) = of.asked
    assert asked[:2] == ("ctl", "build")
    words = shlex.split(images.job("cn01", "main", "echo 'a b'", 7200))
    assert words[:2] == ["cd", "/;"]
    assert {"srun", "--nodelist=cn01", "--partition=main", "--time=120"} <= {*words}
    assert words[-3:] == ["sh", "-c", "echo 'a b'"]
    with pytest.raises(Refused, match="nosuch: no such partition in the settings; there are: "):
        images.build(of, "small", "nosuch")
    with pytest.raises(Refused, match="ctl builds images and runs no jobs"):
        images.build(cluster(lambda *_: {}), "small", "main")


@pytest.mark.parametrize("pyxis", [True, False])
def test_a_step_is_one_task_a_node(pyxis: bool) -> None:
    test = ImageTest(run="python3 -c 'print(1)'", nodes=2, timeout=90)
    words = shlex.split(images.step("/opt/containers/x.sqsh", test, ["cn01", "cn02"], pyxis))
    assert words[:5] == ["srun", "--nodelist=cn[01-02]", "--nodes=2", "--ntasks=2",
                         "--ntasks-per-node=1"]  # fmt: skip
    assert "--time=2" in words
    inside = ["sh", "-c", "python3 -c 'print(1)'"]
    path = "/opt/containers/x.sqsh"
    runtime = [f"--container-image={path}"] if pyxis else ["apptainer", "exec", path]
    assert words[-len(runtime) - 3 :] == [*runtime, *inside]


@pytest.mark.parametrize(
    ("size", "told"),
    [(0, "0.0 MiB"), ((1 << 30) - 1, "1024.0 MiB"), (1 << 30, "1.0 GiB"), (3 << 29, "1.5 GiB")],
)
def test_sizes(size: int, told: str) -> None:
    told_of = {**LISTED, "published": [], "limit": 0, "taken": size, "silent": []}
    lines = image_text.listing(told_of)
    assert lines[-1].startswith(f"/opt/containers: {told} taken")


def test_the_registry_on_one_screen() -> None:
    told = {
        **LISTED, "silent": ["cn02"], "strangers": ["x.sqsh"],
        "published": [{**ENTRY, "nodes": ["cn01"], "wrong": "it was changed"}],
        "candidates": [{"name": "small", "version": "2", "sha256": "b"}],
    }  # fmt: skip
    assert image_text.listing(told) == [
        "IMAGE  VERSION  SIZE     SHA256        PUBLISHED   COPIES ON",
        "small  1 *      3.0 MiB  aaaaaaaaaaaa  2026-11-26  cn01",
        "built, not published: small 2, not tested",
        "/opt/containers: 3.0 MiB of 5.0 GiB taken; * is what the name stands for",
        "cannot be asked: cn02",
        "small 1: it was changed; nobody is to run it: put it back from a copy, or "
        "slurmstack image rm small 1",
        "/opt/containers/x.sqsh: is not published by slurmstack; move it away",
    ]
