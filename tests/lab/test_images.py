"""Container images on the lab: bootstrapped from the mirror, tried, published, fetched, run.

Where no runtime is given (artifacts.py), jobs unpack the image and enter it in a user namespace of
their own, as Enroot does: that stands in for Enroot. ``SLURMSTACK_TEST_PYTORCH`` has the image of
PyTorch built as well, which takes minutes.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import artifacts, package_index, shared_folder
from tests.lab.conftest import RunningLab, await_that
from tests.unit.components.software.wheel import wheel

pytestmark = pytest.mark.lab

NODES = ("ctl", "login01", "cn01", "cn02")
ROOT = "/opt/containers"
#: A folder that all hosts have, and where it is a share of the settings.
SHARE, SHARED = "/srv/share", "/srv/shared"
SMALL = {
    "version": "1",
    "base": {"suite": "trixie"},
    "packages": ["python3-minimal"],
    "environment": {"SAID": "it's fine"},
    "labels": {"org.example.owner": "the lab"},
    "tests": [
        {"run": "python3 -c 'import sys; print(sys.version_info[:2])'"},
        {"run": 'test "$SAID" = "it\'s fine"'},
        {"run": "test $(id -u) != 0 && ! touch /etc/x 2>/dev/null && touch /tmp/x"},
    ],
}
PYTORCH = {
    "version": "2.6",
    "base": {"suite": "trixie"},
    "packages": ["python3-torch", "python3-mpi4py", "openmpi-bin"],
    "tests": [
        {"run": "python3 -c 'import torch; print(torch.__version__, torch.cuda.is_available())'"},
        {
            "run": "mpirun --oversubscribe -n 2 python3 -c "
            "'from mpi4py import MPI as m; print(m.COMM_WORLD.allreduce(1))'"
        },
    ],
}
IMAGES = {
    "small": SMALL,
    "nosuite": {"version": "1", "base": {"suite": "nosuch"}},
    "noarchive": {
        "version": "1",
        "base": {"tarball": {"url": "file:///srv/nosuch.tar", "sha256": "a" * 64}},
    },
    **({"pytorch": PYTORCH} if os.environ.get("SLURMSTACK_TEST_PYTORCH") else {}),
}
#: What stands in for a runtime: the image unpacked, and entered without any right of its own.
ENTER = (
    "set -e; d=$(mktemp -d); unsquashfs -q -n -no-xattrs -d $d/root {path} >/dev/null; "
    "unshare --user --map-root-user --mount --root=$d/root {command}; rm -rf $d"
)


class Site:
    """The lab, and its images."""

    def __init__(self, lab: RunningLab) -> None:
        self.lab = lab

    def image(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`slurmstack image …`; it must fail where `check` is False."""
        words = ("slurmstack", "image", *words, "--stack", self.lab.name)
        done = self.lab.run(*words, check=check)
        assert check or done.returncode == 1, done.stdout + done.stderr
        return done

    def told(self, *words: str) -> Any:
        return json.loads(self.image(*words, "--json").stdout)

    def refused(self, *words: str) -> str:
        return self.image(*words, check=False).stderr.strip()

    def made(self, name: str) -> dict[str, Any]:
        """Built, tried, published."""
        known: dict[str, Any] = self.told("build", name)
        self.told("test", name)
        self.told("publish", name)
        return known

    def listing(self) -> dict[str, Any]:
        done = self.lab.run("slurmstack", "image", "ls", "--json", "--stack", self.lab.name,
                            check=False)  # fmt: skip
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    def files(self, node: str) -> list[str]:
        return self.lab.ssh(node, f"cd {ROOT} && ls -1 *.sqsh 2>/dev/null; true").stdout.split()


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory, users: RunningLab) -> Iterator[Path]:
    """A folder that all hosts have."""
    folder = tmp_path_factory.mktemp("share")
    with shared_folder.shared(users, NODES, folder, SHARE):
        yield folder


@pytest.fixture(scope="module")
def site(users: RunningLab, share: Path) -> Iterator[Site]:
    for node in ("cn01", "cn02"):
        users.ssh(node, "command -v unsquashfs || apt-get install -y -q squashfs-tools")
    try:
        with users.having(images={"keep": 1, "keepDays": 0, "images": IMAGES}):
            yield Site(users)
        # Images outlive what kept them.
        users.ssh("ctl", f"test -e {ROOT}/registry.yaml && ! test -e /var/lib/slurmstack-images")
    finally:
        for node in NODES:
            users.ssh(node, f"rm -rf {ROOT}")


@pytest.fixture(scope="module")
def first(site: Site) -> dict[str, Any]:
    """Version 1 of the small image, published."""
    return site.made("small")


def test_a_base_that_is_not_there(site: Site) -> None:
    words = "no package source of this host has it"
    assert words in site.refused("build", "nosuite")
    assert "file:///srv/nosuch.tar: it cannot be fetched: " in site.refused("build", "noarchive")
    assert "small: none is built" in site.refused("publish", "small")
    assert "nosuch: no image of slurmstack:images; there are: " in site.refused("test", "nosuch")
    assert site.lab.ssh("ctl", f"ls {ROOT}/.candidates").stdout == ""


def test_an_image_is_built_tested_published(site: Site, first: dict[str, Any]) -> None:
    told = site.listing()
    (entry,) = told["published"]
    assert (entry["name"], entry["version"], entry["current"]) == ("small", "1", True)
    assert (entry["sha256"], entry["wrong"]) == (first["sha256"], "")
    shown = site.image("ls").stdout
    assert "small  1 *" in shown
    assert first["sha256"][:12] in shown
    # Readable by all, written by root alone.
    path = f"{ROOT}/small.sqsh"
    site.lab.ssh("ctl", f"runuser -u alice -- sha256sum {path} | grep -q {first['sha256']}")
    site.lab.ssh("ctl", f"! runuser -u alice -- sh -c 'echo >>{path}' 2>/dev/null")
    site.lab.ssh("ctl", f"! runuser -u alice -- touch {ROOT}/x 2>/dev/null")


def test_the_same_settings_give_the_same_bytes(site: Site, first: dict[str, Any]) -> None:
    again = site.told("build", "small")
    assert again["sha256"] == first["sha256"]
    site.told("test", "small")
    # It is published already, and stays what it is.
    assert site.told("publish", "small")["published"] == site.listing()["published"][0]["published"]


def test_nodes_fetch_it_once_and_jobs_run_in_it(site: Site, first: dict[str, Any]) -> None:
    told = site.told("pull", "small", "--nodes", "cn[01-02]")
    assert {it["node"]: it["words"] for it in told} == {"cn01": "fetched", "cn02": "fetched"}
    told = site.told("pull", "small", "--nodes", "cn[01-02]")
    assert {it["words"] for it in told} == {"there"}
    assert site.listing()["published"][0]["nodes"] == ["cn01", "cn02"]
    assert "nothing is to be fetched" in site.refused("pull", "small", "--nodes", "ctl")

    ask = 'python3 -c \'import json; print(json.load(open("/etc/slurmstack-image.json"))["name"])\''
    inside = ENTER.format(path=f"{ROOT}/small.sqsh", command=ask)
    run = f"cd /tmp && runuser -u alice -- srun -N2 --mem=200 sh -c {shlex.quote(inside)}"
    assert site.lab.ssh("login01", run).stdout.split() == ["small", "small"]


def test_an_image_that_was_changed_is_named_and_goes_nowhere(
    site: Site, first: dict[str, Any]
) -> None:
    path = f"{ROOT}/small+1.sqsh"
    keep = f"cp -a --reflink=auto {path} /srv/kept.sqsh"
    # As many bytes as before, at the same time as before.
    spoil = (
        f"t=$(stat -c %y {path}); printf x | dd of={path} bs=1 seek=5000 conv=notrunc status=none"
    )
    site.lab.ssh("ctl", f'{keep}; {spoil}; touch -d "$t" {path}')
    try:
        said = site.image("ls", check=False).stdout
        assert f"{path} was changed: sha256 " in said
        assert "was changed: sha256 " in site.refused("pull", "small", "--nodes", "cn01")
        assert "was changed" in site.refused("publish", "small", "--version", "1")
    finally:
        site.lab.ssh("ctl", f"mv /srv/kept.sqsh {path}")
    site.image("ls")
    # On a node: it is fetched anew.
    site.lab.ssh("cn02", f"printf x | dd of={path} bs=1 seek=5000 conv=notrunc status=none")
    (told,) = site.told("pull", "small", "--nodes", "cn02")
    assert told["words"].startswith("fetched again: ")
    site.lab.ssh("cn02", f"sha256sum {path} | grep -q {first['sha256']}")


@pytest.fixture(scope="module")
def second(site: Site, first: dict[str, Any]) -> str:
    """The settings after version 1: an archive of it as the base of what comes next, so that
    builds take seconds. Its sum."""
    lab = site.lab
    lab.ssh(
        "ctl",
        f"cd /srv && rm -rf root && unsquashfs -q -n -d root {ROOT}/small+1.sqsh >/dev/null && "
        "tar --sort=name -C root -cf base.tar . && rm -rf root",
        timeout=300,
    )
    sha256 = lab.ssh("ctl", "sha256sum /srv/base.tar").stdout.split()[0]
    script = lab.lab.folder / "waits.sh"
    script.write_text("#!/bin/sh\ntouch /began\nuntil test -e /go-on; do sleep 0.2; done\n")
    base = {"tarball": {"url": "file:///srv/base.tar", "sha256": sha256}}
    images = {
        "small": {**SMALL, "version": "2", "base": base, "packages": []},
        "slow": {"version": "1", "base": base, "script": str(script)},
    }
    lab.set(images={"keep": 1, "keepDays": 0, "images": images})
    lab.up()
    return sha256


WORK = "/var/lib/slurmstack-images/build"


def test_two_builds_at_once_and_one_that_is_killed(site: Site, second: str) -> None:
    lab = site.lab
    words = shlex.quote(json.dumps({"name": "slow", "who": "anna@admin"}))
    program = "PYTHONPATH=/usr/local/lib/slurmstack-images exec python3 -m on_node.images"
    begin = f"setsid sh -c '{program} build \"$0\"' {words} >/srv/said 2>&1 </dev/null & echo $!"
    pid = lab.ssh("ctl", begin).stdout.strip()
    try:
        began = f"test -e {WORK}/rootfs/began"
        await_that(lambda: lab.ssh("ctl", began, check=False).returncode == 0)
        said = site.refused("build", "small")
        assert f"the build of slow 1 by anna@admin (pid {pid} on ctl, since " in said
    finally:
        lab.ssh("ctl", f"kill -KILL {pid}")
    # What it had started has ended with it.
    gone = "! grep -lzs [s]lurmstack-images/build /proc/[0-9]*/cmdline"
    await_that(lambda: lab.ssh("ctl", gone, check=False).returncode == 0)
    lab.ssh("ctl", f"test -d {WORK} && ! grep {WORK} /proc/mounts")
    site.told("build", "small")
    lab.ssh("ctl", f"! test -e {WORK}")


def test_a_full_disk_publishes_nothing(site: Site, second: str) -> None:
    lab = site.lab
    before = site.listing()
    lab.ssh("ctl", f"mount -t tmpfs -o size=8m full {ROOT}/.candidates")
    try:
        said = site.refused("build", "small")
        assert "No space left on device" in said or "Write failed" in said
        assert lab.ssh("ctl", f"ls -A {ROOT}/.candidates").stdout == ""
    finally:
        lab.ssh("ctl", f"umount {ROOT}/.candidates")
    assert site.listing() == before


def test_old_versions_go_when_no_job_names_them(site: Site, second: str) -> None:
    lab = site.lab
    known = site.made("small")
    script = f"#!/bin/sh\nsrun sh -c 'cat {ROOT}/small+1.sqsh >/dev/null'\n"
    words = "cd /tmp && runuser -u alice -- sbatch --parsable --hold -o /dev/null"
    job = lab.send("login01", words, script.encode()).decode().strip()
    try:
        done = site.told("gc")
        assert done["gone"] == []
        assert done["kept"] == [{"title": "small 1", "why": f"in use: job {job}"}]
        assert f"small 1 is in use: job {job}" in site.refused("rm", "small", "1")
    finally:
        lab.ssh("ctl", f"scancel {job}")
    site.told("pull", "small", "--nodes", "cn02")
    would = site.told("gc", "--dry-run")
    assert "small+1.sqsh" in site.files("ctl")
    done = site.told("gc")
    assert (
        [it["version"] for it in done["gone"]] == ["1"] == [it["version"] for it in would["gone"]]
    )
    assert site.files("ctl") == ["small+2.sqsh", "small.sqsh"]
    # On nodes as well, once their own name stands for another one.
    assert site.files("cn02") == ["small+2.sqsh", "small.sqsh"]
    assert site.files("cn01") == ["small+1.sqsh", "small.sqsh"]
    site.told("pull", "small", "--nodes", "cn01")
    site.told("gc")
    assert site.files("cn01") == ["small+2.sqsh", "small.sqsh"]
    lab.ssh("cn02", f"sha256sum {ROOT}/small.sqsh | grep -q {known['sha256']}")
    lab.pulumi("preview", "--expect-no-changes")


def test_a_compute_node_builds_on_a_share_in_a_job_from_a_lock_file(
    site: Site, second: str, share: Path, tmp_path: Path
) -> None:
    """Packages of the image's own sources, and a Python environment of a wheel made here; other
    nodes have it without fetching."""
    lab, root = site.lab, f"{SHARED}/images"
    (tmp_path / "lock.txt").write_text(wheel(tmp_path))
    (made,) = tmp_path.glob("*.whl")
    lab.send("cn01", f"mkdir -p /srv/wheels && cat >/srv/wheels/{made.name}", made.read_bytes())
    archive = lab.send("ctl", "cat /srv/base.tar", b"")
    lab.send("cn01", "cat >/srv/base.tar", archive)
    image: dict[str, Any] = {
        "version": "1",
        "base": {"tarball": {"url": "file:///srv/base.tar", "sha256": second}},
        "packages": ["python3-venv"],
        "python": {"lock": str(tmp_path / "lock.txt"), "index": "/srv/wheels"},
        "tests": [{"run": "stand-in"}],
    }
    by_url = {**image, "python": {**image["python"], "index": package_index.TLS}}
    known = {"wheels": image, "by-url": by_url}
    lab.set(
        images={"host": "cn01", "root": root, "images": known},
        storage={"images": {"type": "bind", "source": SHARE, "mount": SHARED}},
    )
    lab.up()
    # From an index by its URL, over TLS as the build host believes it. Without TLS, and other bytes
    # than those that are pinned: test_software.py, by the same script.
    with package_index.served(lab, ("cn01",)) as index:
        index.add(made)
        site.told("build", "by-url")
        (test,) = site.told("test", "by-url")["tests"]
        assert (test["passed"], test["words"]) == (True, "1.0")
    site.told("build", "wheels", "--partition", "gpu")
    ended = (
        "sacct -n -X -P -o JobName,Partition,NodeList,State | grep -q '^image-build|gpu|cn01|COMP'"
    )
    await_that(lambda: lab.ssh("ctl", ended, check=False).returncode == 0)
    (test,) = site.told("test", "wheels")["tests"]
    assert (test["passed"], test["words"]) == (True, "1.0")
    site.told("publish", "wheels")
    # The folder of wheels was mounted there, and is gone; what the base has is there.
    shown = f"unsquashfs -l {root}/wheels.sqsh srv"
    assert lab.ssh("cn01", shown).stdout.splitlines()[-1] == "squashfs-root/srv"
    assert sorted(it.name for it in (share / "images").glob("wheels*.sqsh"))[-1] == "wheels.sqsh"
    assert "nothing is to be fetched" in site.refused("pull", "wheels", "--nodes", "cn02")
    read = f"unsquashfs -cat {root}/wheels.sqsh etc/slurmstack-image.json"
    told = lab.ssh("login01", f"cd /tmp && runuser -u alice -- srun -w cn02 --mem=200 {read}")
    assert json.loads(told.stdout)["name"] == "wheels"


#: The versions of what is in an image, as a job of two nodes sees them.
VERSIONS = "python3 -c 'import os, sys; print(sys.version, os.environ[\"SAID\"], os.getuid())'"


@pytest.mark.skipif(
    not os.environ.get("SLURMSTACK_TEST_ARTIFACTS"),
    reason="SLURMSTACK_TEST_ARTIFACTS names a folder with Enroot, Pyxis and Apptainer",
)
def test_runtimes_have_the_same_versions_in_it(site: Site, second: str, tmp_path: Path) -> None:
    """By path in Enroot and Apptainer, and by its name where Pyxis is 0.21 or newer."""
    lab, kit = site.lab, artifacts.find(tmp_path)
    artifacts.bring(lab, *kit.files)
    image = {
        "version": "1",
        "base": {"tarball": {"url": "file:///srv/base.tar", "sha256": second}},
        "environment": SMALL["environment"],
        "tests": [{"run": f"{VERSIONS} && test $SLURM_NNODES = 2", "nodes": 2}],
    }
    lab.set(
        images={"images": {"wide": image}},
        enrootPyxis=kit.settings(),
        apptainer={"packages": [artifacts.entry(kit.apptainer)]},
    )
    lab.up()
    site.told("build", "wide")
    (test,) = site.told("test", "wide")["tests"]
    assert test["passed"], test
    site.told("publish", "wide")
    site.told("pull", "wide", "--nodes", "cn[01-02]")
    for node in ("cn01", "cn02"):
        # Apptainer mounts an image by FUSE, whose device these machines have not by themselves.
        lab.ssh(node, "test -e /dev/fuse || mknod -m 0666 /dev/fuse c 10 229")
    begin = "cd /tmp && runuser -u alice -- srun -N2 --mem=200"
    path = f"{ROOT}/wide.sqsh"
    ways = {"by path": f"{begin} --container-image={path} {VERSIONS}"}
    if kit.real_apptainer:
        ways["apptainer"] = f"{begin} apptainer exec {path} {VERSIONS}"
    if kit.pyxis_version >= "0.21":
        ways["by name"] = f"{begin} --container-image=wide {VERSIONS}"
        ways["by version"] = f"{begin} --container-image=wide:1 {VERSIONS}"
    told = {way: lab.ssh("login01", command).stdout.splitlines() for way, command in ways.items()}
    (same,) = {line for lines in told.values() for line in lines}
    assert same.endswith(" it's fine 5001"), told
    assert [len(lines) for lines in told.values()] == [2] * len(ways), told


@pytest.mark.skipif(
    not os.environ.get("SLURMSTACK_TEST_PYTORCH"),
    reason="SLURMSTACK_TEST_PYTORCH: builds an image of PyTorch for minutes",
)
def test_pytorch_for_cpus(users: RunningLab) -> None:
    with users.having(images={"images": {"pytorch": PYTORCH}}):
        site = Site(users)
        site.told("build", "pytorch")
        tests = site.told("test", "pytorch")["tests"]
        assert [it["passed"] for it in tests] == [True, True], tests
        assert tests[0]["words"].startswith("2.6.0")
        site.told("publish", "pytorch")
    users.ssh("ctl", f"rm -rf {ROOT}")
