"""What only a kernel of its own can show: NFS between two virtual machines, with home folders on it
and the server's power gone; an array of a node's NVMe disks and one disk alone, XFS and ext4, with
quotas of users.

Where ``SLURMSTACK_TEST_VIRTUAL`` is set: two machines in software take a quarter of an hour.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from on_node.node_states import RETURNED
from tests.lab.conftest import RunningLab, await_that, lab_command
from tests.lab.test_confinement import as_production, booted
from tests.lab.test_storage import CHECK, HEALTH

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(
        not os.environ.get("SLURMSTACK_TEST_VIRTUAL"),
        reason="SLURMSTACK_TEST_VIRTUAL: boots two virtual machines in software, for minutes",
    ),
]

#: Of machines in software that share two processors with others.
PATIENCE = 900
STORAGE: dict[str, dict[str, Any]] = {
    "home": {"server": "sm01", "path": "/srv/home", "mount": "/home"},
    "tools": {
        "server": "sm01", "path": "/srv/tools", "mount": "/opt/tools",
        "exportOptions": ["rw", "sync", "no_subtree_check", "no_root_squash"],
    },
}  # fmt: skip
for share in STORAGE.values():
    share["clients"] = "cn01"
RAID: dict[str, Any] = {
    "path": "/raid", "devices": ["/dev/disk/by-id/nvme-QEMU_NVMe_Ctrl_nvme[01]"], "count": 2,
    "quota": {"size": 64},
}  # fmt: skip
DISK: dict[str, Any] = {
    "path": "/disk", "devices": ["/dev/disk/by-id/nvme-QEMU_NVMe_Ctrl_nvme2"], "count": 1,
    "fileSystem": "ext4", "quota": {"size": 64, "files": 20},
}  # fmt: skip
PEOPLE = {
    "local": {"users": {"alice": {"uid": 5001}, "ben": {"uid": 6002}}}, "home": {"share": "home"},
}  # fmt: skip


@pytest.fixture(scope="module")
def lab() -> Iterator[RunningLab]:
    """A controller, and two virtual machines: a server of files, and a node with empty disks."""
    with booted("k", ["sm01"], ["cn01", "--disks", "3"]) as running:
        as_production(
            running, "ctl", "sm01", "cn01",
            storage=STORAGE, scratch={"raid": RAID, "disk": DISK}, directory=PEOPLE,
            healthCheck=HEALTH,
        )  # fmt: skip
        lab_command(running.name, "up", "--nodes", "ctl,sm01,cn01", timeout=3600)
        yield running


def srun(lab: RunningLab, user: str, command: str, check: bool = True) -> str:
    """A person's job on the node; its output and errors."""
    words = f"cd / && timeout 400 runuser -u {user} -- srun -n1 --mem=100 sh -c '{command}' 2>&1"
    return lab.ssh("ctl", words, check=check).stdout


def mounts(lab: RunningLab) -> dict[str, str]:
    """Mount point → type, as the node's kernel has them."""
    words = "awk '{ print $2, $3 }' /proc/mounts"
    return dict(line.split() for line in lab.ssh("cn01", words).stdout.splitlines())


def test_files_of_a_person_are_the_same_on_server_and_client(lab: RunningLab) -> None:
    found = mounts(lab)
    assert (found["/home"], found["/opt/tools"]) == ("nfs4", "nfs4")
    for user in ("alice", "ben"):
        # Made by the server, as people of the settings are.
        made = lab.ssh("sm01", f"stat -c '%U:%G %a' /srv/home/{user}").stdout
        assert made == f"{user}:{user} 700\n"
        srun(lab, user, "echo of the job >~/file")
        told = lab.ssh("sm01", f"stat -c %U /srv/home/{user}/file; cat /srv/home/{user}/file")
        assert told.stdout.split("\n") == [user, "of the job", ""]
    lab.ssh("sm01", "runuser -u ben -- sh -c 'echo of the server >/srv/home/ben/back'")
    assert srun(lab, "ben", "cat ~/back") == "of the server\n"
    assert "Permission denied" in srun(lab, "alice", "cat /home/ben/back", check=False)


def test_root_is_squashed_but_where_the_settings_say_otherwise(lab: RunningLab) -> None:
    squashed = lab.ssh("cn01", "touch /home/roots", check=False)
    assert "Permission denied" in squashed.stderr
    lab.ssh("cn01", "echo found >/opt/tools/roots")
    assert lab.ssh("sm01", "stat -c %U:%G /srv/tools/roots").stdout == "root:root\n"


STOPPED = "Disk quota exceeded"


def test_a_person_is_stopped_at_the_quota_and_it_changes_by_a_setting(lab: RunningLab) -> None:
    found = mounts(lab)
    assert (found["/raid"], found["/disk"]) == ("xfs", "ext4")
    assert "raid0 nvme" in lab.ssh("cn01", "cat /proc/mdstat").stdout
    writes = "dd if=/dev/zero of={}/{}/{} bs=1M count=40"
    for place in ("/raid", "/disk"):
        assert STOPPED not in srun(lab, "alice", writes.format(place, "alice", "one"))
        said = srun(lab, "alice", writes.format(place, "alice", "two"), check=False)
        assert STOPPED in said
        # Another person has room of their own.
        srun(lab, "ben", writes.format(place, "ben", "one"))
    # Files are limited on one of them; a folder of ben's and a file are there.
    makes = "cd {}/ben && for n in $(seq 20); do : >$n || exit; done"
    assert STOPPED in srun(lab, "ben", makes.format("/disk"), check=False)
    assert lab.ssh("cn01", "find /disk/ben | wc -l").stdout == "20\n"
    assert STOPPED not in srun(lab, "ben", makes.format("/raid"))
    lab.change(lambda it: it["scratch"]["raid"]["quota"].update(size=128))
    lab.change(lambda it: it["scratch"]["disk"]["quota"].update(size=128, files=40))
    lab.up()
    for place in ("/raid", "/disk"):
        for name in ("two", "three"):
            srun(lab, "alice", writes.format(place, "alice", name))
        said = srun(lab, "alice", writes.format(place, "alice", "four"), check=False)
        assert STOPPED in said


def test_an_ext4_that_counts_nothing_is_told_with_what_helps(lab: RunningLab) -> None:
    """As one that was made before there was a quota."""
    device = "/dev/disk/by-label/disk"
    lab.ssh("cn01", f"umount /disk && tune2fs -O ^quota {device} && systemctl start disk.mount")
    lab.set(reapply={"system@cn01": "counted"})
    try:
        said = " ".join(lab.up(check=False).split())
        assert f"umount it and run tune2fs -O quota {device}" in said
    finally:
        lab.ssh("cn01", f"umount /disk && tune2fs -O quota {device} && systemctl start disk.mount")
    lab.up()
    writes = "dd if=/dev/zero of=/disk/alice/five bs=1M count=200"
    assert STOPPED in srun(lab, "alice", writes, check=False)
    lab.set(reapply=None)


def test_the_array_outlives_the_nodes_power(lab: RunningLab) -> None:
    known = (
        "for place in /raid /disk; do findmnt -n -o UUID,FSTYPE $place; "
        "stat -c '%U %s' $place/alice/one; done"
    )
    writes = "dd if=/dev/zero of={}/alice/{} bs=1M count={}"
    for place in ("/raid", "/disk"):
        srun(lab, "alice", writes.format(place, "one", 40))
    before = lab.ssh("cn01", f"sync; {known}").stdout
    lab.kill("cn01")
    lab.boot("cn01")
    assert lab.ssh("cn01", known).stdout == before
    assert mounts(lab)["/home"] == "nfs4"
    # Once more by the product, which knows its own disks again.
    lab.set(reapply={"system@cn01": "once"})
    lab.up()
    assert lab.ssh("cn01", known).stdout == before
    # It went without a word, and comes back by somebody's (ReturnToService).
    assert lab.shown("cn01", "%T %E") == "down Node unexpectedly rebooted"
    lab.ssh("ctl", "scontrol update nodename=cn01 state=resume")
    await_that(lambda: lab.shown("cn01", "%T").startswith("idle"), PATIENCE)
    for place in ("/raid", "/disk"):
        assert STOPPED in srun(lab, "alice", writes.format(place, "six", 200), check=False)


def test_a_server_that_is_not_there_fails_its_mount_in_time(lab: RunningLab) -> None:
    before = lab.settings.read_text()
    nobody = lab.address("cn09")
    share = {"server": nobody, "path": "/srv/x", "mount": "/srv/x", "clients": "cn01"}
    began = time.monotonic()
    lab.change(lambda it: it["storage"].update(nobody=share))
    try:
        said = lab.up(check=False)
        assert time.monotonic() - began < 300
        assert "cn01: unit srv-x.mount: " in said
    finally:
        lab.settings.write_text(before)
        lab.up()
    assert "/srv/x" not in mounts(lab)


def test_the_servers_power_goes_while_a_job_waits(lab: RunningLab) -> None:
    before = lab.settings.read_text()
    counts = "while [ ! -e ~/end ]; do date >>~/log || exit 1; sleep 1; done"
    words = f"sbatch --parsable -n1 --mem=100 -D / -o /dev/null --wrap '{counts}'"
    job = lab.ssh("ctl", f"cd / && runuser -u alice -- {words}").stdout.strip()
    await_that(lambda: lab.ssh("sm01", "ls /srv/home/alice/log", check=False).returncode == 0)
    lab.kill("sm01")
    try:
        silent = "timeout -k 1 5 stat -f /home"
        await_that(lambda: lab.ssh("cn01", silent, check=False).returncode == 124)
        # What lies elsewhere is changed all the same, and nothing there is looked into.
        began = time.monotonic()
        lab.set(limits={"nofile": 16000})
        lab.up()
        assert "16000" in lab.ssh("cn01", "cat /etc/security/limits.d/90-slurmstack.conf").stdout
        assert time.monotonic() - began < 300
        drift = lab.run("slurmstack", "drift", "cn01", "--stack", lab.name)
        assert "nothing differs" in drift.stdout
        # What must look there says which mount does not answer, on which node.
        lab.change(lambda it: it["slurm"].update(extra={"TaskEpilog": "/opt/tools/epilog"}))
        began = time.monotonic()
        said = lab.up(check=False)
        assert time.monotonic() - began < 300
        assert "cn01: check programs-are-there: " in said
        assert "and /home does not answer" in said or "and /opt/tools does not answer" in said
        lab.ssh("cn01", CHECK, check=False)
        last = json.loads(lab.ssh("cn01", "cat /var/lib/slurmstack-health/last.json").stdout)
        assert last["checks"]["mount /home"]["words"].startswith("/home does not answer")
        assert "RUNNING" in lab.ssh("ctl", f"squeue -h -j {job} -o %T").stdout
    finally:
        lab.settings.write_text(before)
        lab.boot("sm01")
    # The job goes on where it was.
    count = "wc -l </srv/home/alice/log"
    held = int(lab.ssh("sm01", count).stdout)
    await_that(lambda: int(lab.ssh("sm01", count).stdout) > held, PATIENCE)
    lab.ssh("sm01", "touch /srv/home/alice/end")
    await_that(lambda: lab.ssh("ctl", f"squeue -h -j {job} -o %T").stdout == "", PATIENCE)
    assert "COMPLETED" in lab.ssh("ctl", f"scontrol show job {job}").stdout
    lab.up()
    await_that(lambda: lab.ssh("cn01", CHECK, check=False).returncode == 0, PATIENCE)
    # Of a cluster without accounting slurmctld keeps the words until the next job.
    await_that(lambda: lab.shown("cn01", "%T %E") == f"idle {RETURNED}", PATIENCE)
