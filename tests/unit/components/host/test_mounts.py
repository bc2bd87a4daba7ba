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


@pytest.mark.parametrize(
    ("dkms", "status"), [("touch built", 0), ("echo 'Error! Bad return status'; exit 10", 1)]
)
def test_a_module_is_built_for_the_running_kernel_or_says_why_not(
    dkms: str, status: int, tmp_path: Path
) -> None:
    share = {**LUSTRE, "packages": [DKMS]}
    (command,) = (it for it in mounts("cn01", with_shares(it=share)) if isinstance(it, Command))
    tools = {
        "uname": "echo 6.1.0-9-amd64",
        "modinfo": "[ -e built ]",
        "dkms": f'[ "$*" = "autoinstall -k 6.1.0-9-amd64" ] || exit 3; {dkms}',
    }
    environment = with_tools(tmp_path, tools)

    def run(script: str | None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-c", script or ""], cwd=tmp_path, env=environment, capture_output=True,
            text=True, check=False,
        )  # fmt: skip

    # It would be other than it was; and looking builds nothing.
    assert run(command.probe).returncode == 1
    done = run(command.script)
    assert done.returncode == status
    assert run(command.probe).returncode == status
    if status:
        *_, why, said = done.stdout.splitlines()
        assert why == "Error! Bad return status"
        assert said.startswith(f"it: {DKMS} brought no module lustre for the running kernel 6.1.0")


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
        ({}, [DKMS], f"it: {DKMS} is to build the module lustre for the running kernel "
         f"6.1.0-9-amd64, whose headers are not there: name {HEADERS} in slurmstack:storage.it"),
        ({}, [DKMS, HEADERS], ""),
        ({"installed": HEADERS}, [DKMS, HEADERS], "whose headers are not there"),
    ],
)  # fmt: skip
def test_a_kernel_without_it_is_refused_before_anything_changes(
    machine: dict[str, str], packages: list[str], says: str, tmp_path: Path
) -> None:
    share = {**LUSTRE, **({"packages": packages} if packages else {})}
    assert says in (found := fails("cn01", with_shares(it=share), tmp_path, **machine))
    assert bool(found) == bool(says)
    assert fails("cn01", with_shares(it={**share, "clients": "cn02"}), tmp_path, **machine) == ""


def with_tools(place: Path, tools: dict[str, str]) -> dict[str, str]:
    """An environment with shell texts in the place of commands."""
    for name, text in tools.items():
        (place / name).write_text(f"#!/bin/sh\n{text}\n")
        (place / name).chmod(0o755)
    return {"PATH": f"{place}:/usr/sbin:/usr/bin:/sbin:/bin"}


def fails(
    node: str, settings: Settings, place: Path, modules: str = "", installed: str = ""
) -> str:
    """What the precheck says on a machine whose kernel has these modules, and dpkg this package."""
    tools = {
        "uname": "[ $1 = -r ] && echo 6.1.0-9-amd64 || echo " + node,
        "modinfo": f"[ \"$1 $2\" = '-k 6.1.0-9-amd64' ] && [ $3 = '{modules}' ]",
        "dpkg-query": f"[ \"$4\" = '{installed}' ] && echo 'ii '",
        "find": "exit 0",
    }
    done = subprocess.run(
        ["sh", "-c", precheck(node, settings)], capture_output=True, text=True, check=False,
        env=with_tools(place, tools),
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
