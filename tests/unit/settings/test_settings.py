"""The settings: what is read, and every mistake in one report with its path."""

from __future__ import annotations

import base64
import copy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from settings import SettingsError, parse

PROJECT = Path(__file__).parents[3]
#: A 4 GB Raspberry Pi as slurmd -C sees it: less than the 4,096 MiB on its box.
PI = {
    "CPUs": 4, "SocketsPerBoard": 1, "CoresPerSocket": 4, "ThreadsPerCore": 1, "RealMemory": 3797,
}  # fmt: skip


@cache
def _committed() -> dict[str, Any]:
    config = yaml.safe_load((PROJECT / "Pulumi.lab.yaml").read_text())["config"]
    return {key.removeprefix("slurmstack:"): value for key, value in config.items()}


def whole_lab() -> dict[str, Any]:
    """The committed settings of the lab."""
    return copy.deepcopy(_committed())  # thousands of tests ask, and some change theirs


def lab() -> dict[str, Any]:
    """Settings to start from: the lab's, with nothing that speaks of single nodes, so that a test
    need not say again what it is not about."""
    parts = {
        key: value
        for key, value in whole_lab().items()
        if key not in {"topology", "jobContainer", "modules"}
    }
    return {
        **parts,
        "hosts": {"ctl": "10.73.0.10", "cn[01-02]": "10.73.0.[21-22]"},
        "roles": {"controller": "ctl"},
        "nodes": [{"hosts": "cn[01-02]", "Features": ["lab"]}],
        "partitions": {"main": {"Nodes": "ALL", "Default": True, "MaxTime": "1-00:00:00"}},
    }


def mistakes(changes: dict[str, Any]) -> dict[str, str]:
    """Path → "expected …; found …" of the lab's settings with some keys changed."""
    raw = copy.deepcopy(lab())
    for key, value in changes.items():
        if value is None:
            raw.pop(key, None)
        else:
            raw[key] = value
    with pytest.raises(SettingsError) as caught:
        parse(raw, stack="lab")
    return {
        problem.path: f"expected {problem.expected}; found {problem.found}"
        for problem in caught.value.problems
    }


def test_the_lab_is_right() -> None:
    settings = parse(whole_lab())
    assert list(settings.compute) == ["cn01", "cn02"]
    assert settings.login == ("login01",)
    assert settings.hosts["cn02"].address == "10.73.0.22"
    assert settings.roles.controller == "ctl"


@pytest.mark.parametrize(
    ("changes", "path", "says"),
    [
        ({"foo": 1}, "slurmstack:foo", "unknown key"),
        (
            {"slurm": {"TaskPlugin": {"a": 1}}},
            "slurmstack:slurm.TaskPlugin",
            "one value, or a list of values",
        ),
        (
            {"slurm": {"TaskPlugin": ["x", 1]}},
            "slurmstack:slurm.TaskPlugin",
            "task/affinity, task/cgroup",
        ),
        ({"cluster": {"name": "lab", "nmae": 1}}, "slurmstack:cluster.nmae", "unknown key"),
        ({"nodes": [{"hosts": "cn[01-"}]}, "slurmstack:nodes[0].hosts", "missing bracket"),
        ({"nodes": [{"hosts": "cn01, cn02"}]}, "slurmstack:nodes[0].hosts", "no spaces"),
        ({"nodes": [{"hosts": "@workers"}]}, "slurmstack:nodes[0].hosts", "no groups"),
        ({"nodes": [{"hosts": "cn01!cn01"}]}, "slurmstack:nodes[0].hosts", "no list without some"),
        ({"nodes": [{"hosts": "cn09"}]}, "slurmstack:nodes[0].hosts", "found cn09"),
        (
            {"nodes": [{"hosts": "cn01"}, {"hosts": "cn[01-02]"}]},
            "slurmstack:nodes[1].hosts",
            "cn01, already in [0]",
        ),
        ({"nodes": [{"hosts": "cn01,ctl"}]}, "slurmstack:nodes[0].hosts", "is the controller"),
        (
            {"hosts": {"ctl": "10.73.0.10", "cn[01-02]": "10.73.0.[21-22]", "cn02": "10.73.0.30"}},
            "slurmstack:hosts.cn02",
            "each name once",
        ),
        (
            {"hosts": {"ctl": "10.73.0.21", "cn[01-02]": "10.73.0.[21-22]"}},
            "slurmstack:hosts.cn[01-02]",
            "10.73.0.21 for cn01 and for ctl",
        ),
        (
            {"hosts": {"ctl": "10.73.0.10", "cn[01-02]": "10.73.0.[21-23]"}},
            "slurmstack:hosts.cn[01-02]",
            "as many addresses as names (2), not 3",
        ),
        (
            {"hosts": {"ctl": "10.73.0.300", "cn[01-02]": "10.73.0.[21-22]"}},
            "slurmstack:hosts.ctl.address",
            "10.73.0.300",
        ),
        ({"roles": None}, "slurmstack:roles", "found nothing"),
        ({"roles": {}}, "slurmstack:roles.controller", "found nothing"),
        ({"roles": {"controller": "sm02"}}, "slurmstack:roles.controller", "found sm02"),
        (
            {"partitions": {"main": {"Nodes": "cn[01-03]"}}},
            "slurmstack:partitions.main.Nodes",
            "found cn03",
        ),
        ({"partitions": {"main": {}}}, "slurmstack:partitions.main.Nodes", "found nothing"),
        ({"partitions": {"main": {"Nodes": ""}}}, "slurmstack:partitions.main.Nodes", "found ''"),
        (
            {"nodes": [], "partitions": {"main": {"Nodes": "ALL"}}},
            "slurmstack:partitions.main.Nodes",
            "found none in slurmstack:nodes",
        ),
        (
            {
                "hosts": {
                    "ctl": "10.73.0.10",
                    "cn01": "10.73.0.21",
                    "cn02": {"address": "10.73.0.22", "lost": True},
                },
                "partitions": {"main": {"Nodes": "cn02"}},
            },
            "slurmstack:partitions.main.Nodes",
            "expected a node that is not lost; found cn02",
        ),
        (
            {"partitions": {name: {"Nodes": "ALL", "Default": True} for name in "ab"}},
            "slurmstack:partitions",
            "found a, b",
        ),
        ({"mungeKey": "x" * 31}, "slurmstack:mungeKey", "found 31 bytes"),
        ({"mungeKey": "!" * 1025}, "slurmstack:mungeKey", "found 1025 bytes"),
        ({"slurm": {"MessageTimeout": "soon"}}, "slurmstack:slurm.MessageTimeout", "'soon'"),
        ({"slurm": {"Shiny": 1}}, "slurmstack:slurm.Shiny", "unknown key"),
        (
            {"slurm": {"SchedulerType": "select/cons_tres"}},
            "slurmstack:slurm.SchedulerType",
            "sched/backfill, sched/builtin",
        ),
        (
            {"slurm": {"extra": {"MessageTimeout": 5}}},
            "slurmstack:slurm.extra.MessageTimeout",
            "MessageTimeout one level up",
        ),
        (
            {"slurm": {"extra": {"A=1\nB": "x"}}},
            "slurmstack:slurm.extra.A=1\nB",
            "name of a parameter",
        ),
        (
            {"slurm": {"extra": {"NodeName": "x"}}},
            "slurmstack:slurm.extra.NodeName",
            "slurmstack:nodes instead",
        ),
        ({"slurm": {"extra": {"A!": "x\nB=y"}}}, "slurmstack:slurm.extra.A!", "on one line"),
        (
            {"nodes": [{"hosts": "cn01", "RealMemory": 4096, "hardware": PI}]},
            "slurmstack:nodes[0].RealMemory",
            "at most the 3797 MiB; found 4096 MiB",
        ),
        (
            {"nodes": [{"hosts": "cn01", "MemSpecLimit": 3797, "hardware": PI}]},
            "slurmstack:nodes[0].MemSpecLimit",
            "less than the 3797 MiB offered; found 3797 MiB",
        ),
        (
            {"partitions": {"a b": {"Nodes": "ALL"}}},
            "slurmstack:partitions.a b",
            "a partition name",
        ),
        ({"partitions": {"Default": {"Nodes": "ALL"}}}, "slurmstack:partitions.Default", "a part"),
        (
            {
                "hosts": {
                    "ctl": {"address": "10.73.0.10", "lost": True},
                    "cn[01-02]": "10.73.0.[21-22]",
                }
            },
            "slurmstack:roles.controller",
            "found ctl, marked lost",
        ),
        (
            {"hosts": {**lab()["hosts"], "in": {"address": "10.73.0.12", "hostKey": "AAAA"}}},
            "slurmstack:hosts.in.hostKey",
            "a public host key such as",
        ),
        (
            {"hosts": {**lab()["hosts"], "in_1": "10.73.0.12"}},
            "slurmstack:hosts.in_1",
            "a host name",
        ),
        (
            {"nodes": [{"hosts": "cn01", "hardware": {**PI, "CPUs": 3}}]},
            "slurmstack:nodes[0].hardware.CPUs",
            "= 4, or 4 cores; found 3",
        ),
    ],
)
def test_one_mistake(changes: dict[str, Any], path: str, says: str) -> None:
    found = mistakes(changes)
    assert says in found[path]
    # A mistake in one place is not reported in other places, too.
    assert set(found) - {path} <= {"slurmstack:nodes[0].hosts", "slurmstack:hosts.cn02"}


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"slurm": {"MessageTimeout": "９０"}}, "slurm.MessageTimeout"),
        ({"slurm": {"SlurmctldPort": "６817"}}, "slurm.SlurmctldPort"),
        ({"slurm": {"SchedulerTimeSlice": "３0"}}, "slurm.SchedulerTimeSlice"),
        ({"partitions": {"main": {"Nodes": "ALL", "MaxTime": "１-0"}}}, "partitions.main.MaxTime"),
        (
            {"partitions": {"main": {"Nodes": "ALL", "extra": {"GraceTime": "１2"}}}},
            "partitions.main.extra.GraceTime",
        ),
        ({"hosts": {**lab()["hosts"], "x[１-2]": "10.73.0.[31-32]"}}, "hosts.x[１-2]"),
        ({"rollout": {"batch": "１0%"}}, "rollout.batch"),
        ({"rollout": {"drainTimeout": "１0m"}}, "rollout.drainTimeout"),
        (
            {"nodes": [{"hosts": "cn[01-02]", "Gres": [
                {"Name": "gpu", "Type": "a", "File": "/dev/nvidia0", "Cores": "０-1"}]}]},
            "nodes[0].Gres[0].Cores",
        ),
        (
            {"nodes": [{"hosts": "cn[01-02]", "Gres": [
                {"Name": "gpu", "Type": "a", "File": "/dev/nvidia0", "Links": "-1,４"}]}]},
            "nodes[0].Gres[0].Links",
        ),
    ],
)  # fmt: skip
def test_digits_of_other_scripts_are_no_numbers_to_slurm(
    changes: dict[str, Any], path: str
) -> None:
    assert f"slurmstack:{path}" in mistakes(changes)


def test_all_mistakes_at_once() -> None:
    found = mistakes(
        {
            "cluster": {"name": "Lab"},
            "hosts": {"ctl": "10.73.0.10", "cn01": {"adress": "10.73.0.21"}, "cn02": "10.73.0.10"},
            "nodes": [{"hosts": "cn[01"}, {"hosts": "cn02,cn77"}],
            "slurm": {"MessageTimeout": 0, "Shiny": 1},
            "mungeKey": "short",
        }
    )
    assert set(found) == {
        "slurmstack:cluster.name",
        "slurmstack:hosts.cn01.address",
        "slurmstack:hosts.cn01.adress",
        "slurmstack:hosts.cn02",
        "slurmstack:nodes[0].hosts",
        "slurmstack:nodes[1].hosts",
        "slurmstack:slurm.MessageTimeout",
        "slurmstack:slurm.Shiny",
        "slurmstack:mungeKey",
    }


def test_a_key_is_never_quoted() -> None:
    found = mistakes({"mungeKey": "hunter2-hunter2"})
    assert "hunter2" not in str(found)


def test_a_munge_key_in_base64_and_raw() -> None:
    key = bytes(range(256)) * 4
    taken = parse({**lab(), "mungeKey": base64.b64encode(key).decode()}).munge_key
    assert taken is not None
    assert (taken.encoding, taken.value.get_secret_value()) == ("base64", key)
    raw = parse({**lab(), "mungeKey": "not-base64!" * 4}).munge_key
    assert raw is not None
    assert (raw.encoding, raw.value.get_secret_value()) == ("raw", b"not-base64!" * 4)


def test_the_settings_show_no_key() -> None:
    key = "k3y!" * 20
    assert "k3y!" not in repr(parse({**lab(), "mungeKey": key}))


def test_a_lost_node_is_no_compute_node() -> None:
    hosts = {
        "ctl": "10.73.0.10",
        "cn01": "10.73.0.21",
        "cn02": {"address": "10.73.0.22", "lost": True},
    }
    settings = parse({**lab(), "hosts": hosts})
    assert list(settings.compute) == ["cn01"]
    assert list(settings.lost) == ["cn02"]


@pytest.mark.parametrize("name", ["Pulumi.lab.yaml"])
def test_no_secret_in_the_clear(name: str) -> None:
    config = yaml.safe_load((PROJECT / name).read_text())["config"]
    assert "slurmstack:mungeKey" not in config or "secure" in config["slurmstack:mungeKey"]
