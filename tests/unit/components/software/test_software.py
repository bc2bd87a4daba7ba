"""Software of users: what lands on nodes, and that an environment is made whole or not at all."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from components.software.pip import AUTHORITIES
from components.software.software import software_bundle
from remote.bundle import Bundle, Check, Command, File, Package
from settings import SettingsError, parse
from templates.rendering import render
from tests.unit.components.software.wheel import wheel
from tests.unit.components.test_cluster import bare, commands, deploy

MPI = {
    "description": "Open MPI", "packages": ["openmpi-bin"], "programs": ["mpirun"], "default": True,
    "setEnv": {"OMPI_MCA_btl": "self,tcp"},
}  # fmt: skip
FILE = {"url": "https://site.example/htop_3.4.1-5_amd64.deb", "sha256": "a" * 64}


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "lock.txt"
    path.write_text("# by uv export\n" + wheel(tmp_path))
    return path


def environment(lock: Path, **more: Any) -> dict[str, Any]:
    of = {"lock": str(lock), "index": str(lock.parent), **more}
    return {"description": "Python", "environment": of}


def settings(**software: Any) -> dict[str, Any]:
    return {**bare(), "modules": {}, "software": software}


def bundle(software: dict[str, Any]) -> Bundle:
    return software_bundle("cn01", parse({**bare(), "modules": {}, "software": software}))


def file(of: Bundle, path: str) -> str:
    (found,) = [it for it in of.parts if isinstance(it, File) and it.path == path]
    return str(found.content)


def command(of: Bundle, name: str) -> Command:
    (found,) = [it for it in of.parts if isinstance(it, Command) and it.name == name]
    return found


def test_it_is_where_users_work() -> None:
    hosts = {**bare()["hosts"], "in": "10.73.0.12"}
    made, _ = deploy(
        hosts=hosts, roles={"controller": "ctl", "login": "in"}, modules={},
        software={"openmpi/5.0": MPI},
    )  # fmt: skip
    sent = {name for name in commands(made) if name.endswith("-software")}
    assert sent == {"cn01-software", "cn02-software", "in-software"}
    without, _ = deploy(modules={})
    assert not [name for name in commands(without) if name.endswith("-software")]


def test_packages_their_module_and_the_commands() -> None:
    found = bundle({"openmpi/5.0": MPI, "htop/3.4": {"description": "x", "packageFiles": [FILE]}})
    packages = {(it.name, it.version) for it in found.parts if isinstance(it, Package)}
    assert packages == {("openmpi-bin", None), ("htop", "3.4.1-5")}
    module = file(found, "/opt/modulefiles/openmpi/5.0.lua")
    assert 'setenv("OMPI_MCA_btl", "self,tcp")' in module
    assert "VIRTUAL_ENV" not in module
    assert "openmpi/5.0" in file(found, "/opt/modulefiles/openmpi/.modulerc.lua")
    (check,) = [it.script for it in found.parts if isinstance(it, Check)]
    assert "module load openmpi/5.0 " in check
    assert "command -v mpirun" in check


def test_an_environment_has_a_folder_for_each_content(lock: Path) -> None:
    entry = {"torch/2026": environment(lock)}
    found = bundle(entry)
    assert "python3-venv" in {it.name for it in found.parts if isinstance(it, Package)}
    assert file(found, "/etc/slurmstack/software/torch-2026.lock") == lock.read_text()
    link = "/opt/slurmstack/software/torch/2026"
    assert f'subprocess("readlink -e {link}")' in file(found, "/opt/modulefiles/torch/2026.lua")

    def folder(of: Bundle) -> str:
        script = command(of, "environments").script
        (line,) = [it for it in script.splitlines() if it.strip().startswith("folder=/")]
        return line.strip().removeprefix("folder=")

    before = folder(found)
    assert before.startswith(f"{link}-")
    lock.write_text(wheel(lock.parent, "1.1"))
    assert folder(bundle(entry)) not in ("", before)
    other = {"torch/2026": environment(lock, python="/usr/bin/python3.13")}
    assert folder(bundle(other)) != folder(bundle(entry))
    # Who makes an environment by another Python brings what makes it.
    assert "python3-venv" not in {it.name for it in bundle(other).parts if isinstance(it, Package)}


def test_an_index_or_a_folder_of_wheels(lock: Path) -> None:
    script = command(bundle({"a/1": environment(lock)}), "environments").script
    assert f"--no-index --find-links {lock.parent}" in script
    index = "https://pypi.site.example/simple"
    script = command(bundle({"a/1": environment(lock, index=index)}), "environments").script
    assert f"source='--index-url {index}'" in script
    assert "--no-index" not in script
    # It is believed by whom the node believes.
    found = bundle({"a/1": environment(lock, index=index)})
    assert "ca-certificates" in {it.name for it in found.parts if isinstance(it, Package)}
    # What pip would pass over by itself, in silence.
    plain = "http://10.0.0.9:8080/simple"
    script = command(bundle({"a/1": environment(lock, index=plain)}), "environments").script
    assert f"source='--index-url {plain} --trusted-host 10.0.0.9:8080'" in script


@pytest.mark.parametrize(
    ("changes", "path", "says"),
    [
        ({"software": {"a/1": MPI}, "modules": None}, "software", "slurmstack:modules beside it"),
        ({"software": {"a": MPI}}, "software.a", "a module and its version"),
        ({"software": {"a/1": {**MPI, "programs": ["x;"]}}}, "software.a/1.programs[0]", "mpirun"),
        (
            {"software": {"a/1": MPI}, "modules": {"tree": {"a/1": {"description": "x"}}}},
            "software.a/1",
            "no such module in slurmstack:modules.tree",
        ),
        (
            {"software": {"a/1": MPI},
             "modules": {"tree": {"a/2": {"description": "x", "default": True}}}},
            "software.a/1.default",
            "one default of a; found a/2",
        ),
        (
            {"software": {"a/1": {"description": "x", "packageFiles": [FILE]},
                          "b/1": {"description": "x", "packageFiles": [
                              {**FILE, "url": FILE["url"].replace("3.4.1", "3.5.0")}]}}},
            "software.b/1.packageFiles[0]",
            "htop 3.4.1-5, as in a/1",
        ),
        (
            {"software": {"a/1": {"description": "x", "packageFiles": [FILE]},
                          "b/1": {"description": "x", "packages": ["htop"]}}},
            "software.b/1.packages[0]",
            "a/1 brings its package file",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(changes: dict[str, Any], path: str, says: str) -> None:
    raw = {**bare(), "modules": {}, **changes}
    with pytest.raises(SettingsError) as caught:
        parse({key: it for key, it in raw.items() if it is not None}, stack="lab")
    found = {it.path: f"{it.expected}; found {it.found}" for it in caught.value.problems}
    assert says in found[f"slurmstack:{path}"]
    assert len(found) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("numpy==2.3.1\n", "not: numpy==2.3.1"),
        ("numpy>=2 --hash=sha256:" + "a" * 64 + "\n", "not: numpy>=2"),
        ("--index-url https://u:p@x\nnumpy\n", "not: --index-url https://u:p@x; numpy"),
        ("-e .\n", "not: -e ."),
        ("git+https://x/y\n", "not: git+https://x/y"),
        ("numpy==1 --hash=sha256:abc\n", "not: numpy==1 --hash=sha256:abc"),
        ("numpy==1 --hash=sha256:" + "a" * 64 + " `x`\n", "not: numpy==1"),
        ("# nothing\n", "at least one requirement"),
    ],
)
def test_a_lock_file_that_pins_nothing_is_refused(lock: Path, text: str, says: str) -> None:
    lock.write_text(text)
    with pytest.raises(SettingsError) as caught:
        bundle({"a/1": environment(lock)})
    assert says in str(caught.value)
    assert "software.a/1.environment.lock" in str(caught.value)


def test_what_tools_write_is_taken(lock: Path) -> None:
    digest = "a" * 64
    lock.write_text(
        "# This file was autogenerated by uv\n"
        "colorama==0.4.6 ; sys_platform == 'win32' \\\n"
        f"    --hash=sha256:{digest} \\\n    --hash=sha256:{digest}\n    # via click\n"
        f"torch[opt-einsum]==2.6.0+cpu --hash=sha256:{digest}  # pinned\n\n"
    )
    assert command(bundle({"a/1": environment(lock)}), "environments")


# What runs on nodes, run here: in a folder of its own, by this Python.


class Place:
    """A root of environments, and the scripts over it."""

    def __init__(self, folder: Path, lock: Path) -> None:
        self.root, self.lock = folder / "software", lock
        (self.root / "a").mkdir(parents=True)

    def make(self, digest: str, days: int = 14) -> subprocess.CompletedProcess[str]:
        folder, link = f"{self.root}/a/1-{digest}", f"{self.root}/a/1"
        environments = [
            {"name": "a/1", "folder": folder, "link": link, "lock": str(self.lock),
             "python": "/usr/bin/python3", "source": f"--no-index --find-links {self.lock.parent}"}
        ]  # fmt: skip
        if not Path("/usr/bin/python3").exists() or not _has_venv():
            pytest.skip("/usr/bin/python3 makes no virtual environments here")
        return self.run("environments", environments=environments, wanted=[folder], links=[link],
                        days=days)  # fmt: skip

    def run(self, script: str, **values: Any) -> subprocess.CompletedProcess[str]:
        text = render(
            f"software/{script}.sh", root=str(self.root), authorities=AUTHORITIES, **values
        )
        return subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=False)

    @property
    def holds(self) -> list[str]:
        return sorted(it.name for it in (self.root / "a").iterdir())

    def stand_in(self, name: str) -> Path:
        """An environment that was made before."""
        folder = self.root / "a" / name
        folder.mkdir()
        (folder / ".slurmstack").touch()
        return folder


def _has_venv() -> bool:
    words = ["/usr/bin/python3", "-c", "import ensurepip, venv"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


@pytest.fixture
def place(tmp_path: Path, lock: Path) -> Place:
    return Place(tmp_path, lock)


@pytest.mark.slow
def test_what_is_pinned_is_installed(place: Place) -> None:
    made = place.make("aaaaaaaaaaaa")
    assert made.returncode == 0, made.stderr
    assert place.holds == ["1", "1-aaaaaaaaaaaa"]
    words = [
        f"{place.root}/a/1/bin/python",
        "-c",
        "import stand_in_package as it; print(it.VERSION)",
    ]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "1.0\n"
    # Bytes other than the pinned ones are not taken; what was made before is still there.
    (wheel_file,) = place.lock.parent.glob("*.whl")
    wheel_file.write_bytes(wheel_file.read_bytes() + b"x")
    broken = place.make("bbbbbbbbbbbb")
    assert broken.returncode == 1
    assert broken.stderr.startswith(
        "a/1 was not made: ERROR: THESE PACKAGES DO NOT MATCH THE HASHES"
    )
    assert place.holds == ["1", "1-aaaaaaaaaaaa"]
    assert (place.root / "a" / "1").readlink().name == "1-aaaaaaaaaaaa"


@pytest.mark.slow
def test_what_is_wanted_no_more_stays_for_those_who_have_it(place: Place) -> None:
    old, used, waited = (place.stand_in(f"1-{letter * 12}") for letter in "abc")
    foreign = place.root / "a" / "2-dddddddddddd"
    foreign.mkdir()
    for folder in (old, used):
        (folder / ".unwanted").touch()
        os.utime(folder / ".unwanted", (0, 0))
    (place.root / "a" / "1").symlink_to(old)
    job = subprocess.Popen(["sleep", "600"], env={"PATH": f"{used}/bin:/usr/bin:/bin"})
    try:
        assert place.run("unused", wanted=[], links=[], days=14).returncode == 0
        # The site's own, and what was let go a moment ago, are left alone, too.
        assert place.holds == [used.name, waited.name, foreign.name]
        (waited / ".unwanted").unlink()
        place.run("unused", wanted=[], links=[], days=0)
        assert place.holds == [used.name, foreign.name]
    finally:
        job.kill()
        job.wait()
    # Wanted again, it is not on its way out.
    place.run("unused", wanted=[str(used)], links=[], days=0)
    assert not (used / ".unwanted").exists()
    place.run("unused", wanted=[], links=[], days=0)
    foreign.rmdir()
    place.run("unused", wanted=[], links=[], days=0)
    assert not (place.root / "a").exists()
