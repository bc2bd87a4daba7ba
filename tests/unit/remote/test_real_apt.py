"""The applier with the real apt and dpkg, on a throw-away view of this machine.

An overlay over `/` in a mount namespace of its own is what the applier changes; it is gone with
the last process in it. Packages come from a folder made here, from nowhere else.
"""

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from remote.answer import parse_answer
from remote.bundle import Bundle, File, Package, Part
from remote.commands import APPLIER
from tests.unit.remote.machine import Run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("apt-get"),
        reason="needs root, unshare and apt",
    ),
]

ENTER = """
set -e
mount -t tmpfs tmpfs {folder}
cd {folder}
mkdir upper work root
mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root
mount -t proc proc root/proc
mount --bind /dev root/dev
mount -t tmpfs tmpfs root/run
mount -t tmpfs tmpfs root/tmp
cp -a {repository} root/repository
cd root
rm -rf etc/apt/sources.list etc/apt/sources.list.d/* etc/apt/apt.conf.d/* var/lib/apt/lists/*
rm -f usr/sbin/policy-rc.d
echo 'deb [trusted=yes] file:///repository ./' >etc/apt/sources.list
touch {ready}
exec sleep 600
"""

POSTINST = """#!/bin/sh
[ "$1" = configure ] || exit 0
name=$DPKG_MAINTSCRIPT_PACKAGE policy=0
[ ! -x /usr/sbin/policy-rc.d ] || { /usr/sbin/policy-rc.d $name start; policy=$?; }
echo "$name $policy" >>/policy.log
"""


def build(folder: Path, name: str, version: str, *, depends: str = "", postinst: str = "") -> None:
    tree = folder / "tree"
    control = tree / "DEBIAN"
    control.mkdir(parents=True)
    (control / "control").write_text(
        f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: test\n"
        + (f"Depends: {depends}\n" if depends else "")
        + "Description: test\n"
    )
    (control / "conffiles").write_text(f"/etc/{name}.conf\n")
    (tree / "etc").mkdir()
    (tree / f"etc/{name}.conf").write_text(f"default of {version}\n")
    (control / "postinst").write_text(postinst or POSTINST)
    (control / "postinst").chmod(0o755)
    deb = folder / f"{name}_{version}.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Znone", "-b", str(tree), str(deb)],
        check=True,
        capture_output=True,
    )
    data = deb.read_bytes()
    fields = subprocess.check_output(["dpkg-deb", "-f", str(deb)], text=True)
    with (folder / "Packages").open("a") as index:
        index.write(
            f"{fields}Filename: ./{deb.name}\nSize: {len(data)}\n"
            f"SHA256: {hashlib.sha256(data).hexdigest()}\n\n"
        )
    shutil.rmtree(tree)


class Chroot:
    """The machine as the applier sees it."""

    def __init__(self, pid: int, root: str) -> None:
        self.prefix = ["nsenter", "-t", str(pid), "-m", "--", "chroot", root]

    def sh(self, script: str) -> str:
        done = subprocess.run([*self.prefix, "sh", "-c", script], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(self, verb: str, role: str, *parts: Part) -> Run:
        done = subprocess.run(
            [*self.prefix, "env", "SLURMSTACK_DPKG_WAIT=2", "dash", "/applier", verb],
            input=Bundle("cn01", role, parts).render(),
            capture_output=True,
            text=True,
        )
        return Run(done.returncode, done.stdout, done.stderr)

    def installed(self) -> set[str]:
        packages = self.sh(
            "dpkg-query -W -f '${db:Status-Status} ${Package} ${Version}\\n' 'ss-*' || :"
        )
        return {line.removeprefix("installed ") for line in packages.splitlines()
                if line.startswith("installed ")}  # fmt: skip


@pytest.fixture
def chroot(tmp_path: Path) -> Iterator[Chroot]:
    repository = tmp_path / "repository"
    repository.mkdir()
    build(repository, "ss-lib", "1")
    build(repository, "ss-demo", "1", depends="ss-lib")
    build(repository, "ss-demo", "2", depends="ss-lib")
    build(repository, "ss-other", "1", depends="ss-lib")
    slow = "#!/bin/sh\ntouch /slow\nwhile [ -e /slow ]; do sleep 0.1; done\n"
    build(repository, "ss-slow", "1", postinst=slow)
    folder, ready = tmp_path / "view", tmp_path / "ready"
    folder.mkdir()
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c",
         ENTER.format(folder=folder, repository=repository, ready=ready)],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not ready.exists():
        if process.poll() is not None:
            assert process.stderr
            pytest.skip(f"no overlay over / here: {process.stderr.read()}")
        time.sleep(0.02)
    chroot = Chroot(process.pid, f"{folder}/root")
    applier = tmp_path / "applier"
    applier.write_text(APPLIER)
    subprocess.run(
        [
            "nsenter",
            "-t",
            str(process.pid),
            "-m",
            "--",
            "cp",
            str(applier),
            f"{folder}/root/applier",
        ],
        check=True,
    )
    yield chroot
    process.terminate()
    process.wait()


def test_packages(chroot: Chroot) -> None:
    ours = File("/etc/ss-demo.conf", "ours\n")
    one = chroot.run("apply", "one", Package("ss-demo", "1"), ours)
    assert one.answer.packages == {"ss-demo": "1"}
    assert chroot.installed() == {"ss-demo 1", "ss-lib 1"}
    assert chroot.sh("cat /policy.log") == "ss-lib 101\nss-demo 101\n"
    assert chroot.sh("ls /usr/sbin/policy-rc.d* 2>&1 || :").endswith("No such file or directory\n")

    again = chroot.run("apply", "one", Package("ss-demo", "1"), ours)
    assert again.answer.changed is False

    assert chroot.run("apply", "two", Package("ss-other")).status == 0

    # A conffile that both sides changed: no question, ours stays.
    two = chroot.run("apply", "one", Package("ss-demo", "2"), ours)
    assert two.answer.packages == {"ss-demo": "2"}
    assert chroot.sh("cat /etc/ss-demo.conf") == "ours\n"

    # Interrupted by someone else, in the middle of another installation.
    chroot.sh("dpkg --force-confold --unpack /repository/ss-demo_1.deb")
    assert "ss-demo 1" not in chroot.installed()
    assert chroot.run("apply", "one", Package("ss-demo", "1"), ours).answer.changed
    assert "ss-demo 1" in chroot.installed()

    gone = chroot.run("remove", "one", Package("ss-demo", "1"), ours)
    assert parse_answer(gone.stdout).actions[-1] == "purged ss-demo "
    assert chroot.installed() == {"ss-other 1", "ss-lib 1"}
    assert chroot.run("remove", "two", Package("ss-other")).status == 0
    assert chroot.installed() == set()
    assert chroot.sh("ls -A /var/lib/slurmstack") == ""


def test_missing_package(chroot: Chroot) -> None:
    error = chroot.run("apply", "one", Package("ss-none"), Package("ss-demo", "7")).error
    assert error.startswith(
        "slurmstack: cn01: package ss-demo 7 (there is: 2 1): not in the package lists of this node"
    )
    assert "ss-none" in error
    assert chroot.installed() == set()


def test_dpkg_is_locked(chroot: Chroot) -> None:
    chroot.sh("apt-get update && mkdir -p /run/lock")
    slow = subprocess.Popen(
        [*chroot.prefix, "apt-get", "-y", "install", "ss-slow"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while chroot.sh("ls /slow 2>/dev/null || :") == "":
        assert slow.poll() is None
        time.sleep(0.05)
    error = chroot.run("apply", "one", Package("ss-demo")).error
    assert f"dpkg is locked by process {slow.pid} (apt-get)" in error
    assert error.endswith("wait until it has ended, or end it, and run again")
    chroot.sh("rm /slow")
    assert slow.wait(60) == 0
    assert chroot.run("apply", "one", Package("ss-demo")).status == 0
