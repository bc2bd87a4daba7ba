"""``slurmstack:boot``: what cannot be is refused, all at once."""

from __future__ import annotations

from typing import Any

import pytest

from settings import parse
from settings.problems import SettingsError
from tests.unit.components.test_cluster import bare


def mistakes(boot: dict[str, Any], **changes: Any) -> dict[str, str]:
    """Path → what is said of it."""
    try:
        parse({**bare(), "boot": boot, **changes})
    except SettingsError as error:
        return {
            it.path.removeprefix("slurmstack:"): f"{it.expected}; found {it.found}"
            for it in error.problems
        }
    return {}


def test_yaml_says_on_and_off_in_its_own_way() -> None:
    settings = parse({**bare(), "boot": {"iommu": False, "acs": False}})
    assert settings.boot is not None
    assert (settings.boot.iommu, settings.boot.acs) == ("off", "off")
    assert [*mistakes({"acs": True})] == ["boot.acs"]


@pytest.mark.parametrize("word", ["", "a b", "a'b", 'a="b"', "$(x)", "a;b", "-x", "a`b`"])
def test_what_a_shell_or_grub_would_take_otherwise_is_no_parameter(word: str) -> None:
    assert [*mistakes({"kernelParameters": ["iommu=pt", word]})] == ["boot.kernelParameters[1]"]


def test_all_mistakes_at_once() -> None:
    found = mistakes(
        {
            "hosts": "cn[01,09]", "kernelParameters": ["iommu=pt", "hugepages=4", "nosmt", "nosmt"],
            "iommu": "on", "hugePages": {"count": 5}, "sysctl": {"vm.nr_hugepages": 7},
        },
        rollout={"drain": "never"},
    )  # fmt: skip
    assert found == {
        "boot.hosts": "compute nodes of slurmstack:nodes; found cn09",
        "boot.kernelParameters[0]": "no iommu beside slurmstack:boot.iommu; found iommu=pt",
        "boot.kernelParameters[1]": (
            "no hugepages beside slurmstack:boot.hugePages; found hugepages=4"
        ),
        "boot.kernelParameters[3]": "each parameter once; found nosmt",
        "boot.sysctl": "no vm.nr_hugepages beside slurmstack:boot.hugePages; found vm.nr_hugepages",
        "rollout.drain": (
            "asNeeded or always, or slurmstack:boot.reboot: never: no node is rebooted under jobs; "
            "found never"
        ),
    }
    assert mistakes({"sysctl": {"net.core.somaxconn": 4096}}, rollout={"drain": "never"}) == {}
    never = {"kernelParameters": ["nosmt"], "reboot": "never"}
    assert mistakes(never, rollout={"drain": "never"}) == {}
