"""What `pulumi up` reports at its end, of the nodes' answers."""

from __future__ import annotations

from components.compute.compute_node import OURS
from components.gpu import nvidia
from components.inventory import digest, join, was_applied
from components.report import _brief as brief
from components.report import alike, done, left_drained
from on_node import node_drain
from remote.answer import Answer, FileState

SHA = "ab" * 32


def answer(node: str, role: str, *actions: str, file: str = "/etc/x") -> Answer:
    return Answer(node=node, role=role, files={file: FileState(sha256=SHA)}, actions=actions)


def test_daemons_by_name_and_the_rest_by_number_for_each_set_of_nodes() -> None:
    told = done(
        [
            answer("cn02", "munge-key", "started munge.service", "installed munge", "wrote /a"),
            answer("cn01", "munge-key", "started munge.service", "installed munge", "wrote /b"),
            answer("cn01", "slurmd", "restarted slurmd.service", "wrote /c/d"),
            answer("cn02", "slurmd", "restarted slurmd.service", "wrote /c/d"),
            answer("ctl", "slurmctld", "ran x", "wrote /e", "reloaded slurmctld.service"),
        ]
    )
    assert told == [
        "cn[01-02]: started munge; restarted slurmd; 2 files; 1 package",
        "ctl: reloaded slurmctld; 1 file",
    ]


def test_nodes_that_a_run_left_drained_are_told_from_others() -> None:
    sinfo = [
        "PARTITION AVAIL  TIMELIMIT  NODES  STATE NODELIST",
        "main* up 1-00:00:00 2 drain cn01",
    ]
    reasons = [f"cn01: {OURS}", f"cn03: {OURS}: a job of one second failed",
               f"cn04: {node_drain.OURS}", f"cn05: {nvidia.OURS}"]  # fmt: skip
    left = {"cn01": OURS, "cn03": OURS, "cn04": node_drain.OURS, "cn05": nvidia.OURS}
    assert left_drained([*sinfo, *reasons]) == (sinfo, left)
    assert left_drained(sinfo) == (sinfo, {})


def test_a_role_that_did_nothing_of_this_kind_is_named() -> None:
    assert done([answer("ctl", "accounting", "ran reconcile")]) == ["ctl: applied accounting"]
    assert done([]) == []


def test_a_role_counts_as_applied_when_its_answer_is_another_than_last_time() -> None:
    old = answer("cn01", "slurmd", "started slurmd.service")
    before = join([old])
    assert not was_applied(old, before)
    assert was_applied(answer("cn01", "slurmd", "restarted slurmd.service"), before)
    assert was_applied(answer("cn01", "system"), before)
    assert was_applied(old, {})


def test_after_a_version_without_digests_what_a_role_holds_tells_whether_it_was_applied() -> None:
    old = answer("cn01", "slurmd", "started slurmd.service")
    before = join([old])
    del before["cn01"]["answers"]
    assert not was_applied(old, before)
    assert was_applied(answer("cn01", "slurmd", "wrote /b", file="/b"), before)
    assert was_applied(answer("cn01", "system"), before)


def test_a_node_that_failed_keeps_what_the_last_run_said_of_it() -> None:
    before = join([answer("cn01", "munge-key", file="/a"), answer("cn01", "slurmd", file="/b")])
    now = join([answer("cn01", "munge-key", file="/c")], (), before, {"cn01"})
    assert now["cn01"]["roles"] == ["munge-key", "slurmd"]
    assert set(now["cn01"]["files"]) == {"/a", "/b", "/c"}
    assert set(before["cn01"]["files"]) == {"/a", "/b"}
    # One that did not is told anew.
    assert set(join([answer("cn01", "node", file="/c")], (), before)["cn01"]["files"]) == {"/c"}


def test_sinfo_in_short_has_no_header_limits_or_availability() -> None:
    queue = [
        "PARTITION AVAIL TIMELIMIT NODES STATE NODELIST",
        "main* up 1-00:00:00 2 idle cn[01-02]",
        "debug up 1:00:00 1 down* cn03",
    ]
    assert brief(queue) == ["main* 2 idle cn[01-02]", "debug 1 down* cn03"]
    # What is no table of sinfo's is shown as it is.
    assert brief(["sinfo: no answer"]) == ["sinfo: no answer"]
    assert brief([*queue, "a line of something else"]) == [*queue, "a line of something else"]


def test_two_things_are_two_and_one_is_one() -> None:
    assert done([answer("ctl", "x", "installed a b", "wrote /a")]) == ["ctl: 1 file; 2 packages"]
    # A daemon that two roles restarted is named once.
    twice = [answer("ctl", role, "restarted munge.service") for role in ("x", "y")]
    assert done(twice) == ["ctl: restarted munge"]
    assert done([answer("ctl", role, "ran z") for role in ("x", "y")]) == ["ctl: applied x, y"]


def test_all_that_was_installed_counts() -> None:
    told = done([answer("ctl", "x", "installed a", "installed b c", "reloaded d.timer")])
    assert told == ["ctl: reloaded d; 3 packages"]
    both = done([answer("ctl", "x", "restarted a.service", "restarted b.socket")])
    assert both == ["ctl: restarted a, b"]


def test_a_field_that_the_program_learns_later_is_no_other_answer() -> None:
    """Else the first run of a new version would report every role of every node."""

    class Later(Answer):
        learnt: str | None = None

    told = answer("ctl", "x", "wrote /etc/x").model_dump(exclude_unset=True)
    assert digest(Later(**told)) == digest(Answer(**told))
    assert digest(Later(**told, learnt="y")) != digest(Answer(**told))


def test_a_lost_node_is_listed_as_such_and_keys_are_those_of_their_files() -> None:
    munge = Answer(node="cn01", role="m", files={"/etc/munge/munge.key": FileState(sha256=SHA)})
    jwt = Answer(node="cn01", role="a", facts={"jwt-kid": "kid"}, packages={"p": "1"})
    held = join([munge, jwt], ["cn02"])
    assert held["cn02"] == {"lost": True}
    assert held["cn01"]["keys"] == {"munge": SHA, "jwt": "kid"}
    assert held["cn01"]["roles"] == ["a", "m"]
    assert held["cn01"]["packages"] == {"p": "1"}


SIXTY_FOUR = [f"dgx{number:02}" for number in range(1, 65)]
ADDRESSES = {name: f"10.0.1.{number}" for number, name in enumerate(SIXTY_FOUR, 1)}


def rows(lines: list[str]) -> int:
    """Rows of a terminal of 100 columns, on which Pulumi indents each line by four."""
    return sum(-(-(4 + len(line)) // 100) for line in lines)


def test_nodes_that_fail_alike_are_one_error() -> None:
    problems = [
        (name, f"connect: {ADDRESSES[name]}:22 does not answer; see that {name} is up")
        for name in SIXTY_FOUR
    ]
    assert alike(problems, ADDRESSES) == [
        "dgx[01-64]: connect: ADDRESS:22 does not answer; see that NODE is up"
    ]
    # One alone is told in its own words.
    assert alike(problems[:1], ADDRESSES) == [
        "dgx01: connect: 10.0.1.1:22 does not answer; see that dgx01 is up"
    ]


def test_what_many_nodes_say_stays_on_the_screen() -> None:
    long = "check x: " + "found " * 60 + "; do it"
    assert rows(alike([("dgx01", long)], ADDRESSES)) == 3
    different = [(name, f"{long} {number}") for number, name in enumerate(SIXTY_FOUR)]
    told = alike(different, ADDRESSES)
    assert rows(told) == len(told) == 3
    assert told[-1] == "62 further errors, on dgx[03-64]: above"
    # What most have comes first; a node may have several.
    mixed = [("dgx64", "b"), *((name, "a") for name in SIXTY_FOUR[1:])]
    assert alike(mixed, ADDRESSES) == ["dgx[02-64]: a", "dgx64: b"]
