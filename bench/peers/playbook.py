"""The work as an Ansible playbook with its inventory, as somebody who knows Ansible writes it: one
play for all hosts at once, one task for all things of a kind, handlers, nothing gathered that is
not used; packages in one transaction that starts no daemon, files whose change calls the same
handlers in one task.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from bench.peers.files import is_secret, place, script
from bench.peers.work import Handler, Work, handlers

PLAYBOOK = "site.yml"
INVENTORY = "inventory.json"
CONFIGURATION = """\
[defaults]
forks = 64
gathering = explicit
interpreter_python = /usr/bin/python3
inventory = inventory.json
remote_user = root
retry_files_enabled = false
[connection]
pipelining = true
[ssh_connection]
ssh_args = -F {ssh_config} -o ControlMaster=auto -o ControlPersist=60s
control_path_dir = {folder}/control
"""
_MODULE = "ansible.builtin"


def write(folder: Path, works: Mapping[str, Work], addresses: Mapping[str, str]) -> None:
    """Write the playbook, its inventory and Ansible's configuration; `ssh_config` lies beside.

    Args:
        folder: where to; of mode 0700, as secrets lie in it.
        works: host → what is to be on it.
        addresses: host → where it is reached.
    """
    sets = _sets(works)
    tasks = [*_tasks(works), *_copies(sets), *_rest(works)]
    play = {"hosts": "all", "tasks": tasks, "handlers": _handlers(works)}
    hosts = {
        host: {"ansible_host": addresses[host], **_variables(folder, work, sets)}
        for host, work in works.items()
    }
    configuration = CONFIGURATION.format(ssh_config=folder / "ssh_config", folder=folder)
    (folder / "ansible.cfg").write_text(configuration)
    (folder / PLAYBOOK).write_text(yaml.safe_dump([play], sort_keys=False))
    (folder / INVENTORY).write_text(json.dumps({"all": {"hosts": hosts}}))


#: Handlers that a changed file calls, and whether the file is a secret.
_Set = tuple[tuple[str, ...], bool]


def _sets(works: Mapping[str, Work]) -> list[_Set]:
    found = (
        (tuple(work.called_by([file.path])), is_secret(file))
        for work in works.values()
        for file in work.files
    )
    return list(dict.fromkeys(found))


def _variables(folder: Path, work: Work, sets: list[_Set]) -> dict[str, Any]:
    """A host's, which the tasks loop over."""
    files: dict[str, list[dict[str, str]]] = {}
    for file in work.files:
        key = f"files_{sets.index((tuple(work.called_by([file.path])), is_secret(file)))}"
        item = {"src": place(folder, file.content), **_place(file.path, file.owner, file.mode)}
        files.setdefault(key, []).append(item)
    return {
        "groups_": [{"name": one.name, "gid": one.gid} for one in work.groups],
        "users_": [
            {"name": one.name, "uid": one.uid, "group": one.group, "home": one.home}
            | {"shell": one.shell}
            for one in work.users
        ],
        "packages_": [f"{one.name}={one.version}" if one.version else one.name
                      for one in work.packages],
        "package_handlers": work.called_by(f"package:{one.name}" for one in work.packages),
        "directories_": [_place(one.path, one.owner, one.mode) for one in work.directories],
        "links_": [{"path": one.path, "src": one.target} for one in work.links],
        "absent_": [one.path for one in work.absent],
        "units_": [
            {"name": one.name}
            | ({} if one.enabled is None else {"enabled": one.enabled})
            | ({} if one.running is None else {"state": "started" if one.running else "stopped"})
            for one in work.units
        ],
        "scripts_": {
            one.name: script(folder, one.what) for one in work.handlers if one.kind == "script"
        },
        **files,
    }  # fmt: skip


def _place(path: str, owner: str, mode: str) -> dict[str, str]:
    user, _, group = owner.partition(":")
    return {"path": path, "owner": user, "group": group, "mode": mode}


def _loop(name: str, module: str, arguments: dict[str, Any], over: str) -> dict[str, Any]:
    label = {"label": "{{ item.name | default(item.path) | default(item) }}"}
    return {
        "name": name,
        f"{_MODULE}.{module}": arguments,
        "loop": f"{{{{ {over} | default([]) }}}}",
        "loop_control": label,
    }


def _item(*keys: str, optional: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    given = {key: f"{{{{ item.{key} }}}}" for key in keys}
    return given | {key: f"{{{{ item.{key} | default(omit, true) }}}}" for key in optional} | more


def _tasks(works: Mapping[str, Work]) -> list[dict[str, Any]]:
    """What files need first."""
    user = _item("name", "group", optional=("uid", "home", "shell"), system=True, create_home=False)
    owned = _item("path", "owner", "group", "mode", state="directory")
    return [
        _loop("groups", "group", _item("name", optional=("gid",), system=True), "groups_"),
        _loop("users", "user", user, "users_"),
        {
            "name": "packages",
            f"{_MODULE}.apt": {
                "name": "{{ packages_ }}",
                "update_cache": True,
                "cache_valid_time": 86400,
                "policy_rc_d": 101,
            },
            "notify": "{{ package_handlers }}",
        },
        _loop("directories", "file", owned, "directories_"),
    ]


def _copies(sets: list[_Set]) -> list[dict[str, Any]]:
    copied = _item("src", "owner", "group", "mode", dest="{{ item.path }}")
    return [
        _loop(f"files: {', '.join(called) or 'no handler'}", "copy", copied, f"files_{number}")
        | ({"notify": list(called)} if called else {})
        | ({"diff": False} if secret else {})
        for number, (called, secret) in enumerate(sets)
    ]


def _rest(works: Mapping[str, Work]) -> list[dict[str, Any]]:
    """What comes after the files; only tasks that some host has work for."""
    links = _loop("links", "file", _item("path", "src", state="link", force=True), "links_")
    absent = _loop("absent", "file", {"path": "{{ item }}", "state": "absent"}, "absent_")
    unit = _item("name", enabled="{{ item.enabled | default(omit) }}")
    unit |= {"state": "{{ item.state | default(omit) }}"}
    tasks = [links] if any(work.links for work in works.values()) else []
    tasks += [absent] if any(work.absent for work in works.values()) else []
    flushed = {f"{_MODULE}.meta": "flush_handlers"}
    return [*tasks, flushed, _loop("units", "systemd_service", unit, "units_")]


def _handlers(works: Mapping[str, Work]) -> list[dict[str, Any]]:
    return [_handler(name, next(iter(of_host.values()))) for name, of_host in handlers(works)]


def _handler(name: str, handler: Handler) -> dict[str, Any]:
    service = f"{_MODULE}.systemd_service"
    match handler.kind:
        case "systemd":
            return {"name": name, service: {"daemon_reload": True}}
        case "script":
            return {"name": name, f"{_MODULE}.script": f"{{{{ scripts_['{name}'] }}}}"}
        case kind:
            return {"name": name, service: {"name": handler.what, "state": f"{kind}ed"}}
