"""Building images, as far as it goes without bootstrapping one (tests/lab/test_images.py does)."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from pathlib import Path

import pytest

from on_node.images import alone, base, build, files, rootfs
from on_node.images.recipe import Recipe, Site
from on_node.images.refused import Refused
from tests.unit.on_node.images.test_registry import built, published
from tests.unit.on_node.images.test_registry import site as site  # a fixture

#: What `apt-get indextargets` of apt 2.6 and 3.0 prints where no key is named, and where one is.
TARGETS = """\
http://mirror.example.org/debian/ trixie main $(SIGNED_BY)
http://mirror.example.org/debian/ trixie main $(SIGNED_BY)
http://mirror.example.org/debian/ trixie-updates main /usr/share/keyrings/debian.gpg
http://mirror.example.org/debian-security/ trixie-security main
file:/srv/packages/ ./  /etc/apt/keyrings/own.gpg
http://mirror.example.org/debian/ bookworm main $(SIGNED_BY)
"""


def test_sources_are_the_hosts_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_said", lambda *words: TARGETS.replace("./  ", "./ "))
    assert base.sources_of("trixie") == [
        "deb [signed-by=/usr/share/keyrings/debian.gpg] http://mirror.example.org/debian/ "
        "trixie-updates main",
        "deb http://mirror.example.org/debian-security/ trixie-security main",
        "deb http://mirror.example.org/debian/ trixie main",
    ]
    assert base.sources_of("tri") == []


def test_the_hosts_proxy_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    dump = (
        'APT::Architecture "amd64";\nAcquire::http::Proxy "http://10.0.0.1:8073";\n'
        'Acquire::https::Timeout "20";\nAcquire::Languages "none";\nDir::Cache "x";\n'
    )
    monkeypatch.setattr(base, "_said", lambda *words: dump)
    assert base.apt_options() == [
        'Acquire::http::Proxy "http://10.0.0.1:8073"', 'Acquire::https::Timeout "20"',
    ]  # fmt: skip


def test_an_archive_is_fetched_once_and_is_the_one_that_was_named(tmp_path: Path) -> None:
    (tmp_path / "base.tar").write_bytes(b"a system")
    url, sha256 = (tmp_path / "base.tar").as_uri(), hashlib.sha256(b"a system").hexdigest()
    folder = tmp_path / "bases"
    folder.mkdir()
    kept = base.fetched(url, sha256, folder)
    assert kept.read_bytes() == b"a system"
    # It is not asked for again.
    (tmp_path / "base.tar").write_bytes(b"another one")
    assert base.fetched(url, sha256, folder) == kept
    with pytest.raises(Refused, match=rf"{url}: expected sha256 {'a' * 64}, found "):
        base.fetched(url, "a" * 64, folder)
    # What was spoilt where it is kept is fetched anew, and found to be another one by now.
    kept.write_bytes(b"spoilt")
    with pytest.raises(Refused, match="it was thrown away"):
        base.fetched(url, sha256, folder)
    with pytest.raises(Refused, match="it cannot be fetched: "):
        base.fetched("file:///no/such.tar", "a" * 64, folder)
    assert [it.name for it in folder.iterdir()] == [sha256]


def recipe(**more: object) -> Recipe:
    given: dict[str, object] = {
        "name": "small", "version": "1", "base": {"suite": "trixie"}, "script": "", "lock": "",
        "wheels": "", "environment": {"WORDS": "it's", "PATH_OF": "/x"}, "labels": {"by": "us"},
        "tests": (), **more,
    }  # fmt: skip
    return Recipe(**given)  # type: ignore[arg-type]


def finished(of: Recipe, tree: Path) -> None:
    rootfs.finish(of, tree, 2000, of.from_what)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A root file system as a build leaves it."""
    root = tmp_path / "rootfs"
    folders = "etc/apt var/log/apt var/lib/apt/lists dev tmp/slurmstack run opt/python/bin usr/bin"
    names = (
        "var/log/dpkg.log var/lib/apt/lists/x etc/machine-id etc/passwd- etc/hostname "
        "etc/resolv.conf tmp/slurmstack/make.sh usr/bin/x"
    )
    for folder in folders.split():
        (root / folder).mkdir(parents=True)
    for name in names.split():
        (root / name).write_text("of this build\n")
    os.utime(root / "usr/bin/x", (1000, 1000))
    (root / "usr/lib").symlink_to("bin")
    return root


def test_no_trace_of_a_build_is_left(tree: Path) -> None:
    finished(recipe(), tree)
    left = {str(it.relative_to(tree)) for it in tree.rglob("*") if it.is_file()}
    assert left == {
        "etc/machine-id", "etc/hostname", "etc/resolv.conf", "etc/environment", "etc/rc",
        "etc/fstab", "etc/slurmstack-image.json", ".singularity.d/labels.json",
        ".singularity.d/env/90-environment.sh", "usr/bin/x",
    }  # fmt: skip
    assert (tree / "etc/machine-id").read_text() == (tree / "etc/resolv.conf").read_text() == ""
    assert stat.S_IMODE((tree / "tmp").stat().st_mode) == 0o1777
    times = {str(it.relative_to(tree)): int(it.lstat().st_mtime) for it in tree.rglob("*")}
    assert times.pop("usr/bin/x") == 1000
    assert {*times.values()} == {2000}


def test_a_folder_of_wheels_is_there_while_the_script_runs_alone(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders that the base has stay, empty ones too."""
    wheels = tmp_path / "srv/site/wheels"
    wheels.mkdir(parents=True)
    inside = tree / str(wheels).lstrip("/")
    (tree / str(tmp_path / "srv").lstrip("/")).mkdir(parents=True)
    shutil.rmtree(tree / "tmp/slurmstack")

    def run(command: list[str], what: str, log: Path, **more: object) -> None:
        assert command[-3:] == [str(tree), "/tmp/slurmstack/make.sh", str(wheels)]
        inside.mkdir(parents=True)
        # What the base need not have.
        assert (tree / "proc").is_dir()

    monkeypatch.setattr(alone, "run", run)
    rootfs.make(recipe(wheels=str(wheels)), tree, 2000, tmp_path / "log", 0)
    assert [*(tree / str(tmp_path / "srv").lstrip("/")).iterdir()] == []
    gone = tmp_path / "nowhere"
    shutil.rmtree(tree / "tmp/slurmstack")
    with pytest.raises(Refused, match=f"{gone}: no such folder on this host"):
        rootfs.make(recipe(wheels=str(gone)), tree, 2000, tmp_path / "log", 0)


def test_both_runtimes_read_the_same_variables(tree: Path) -> None:
    (tree / "etc/environment").write_text("CUDA_HOME=/usr/local/cuda\nPATH=/cuda/bin:/bin\n")
    finished(recipe(), tree)
    wanted = {
        "CUDA_HOME": "/usr/local/cuda", "PATH": "/opt/python/bin:/cuda/bin:/bin", "WORDS": "it's",
        "PATH_OF": "/x",
    }  # fmt: skip
    assert rootfs.environment(tree) == wanted
    script = tree / ".singularity.d/env/90-environment.sh"
    shown = os.popen(f"sh -c '. {script}; env -0'").read().split("\0")
    assert {it.partition("=")[0]: it.partition("=")[2] for it in shown if it}.items() >= (
        wanted.items()
    )


def test_an_image_says_what_it_is(tree: Path) -> None:
    of = recipe()
    finished(of, tree)
    about = json.loads((tree / "etc/slurmstack-image.json").read_text())
    assert (about["name"], about["version"], about["recipe"]) == ("small", "1", of.digest)
    assert about["base"] == "the distribution's trixie"
    labels = json.loads((tree / ".singularity.d/labels.json").read_text())
    assert (labels["by"], labels["org.opencontainers.image.version"]) == ("us", "1")


def test_another_way_to_make_it_is_another_recipe() -> None:
    one = recipe().digest
    assert recipe(tests=({"run": "true", "timeout": 1},)).digest == one
    others: list[dict[str, object]] = [
        {"script": "x"}, {"version": "2"}, {"lock": "x"}, {"environment": {}},
    ]  # fmt: skip
    for other in others:
        assert recipe(**other).digest != one


def test_a_registry_that_is_full_refuses_a_build_before_it_begins(site: Site) -> None:
    published(site, "1", b"x" * 200)
    built(site, "2", b"y" * 200)
    full = Site(site.root, limit=400, keep=1, keep_days=0, images=site.images)
    said: list[str] = []
    with pytest.raises(Refused, match="slurmstack image gc or rm makes room"):
        build.build(full, site.images["small"], "anna", said.append)
    assert said == []
    assert [it["version"] for it in build.candidates(site.root)] == ["2"]


def test_the_words_that_tell_why(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before: error\n")
    start = log.stat().st_size
    with log.open("a") as more:
        more.write("Reading lists\nE: Unable to locate package nosuch\nW: end\n")
    assert alone.said(log, start) == "E: Unable to locate package nosuch"
    log.write_text("one\ntwo\nthree\nfour\n")
    assert alone.said(log, 0) == "two / three / four"


def test_who_holds_a_lock_is_told_only_while_he_does(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with files.held(lock, "the first"):
        with pytest.raises(Refused, match=r"^the first \(pid "), files.held(lock, "the second"):
            pass
        with pytest.raises(Refused), files.held(lock, "the second", seconds=0.2):
            pass
    with files.held(lock, "the second"):
        assert lock.read_text().startswith("the second (pid ")
