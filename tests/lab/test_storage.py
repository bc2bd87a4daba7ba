"""Shared file systems of types that these machines can mount, one that they cannot, one that does
not answer: a stand-in of FUSE (tests/silent_file_system.py), as no NFS server runs here; and those
of Lustre, BeeGFS, CephFS and virtiofs.

Those clients are stand-ins (artifacts.py): modules that say for which kernel they were built, and
mount programs that mount memory. modprobe is one from where the kernel has refused such a module.
DKMS, the compiler, modinfo, dpkg, apt, systemd and Slurm are real."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import silent_file_system
from tests.lab import artifacts
from tests.lab.artifacts import PLACE, entry
from tests.lab.conftest import RunningLab, await_that
from tests.lab.test_guards import cancel, state_of, submit

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


#: What goes with a kernel, and the lab's machines lack: kmod, headers, and two types of its own.
KERNEL = r"""
set -e
at=/lib/modules/$(uname -r)
mkdir -p $at/build/include /etc/ceph
printf 'kernel/fs/ceph/ceph.ko\nkernel/fs/fuse/virtiofs.ko\n' >$at/modules.builtin
printf 'ceph.license=GPL\0virtiofs.license=GPL\0' >$at/modules.builtin.modinfo
: >$at/modules.order
apt-get -y -q install kmod >/dev/null
depmod
echo key >/etc/ceph/slurm.secret
chmod 400 /etc/ceph/slurm.secret
"""
#: A kernel that takes modules, and tells of those that are loaded.
LOADS = r"""
cat >/usr/local/sbin/modprobe <<'END'
#!/bin/sh
# Stands for modprobe(8) on a machine without modules: files.
modinfo "$1" >/dev/null && mkdir -p "/srv/stand-in/sys/module/$1"
END
# Stands for what a kernel does itself that has the type.
cp /usr/sbin/mount.lustre /usr/sbin/mount.virtiofs
chmod 755 /usr/local/sbin/modprobe
echo SLURMSTACK_SYS=/srv/stand-in/sys >>/etc/environment
"""
UNDONE = """
sed -i /^SLURMSTACK_SYS/d /etc/environment
dpkg-query -W -f '${Package}\n' dkms gcc kmod lustre-client-modules-dkms lustre-client-utils \
  beegfs-client-dkms ceph-common 2>/dev/null | xargs -r apt-get -y -q purge >/dev/null
apt-get -y -q autoremove --purge >/dev/null
rm -rf /lib/modules /srv/stand-in /usr/local/sbin/modprobe /usr/sbin/mount.virtiofs \
  /var/log/stand-in-mounts /etc/ceph
"""
LUSTRE_DKMS, BEEGFS_DKMS = "lustre-client-modules-dkms", "beegfs-client-dkms"


def clients(files: tuple[Path, ...]) -> dict[str, dict[str, Any]]:
    """A share of each type, on cn02 alone, whose packages are these files."""

    def of(*packages: str) -> dict[str, Any]:
        given = [entry(file) for file in files if file.name.split("_")[0] in packages]
        return {"packages": [*packages], "packageFiles": given}

    shares: dict[str, dict[str, Any]] = {
        "fast": {
            "type": "lustre", "source": "10.73.9.9@tcp:/fast", "mount": "/srv/fast",
            "options": ["flock", "user_xattr", "_netdev"],
            **of(LUSTRE_DKMS, "lustre-client-utils"),
        },
        "work": {"type": "beegfs", "source": "mgmt", "mount": "/srv/work", **of(BEEGFS_DKMS)},
        "cold": {
            "type": "cephfs", "source": "10.73.9.8,10.73.9.9:/cold", "mount": "/srv/cold",
            "name": "slurm", "secretFile": "/etc/ceph/slurm.secret", **of("ceph-common"),
        },
        "host": {"type": "virtiofs", "source": "tag", "mount": "/srv/host", "options": ["noexec"]},
    }  # fmt: skip
    return {name: {**share, "clients": "cn02"} for name, share in shares.items()}


def flat(said: str) -> str:
    return " ".join(said.split())


def refused_and_unchanged(lab: RunningLab, job: str) -> str:
    """What `up` says; no share is there, and the job runs on."""
    said = flat(lab.up(check=False))
    assert types(lab, "cn02").keys() == {"/srv/bound", "/srv/memory"}
    assert (state_of(lab, job), lab.shown("cn02", "%T %E")) == ("RUNNING", "mixed none")
    return said


def test_clients_are_built_before_anything_is_mounted(
    lab: RunningLab, refused: str, tmp_path: Path
) -> None:
    kernel = lab.ssh("cn02", "uname -r").stdout.strip()
    unbuilt = clients(artifacts.client_stand_ins(tmp_path, "98.1+standin", builds=False))
    built = clients(artifacts.client_stand_ins(tmp_path, "98.2+standin"))
    artifacts.bring(lab, *tmp_path.glob("*.deb"))
    installed = "dpkg-query -W -f '${Package} ${Status}\n' '*dkms' 2>/dev/null; true"
    before = lab.settings.read_text()
    job = submit(lab, "-w cn02 --mem=100")
    try:
        # What is not there is told at once, and no package is touched.
        lab.set(storage={**SHARES, **unbuilt})
        said = refused_and_unchanged(lab, job)
        assert (
            f"fast: {LUSTRE_DKMS} is to build the module lustre: kernel {kernel} runs, and the "
            "next boot takes it, too: no module can be built without their headers; apt-get "
            f"install linux-headers-{kernel}"
        ) in said
        assert f"work: {BEEGFS_DKMS} is to build the module beegfs: kernel {kernel} runs" in said
        assert "cold: /etc/ceph/slurm.secret is not there" in said
        assert f"host: the running kernel {kernel} has neither the file system virtiofs" in said
        assert lab.ssh("cn02", installed).stdout == ""

        # BeeGFS's package fails with its build, and goes again with its share.
        lab.ssh("cn02", KERNEL)
        said = refused_and_unchanged(lab, job)
        assert f"for module build on kernel: {kernel} (x86_64) (/var/lib/dkms/beegfs/98.1" in said
        wrong = "module.c:3:39: error: initialization of 'int (*)(void *, void *)' from incompat"
        assert f"make.log: {wrong}" in said, said
        assert f"{BEEGFS_DKMS} install ok half-configured" in lab.ssh("cn02", installed).stdout
        # Lustre's does not: what its command has built is looked for.
        lab.set(storage={**SHARES, "fast": unbuilt["fast"]})
        said = refused_and_unchanged(lab, job)
        assert "cn02: command file-system-modules: Error! Bad return status for module" in said
        assert wrong in said
        assert f"fast: {LUSTRE_DKMS}, lustre-client-utils brought no module lustre for" in said
        assert BEEGFS_DKMS not in lab.ssh("cn02", installed).stdout

        # Newer ones can be built, but this kernel takes none.
        lab.set(storage={**SHARES, **built})
        lab.ssh("cn02", f"dpkg --purge {LUSTRE_DKMS}")
        said = refused_and_unchanged(lab, job)
        assert (
            f"fast: the running kernel {kernel} does not take the module lustre: modprobe: ERROR: "
            "could not insert 'lustre': Operation not permitted"
        ) in said
        lab.ssh("cn02", LOADS)
        lab.up()
        here = types(lab, "cn02")
        assert {"/srv/fast", "/srv/work", "/srv/cold", "/srv/host"} < here.keys()
        assert (state_of(lab, job), lab.shown("cn02", "%T %E")) == ("RUNNING", "mixed none")
        mounted = lab.ssh("cn02", "cat /var/log/stand-in-mounts").stdout
        for type_, source, place, *options in (
            ("lustre", "10.73.9.9@tcp:/fast", "/srv/fast", "flock", "user_xattr"),
            ("beegfs", "beegfs_nodev", "/srv/work", "sysMgmtdHost=mgmt",
             "cfgFile=/etc/beegfs/beegfs-client.conf"),
            ("ceph", "10.73.9.8,10.73.9.9:/cold", "/srv/cold", "noatime", "name=slurm",
             "secretfile=/etc/ceph/slurm.secret"),
            ("virtiofs", "tag", "/srv/host", "noexec"),
        ):  # fmt: skip
            start = f"mount.{type_} {source} {place} "
            (line,) = (it for it in mounted.splitlines() if it.startswith(start))
            words = line.split()
            assert {*options} <= {*words[words.index("-o") + 1].split(",")}, line
        lab.pulumi("preview", "--expect-no-changes")

        # One that is gone is named; a kernel that comes without its module, too.
        lab.ssh("cn02", "umount /srv/fast; mkdir -p /boot; touch /boot/vmlinuz-99.1")
        lab.ssh("cn02", CHECK, check=False)
        last = json.loads(lab.ssh("cn02", "cat /var/lib/slurmstack-health/last.json").stdout)
        assert last["checks"]["mount /srv/fast"]["words"] == "nothing is mounted at /srv/fast"
        drift = lab.run("slurmstack", "drift", "cn02", "--stack", lab.name, check=False).stdout
        assert "srv-fast.mount" in drift
        assert "for kernel 99.1, which the next boot takes" in flat(drift), drift
        lab.ssh("cn02", "rm /boot/vmlinuz-99.1; systemctl start srv-fast.mount")
        await_that(lambda: lab.ssh("cn02", CHECK, check=False).returncode == 0)

        # None goes under a job, nor while a process is there.
        lab.settings.write_text(before)
        said = flat(lab.up(check=False))
        assert f"would be something else, and jobs run here that may have files there: {job}" in (
            said
        )
        assert {"/srv/fast", "/srv/work", "/srv/cold", "/srv/host"} < types(lab, "cn02").keys()
        cancel(lab)
        # As somebody leaves it running; systemd would stop a unit that it knows to be there.
        lab.ssh("cn02", "systemd-run -q --unit=busy sh -c 'cd /srv/fast && exec sleep infinity'")
        said = flat(lab.up(check=False))
        busy = lab.ssh("cn02", "systemctl show -p MainPID --value busy").stdout.strip()
        held = f"/srv/fast would be something else, and is held by sleep ({busy}): end that"
        assert f"cn02: guard mounts-stay: refused (exit 1): {held}" in said, said
        assert {"/srv/fast", "/srv/work", "/srv/cold", "/srv/host"} < types(lab, "cn02").keys()
    finally:
        cancel(lab)
        lab.settings.write_text(before)
        lab.ssh("cn02", "systemctl stop busy; rm -f /boot/vmlinuz-99.1", check=False)
        lab.up()
        left = types(lab, "cn02").keys()
        lab.ssh("cn02", UNDONE)
        lab.ssh("ctl", f"rm -rf {PLACE}")
    assert left == {"/srv/bound", "/srv/memory"}


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
