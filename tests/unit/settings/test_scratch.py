"""Local disks: what is refused before a disk is looked at."""

from __future__ import annotations

from typing import Any

import pytest

from settings import parse
from tests.unit.settings.test_settings import lab, mistakes

RAID = {"path": "/raid", "devices": ["/dev/disk/by-id/nvme-*"], "count": 8}


@pytest.mark.parametrize(
    "change", [{}, {"level": 10}, {"count": 1}, {"nodes": "cn02"}, {"fileSystem": "ext4"}]
)
def test_disks_are_read(change: dict[str, Any]) -> None:
    parse({**lab(), "scratch": {"raid": {**RAID, **change}}})


@pytest.mark.parametrize(
    ("change", "key", "words"),
    [
        ({"nodes": "cn[02-03]"}, "nodes", "compute nodes; found cn03"),
        ({"nodes": "ctl"}, "nodes", "compute nodes"),
        ({"count": 1, "level": 0}, "level", "nothing, since count is 1"),
        ({"count": 2, "level": 5}, "count", "at least 3"),
        ({"count": 3, "level": 6}, "count", "at least 4"),
        ({"count": 0}, "count", ""),
        ({"devices": []}, "devices", ""),
        ({"devices": ["/dev/sda;reboot"]}, "devices[0]", "disks by path"),
        ({"devices": ["/dev/sda /dev/sdb"]}, "devices[0]", "disks by path"),
        ({"devices": ["/srv/image"]}, "devices[0]", "disks by path"),
        ({"path": "/home"}, "path", "/home, already of storage.home"),
        ({"path": "/other"}, "path", "/other, already of scratch.a-first"),
        ({"fileSystem": "btrfs"}, "fileSystem", "xfs"),
        ({"quota": {}}, "quota", "size in MiB, or files, above 0"),
        ({"quota": {"size": 5}, "perUser": False}, "quota", "nothing, since perUser is false"),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, Any], key: str, words: str) -> None:
    found = mistakes({
        "storage": {"home": {"server": "nas", "path": "/home"}},
        "scratch": {"a-first": {**RAID, "path": "/other", "nodes": "cn02"},
                    "raid": {**RAID, **change}},
    })  # fmt: skip
    assert found.keys() == {f"slurmstack:scratch.raid.{key}"}
    assert words in found[f"slurmstack:scratch.raid.{key}"]


def test_a_name_is_a_label_of_xfs() -> None:
    assert mistakes({"scratch": {"longer-than-12": RAID}})
