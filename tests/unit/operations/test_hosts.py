"""Host lists of the verbs."""

from __future__ import annotations

from typing import Any

import pytest

from operations.hosts import chosen
from operations.refused import Refused
from settings import Settings, parse

RAW: dict[str, Any] = {
    "cluster": {"name": "x"},
    "hosts": {"ctl": "10.0.0.1", "cn[01-04]": "10.0.0.[11-14]", "gpu[1-3]": "10.0.0.[21-23]",
              "spare": "10.0.0.99"},
    "roles": {"controller": "ctl"},
    "nodes": [{"name": "plain", "hosts": "cn[01-04]"}, {"name": "h100", "hosts": "gpu[1-3]"}],
    "partitions": {"all": {"Nodes": "ALL"}, "gpu": {"Nodes": "gpu[1-3]"}, "one": {"Nodes": "gpu3"}},
}  # fmt: skip


def read(**more: Any) -> Settings:
    return parse({**RAW, **more})


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("cn[01-02,04]", ["cn01", "cn02", "cn04"]),
        ("h100", ["gpu1", "gpu2", "gpu3"]),
        ("@gpu,cn01", ["gpu1", "gpu2", "gpu3", "cn01"]),
        ("gpu3,h100", ["gpu3", "gpu1", "gpu2"]),
        ("cn02, @one", ["cn02", "gpu3"]),
        ("@all", ["cn01", "cn02", "cn03", "cn04", "gpu1", "gpu2", "gpu3"]),
        ("ctl", ["ctl"]),
    ],
)
def test_hosts_classes_and_partitions(text: str, names: list[str]) -> None:
    assert chosen(text, read()) == names


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "an empty host list"),
        ("cn01,", "an empty host list"),
        ("cn09", "cn09: no host with a role in the settings; there are cn[01-04],ctl,gpu[1-3]"),
        ("spare", "spare: no host with a role"),
        ("@nosuch", "@nosuch: no such partition in the settings; there are: @all, @gpu, @one"),
        ("cn[01-", "a missing bracket"),
        ("cn01 cn02", "commas and no spaces"),
    ],
)
def test_what_is_none_is_refused_on_one_line(text: str, said: str) -> None:
    with pytest.raises(Refused) as refused:
        chosen(text, read())
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_verb_for_compute_nodes_takes_no_others() -> None:
    settings = read()
    with pytest.raises(Refused, match=r"ctl: not for this verb; it is for cn\[01-04\],gpu"):
        chosen("cn01,ctl", settings, settings.compute)


def test_excluded_and_lost_nodes_are_named_or_left_out() -> None:
    hosts = {**RAW["hosts"], "gpu[1-2]": "10.0.0.[21-22]"}
    del hosts["gpu[1-3]"]
    hosts["gpu3"] = {"address": "10.0.0.23", "lost": True}
    partitions = {"gpu": {"Nodes": "gpu[1-3]"}}
    settings = read(hosts=hosts, partitions=partitions, excluded={"gpu2": "fan"})
    assert chosen("h100", settings) == chosen("@gpu", settings) == ["gpu1"]
    with pytest.raises(Refused, match=r"gpu2: excluded; slurmstack node return gpu2"):
        chosen("gpu[1-2]", settings)
    with pytest.raises(Refused, match=r"gpu3: lost"):
        chosen("gpu3", settings)
    assert chosen("gpu2", settings, settings.excluded) == ["gpu2"]
    gone = read(hosts=hosts, partitions=partitions, excluded={"gpu1": "fan", "cn01": "x"})
    assert chosen("@gpu", gone) == ["gpu2"]
    all_gone = read(hosts=hosts, partitions={}, excluded={"gpu1": "fan", "gpu2": "fan"})
    with pytest.raises(Refused, match="h100: an empty list"):
        chosen("h100", all_gone)
