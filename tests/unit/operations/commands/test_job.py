"""`slurmstack job …`: exit codes, and what the controller is asked."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from components.kubernetes.job_files import COMMAND
from on_node.kubernetes.job_file import MAX_SIZE
from operations.cluster import Cluster
from operations.job_pull import Fetched
from operations.job_show import Shown
from operations.refused import Refused
from remote.contact import ContactError, Reply
from remote.host import Host
from tests.unit.components.kubernetes.test_job_files import BRIDGE
from tests.unit.components.test_bundles import PODS
from tests.unit.operations.commands.console import Pulumi, Slurmstack, Standing


class Replies:
    """What hosts reply, and the scripts that they were sent."""

    def __init__(self) -> None:
        self.of: dict[str, Reply | ContactError] = {}
        self.asked: list[tuple[list[str], str, float]] = []

    def run(
        self, _: Cluster, names: list[str], script: str, seconds: float
    ) -> dict[str, Reply | ContactError]:
        self.asked.append((names, script, seconds))
        return {name: self.of.get(name, Reply("", "", 0)) for name in names}


@pytest.fixture
def replies(pulumi: Pulumi, monkeypatch: pytest.MonkeyPatch) -> Replies:
    made = Replies()
    monkeypatch.setattr(Cluster, "run", lambda *words: made.run(*words))
    pulumi.config["kubernetesBridge"] = BRIDGE
    return made


def test_a_job_file_that_is_right(slurmstack: Slurmstack, replies: Replies, tmp_path: Path) -> None:
    file = tmp_path / "my job.sh"
    file.write_text("#!/bin/sh\n")
    done = slurmstack("job", "check", str(file), "--user", "anna b")
    assert done.stdout == f"{file}: nothing is wrong\n"
    ((names, script, _),) = replies.asked
    assert names == ["ctl"]
    first, text, _ = script.splitlines()
    assert first == f"base64 -d <<'END' | {COMMAND} check - 'anna b'"
    assert base64.b64decode(text) == b"#!/bin/sh\n"
    assert slurmstack.json("job", "check", str(file)) == {"file": str(file), "mistakes": []}


def test_a_job_file_that_is_too_large_is_sent_as_such(
    slurmstack: Slurmstack, replies: Replies, tmp_path: Path
) -> None:
    """Cut to what is allowed it would be judged by what is left of it; what a login says besides
    is no mistake."""
    file = tmp_path / "job.sh"
    file.write_bytes(b"#" * (MAX_SIZE + 9))
    replies.of["ctl"] = Reply("", "a note of the login shell\n", 0)
    assert slurmstack("job", "check", str(file)).stdout == f"{file}: nothing is wrong\n"
    assert len(base64.b64decode(replies.asked[0][1].splitlines()[1])) > MAX_SIZE


def test_a_job_file_with_mistakes_is_exit_code_1(
    slurmstack: Slurmstack, replies: Replies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "carl")
    file = tmp_path / "job.sh"
    file.write_text("#!/bin/sh\n")
    words = "slurmstack-job: -: line 3: --partition: there is no gpus\nslurmstack-job: -: line 9: x"
    replies.of["ctl"] = Reply("", f"{words}\n", 1)
    assert slurmstack("job", "check", str(file), code=1).stdout.splitlines() == [
        f"{file}: line 3: --partition: there is no gpus", f"{file}: line 9: x",
    ]  # fmt: skip
    assert replies.asked[0][1].splitlines()[0].endswith(" carl")
    told = slurmstack.json("job", "check", str(file), code=1)
    assert told["mistakes"] == ["line 3: --partition: there is no gpus", "line 9: x"]


@pytest.mark.parametrize(
    ("reply", "line"),
    [
        (Reply("", "slurmstack-job: -: slurmctld does not answer\n", 2),
         "ctl: slurmctld does not answer"),
        (Reply("", "", 127), "ctl: exit 127"),
        (ContactError(Host("ctl", "10.0.0.1", ""), "connect", "no answer", "see"),
         "ctl: connect: no answer; see"),
    ],
)  # fmt: skip
def test_a_job_file_of_which_nothing_can_be_told_is_not_right(
    reply: Reply | ContactError, line: str, slurmstack: Slurmstack, replies: Replies,
    tmp_path: Path,
) -> None:  # fmt: skip
    file = tmp_path / "job.sh"
    file.write_text("#!/bin/sh\n")
    replies.of["ctl"] = reply
    assert slurmstack.refused("job", "check", str(file)) == line


def test_a_job_file_that_cannot_be_read_or_has_no_bridge(
    slurmstack: Slurmstack, replies: Replies, tmp_path: Path, pulumi: Pulumi
) -> None:
    file = tmp_path / "none"
    assert slurmstack.refused("job", "check", str(file)) == f"{file}: No such file or directory"
    for verb in (["check", str(file)], ["registries"], ["verify", "12"], ["pull", "r/a:1"]):
        pulumi.config.pop("kubernetesBridge", None)
        line = slurmstack.refused("job", *verb)
        assert line.startswith("stack x ")
        assert "set slurmstack:kubernetesBridge" in line
    assert replies.asked == []


def test_a_job_on_one_screen(slurmstack: Slurmstack, instead: Standing) -> None:
    shown = Shown("12", "train", "al", "ai", "normal", "gpu", "PENDING", reason="Priority",
                  meaning="others come first", before=0)  # fmt: skip
    show = instead("operations.job_show.show", shown)
    page = slurmstack("job", "show", "12").stdout
    assert page.startswith("job 12  train\n  of        al (account ai, QOS normal)")
    assert "others come first" in page
    told = slurmstack.json("job", "show", "12_3", "--stack", "y")
    assert (told["state"], told["reason"], told["before"], told["output"]) == (
        "PENDING", "Priority", 0, [],
    )  # fmt: skip
    assert show.calls == [("x", "12"), ("y", "12_3")]
    show.result = Refused("ctl: there is no job 12, and none is in accounting")
    assert slurmstack.refused("job", "show", "12").startswith("ctl: there is no job 12")


def test_results_that_are_other_are_exit_code_1(slurmstack: Slurmstack, instead: Standing) -> None:
    verify = instead("operations.job_verify.verify", [])
    assert slurmstack("job", "verify", "12").stdout == "job 12: its results are as they were\n"
    assert slurmstack.json("job", "verify", "12") == {"job": "12", "differences": []}
    verify.result = ["model.pt: other content"]
    assert slurmstack("job", "verify", "12", code=1).stdout == "model.pt: other content\n"
    assert slurmstack.json("job", "verify", "12", code=1)["differences"] == verify.result


def test_nodes_that_have_not_got_an_image_are_exit_code_1(
    slurmstack: Slurmstack, instead: Standing
) -> None:
    good = [Fetched(node, "r/a:1", True, "3") for node in ("cn01", "cn02")]
    pull = instead("operations.job_pull.pull", good)
    assert slurmstack("job", "pull", "r/a:1").stdout == "cn[01-02]: r/a:1: is there\n"
    slurmstack("job", "pull", "r/a:1", "r/b:2", "--nodes", "@gpu", "--within", "2h")
    every = ["cn01", "cn02", "cn03", "cn04", "gpu1", "gpu2", "gpu3"]
    assert pull.calls == [
        ("x", ["r/a:1"], every, 1800), ("x", ["r/a:1", "r/b:2"], ["gpu1", "gpu2", "gpu3"], 7200),
    ]  # fmt: skip
    pull.result = [*good, Fetched("cn03", "r/a:1", False, "no space")]
    done = slurmstack("job", "pull", "r/a:1", code=1)
    assert done.stdout.splitlines()[1] == "cn03: r/a:1: failed: no space"
    told = slurmstack.json("job", "pull", "r/a:1", code=1)
    assert told[2] == {"node": "cn03", "image": "r/a:1", "there": False, "words": "no space"}


@pytest.fixture
def pods(replies: Replies, pulumi: Pulumi) -> Replies:
    """A stack whose jobs are pods."""
    pulumi.config["kubernetesBridge"] = {**BRIDGE, "pods": PODS}
    pulumi.secrets["kubernetesToken"] = "a-token-of-kubernetes"
    return replies


def test_the_controller_has_nodes_fetch_images(slurmstack: Slurmstack, pods: Replies) -> None:
    pods.of["ctl"] = Reply("cn01|hub:5407/a:1|pulled|3\n\ncn02|hub:5407/a:1|failed|full\n", "", 1)
    words = ("job", "pull", "hub:5407/a:1", "quay.example/b:2", "--nodes", "cn[01-02]")
    assert slurmstack(*words, "--within", "2m", code=1).stdout.splitlines() == [
        "cn01: hub:5407/a:1: is there", "cn02: hub:5407/a:1: failed: full",
    ]  # fmt: skip
    ((names, script, seconds),) = pods.asked
    assert names == ["ctl"]
    asked = "120 cn01,cn02 hub:5407/a:1,quay.example/b:2\n"
    assert script.endswith(f"python3 -m on_node.pods.pull {asked}")
    assert seconds > 120  # it tells itself what was not there in time


@pytest.mark.parametrize("image", ["other.site/a:1", "hub:5407/a", "hub:5407/a b:1"])
def test_an_image_that_no_job_may_have_is_refused(
    image: str, slurmstack: Slurmstack, pods: Replies
) -> None:
    line = slurmstack.refused("job", "pull", "hub:5407/a:1", image)
    assert line == (
        f"{image}: expected an image of hub:5407 or quay.example with a tag or a digest"
    )
    assert pods.asked == []


def test_the_controller_looks_at_results(
    slurmstack: Slurmstack, pods: Replies, pulumi: Pulumi
) -> None:
    pods.of["ctl"] = Reply("model.pt: other content\n", "", 1)
    assert slurmstack("job", "verify", "12", code=1).stdout == "model.pt: other content\n"
    assert pods.asked[0][1].endswith("python3 -m on_node.pods.verify 12\n")
    pods.asked.clear()
    without = {key: value for key, value in PODS.items() if key != "results"}
    pulumi.config["kubernetesBridge"] = {**BRIDGE, "pods": without}
    line = slurmstack.refused("job", "verify", "12")
    assert line.startswith("stack x keeps no results: set slurmstack:kubernetesBridge.pods.results")
    assert pods.asked == []


@pytest.mark.parametrize(
    ("reply", "line"),
    [
        (Reply("first\nthere is no job 12\n", "a warning\n", 2), "ctl: there is no job 12"),
        (Reply("\n", "Traceback\n  x\nOSError: gone\n", 3), "ctl: OSError: gone"),
        (Reply("", "", -9), "ctl: exit -9"),
        (ContactError(Host("ctl", "10.0.0.1", ""), "connect", "no answer", "see"),
         "ctl: connect: no answer; see"),
    ],
)  # fmt: skip
def test_a_program_that_cannot_tell_is_no_answer(
    reply: Reply | ContactError, line: str, slurmstack: Slurmstack, pods: Replies
) -> None:
    pods.of["ctl"] = reply
    assert slurmstack.refused("job", "verify", "12") == line
    assert slurmstack.refused("job", "pull", "hub:5407/a:1") == line


def test_words_that_are_none_pull_nothing(slurmstack: Slurmstack, instead: Standing) -> None:
    pull = instead("operations.job_pull.pull", [])
    assert slurmstack.refused("job", "pull", "r/a:1", "--nodes", "ctl").startswith("ctl: not for")
    done = slurmstack("job", "pull", "r/a:1", "--within", "soon", code=2)
    assert "--within" in done.stderr
    assert pull.calls == []


def test_a_registry_that_does_not_answer_is_exit_code_1(
    slurmstack: Slurmstack, replies: Replies, pulumi: Pulumi
) -> None:
    pulumi.config["roles"] = {"controller": "ctl", "login": "spare"}
    pulumi.config["kubernetesBridge"] = {**BRIDGE, "registryTimeout": 60}
    fine = Reply("registry.site answers\n", "", 0)
    replies.of = {"ctl": fine, "spare": fine}
    assert slurmstack("job", "registries").stdout == "all registries answer ctl, spare\n"
    ((names, script, seconds),) = replies.asked
    assert (names, script) == (["ctl", "spare"], f"exec {COMMAND} registries\n")
    # Each is waited for in its turn.
    assert seconds > 60 * len(BRIDGE["registries"])
    assert slurmstack.json("job", "registries") == {"ctl": [], "spare": []}
    replies.of = {
        "ctl": Reply("registry.site answers\nother.site: timed out\n", "", 1),
        "spare": Reply("", "a warning\nanother\nno such command\n", 127),
    }
    assert slurmstack("job", "registries", code=1).stdout.splitlines() == [
        "ctl: other.site: timed out", "spare: no such command",
    ]  # fmt: skip
    gone = ContactError(Host("ctl", "10.0.0.1", ""), "connect", "no answer", "see")
    replies.of = {"ctl": gone, "spare": Reply("", "", 9)}
    told = slurmstack.json("job", "registries", code=1)
    assert told == {"ctl": [str(gone)], "spare": ["exit 9"]}
