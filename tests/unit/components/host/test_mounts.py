"""What hosts mount: units, the order of a boot, packages, and what the precheck asks first."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from components.host.host_baseline import system_bundle
from components.host.mounts import kernel_needs, mounts
from components.host.precheck import precheck
from remote.bundle import Command, File
from settings import Settings, parse
from tests.unit.components.test_cluster import bare

LUSTRE = {"type": "lustre", "source": "mgs:/s", "mount": "/s"}
DKMS, HEADERS = "lustre-client-modules-dkms", "linux-headers-6.1.0-9-amd64"


def with_shares(**shares: dict[str, Any]) -> Settings:
    return parse({**bare(), "storage": shares})


def units(node: str, settings: Settings) -> dict[str, dict[str, list[str]]]:
    """Unit → key → values of it."""
    found: dict[str, dict[str, list[str]]] = {}
    for part in mounts(node, settings):
        if isinstance(part, File):
            keys = found.setdefault(Path(part.path).name, {})
            for line in str(part.content).splitlines():
                key, is_one, value = line.partition("=")
                if is_one:
                    keys.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize(
    ("share", "what", "kind", "options", "remote"),
    [
        ({"server": "nas", "path": "/srv/s"}, "nas:/srv/s", "nfs", "hard,noatime,_netdev", True),
        ({"type": "lustre", "source": "10.0.0.5@o2ib:10.0.0.6@o2ib:/fast"},
         "10.0.0.5@o2ib:10.0.0.6@o2ib:/fast", "lustre", "flock,_netdev", True),
        ({"type": "beegfs", "source": "mgmt"}, "beegfs_nodev", "beegfs",
         "sysMgmtdHost=mgmt,cfgFile=/etc/beegfs/beegfs-client.conf,_netdev", True),
        ({"type": "beegfs", "source": "mgmt", "options": ["cfgFile=/etc/beegfs/b.conf"]},
         "beegfs_nodev", "beegfs", "sysMgmtdHost=mgmt,cfgFile=/etc/beegfs/b.conf", True),
        ({"type": "virtiofs", "source": "home"}, "home", "virtiofs", None, False),
        ({"type": "cephfs", "source": "10.0.0.5,10.0.0.6:/h", "name": "slurm",
          "secretFile": "/etc/ceph/slurm.secret"}, "10.0.0.5,10.0.0.6:/h", "ceph",
         "noatime,_netdev,name=slurm,secretfile=/etc/ceph/slurm.secret", True),
        ({"type": "bind", "source": "/data"}, "/data", "none", "bind", False),
        ({"type": "bind", "source": "/data", "options": ["ro"]}, "/data", "none", "bind,ro", False),
        ({"type": "bind", "source": "/data", "options": ["rbind", "_netdev"]}, "/data", "none",
         "rbind,_netdev", True),
        ({"type": "tmpfs", "source": "none", "options": ["size=8m"]}, "none", "tmpfs", "size=8m",
         False),
    ],
)  # fmt: skip
def test_the_unit_of_a_type(
    share: dict[str, Any], what: str, kind: str, options: str | None, remote: bool
) -> None:
    """What is local is mounted before the network is there: behind it, systemd would find a
    circle and leave a mount out."""
    unit = units("cn01", with_shares(it={"mount": "/s", **share}))["s.mount"]
    assert (unit["What"], unit["Where"], unit["Type"]) == ([what], ["/s"], [kind])
    assert unit.get("Options") == (None if options is None else [options])
    assert unit["WantedBy"] == ["remote-fs.target" if remote else "local-fs.target"]
    assert [it.split()[0] for it in unit.get("After", [])] == ["network-online.target"] * remote


def test_the_unit_of_nfs_is_what_it_was() -> None:
    """Another text of it mounts it anew on every host."""
    settings = with_shares(home={"server": "10.73.0.5", "path": "/srv/home", "mount": "/home"})
    (unit,) = (part for part in mounts("cn01", settings) if isinstance(part, File))
    assert unit.content == (
        "# /home, mounted by slurmstack.\n[Unit]\nDescription=/home from 10.73.0.5\n"
        "After=network-online.target\nWants=network-online.target\n\n[Mount]\n"
        "What=10.73.0.5:/srv/home\nWhere=/home\nType=nfs\nOptions=hard,noatime,_netdev\n"
        "TimeoutSec=60\n\n[Install]\nWantedBy=remote-fs.target\n"
    )


def test_what_lies_on_a_share_of_the_network_waits_for_it() -> None:
    found = units("cn01", with_shares(
        fast={"type": "lustre", "source": "mgs:/fast", "mount": "/fast"},
        home={"type": "bind", "source": "/fast/home", "mount": "/home"},
        deep={"type": "bind", "source": "/home/deep", "mount": "/deep"},
        below={"type": "tmpfs", "source": "none", "mount": "/fast/tmp"},
        near={"type": "bind", "source": "/faster", "mount": "/near"},
    ))  # fmt: skip
    assert found["home.mount"]["Options"] == ["bind,_netdev"]
    assert found["deep.mount"]["Options"] == ["bind,_netdev"]
    assert found["fast-tmp.mount"]["Options"] == ["_netdev"]
    assert found["near.mount"]["Options"] == ["bind"]


@pytest.mark.parametrize(
    ("share", "packages"),
    [
        ({"server": "nas", "path": "/s"}, {"nfs-common"}),
        ({"server": "nas", "path": "/s", "packages": []}, set()),
        ({"type": "cephfs", "source": "mon:/"}, {"ceph-common"}),
        ({"type": "bind", "source": "/a"}, set()),
        ({"type": "lustre", "source": "mgs:/s"}, set()),
        ({"type": "lustre", "source": "mgs:/s", "packages": ["lustre-client-modules-dkms"]},
         {"lustre-client-modules-dkms"}),
    ],
)  # fmt: skip
def test_client_packages(share: dict[str, Any], packages: set[str]) -> None:
    text = system_bundle("cn01", with_shares(it={"mount": "/s", **share})).render()
    lines = text.splitlines()
    assert {line.split()[1] for line in lines if line.startswith("package ")} == packages


def test_what_packages_of_the_site_bring_is_there_before_it_is_mounted() -> None:
    dkms = {"type": "beegfs", "source": "mgmt", "mount": "/w", "packages": ["beegfs-client-dkms"]}
    (command,) = (it for it in mounts("cn01", with_shares(w=dkms)) if isinstance(it, Command))
    assert "dkms autoinstall" in command.script
    assert command.probe is not None
    assert "dkms" not in command.probe.replace("beegfs-client-dkms", "")
    assert not [
        it
        for it in mounts("cn01", with_shares(w={**dkms, "packages": []}))
        if isinstance(it, Command)
    ]


KERNEL, NEXT = "6.1.0-9-amd64", "6.1.0-10-amd64"
#: kmod's, and DKMS: modules are files `KERNEL/MODULE` with their vermagic, what is loaded is a
#: folder; where a file `failing` is, builds fail, and where one `refuses`, the kernel takes none.
KMOD = {
    "uname": f"echo {KERNEL}",
    "modinfo": '[ "$1 $3 $4" = "-k -F vermagic" ] && cat "$HERE/$2/$5" 2>/dev/null',
    "modprobe": (
        '[ ! -e "$HERE/refuses" ] || { echo "modprobe: ERROR: could not insert: Key was rejected";'
        ' exit 1; }; mkdir -p "$HERE/sys/module/$1"'
    ),
    "dkms": (
        '[ "$1 $2" = "autoinstall -k" ] || exit 3; [ ! -e "$HERE/failing" ] || '
        '{ echo "Error! Bad return status"; exit 10; }; mkdir -p "$HERE/$3"; '
        'echo "$3 SMP modversions" >"$HERE/$3/lustre"'
    ),
}  # fmt: skip


class Host:
    """A host of files, and the commands that tell of them."""

    def __init__(self, place: Path, **share: Any) -> None:
        self.place = place
        self.environment = {
            **with_tools(place, KMOD), "HERE": str(place), "SLURMSTACK_ROOT": str(place),
            "SLURMSTACK_SYS": f"{place}/sys",
        }  # fmt: skip
        settings = with_shares(it={**LUSTRE, "packages": [DKMS], **share})
        (self.command,) = (it for it in mounts("cn01", settings) if isinstance(it, Command))

    def write(self, path: str, text: str = "") -> None:
        (self.place / path).parent.mkdir(parents=True, exist_ok=True)
        (self.place / path).write_text(text)

    def run(self, script: str | None) -> tuple[int, list[str]]:
        done = subprocess.run(
            ["sh", "-c", script or ""], env=self.environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.stderr == ""
        return done.returncode, done.stdout.splitlines()

    def probe(self) -> tuple[int, list[str]]:
        return self.run(self.command.probe)

    def build(self) -> tuple[int, list[str]]:
        return self.run(self.command.script)


def test_a_module_is_built_for_the_kernels_that_count_and_loaded(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.write(f"boot/vmlinuz-{KERNEL}")
    # It would be other than it was; and looking builds nothing.
    assert host.probe()[0] == 1
    assert host.build() == (0, [])
    assert host.probe()[0] == 0
    assert (tmp_path / "sys/module/lustre").exists()
    # A kernel has come for the next boot: its module is built before that.
    host.write(f"boot/vmlinuz-{NEXT}")
    status, said = host.probe()
    assert status == 1
    assert said[-1].startswith(
        f"it: {DKMS} brought no module lustre for kernel {NEXT}, which the next boot takes: install"
    )
    assert f"linux-headers-{NEXT}" in said[-1]
    assert host.build() == (0, [])
    assert (tmp_path / NEXT / "lustre").exists()
    assert host.probe()[0] == 0


def test_what_is_not_built_here_is_asked_of_the_running_kernel_alone(tmp_path: Path) -> None:
    host = Host(tmp_path, packages=[f"lustre-client-modules-{KERNEL}"])
    host.write(f"boot/vmlinuz-{NEXT}")
    assert host.probe()[0] == 1
    host.write(f"{KERNEL}/lustre", f"{KERNEL} SMP\n")
    assert host.probe() == (0, [])


def test_a_module_that_cannot_be_built_says_why_not(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.write("failing")
    status, (*_, why, said) = host.build()
    assert (status, why) == (1, "Error! Bad return status")
    assert said.startswith(f"it: {DKMS} brought no module lustre for the running kernel {KERNEL}")
    assert not (tmp_path / "sys").exists()


def test_a_module_that_the_kernel_refuses_is_told_before_a_mount_is_touched(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.write("refuses")
    status, said = host.build()
    assert (status, said[-1]) == (
        1, f"it: the running kernel {KERNEL} does not take the module lustre: modprobe: ERROR: "
        "could not insert: Key was rejected; see dmesg",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("magic", "taken"),
    [(f"{KERNEL} SMP mod_unload", True), ("6.1.0-8-amd64 SMP mod_unload", False),
     # By the sums of its symbols, which the kernel alone can judge.
     ("6.1.0-8-amd64 SMP mod_unload modversions", True), ("", True)],
)  # fmt: skip
def test_a_module_of_another_kernel_is_none(magic: str, taken: bool, tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.write(f"{KERNEL}/lustre", f"{magic}\n")
    assert (host.probe()[0] == 0) is taken


def test_the_client_of_beegfs_without_dkms_is_built(tmp_path: Path) -> None:
    """For the running kernel; the next one has it built by its service, before the mount."""
    share = {"type": "beegfs", "source": "mgmt", "mount": "/w", "packages": ["beegfs-client"]}
    host = Host(tmp_path, **share)
    host.write(f"boot/vmlinuz-{NEXT}")
    host.write("init", "#!/bin/sh\necho 'a.c:7:2: error: no'; echo 'make: *** Error 2'; exit 2\n")
    (tmp_path / "init").chmod(0o755)
    build = host.command.script.replace("/etc/init.d/beegfs-client", f"{tmp_path}/init")
    status, said = host.run(build)
    assert status == 1
    assert "init rebuild: a.c:7:2: error: no; it: beegfs-client brought no module" in said[-1]
    host.write("init", f"#!/bin/sh\nmkdir {tmp_path}/{KERNEL}; echo >{tmp_path}/{KERNEL}/beegfs\n")
    assert host.run(build) == (0, [])
    assert host.probe() == (0, [])
    after = units("cn01", with_shares(w=share))["w.mount"]["After"]
    assert after == ["network-online.target beegfs-helperd.service beegfs-client.service"]
    (dkms,) = units("cn01", with_shares(w={**share, "packages": ["beegfs-client-dkms"]})).values()
    assert dkms["After"] == ["network-online.target beegfs-helperd.service"]


NEITHER = "it: the running kernel 6.1.0-9-amd64 has neither the file system lustre nor a module"


@pytest.mark.parametrize(
    ("machine", "packages", "says"),
    [
        ({}, [], f"{NEITHER} lustre for it: install its client module for this kernel"),
        ({"modules": "lustre"}, [], ""),
        # Packages may bring it; what was installed already has not.
        ({}, ["lustre-client-modules-6.1.0-9-amd64"], ""),
        ({"installed": "lustre-client-modules"}, ["lustre-client-modules"],
         f"{NEITHER} lustre for it (lustre-client-modules brought none): install"),
        ({}, [DKMS], f"it: {DKMS} is to build the module lustre: kernel 6.1.0-9-amd64 "
         "runs, and the next boot takes it, too: no module can be built without their headers; "
         f"apt-get install {HEADERS}, or remove the kernel"),
        ({}, [DKMS, HEADERS], ""),
        ({"installed": HEADERS}, [DKMS, HEADERS], "no module can be built without their headers"),
    ],
)  # fmt: skip
def test_a_kernel_without_it_is_refused_before_anything_changes(
    machine: dict[str, str], packages: list[str], says: str, tmp_path: Path
) -> None:
    share = {**LUSTRE, **({"packages": packages} if packages else {})}
    assert says in (found := fails("cn01", with_shares(it=share), tmp_path, **machine))
    assert bool(found) == bool(says)
    assert fails("cn01", with_shares(it={**share, "clients": "cn02"}), tmp_path, **machine) == ""


def test_the_kernel_of_the_next_boot_and_secure_boot_are_asked_for_what_is_built(
    tmp_path: Path,
) -> None:
    """Also where the running kernel has the module already."""
    settings = with_shares(it={**LUSTRE, "packages": [DKMS]})

    def said() -> str:
        environment = {"SLURMSTACK_ROOT": str(tmp_path)}
        return fails("cn01", settings, tmp_path, modules="lustre", **environment)

    (tmp_path / "lib/modules/6.1.0-9-amd64/build").mkdir(parents=True)
    (tmp_path / "boot").mkdir()
    assert said() == ""
    (tmp_path / "boot/vmlinuz-6.1.0-10-amd64").touch()
    assert said() == (
        f"it: {DKMS} is to build the module lustre: kernel 6.1.0-9-amd64 runs, and the next boot "
        "takes 6.1.0-10-amd64: no module can be built without their headers; apt-get install "
        "linux-headers-6.1.0-10-amd64, or remove the kernel that is not wanted"
    )
    (tmp_path / "lib/modules/6.1.0-10-amd64/build").mkdir(parents=True)
    variable = tmp_path / "sys/firmware/efi/efivars/SecureBoot-8be4df61"
    variable.parent.mkdir(parents=True)
    variable.write_bytes(b"\6\0\0\0\1")
    assert said().startswith(
        f"it: {DKMS} is to build the module lustre: Secure Boot is on, and no key by which DKMS "
        "signs is enrolled, so the kernel would refuse the module: mokutil --import"
    )
    assert said().endswith("or give signed packages under slurmstack:storage.it.packages")


def with_tools(place: Path, tools: dict[str, str]) -> dict[str, str]:
    """An environment with shell texts in the place of commands."""
    for name, text in tools.items():
        (place / name).write_text(f"#!/bin/sh\n{text}\n")
        (place / name).chmod(0o755)
    return {"PATH": f"{place}:/usr/sbin:/usr/bin:/sbin:/bin"}


def fails(
    node: str,
    settings: Settings,
    place: Path,
    modules: str = "",
    installed: str = "",
    **environment: str,
) -> str:
    """What the precheck says on a machine whose kernel has these modules, and dpkg this package."""
    tools = {
        "uname": "[ $1 = -r ] && echo 6.1.0-9-amd64 || echo " + node,
        "modinfo": f"[ \"$1 $2\" = '-k 6.1.0-9-amd64' ] && [ $5 = '{modules}' ]",
        "dpkg-query": f"[ \"$4\" = '{installed}' ] && echo 'ii '",
        "find": "exit 0",
    }
    done = subprocess.run(
        ["sh", "-c", precheck(node, settings)], capture_output=True, text=True, check=False,
        env=with_tools(place, tools) | environment,
    )  # fmt: skip
    assert done.stderr == ""
    return "\n".join(
        line.removeprefix("fails ")
        for line in done.stdout.splitlines()
        if line.startswith("fails ") and "systemd" not in line and "cgroup" not in line
    )


def test_nothing_is_asked_of_the_kernel_for_a_folder_that_is_bound(tmp_path: Path) -> None:
    settings = with_shares(
        bound={"type": "bind", "source": "/usr", "mount": "/s"},
        program={"type": "fuse.sshfs", "source": "nas:/", "mount": "/p"},
        own={"type": "cvmfs", "source": "x", "mount": "/cvmfs", "module": "fuse"},
    )
    assert {(it.share, it.module) for it in kernel_needs("cn01", settings)} == {
        ("program", "fuse"), ("own", "fuse"),
    }  # fmt: skip
    assert fails("cn01", settings, tmp_path, modules="fuse") == ""


def test_a_folder_that_is_bound_is_there(tmp_path: Path) -> None:
    """systemd would make it, and users would find nothing."""
    shares = {
        "typo": {"type": "bind", "source": "/no-such-folder", "mount": "/a"},
        "later": {"type": "bind", "source": "/memory/in", "mount": "/b"},
        "memory": {"type": "tmpfs", "source": "none", "mount": "/memory"},
    }
    (said,) = fails("cn01", with_shares(**shares), tmp_path).splitlines()
    assert said.startswith("typo: /no-such-folder, which is to be bound, is not there: make it on")


def test_the_key_of_a_ceph_client_lies_there_for_root_alone(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    share = {"type": "cephfs", "source": "mon:/", "mount": "/c", "secretFile": str(file)}

    def said() -> str:
        return fails("cn01", with_shares(it=share), tmp_path, modules="ceph")

    assert said().startswith(f"it: {file} is not there: put the client's key there")
    file.write_text("x")
    file.chmod(0o440)
    assert said() == f"it: {file} is open to others: chmod 0400 {file}"
    file.chmod(0o400)
    assert said() == ""
