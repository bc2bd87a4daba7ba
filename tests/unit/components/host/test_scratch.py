"""Local disks: made only of empty ones, found again, and never written to otherwise.

The disks are loop devices; mdadm is a stand-in that writes down how it is called.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from components.host.scratch import scratch_parts, with_jobs
from remote.bundle import Check, Command, File, Guard, Package
from settings import parse
from tests.unit.components.test_cluster import bare

SIZE = 32 << 20


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[Callable[[int], list[str]]]:
    """So many empty disks."""
    made: list[str] = []

    def make(number: int) -> list[str]:
        for index in range(number):
            image = tmp_path / f"disk{index}"
            with image.open("wb") as file:
                file.truncate(SIZE)
            words = ["losetup", "--find", "--show", str(image)]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"no loop devices here: {done.stderr.strip()}")
            made.append(done.stdout.strip())
        return made

    if os.geteuid() != 0:
        pytest.skip("needs root")
    yield make
    for disk in made:
        subprocess.run(["losetup", "--detach", disk], check=True)


class Node:
    """What runs on a node, with a udev that knows the labels, and mdadm's stand-in."""

    def __init__(self, place: Path, **scratch: Any) -> None:
        self.place = place
        settings = parse({**bare(), "scratch": {"raid": {"path": "/raid", **scratch}}})
        parts = scratch_parts("cn01", settings)
        self.guard = next(it.script for it in parts if isinstance(it, Guard))
        self.command = next(it.script for it in parts if isinstance(it, Command))
        self.checks = [it.script for it in parts if isinstance(it, Check)]
        (place / "bin").mkdir(exist_ok=True)
        self.tool("mdadm", f'echo "$*" >>{place}/mdadm')
        self.tool("udevadm", "exit 0")

    def tool(self, name: str, text: str) -> None:
        path = self.place / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def run(self, script: str) -> tuple[int, str]:
        labels = self.place / "by-label"
        labels.mkdir(exist_ok=True)
        (labels / "raid").touch()
        done = subprocess.run(
            ["sh", "-c", script.replace("/dev/disk/by-label", str(labels))],
            env={"PATH": f"{self.place}/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    @property
    def said_to_mdadm(self) -> str:
        file = self.place / "mdadm"
        return file.read_text() if file.exists() else ""


def contents(disks: list[str]) -> list[bytes]:
    return [Path(disk).read_bytes() for disk in disks]


def test_a_disk_alone_gets_a_file_system_once(
    disks: Callable[[int], list[str]], tmp_path: Path
) -> None:
    (disk,) = disks(1)
    node = Node(tmp_path, devices=[disk], count=1, fileSystem="ext4")
    assert node.run(node.guard) == (0, "")
    assert node.run(node.command)[0] == 0
    words = ["blkid", "-p", "-o", "value", "-s", "TYPE", "-s", "LABEL", disk]
    found = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    assert sorted(found) == ["ext4", "raid"]
    before = contents([disk])
    assert node.run(node.guard) == (0, "")
    assert node.run(node.command)[0] == 0
    assert contents([disk]) == before
    # Of another name it is somebody else's.
    other = Node(tmp_path, devices=[disk], count=1)
    for script in (other.guard, other.command):
        status, said = other.run(script)
        assert (status, f"{disk} holds ext4" in said) == (1, True), said
    assert contents([disk]) == before


FOREIGN: dict[str, str] = {
    "holds ext4": "mkfs.ext4 -q {0}",
    "holds swap": "mkswap -q {0}",
    # A partition table with a partition, as sfdisk writes it.
    "holds dos": "printf '\\203\\0\\0\\0\\0\\010\\0\\0\\0\\020\\0\\0'"
    " | dd of={0} bs=1 seek=450 conv=notrunc;"
    " printf '\\125\\252' | dd of={0} bs=1 seek=510 conv=notrunc",
    "does not begin with zeros": "echo data | dd of={0} bs=1 seek=5000 conv=notrunc",
}


@pytest.mark.parametrize("words", FOREIGN)
def test_a_disk_that_holds_anything_is_left_alone(
    disks: Callable[[int], list[str]], tmp_path: Path, words: str
) -> None:
    """All of them: nothing is made of the empty one beside it either."""
    two = disks(2)
    subprocess.run(FOREIGN[words].format(two[1]), shell=True, check=True, capture_output=True)
    before = contents(two)
    node = Node(tmp_path, devices=two, count=2)
    for script in (node.guard, node.command):
        status, said = node.run(script)
        assert (status, f"{two[1]} {words}" in said) == (1, True), said
        assert f"{two[0]} " not in said
    assert contents(two) == before
    assert node.said_to_mdadm == ""


def test_a_disk_of_an_array_that_runs_is_left_alone(
    disks: Callable[[int], list[str]], tmp_path: Path
) -> None:
    two = disks(2)
    name = Path(two[0]).name
    mdstat = tmp_path / "mdstat"
    # A disk that is called as the first one and a digit is none of it.
    mdstat.write_text(f"md127 : active raid1 {name}[1] {Path(two[1]).name}0[0]\n")
    node = Node(tmp_path, devices=two, count=2)
    for script in (node.guard, node.command):
        status, said = node.run(script.replace("/proc/mdstat", str(mdstat)))
        assert (status, said.count("is in"), f"{two[0]} is in" in said) == (1, 1, True), said


def test_others_than_the_declared_number_are_refused(
    disks: Callable[[int], list[str]], tmp_path: Path
) -> None:
    two = disks(2)
    for count in (1, 3):
        node = Node(tmp_path, devices=two, count=count)
        status, said = node.run(node.command)
        assert (status, f"{count} disks are to match" in said, "and 2 do" in said) == (
            1,
            True,
            True,
        )
    assert node.said_to_mdadm == ""


def test_an_array_is_made_of_empty_disks_named_twice_or_not(
    disks: Callable[[int], list[str]], tmp_path: Path
) -> None:
    two = disks(2)
    link = tmp_path / "link"
    link.symlink_to(two[0])
    node = Node(tmp_path, devices=two, count=2, level=1)
    command = node.command.replace(two[0], f"{two[0]} {link}")
    # The stand-in makes none, so that there is nothing for a file system.
    assert node.run(command)[0] == 1
    assert node.said_to_mdadm == (
        "--create /dev/md/slurmstack-raid --name=slurmstack-raid --homehost=any --metadata=1.2 "
        f"--level=1 --bitmap=internal --raid-devices=2 {' '.join(sorted(two))}\n"
    )


def member(of: str, uuid: str) -> str:
    """blkid's stand-in: what it says of a disk of an array."""
    return (
        "case $* in *TYPE*) echo linux_raid_member ;; "
        f"*LABEL*) echo {of} ;; *UUID*) echo {uuid} ;; esac"
    )


def test_an_array_that_is_there_is_assembled_and_not_made(
    disks: Callable[[int], list[str]], tmp_path: Path
) -> None:
    two = disks(2)
    before = contents(two)
    node = Node(tmp_path, devices=two, count=2)
    node.tool("blkid", member("any:slurmstack-raid", "1"))
    assert node.run(node.guard) == (0, "")
    node.run(node.command)
    assert node.said_to_mdadm == f"--assemble /dev/md/slurmstack-raid {' '.join(sorted(two))}\n"
    # Disks of two arrays of that name, or of another's.
    for blkid, words in (
        (member("any:slurmstack-raid", "$$"), "not all of them to one"),
        (f"[ $6 = {two[0]} ] || exit 2\n" + member("any:slurmstack-raid", "1"), "of 2 disks, 1"),
    ):
        node.tool("blkid", blkid)
        for script in (node.guard, node.command):
            status, said = node.run(script)
            assert (status, words in said) == (1, True), said
    assert node.said_to_mdadm.count("\n") == 1
    assert contents(two) == before


def test_the_folder_is_mounted_by_its_label() -> None:
    scratch = {"path": "/raid", "devices": ["/dev/nvme*n1"], "count": 8, "nodes": "cn01"}
    settings = parse({**bare(), "scratch": {"raid": scratch}})
    files = {it.path: str(it.content) for it in scratch_parts("cn01", settings)
             if isinstance(it, File)}  # fmt: skip
    unit = files["/etc/systemd/system/raid.mount"]
    assert "What=/dev/disk/by-label/raid\nWhere=/raid\nType=xfs\nOptions=noatime\n" in unit
    assert "WantedBy=local-fs.target" in unit
    assert files["/etc/slurmstack/scratch"] == "/raid\n"
    assert scratch_parts("cn02", settings) == scratch_parts("ctl", settings) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_user_has_a_folder_of_their_own_where_something_is_mounted(tmp_path: Path) -> None:
    scratch = {"path": "/raid", "devices": ["/dev/nvme*n1"], "count": 8}
    (program,) = with_jobs(parse({**bare(), "scratch": {"raid": scratch}}))
    places, mounted = tmp_path / "places", tmp_path / "raid"
    mounted.mkdir()
    text = program.text.replace("/etc/slurmstack/scratch", str(places))

    def run() -> int:
        environment = {**os.environ, "SLURM_JOB_ID": "7", "SLURM_JOB_USER": "nobody",
                       "SLURM_JOB_UID": "65534"}  # fmt: skip
        return subprocess.run(["sh", "-c", text], env=environment, check=False).returncode

    assert run() == 0  # a node without
    places.write_text(f"{mounted}\n")
    assert run() == 1
    assert list(mounted.iterdir()) == []
    subprocess.run(["mount", "-t", "tmpfs", "none", str(mounted)], check=True)
    try:
        assert [run(), run()] == [0, 0]
        (folder,) = mounted.iterdir()
        found = folder.stat()
        assert (folder.name, found.st_uid, found.st_mode & 0o777) == ("nobody", 65534, 0o700)
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


def test_users_are_counted_and_limited(disks: Callable[[int], list[str]], tmp_path: Path) -> None:
    """ext4 is made with quotas; whether the kernel keeps them is asked, and here it does not."""
    (disk,) = disks(1)
    ext4 = {"devices": [disk], "count": 1, "fileSystem": "ext4"}
    (check,) = Node(tmp_path, **ext4, quota={"size": 5}).checks
    check = check.replace("/dev/disk/by-label/raid", disk)
    # One that was made before: it says how it gets them.
    node = Node(tmp_path, **ext4)
    assert node.run(node.command)[0] == 0
    node.tool("quotaon", "echo 'quotaon: Mountpoint (or device) /raid not found'; exit 1")
    status, said = node.run(check)
    assert (status, f"run tune2fs -O quota {disk}" in said) == (1, True), said
    subprocess.run(["wipefs", "-q", "-a", disk], check=True)
    subprocess.run(["dd", "if=/dev/zero", f"of={disk}", "bs=1M", "count=32"],
                   check=True, capture_output=True)  # fmt: skip
    node = Node(tmp_path, **ext4, quota={"size": 5})
    assert node.run(node.command)[0] == 0
    status, said = node.run(check)
    assert (status, "see journalctl -k" in said) == (1, True), said
    node.tool("quotaon", "echo 'user quota on /raid (/dev/loop0) is on'")
    assert node.run(check) == (0, "")


def test_a_quota_is_set_before_a_job(tmp_path: Path) -> None:
    scratch = {"path": "/raid", "devices": ["/dev/nvme*n1"], "count": 8}
    settings = parse({**bare(), "scratch": {
        "raid": {**scratch, "quota": {"size": 500, "files": 1000}},
        "fast": {**scratch, "path": "/fast", "quota": {"files": 7}, "nodes": "cn01"},
        "free": {**scratch, "path": "/free"},
    }})  # fmt: skip
    parts = scratch_parts("cn01", settings)
    files = {it.path: str(it.content) for it in parts if isinstance(it, File)}
    assert files["/etc/slurmstack/scratch-quotas"] == "/fast 0 7\n/raid 512000 1000\n"
    assert "Options=noatime,usrquota\n" in files["/etc/systemd/system/raid.mount"]
    assert "Options=noatime\n" in files["/etc/systemd/system/free.mount"]
    assert "quota" in {it.name for it in parts if isinstance(it, Package)}

    (program,) = with_jobs(settings)
    quotas, programs = tmp_path / "quotas", tmp_path / "bin"
    quotas.write_text(files["/etc/slurmstack/scratch-quotas"])
    programs.mkdir()
    places = tmp_path / "places"
    places.touch()
    text = program.text.replace("/etc/slurmstack/scratch-quotas", str(quotas))
    text = text.replace("/etc/slurmstack/scratch", str(places))
    text = text.replace(" PATH=", f" PATH={programs}:")
    # Of slurmd, which gives no PATH.
    environment = {"SLURM_JOB_ID": "7", "SLURM_JOB_USER": "nobody", "SLURM_JOB_UID": "65534"}
    for name, words in (
        ("setquota", f'echo "$*" >>{tmp_path}/set; [ "$7" != /fast ]'),
        ("logger", f'echo "$*" >>{tmp_path}/log'),
    ):
        (programs / name).write_text(f"#!/bin/sh\n{words}\n")
        (programs / name).chmod(0o755)
    # A job runs all the same where one cannot be set.
    subprocess.run(["/bin/sh", "-c", text], env=environment, check=True)
    told = (tmp_path / "set").read_text().splitlines()
    assert told == ["-u 65534 0 0 0 7 /fast", "-u 65534 0 512000 0 1000 /raid"]
    assert "no quota for nobody in /fast" in (tmp_path / "log").read_text()
