"""Host lists, as Slurm 24.11's `scontrol show hostnames` reads them."""

from __future__ import annotations

from typing import Any

import pytest

from settings.hostlist import expand, fold, pair
from tests.unit.settings.test_settings import mistakes

#: As `scontrol show hostnames` prints them (tests/lab/test_scripts.py asks it).
READ = [
    ("cn01", "cn01"),
    ("cn[01-02]", "cn01 cn02"),
    ("cn[09-11]", "cn09 cn10 cn11"),
    ("cn[9-11]", "cn9 cn10 cn11"),
    ("cn[3,1-2]", "cn3 cn1 cn2"),
    ("cn[1,3-5]x", "cn1x cn3x cn4x cn5x"),
    ("cn[1-3]-ib", "cn1-ib cn2-ib cn3-ib"),
    ("a[1-2]b[1-2]", "a1b1 a1b2 a2b1 a2b2"),
    ("cn02,login01,cn01", "cn02 login01 cn01"),
    ("cn1-3", "cn1-3"),
    ("n[1-2].site", "n1.site n2.site"),
    ("cn[001-002,1000]", "cn001 cn002 cn1000"),
]


@pytest.mark.parametrize(("text", "hosts"), READ)
def test_as_slurm_reads_it(text: str, hosts: str) -> None:
    assert expand(text) == tuple(hosts.split())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cn[1-2]!cn1", "(!)"),
        ("cn[1-2]&cn1", "(&)"),
        ("cn[1-2]^cn1", "(^)"),
        ("cn[1-4/2]", "no steps (/)"),
        ("@all", "no groups (@)"),
        ("cn1,@all", "no groups (@)"),
        ("cn*", "no patterns (*)"),
        ("cn{1..3}", "square brackets"),
        ("cn[2-1]", "from the lower to the higher"),
        ("cn[a-b]", "not 'a-b'"),
        ("cn[]", "not ''"),
        ("cn[1,,2]", "not ''"),
        ("cn[1-2", "bracket"),
        ("cn[1-2]]", "bracket"),
        ("cn[1[2]]", "bracket"),
        ("cn1,,cn2", "between two commas"),
        ("cn1 cn2", "no spaces"),
        ("cn[1-2],cn1", "cn1 is there twice"),
        ("cn[1-70000]", "at most 65536"),
        ("", "at least one host"),
    ],
)
def test_what_slurm_has_no_syntax_for(text: str, says: str) -> None:
    with pytest.raises(ValueError, match="a host list such as cn") as caught:
        expand(text)
    assert says in str(caught.value)


def test_folded_is_read_back() -> None:
    hosts = ("cn08", "cn09", "cn10", "gpu1a", "gpu2a", "login01")
    assert sorted(expand(fold(hosts))) == sorted(hosts)


def test_two_lists_go_in_step_as_they_are_written() -> None:
    assert pair("cn[2,1]", "10.0.0.[11-12]") == (("cn2", "10.0.0.11"), ("cn1", "10.0.0.12"))
    assert pair("b1,a1", "10.0.0.[9-10]") == (("b1", "10.0.0.9"), ("a1", "10.0.0.10"))
    assert pair("cn[01-02]", "10.0.0.[22,21]") == (("cn01", "10.0.0.22"), ("cn02", "10.0.0.21"))


WRONG = "cn[01-02]!cn01"


@pytest.mark.parametrize(
    "changes",
    [
        {"nodes": [{"hosts": WRONG}]},
        {"roles": {"controller": "ctl", "login": WRONG}},
        {"partitions": {"main": {"Nodes": WRONG}}},
        {"topology": {"plugin": "tree", "switches": {"a": {"Nodes": WRONG}}}},
        {"storage": {"home": {"server": "ctl", "path": "/h", "clients": WRONG}}},
    ],
)
def test_every_host_list_of_the_settings_is_read_so(changes: dict[str, Any]) -> None:
    assert any("(!)" in said for said in mistakes(changes).values())


def test_a_name_with_a_domain_is_told_what_a_name_is() -> None:
    hosts = {"ctl": "10.73.0.10", "cn01.site.example": "10.73.0.21", "cn02": "10.73.0.22"}
    found = mistakes({"hosts": hosts, "nodes": [{"hosts": "cn01.site.example,cn02"}]})
    said = found["slurmstack:hosts.cn01.site.example"]
    assert "without its domain" in said
