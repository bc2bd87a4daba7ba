"""Shared file systems of types that these machines can mount, one that they cannot, and one that
does not answer: a stand-in of FUSE (tests/silent_file_system.py), as no NFS server runs here."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import silent_file_system
from tests.lab.conftest import RunningLab, await_that

pytestmark = pytest.mark.lab

CHECK = "/usr/local/lib/slurmstack/health-check"
SHARES: dict[str, dict[str, Any]] = {
    "bound": {"type": "bind", "source": "/srv/data", "mount": "/srv/bound", "options": ["ro"]},
    "memory": {
        "type": "tmpfs", "source": "none", "mount": "/srv/memory",
        "options": ["size=8m", "mode=1777"],
    },
}  # fmt: skip
for share in SHARES.values():
    share["clients"] = "cn[01-02]"
LUSTRE = {
    "type": "lustre", "source": "10.73.9.9@tcp:/scratch", "mount": "/scratch", "clients": "cn02",
}  # fmt: skip
HEALTH = {"by": "slurmstack", "interval": 3600, "limits": {"freeDisk": {"/": 1}, "forkTime": 9000,
                                                           "deadline": 6}}  # fmt: skip


def types(lab: RunningLab, node: str) -> dict[str, str]:
    """Mount point → type, below /srv and of /scratch, as the kernel has them."""
    words = "awk '$2 ~ \"^/(srv|scratch)\" { print $2, $3 }' /proc/mounts"
    return dict(line.split() for line in lab.ssh(node, words).stdout.splitlines())


@pytest.fixture(scope="module")
def refused(lab: RunningLab) -> Iterator[str]:
    """What `up` says of a type that cn02's kernel does not have; then the lab without it."""
    before = lab.settings.read_text()
    for node in ("cn01", "cn02"):
        lab.ssh(node, "mkdir -p /srv/data && echo here >/srv/data/file")
    try:
        lab.set(storage={**SHARES, "scratch": LUSTRE}, healthCheck=HEALTH)
        said = lab.up(check=False)
        # Before anything: what cn02 could mount is not there either, and cn01 has it all.
        assert types(lab, "cn02") == {}
        assert lab.ssh("cn02", "ls /etc/systemd/system/*.mount", check=False).stdout == ""
        assert types(lab, "cn01").keys() == {"/srv/bound", "/srv/memory"}
        lab.set(storage=SHARES)
        lab.up()
        yield said
    finally:
        lab.settings.write_text(before)
        lab.up()
        for node in ("cn01", "cn02"):
            assert types(lab, node) == {}
            lab.ssh(node, "rm -r /srv/data; rmdir /srv/bound /srv/memory; rm -f /dev/fuse")
        lab.ssh("cn02", "rmdir /srv/more", check=False)


def test_a_type_that_the_kernel_lacks_is_refused_before_anything_changes(
    lab: RunningLab, refused: str
) -> None:
    kernel = lab.ssh("cn02", "uname -r").stdout.strip()
    words = (
        f"cn02: guard precheck: refused (exit 1): scratch: the running kernel {kernel} has neither "
        "the file system lustre nor a module lustre for it: install its client module"
    )
    assert words in refused
    assert f"linux-headers-{kernel}" in refused


def test_what_is_bound_and_a_type_of_mount_are_mounted(lab: RunningLab, refused: str) -> None:
    for node in ("cn01", "cn02"):
        assert types(lab, node)["/srv/memory"] == "tmpfs"
        assert lab.ssh(node, "cat /srv/bound/file").stdout == "here\n"
        written = lab.ssh(node, "touch /srv/bound/file", check=False)
        assert "Read-only file system" in written.stderr
        lab.ssh(node, "runuser -u nobody -- touch /srv/memory/file")
    told = json.loads(lab.pulumi("stack", "output", "inventory", "--json", "--show-secrets").stdout)
    units = {name: told["cn02"]["units"][name] for name in ("srv-bound.mount", "srv-memory.mount")}
    assert set(units.values()) == {"active"}
    lab.ssh("cn02", "umount /srv/memory")
    drift = lab.run("slurmstack", "drift", "cn02", "--stack", lab.name, check=False).stdout
    assert "srv-memory.mount" in drift
    lab.ssh("cn02", "systemctl start srv-memory.mount")


def test_a_mount_that_does_not_answer_holds_nobody(lab: RunningLab, refused: str) -> None:
    """`up` changes other mounts there, drift compares, and the health check says which it is."""
    lab.send("cn02", "cat >/run/silent.py", Path(silent_file_system.__file__).read_bytes())
    lab.ssh("cn02", "systemd-run -q --unit=silent python3 /run/silent.py /srv/memory")
    try:
        await_that(lambda: types(lab, "cn02")["/srv/memory"] == "fuse")
        assert lab.ssh("cn02", "timeout -k 1 2 stat /srv/memory", check=False).returncode == 124
        began = time.monotonic()
        lab.set(storage={**SHARES, "more": {**SHARES["memory"], "mount": "/srv/more"}})
        lab.up()
        assert types(lab, "cn02")["/srv/more"] == "tmpfs"
        drift = lab.run("slurmstack", "drift", "cn02", "--stack", lab.name)
        assert "nothing differs" in drift.stdout
        assert time.monotonic() - began < 240

        def found() -> str:
            took = f"date +%s; {CHECK} >/dev/null; date +%s"
            start, end = lab.ssh("cn02", took).stdout.split()
            assert int(end) - int(start) < 20
            last = json.loads(lab.ssh("cn02", "cat /var/lib/slurmstack-health/last.json").stdout)
            return str(last["checks"]["mount /srv/memory"]["words"])

        await_that(lambda: found().startswith("/srv/memory does not answer"))
        reason = "slurmstack: health: /srv/memory does not answer"
        assert lab.shown("cn02", "%T %E").startswith(f"drained {reason}")
    finally:
        lab.ssh("cn02", "systemctl stop silent; umount -l /srv/memory; rm /run/silent.py")
    await_that(lambda: lab.ssh("cn02", CHECK, check=False).returncode == 0)
    assert lab.shown("cn02", "%T %E") == "idle none"
