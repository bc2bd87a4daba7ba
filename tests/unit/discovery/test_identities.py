"""Whose numbers differ between hosts. How hosts are asked is seen in the lab."""

from __future__ import annotations

from typing import Any

import pytest

import discovery.identities
from discovery.identities import IdentityError, compare, differing
from remote.contact import ContactError, Reply
from remote.host import Host
from settings import parse
from tests.unit.settings.test_settings import lab


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


def test_people_who_cannot_be_made_are_told_of_all_hosts_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hosts = {name: Host(name, "10.9.9.9", "") for name in ("ctl", "cn01", "cn02")}
    hosts["cn03"] = Host("cn03", "10.9.9.9", "", lost=True)
    said = {
        "ctl": Reply("", "", 0),
        "cn01": Reply("user bob has the number 6001, which anna is to get\n", "", 0),
        "cn02": ContactError(hosts["cn02"], "connect", "refused", "see that it is up"),
    }

    async def run(asked: list[Host], script: str, **_: Any) -> dict[str, Any]:
        assert [host.name for host in asked] == [*said]
        assert "\nuser anna 6001 /home/anna\n" in script
        return said

    monkeypatch.setattr(discovery.identities, "run_on_hosts", run)
    settings = parse({**lab(), "directory": {"local": {"users": {"anna": {"uid": 6001}}}}})
    with pytest.raises(IdentityError) as caught:
        compare(settings, hosts)
    first, last = str(caught.value).splitlines()
    assert first == "cn01: people: user bob has the number 6001, which anna is to get"
    assert last.startswith("nothing was changed; ")
