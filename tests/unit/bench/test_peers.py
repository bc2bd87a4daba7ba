"""What Ansible and pyinfra are given beside slurmstack: all that the bundles put on hosts."""

from __future__ import annotations

import json
import runpy
import stat
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.peers import deploy, playbook
from bench.peers.work import Work, handlers, works
from remote.bundle import Absent, Bundle, Command, Directory, File, Group, Link, Package, Unit, User
from remote.reading import read
from tests import prod
from tests.unit.components import test_bundles


@cache
def every_component() -> list[Bundle]:
    return [read(text) for text in test_bundles.bundles(test_bundles.settings())]


@cache
def production() -> list[Bundle]:
    """Of hosts that have the same roles, one."""
    of_node: dict[str, list[str]] = {}
    for text in prod.bundles():
        of_node.setdefault(text.split("\n", 2)[1], []).append(text)
    alike = {tuple(text.split("\n", 3)[2] for text in texts): texts for texts in of_node.values()}
    return [read(text) for texts in alike.values() for text in texts]


PLACE = ("path", "owner", "group", "mode")
SITES = pytest.mark.parametrize(
    "bundles", [every_component, pytest.param(production, marks=pytest.mark.slow)]
)


def written(tool: Any, folder: Path, bundles: Iterable[Bundle]) -> Mapping[str, Work]:
    made = works(bundles)
    tool.write(folder, made, dict.fromkeys(made, "192.0.2.1"))
    return made


def place(part: Directory | File) -> tuple[str, ...]:
    return (part.path, *part.owner.split(":"), part.mode)


def content(part: File) -> bytes:
    return part.content.encode() if isinstance(part.content, str) else part.content


@pytest.mark.slow
@SITES
def test_a_playbook_has_all_that_bundles_have(bundles: Any, tmp_path: Path) -> None:
    written(playbook, tmp_path, bundles())
    hosts = json.loads((tmp_path / playbook.INVENTORY).read_text())["all"]["hosts"]
    (play,) = yaml.safe_load((tmp_path / playbook.PLAYBOOK).read_text())
    notified = {}
    for task in play["tasks"]:
        name = task.get("loop", "").removeprefix("{{ ").partition(" ")[0]
        notified[name] = task.get("notify", [])
    known = {handler["name"] for handler in play["handlers"]}

    def named(host: Mapping[str, Any], over: str) -> set[str]:
        assert over in notified
        return {one["name"] for one in host[over]}

    for bundle in bundles():
        host = hosts[bundle.node]
        found = {
            tuple(item[key] for key in PLACE): (item["src"], loop)
            for loop, items in host.items()
            if loop.startswith("files_")
            for item in items
        }
        called: dict[str, str] = {}

        def calls(
            key: str, host: Mapping[str, Any] = host, called: Mapping[str, str] = called
        ) -> Any:
            """The handlers that a change of it calls."""
            return host["package_handlers"] if key.startswith("package:") else notified[called[key]]

        for part in bundle.parts:
            match part:
                case Package():
                    pinned = f"{part.name}={part.version}" if part.version else part.name
                    assert pinned in host["packages_"]
                case Group():
                    assert part.name in named(host, "groups_")
                case User():
                    assert part.name in named(host, "users_")
                case Directory():
                    assert dict(zip(PLACE, place(part), strict=True)) in host["directories_"]
                case File():
                    source, called[part.path] = found[place(part)]
                    assert Path(source).read_bytes() == content(part)
                case Link():
                    assert {"path": part.path, "src": part.target} in host["links_"]
                    assert "links_" in notified
                case Absent():
                    assert part.path in host["absent_"]
                    assert "absent_" in notified
                case Unit():
                    assert part.name in named(host, "units_")
                    for word, keys in (("restart", part.restart_on), ("reload", part.reload_on)):
                        for key in keys:
                            assert f"{word} {part.name}" in calls(key)
                            assert f"{word} {part.name}" in known
                case Command(when="apply"):
                    for key in part.on:
                        assert f"run {part.name}" in calls(key)
                        assert part.script in Path(host["scripts_"][f"run {part.name}"]).read_text()


@SITES
def test_a_deploy_has_all_that_bundles_have(bundles: Any, tmp_path: Path) -> None:
    written(deploy, tmp_path, bundles())
    hosts = dict(runpy.run_path(str(tmp_path / deploy.INVENTORY))["hosts"])
    for bundle in bundles():
        work = hosts[bundle.node]["work"]
        files = {tuple(file[1:5]): (file[0], file[5]) for file in work["files"]}
        called = {}
        for part in bundle.parts:
            match part:
                case Package():
                    pinned = f"{part.name}={part.version}" if part.version else part.name
                    assert pinned in work["packages"]
                case Group():
                    assert (part.name, part.gid) in work["groups"]
                case User():
                    assert (part.name, part.uid) in {user[:2] for user in work["users"]}
                case Directory():
                    assert place(part) in work["directories"]
                case File():
                    source, called[part.path] = files[place(part)]
                    assert Path(source).read_bytes() == content(part)
                case Link():
                    assert (part.path, part.target) in work["links"]
                case Absent():
                    assert part.path in work["absent"]
                case Unit():
                    assert (part.name, part.enabled, part.running) in work["units"]
                    for word, keys in (("restart", part.restart_on), ("reload", part.reload_on)):
                        for key in keys:
                            calls = (
                                work["package_handlers"]
                                if key.startswith("package:")
                                else called[key]
                            )
                            assert f"{word} {part.name}" in calls


@pytest.mark.parametrize("tool", [playbook, deploy])
def test_secrets_lie_in_files_of_root_alone(tool: Any, tmp_path: Path) -> None:
    made = written(tool, tmp_path, every_component())
    key = next(file for work in made.values() for file in work.files
               if file.path == "/etc/munge/munge.key")  # fmt: skip
    holding = [
        path for path in tmp_path.rglob("*") if path.is_file() and content(key) in path.read_bytes()
    ]
    assert [path.parent.name for path in holding] == ["files"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "files").iterdir()} == {0o600}
    assert stat.S_IMODE((tmp_path / "files").stat().st_mode) == 0o700


def test_a_secret_is_in_no_diff_of_a_playbook(tmp_path: Path) -> None:
    written(playbook, tmp_path, every_component())
    hosts = json.loads((tmp_path / playbook.INVENTORY).read_text())["all"]["hosts"]
    (play,) = yaml.safe_load((tmp_path / playbook.PLAYBOOK).read_text())
    for task in play["tasks"]:
        loop = task.get("loop", "").removeprefix("{{ ").partition(" ")[0]
        modes = {
            item["mode"] for host in hosts.values() for item in host.get(loop, [])
            if loop.startswith("files_")
        }  # fmt: skip
        if any(mode.endswith("0") for mode in modes):
            assert task["diff"] is False


def test_slurmctld_knows_a_new_node_before_its_slurmd_starts() -> None:
    controller = Unit("slurmctld.service", reload_on=("/etc/slurm/slurm.conf",))
    node = Unit("slurmd.service", restart_on=("/etc/default/slurmd",))
    bundles = [
        Bundle("cn01", "system", [Package("lmod")]),
        Bundle("ctl", "slurmctld", [controller]),
        Bundle("cn01", "slurmd", [node]),
    ]
    names = [name for name, _ in handlers(works(bundles))]
    assert names.index("reload slurmctld.service") < names.index("restart slurmd.service")
