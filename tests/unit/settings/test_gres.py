"""GPUs as declared against GPUs as found."""

from __future__ import annotations

from typing import Any

import pytest

from discovery.facts import parse as read_facts
from settings.gres import Gpus, Gres, cards, contradictions, discovered, type_of

DGX = """
source=lscpu
CPUs=224
Boards=1
SocketsPerBoard=2
CoresPerSocket=56
ThreadsPerCore=2
RealMemory=2063937
""" + "".join(
    f"gpu=/dev/nvidia{i}\ngpu_model=NVIDIA H100 80GB HBM3\ngpu_pci=0000:{i}b:00.0 10de:2330\n"
    for i in (7, 0, 1, 2, 3, 4, 5, 6)
)


@pytest.mark.parametrize(
    ("model", "short"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("Tesla V100-PCIE-16GB", "v100"),
        ("NVIDIA GeForce RTX 4090", "rtx_4090"),
        ("NVIDIA L40S", "l40s"),
    ],
)
def test_the_short_type_is_a_part_of_nvmls_name(model: str, short: str) -> None:
    assert type_of(model) == short
    assert short in model.lower().replace(" ", "_")


def test_a_node_that_declares_nothing_has_what_it_said() -> None:
    gpus = read_facts(DGX).gpus
    assert gpus.files == tuple(f"/dev/nvidia{i}" for i in range(8))
    assert [one.text for one in discovered(gpus)] == ["gpu:h100:8"]
    assert discovered(Gpus(pci=("10de:2330",))) == ()
    (one,) = discovered(Gpus(files=("/dev/nvidia3",), models=("NVIDIA L40S",)))
    assert (one.Name, one.Type, one.File) == ("gpu", "l40s", "/dev/nvidia3")
    (two,) = discovered(Gpus(files=("/dev/nvidia0", "/dev/nvidia3"), models=("NVIDIA L40S",) * 2))
    assert (two.Name, two.Type, two.File) == ("gpu", "l40s", "/dev/nvidia[0,3]")
    assert two.devices == ("/dev/nvidia0", "/dev/nvidia3")


def test_a_passthrough_configuration() -> None:
    one = Gres(pci=("10de:2684", "10de:2684"))
    assert one.text == "gpu:rtx_4090:2"
    assert one.devices == ("/dev/nvidia0", "/dev/nvidia1")


def test_files_of_nvidia_are_counted_for_its_cards_alone() -> None:
    """AutoDetect of gres.conf(5): rsmi is AMD's, oneapi Intel's, nrt Amazon's, nvml and nvidia
    NVIDIA's."""

    def number(**changes: Any) -> tuple[int, bool]:
        return cards([Gres.model_validate({"Count": 4, **changes})])

    for kind in ("rsmi", "oneapi", "nrt"):
        assert number(AutoDetect=kind) == (0, False)
    for kind in ("nvml", "nvidia"):
        assert number(AutoDetect=kind) == (4, False)
    assert number(AutoDetect="nvml", profile="1g.10gb") == (0, True)
    assert number(Count=None, File="/dev/dri/renderD[128-131]") == (0, False)
    assert number(standIn=True) == (0, False)
    assert cards(None) == (0, False)


FOUR = Gpus(
    files=tuple(f"/dev/nvidia{i}" for i in range(4)),
    models=("NVIDIA A100-SXM4-80GB",) * 4,
    pci=("10de:20b2",) * 4,
)


@pytest.mark.parametrize(
    ("declared", "gpus", "says"),
    [
        ({"Count": 4, "Type": "a100", "AutoDetect": "nvml"}, FOUR, None),
        ({"Count": 8, "Type": "a100", "AutoDetect": "nvml"}, FOUR, "4 device files"),
        ({"Count": 4, "Type": "h100", "AutoDetect": "nvml"}, FOUR, "NVIDIA A100-SXM4-80GB"),
        ({"Type": "a100", "File": "/dev/nvidia[0-3]"}, FOUR, None),
        ({"Type": "a100", "File": "/dev/nvidia[4-7]"}, FOUR, "/dev/nvidia3"),
        ({"pci": ["10de:20b2"] * 4}, FOUR, None),
        ({"pci": ["10de:2330"] * 4}, FOUR, "A100"),
        # As many of the same type, but other cards.
        ({"pci": ["10de:20b5"] * 4, "Type": "a100"}, FOUR, "4 on the bus (10de:20b2)"),
        ({"Count": 8, "standIn": True}, FOUR, None),
        ({"Count": 8, "AutoDetect": "nvml"}, Gpus(), "no GPU"),
        (
            {"Count": 8, "AutoDetect": "nvml"},
            Gpus(pci=("10de:2330",) * 8),
            "8 on the bus (10de:2330); but no /dev/nvidia*: no driver is loaded",
        ),
        ({"Count": 2, "profile": "1g.10gb", "AutoDetect": "nvml"}, FOUR, "4 device files"),
        (
            {"Count": 2, "profile": "1g.10gb", "AutoDetect": "nvml"},
            Gpus(files=("/dev/nvidia0",), profiles=("1g.10gb", "1g.10gb")),
            None,
        ),
    ],
)
def test_a_contradiction_shows_both(declared: dict[str, Any], gpus: Gpus, says: str | None) -> None:
    one = Gres.model_validate(declared)
    found = list(contradictions([one], gpus, "slurmstack:nodes[0]", "cn01"))
    if says is None:
        assert not found
    else:
        (problem,) = found
        assert problem.expected.startswith(one.text)
        assert "on cn01" in problem.found
        assert says in problem.found
