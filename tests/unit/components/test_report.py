"""What `pulumi up` reports at its end, of the nodes' answers."""

from __future__ import annotations

from components.inventory import join, was_applied
from components.report import done
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
