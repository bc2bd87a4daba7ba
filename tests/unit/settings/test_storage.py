"""Shared file systems: what each type asks for, and refusals of all at once."""

from __future__ import annotations

from typing import Any

import pytest

from settings import parse
from tests.unit.settings.test_settings import lab, mistakes

GOOD: dict[str, dict[str, Any]] = {
    "home": {"server": "nas", "path": "/srv/home"},
    "old": {"type": "nfs4", "server": "nas", "path": "/srv/old", "packages": []},
    "fast": {"type": "lustre", "source": "10.0.0.5@o2ib,10.1.0.5@tcp:10.0.0.6@o2ib:/fast/a"},
    "named": {"type": "lustre", "source": "mgs:/named"},
    "work": {"type": "beegfs", "source": "mgmt.example.org", "packages": ["beegfs-client-dkms"]},
    "guest": {"type": "virtiofs", "source": "home-of_all.1"},
    "ceph": {"type": "cephfs", "source": "10.0.0.5:6789,10.0.0.6:/", "name": "slurm",
             "secretFile": "/etc/ceph/slurm.secret"},
    "new": {"type": "cephfs", "source": "slurm@b3acfc0d-575f.cephfs=/home"},
    "bound": {"type": "bind", "source": "/data", "options": ["ro"]},
    "scale": {"type": "gpfs", "source": "gpfs0", "module": "mmfs26"},
    "program": {"type": "fuse.sshfs", "source": "nas:/srv"},
}  # fmt: skip


def test_each_type_is_read() -> None:
    shares = {
        name: share if "server" in share else {"mount": f"/{name}", **share}
        for name, share in GOOD.items()
    }
    found = parse({**lab(), "storage": shares}).storage
    assert {name: share.mounted_at for name, share in found.items() if name != "home"} == {
        **{name: f"/{name}" for name in GOOD if name != "home"},
        "old": "/srv/old",
    }


@pytest.mark.parametrize(
    ("share", "wrong"),
    [
        ({}, {"server": "a value, since type is nfs", "path": "a value, since type is nfs"}),
        ({"server": "nas", "path": "/a", "source": "nas:/a"}, {"source": "nothing"}),
        ({"server": "nas", "path": "/a", "name": "x", "secretFile": "/x", "module": "x"},
         {"name": "nothing", "secretFile": "nothing", "module": "nothing"}),
        ({"type": "lustre"}, {"source": "a value", "mount": "a value"}),
        ({"type": "lustre", "source": "mgs:/scratch", "mount": "/s", "server": "nas", "path": "/a",
          "owner": "a:b", "mode": "0700", "exportOptions": ["rw"]},
         {"server": "nothing", "path": "nothing", "owner": "nothing", "mode": "nothing",
          "exportOptions": "nothing, since type is lustre"}),
        ({"type": "lustre", "source": "10.0.0.5@tcp", "mount": "/s"}, {"source": "MGS:/FSNAME"}),
        ({"type": "lustre", "source": "mgs:/longer-than-8", "mount": "/s"}, {"source": "FSNAME"}),
        ({"type": "beegfs", "source": "mgmt:/a", "mount": "/s"}, {"source": "management"}),
        ({"type": "virtiofs", "source": "/srv/home", "mount": "/s"}, {"source": "the tag"}),
        ({"type": "virtiofs", "source": "x" * 37, "mount": "/s"}, {"source": "the tag"}),
        ({"type": "cephfs", "source": "10.0.0.5", "mount": "/s"}, {"source": "MONITORS:/PATH"}),
        ({"type": "bind", "source": "data", "mount": "/s"}, {"source": "a folder of the same"}),
        ({"type": "bind", "source": "/s", "mount": "/s"}, {"source": "another folder"}),
        ({"type": "bind", "source": "/a", "mount": "/s", "module": "x"}, {"module": "nothing"}),
        ({"type": "ceph", "source": "a:/", "mount": "/s"}, {"type": "cephfs"}),
        ({"type": "none", "source": "/a", "mount": "/s"}, {"type": "bind"}),
        ({"type": "xfs", "source": "/dev/sd b", "mount": "/s"}, {"source": "without blanks"}),
        ({"type": "xfs", "source": "%h", "mount": "/s"}, {"source": "without blanks, %"}),
        ({"type": "xfs", "source": "/dev/sdb", "mount": "/s", "packages": ["-y"]},
         {"packages[0]": "the name of a package"}),
    ],
)  # fmt: skip
def test_what_a_type_does_not_take_is_refused(share: dict[str, Any], wrong: dict[str, str]) -> None:
    found = mistakes({"storage": {"it": share}})
    assert found.keys() == {f"slurmstack:storage.it.{key}" for key in wrong}
    for key, words in wrong.items():
        assert words in found[f"slurmstack:storage.it.{key}"]


def test_all_shares_are_told_of_at_once() -> None:
    shares = {
        "a": {"type": "lustre", "source": "mgs", "mount": "/x"},
        "b": {"type": "bind", "source": "/b", "mount": "/x", "clients": "cn09"},
        "c": {"server": "nas"},
    }
    assert mistakes({"storage": shares}).keys() == {
        f"slurmstack:storage.{place}" for place in ("a.source", "b.mount", "b.clients", "c.path")
    }


@pytest.mark.parametrize("option", ["secret=AQB+x/y==", "password=AQB+x/y=="])
def test_a_secret_among_the_options_is_refused_and_not_shown(option: str) -> None:
    share = {"type": "cephfs", "source": "mon:/", "mount": "/s", "options": ["noatime", option]}
    (said,) = mistakes({"storage": {"it": share}}).values()
    assert "everybody reads options" in said
    assert "AQB" not in said
