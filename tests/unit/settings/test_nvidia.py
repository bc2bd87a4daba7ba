"""``slurmstack:nvidia``: versions that do not fit each other are refused, all at once."""

from __future__ import annotations

from typing import Any

import pytest

from settings import parse
from settings.problems import SettingsError
from tests.unit.components.test_cluster import bare

SHA = "ab" * 32
DRIVER = {"version": "570.172.08-0ubuntu0.22.04.1"}


def mistakes(stack: dict[str, Any], **changes: Any) -> dict[str, str]:
    """Path → what is said of it."""
    try:
        parse({**bare(), "nvidia": stack, **changes})
    except SettingsError as error:
        return {
            it.path.removeprefix("slurmstack:"): f"{it.expected}; found {it.found}"
            for it in error.problems
        }
    return {}


def gpus(kind: str) -> list[dict[str, Any]]:
    has = {"Name": "gpu", "Type": kind, "Count": 8, "AutoDetect": "nvml"}
    return [{"hosts": "cn[01-02]", "Gres": [has]}]


def test_what_fits_is_taken() -> None:
    manager = {"version": "570.172.08-1", "hosts": "cn01"}
    assert mistakes({"driver": DRIVER, "fabricManager": manager, "cuda": ["11.8", "12.8"]}) == {}


def test_the_fabric_manager_is_of_the_drivers_version() -> None:
    found = mistakes({"driver": DRIVER, "fabricManager": {"version": "570.158.01-1"}})
    assert list(found) == ["nvidia.fabricManager.version"]
    assert "expected" not in found["nvidia.fabricManager.version"]
    assert found["nvidia.fabricManager.version"].startswith("570.172.08, the driver's")


@pytest.mark.parametrize(
    ("version", "cuda", "needs"),
    [
        ("570.172.08-1", "13.0", "580 or newer, which CUDA 13.0 needs"),
        ("520.61.05-1", "12.1", "525 or newer, which CUDA 12.1 needs"),
        ("450.51.06-1", "11.8", "450.80.02 or newer, which CUDA 11.8 needs"),
        ("450.80.02-1", "11.8", None),
        ("525.60.13-1", "12.9", None),
        ("580.65.06-1", "13.1", None),
        ("580.65.06-1", "9.2", "one of 11.x, 12.x, 13.x"),
    ],
)
def test_the_driver_is_new_enough_for_cuda(version: str, cuda: str, needs: str | None) -> None:
    found = mistakes({"driver": {"version": version}, "cuda": [cuda]})
    assert [it for it in found.values() if needs and it.startswith(needs)] == [*found.values()]
    assert bool(found) == (needs is not None)


@pytest.mark.parametrize(
    ("kind", "modules", "good"),
    [
        ("b200", "open", True), ("b200", "proprietary", False), ("v100", "open", False),
        ("v100", "proprietary", True), ("h100", "open", True), ("h100", "proprietary", True),
    ],
)  # fmt: skip
def test_the_kernel_modules_know_the_gpus(kind: str, modules: str, good: bool) -> None:
    driver = {**DRIVER, "modules": modules}
    found = mistakes({"driver": driver}, nodes=gpus(kind))
    assert (found == {}) == good
    assert good or f"for {kind} of nodes[0]" in found["nvidia.driver.modules"]
    # A class that does not get this driver may have any.
    hosts = {**bare()["hosts"], "cn03": "10.73.0.99"}
    nodes = [*gpus(kind), {"hosts": "cn03"}]
    assert mistakes({"driver": driver, "hosts": "cn03"}, nodes=nodes, hosts=hosts) == {}


def test_all_mistakes_at_once() -> None:
    found = mistakes(
        {
            "hosts": "cn[01-03]", "cuda": ["13.0"],
            "driver": {"version": "570.1.1-1", "names": "ubuntu"},
            "fabricManager": {"version": "565.1.1-1", "hosts": "ctl"},
            "packageFiles": [
                {"url": "https://s.example/htop_1_amd64.deb", "sha256": SHA},
                {"url": "https://s.example/nvidia-utils-570-server_570.9_amd64.deb", "sha256": SHA},
            ],
        },
        rollout={"drain": "never"},
    )  # fmt: skip
    assert sorted(found) == [
        "nvidia.driver.version", "nvidia.fabricManager.hosts", "nvidia.fabricManager.version",
        "nvidia.hosts", "nvidia.packageFiles[0]", "nvidia.packageFiles[1]", "rollout.drain",
    ]  # fmt: skip
    assert found["nvidia.hosts"].endswith("found cn03")
    assert found["nvidia.packageFiles[1]"].endswith("570.1.1-1, as in the settings; found 570.9")


def test_names_that_are_not_known_are_asked_for() -> None:
    """NVIDIA's own repository has others from 580 on."""
    found = mistakes({"driver": {"version": "580.1.1-1", "names": "nvidia"}})
    assert list(found) == ["nvidia.driver.packages"]
    named = {"version": "580.1.1-1", "names": "nvidia", "packages": ["nvidia-open"]}
    assert mistakes({"driver": named}) == {}


def test_a_package_file_has_no_epoch_in_its_name() -> None:
    stack = {
        "driver": DRIVER,
        "dcgm": {"version": "1:4.2.3-1", "packages": ["datacenter-gpu-manager"]},
        "packageFiles": [
            {"url": "https://s.example/datacenter-gpu-manager_4.2.3-1_amd64.deb", "sha256": SHA}
        ],
    }
    assert mistakes(stack) == {}
