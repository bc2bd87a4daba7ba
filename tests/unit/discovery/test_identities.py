"""Whose numbers differ between hosts. How hosts are asked is seen in the lab."""

from __future__ import annotations

from discovery.identities import differing


def test_who_is_another_on_a_host_than_on_the_controller() -> None:
    numbers = {
        "ctl": {"ann": "5001 5001", "bob": "5002 100"},
        "cn01": {"ann": "5001 5001", "bob": "5002 100"},
        "cn02": {"ann": "5009 5001", "eve": "1 1"},  # eve has no login on the controller
        "cn03": {"bob": "5002 5002"},
        "cn04": {},
    }
    assert [*differing(numbers, "ctl")] == [("cn02", "ann"), ("cn03", "bob")]
    # A controller that did not answer has said nothing.
    assert [*differing({"cn01": {"ann": "1 1"}}, "ctl")] == []
