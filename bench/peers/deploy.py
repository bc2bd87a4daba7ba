"""The work as a deploy of pyinfra: `write` makes its inventory; the rest is what pyinfra runs, host
by host, with its own interpreter."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from pprint import pformat
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.peers.work import Work

INVENTORY = "inventory.py"
#: What Debian's packages ask before they start their daemons.
_POLICY = "/usr/sbin/policy-rc.d"


def write(folder: Path, works: Mapping[str, Work], addresses: Mapping[str, str]) -> None:
    """Write the inventory with each host's work; `ssh_config` and `known_hosts` lie beside.

    Args:
        folder: where to; of mode 0700, as secrets lie in it.
        works: host → what is to be on it.
        addresses: host → where it is reached.
    """
    from bench.peers.work import handlers

    # All hosts go through all of them, so that each is called everywhere before the next: a slurmd
    # that is new finds a slurmctld that knows it.
    order = [name for name, _ in handlers(works)]
    hosts = [
        (host, {**_reached(folder, addresses[host]), "work": _data(folder, work), "order": order})
        for host, work in works.items()
    ]
    (folder / INVENTORY).write_text(f"hosts = {pformat(hosts, sort_dicts=False)}\n")


def _reached(folder: Path, address: str) -> dict[str, Any]:
    return {
        "ssh_hostname": address,
        "ssh_user": "root",
        "ssh_key": str(folder / "key"),
        "ssh_known_hosts_file": str(folder / "known_hosts"),
        "ssh_strict_host_key_checking": "yes",
        "ssh_allow_agent": False,
        "ssh_look_for_keys": False,
    }


def _data(folder: Path, work: Work) -> dict[str, Any]:
    from bench.peers.files import place

    return {
        "groups": [(one.name, one.gid) for one in work.groups],
        "users": [(one.name, one.uid, one.group, one.home, one.shell) for one in work.users],
        "packages": [f"{one.name}={one.version}" if one.version else one.name
                     for one in work.packages],
        "package_handlers": work.called_by(f"package:{one.name}" for one in work.packages),
        "directories": [(one.path, *one.owner.split(":"), one.mode) for one in work.directories],
        "files": [
            (
                place(folder, one.content), one.path, *one.owner.split(":"), one.mode,
                work.called_by([one.path]),
            )
            for one in work.files
        ],
        "links": [(one.path, one.target) for one in work.links],
        "absent": [one.path for one in work.absent],
        "handlers": [(one.name, one.kind, one.what) for one in work.handlers],
        "units": [(one.name, one.enabled, one.running) for one in work.units],
    }  # fmt: skip


def _deploy() -> None:
    from pyinfra import host
    from pyinfra.facts.deb import DebPackages
    from pyinfra.operations import apt, files, server, systemd

    work = host.data.work
    called: dict[str, list[Any]] = {}

    def calls(operation: Any, names: list[str]) -> None:
        for name in names:
            called.setdefault(name, []).append(operation.did_change)

    for name, gid in work["groups"]:
        server.group(name, gid=gid, system=True)
    for name, uid, group, home, shell in work["users"]:
        server.user(
            name, uid=uid, group=group, home=home, shell=shell, system=True, ensure_home=False
        )
    apt.update(cache_time=86400)
    there = host.get_fact(DebPackages)
    bare = any(name.partition("=")[0] not in there for name in work["packages"])
    if bare:
        # No daemon may start before its files are there.
        files.put(io.StringIO("#!/bin/sh\nexit 101\n"), _POLICY, mode="0755")
    made = apt.packages(work["packages"])
    calls(made, work["package_handlers"])
    if bare:
        files.file(_POLICY, present=False)
    for path, user, group, mode in work["directories"]:
        files.directory(path, user=user, group=group, mode=mode)
    for source, path, user, group, mode, handlers in work["files"]:
        made = files.put(
            source, path, user=user, group=group, mode=mode,
            add_deploy_dir=False, create_remote_dir=False,
        )  # fmt: skip
        calls(made, handlers)
    for path, target in work["links"]:
        files.link(path, target=target, force=True)
    for path in work["absent"]:
        files.file(path, present=False)
    own = {name: (kind, what) for name, kind, what in work["handlers"]}
    for name in host.data.order:
        kind, what = own.get(name, (name.partition(" ")[0], ""))
        changed = called.get(name, [])

        # One that has just been started has read its files. slurmctld of 24.11 can hang where it is
        # told to reload at once after that.
        begun = called.get(f"restart {name.partition(' ')[2]}", []) if kind == "reload" else []

        def any_of(changed: list[Any] = changed, begun: list[Any] = begun) -> bool:
            return any(did_change() for did_change in changed) and not any(
                did_change() for did_change in begun
            )

        if kind == "systemd":
            systemd.daemon_reload(_if=any_of)
        elif kind in ("script", "run"):
            server.shell([what], _env={"SLURMSTACK_FACTS": "/dev/null"}, _if=any_of)
        else:
            service = name.partition(" ")[2]
            systemd.service(
                service, restarted=kind == "restart", reloaded=kind == "reload", _if=any_of
            )
    for name, enabled, running in work["units"]:
        systemd.service(name, running=running, enabled=enabled)


if "pyinfra" in sys.modules and __name__ != "bench.peers.deploy":
    _deploy()
