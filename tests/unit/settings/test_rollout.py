"""``slurmstack:rollout``: who goes when, and mistakes in it."""

from __future__ import annotations

from typing import Any

import pytest

from settings.hostlist import expand, fold
from settings.rollout import Rollout, number_of
from tests.unit.settings.test_settings import mistakes


@pytest.mark.parametrize(
    ("settings", "hosts", "turns"),
    [
        ({}, "cn[01-64]", ["cn01", *(f"cn[{at:02}-{at + 6:02}]" for at in range(2, 64, 7))]),
        ({}, "cn[01-03]", ["cn01", "cn02", "cn03"]),
        ({}, "cn01", ["cn01"]),
        ({"canary": 0, "batch": "100%"}, "cn[01-09]", ["cn[01-09]"]),
        ({"canary": "cn[04,40]", "batch": 2}, "cn[01-05]", ["cn04", "cn[01-02]", "cn[03,05]"]),
        ({"canary": "cn40", "batch": "34%"}, "cn[01-05]", ["cn[01-02]", "cn[03-04]", "cn05"]),
        ({"canary": 9, "batch": 5}, "cn[01-05]", ["cn[01-05]"]),
        ({"canary": "2", "batch": "5"}, "cn[01-05]", ["cn[01-02]", "cn[03-05]"]),
    ],
)
def test_turns(settings: dict[str, Any], hosts: str, turns: list[str]) -> None:
    found = Rollout.model_validate(settings).turns(expand(hosts))
    assert [fold(turn) for turn in found] == turns
    assert sorted(node for turn in found for node in turn) == list(expand(hosts))


def test_parts_are_rounded_up() -> None:
    assert [number_of("5%", nodes) for nodes in (1, 20, 21, 64)] == [1, 1, 2, 4]
    assert [number_of("0%", 64), number_of(3, 64)] == [0, 3]


def test_every_mistake_is_reported() -> None:
    found = mistakes(
        {
            "rollout": {"canary": "cn[01", "batch": 0, "mayFail": "101%", "drains": 1},
        }
    )
    assert {path.removeprefix("slurmstack:rollout.") for path in found} == {
        "canary", "batch", "mayFail", "drains",
    }  # fmt: skip
    assert "at least one node" in found["slurmstack:rollout.batch"]


@pytest.mark.parametrize("value", [-1, True, "", "x%", "1.5%", "-5%"])
def test_what_is_no_share(value: Any) -> None:
    for key in ("batch", "mayFail"):
        assert list(mistakes({"rollout": {key: value}})) == [f"slurmstack:rollout.{key}"]


def test_canaries_are_compute_nodes() -> None:
    found = mistakes({"rollout": {"canary": "cn[02,07-09],ctl"}})
    assert found["slurmstack:rollout.canary"].endswith("found cn[07-09],ctl")
