"""MIG instances in the settings: what a GPU takes, and the GRES that follow."""

from __future__ import annotations

from typing import Any

import pytest

from discovery.facts import parse as read_facts
from settings import parse
from settings.checks.nodes import hardware_problems
from settings.mig import geometry_text, indices, totals
from settings.problems import SettingsError
from tests.unit.components.test_cluster import HARDWARE, bare
from tests.unit.settings.test_gres import DGX

WHOLE = {"Type": "h100", "Count": 4, "AutoDetect": "nvml"}
CUT = {"0-2": {"3g.40gb": 2}, "3": {"1g.10gb": 4, "3g.40gb": 1}}


def read(**node_class: Any) -> Any:
    nodes = [{"hosts": "cn01", **node_class}, {"hosts": "cn02"}]
    return parse({**bare(), "nodes": nodes}).compute["cn01"]


def mistakes(**node_class: Any) -> str:
    with pytest.raises(SettingsError) as error:
        read(**node_class)
    return str(error.value)


def gres(**node_class: Any) -> list[str]:
    return [entry.text for entry in read(**node_class).Gres or ()]


def test_ranges() -> None:
    assert indices("0,2-3") == [0, 2, 3]


def test_instances_of_all_gpus_are_the_nodes_gres() -> None:
    assert gres(mig=CUT) == ["gpu:3g.40gb:7", "gpu:1g.10gb:4"]
    assert {entry.AutoDetect for entry in read(mig=CUT).Gres} == {"nvml"}
    assert gres(mig=CUT, Gres=[WHOLE]) == ["gpu:h100:4", "gpu:3g.40gb:7", "gpu:1g.10gb:4"]
    assert totals({}) == {}
    assert read(mig={}).Gres is None


def test_what_is_written_down_beside_them_agrees() -> None:
    three = {"profile": "3g.40gb", "Count": 7, "AutoDetect": "nvml", "Flags": "nvidia_gpu_env"}
    one = {"profile": "1g.10gb", "Count": 4, "AutoDetect": "nvml", "Flags": "nvidia_gpu_env"}
    assert gres(mig=CUT, Gres=[three, one]) == ["gpu:3g.40gb:7", "gpu:1g.10gb:4"]
    two = {"profile": "2g.20gb", "Count": 1, "AutoDetect": "nvml", "Flags": "nvidia_gpu_env"}
    said = mistakes(mig=CUT, Gres=[three | {"Count": 6}, one, two])
    assert "nodes[0].Gres[0].Count: expected 7 of 3g.40gb on a node, as mig has it" in said
    assert "nodes[0].Gres[2].profile: expected a profile of mig; found 2g.20gb" in said
    assert "Gres[1]" not in said


def test_those_made_first_come_first() -> None:
    """3g finds no place behind others (MIG User Guide, Instance Geometry, example 2)."""
    lines = geometry_text({"1": {"1g.10gb": 2, "4g.40gb": 1}, "0": {"2g.20gb": 2, "3g.40gb": 1}})
    assert lines.splitlines()[1:] == [
        "0 3g.40gb 2g.20gb 2g.20gb",
        "1 4g.40gb 1g.10gb 1g.10gb",
    ]


@pytest.mark.parametrize(
    "instances",
    [
        {"1g.10gb": 7}, {"3g.40gb": 2}, {"7g.80gb": 1}, {"4g.40gb": 1, "3g.40gb": 1},
        {"3g.40gb": 1, "2g.20gb": 1, "1g.10gb": 2}, {"3g.40gb": 1, "2g.20gb": 2},
        {"1g.10gb": 6, "1g.10gb+me": 1}, {"1g.20gb": 4}, {"4g.40gb": 1, "1g.20gb": 2},
        # An H200, an A30, an H100 NVL: sizes that are rounded.
        {"3g.71gb": 1, "1g.18gb": 4}, {"4g.24gb": 1}, {"3g.47gb": 1, "1g.12gb": 4},
    ],
)  # fmt: skip
def test_what_a_gpu_takes(instances: dict[str, int]) -> None:
    assert read(mig={"0": instances}).mig == {"0": instances}


@pytest.mark.parametrize(
    ("instances", "said"),
    [
        ({"1g.10gb": 5, "2g.20gb": 2}, "at most 7 compute slices"),
        ({"4g.40gb": 2}, "found 8: 2 × 4g.40gb"),
        ({"3g.40gb": 2, "1g.10gb": 1}, "at most 8 memory slices"),
        ({"1g.20gb": 4, "1g.10gb": 1}, "found 9: 4 × 1g.20gb + 1 × 1g.10gb"),
        ({"4g.40gb": 1, "1g.20gb": 3}, "found 10: 1 × 4g.40gb + 3 × 1g.20gb"),
        ({"1g.10gb+me": 2}, "one instance with media extensions"),
        ({"1g.10gb": 8}, "at most 7"),
        ({"1g.10gb": 0}, "at least 1"),
        ({"5g.40gb": 1}, "a MIG profile of 1, 2, 3, 4 or 7 compute slices"),
        ({"1g.10GB": 1}, "such as 3g.40gb"),
        ({"1c.3g.40gb": 1}, "such as 3g.40gb"),
        ({}, "at least 1 entries"),
    ],
)
def test_what_it_does_not(instances: dict[str, int], said: str) -> None:
    assert said in mistakes(mig={"0": instances})


@pytest.mark.parametrize("ranges", ["3-1", "a", "0-", "0,,1", "64", "", "-1"])
def test_what_is_no_gpu(ranges: str) -> None:
    assert "numbers of GPUs" in mistakes(mig={ranges: {"1g.10gb": 1}})


def test_all_mistakes_at_once() -> None:
    said = mistakes(
        mig={"0-3": {"3g.40gb": 3}, "3,5-5": {"1g.10gb": 1}, "2": {"1g.10gb+me": 2}},
        Gres=[{"profile": "1g.10gb", "Count": 9, "AutoDetect": "nvml"}],
    )
    assert "5 mistakes" in said, said
    assert "nodes[0].mig.3,5-5: expected each GPU once; found GPU 3, already of 0-3" in said
    assert "nodes[0].mig.2: expected each GPU once; found GPU 2, already of 0-3" in said


def test_nothing_is_cut_under_jobs() -> None:
    nodes = [{"hosts": "cn01", "mig": CUT}, {"hosts": "cn02"}]
    with pytest.raises(SettingsError, match="no MIG instance changes under jobs"):
        parse({**bare(), "nodes": nodes, "rollout": {"drain": "never"}})


def test_cards_are_compared_and_not_what_they_are_cut_into() -> None:
    """On the first deployment the instances are still to be made."""
    dgx = read_facts(DGX)

    def found(**node_class: Any) -> list[str]:
        problems = hardware_problems(read(**node_class), dgx, "nodes[0]", "cn01")
        return [str(problem) for problem in problems]

    assert found(mig={"0-3": {"3g.40gb": 2}}, Gres=[WHOLE]) == []
    assert found(mig={"0-7": {"3g.40gb": 2}}) == []
    made = dgx.model_copy(update={"gpus": dgx.gpus.model_copy(update={"profiles": ("1g.10gb",)})})
    assert [*hardware_problems(read(mig={"0-7": {"3g.40gb": 2}}), made, "nodes[0]", "cn01")] == []
    (beside,) = found(mig={"0-2": {"3g.40gb": 2}}, Gres=[WHOLE])
    assert "expected gpu:h100:4 beside the 3 GPUs of mig as declared; found on cn01: 8" in beside
    (none,) = found(mig={"0-2": {"3g.40gb": 2}})
    assert "no whole GPU beside the 3 GPUs of mig" in none
    (beyond,) = found(mig={"0-8": {"3g.40gb": 2}})
    assert "nodes[0].mig: expected GPUs 0 to 7; found GPU 8" in beyond
    # A node without GPUs, and a class whose GPUs are stood for.
    (nothing,) = hardware_problems(read(mig=CUT), HARDWARE, "nodes[0]", "cn01")
    assert "found GPU 0, 1, 2, 3; on cn01: no GPU" in str(nothing)
    stood_for = {"profile": "3g.40gb", "Count": 2, "standIn": True}
    there = read(mig={"0": {"3g.40gb": 2}}, Gres=[stood_for])
    assert [*hardware_problems(there, HARDWARE, "nodes[0]", "cn01")] == []
