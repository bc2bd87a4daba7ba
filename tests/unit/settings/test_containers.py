"""Settings of packages and container runtimes: what is taken, and every mistake with its path."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from settings import parse
from tests.unit.settings.test_settings import lab, mistakes

SHA = "0123456789abcdef" * 4
ENROOT = {"url": "https://mirror.example/enroot_3.5.0-1_amd64.deb", "sha256": SHA}
CAPS = {"url": "https://mirror.example/enroot%2Bcaps_3.5.0-1_amd64.deb", "sha256": SHA[::-1]}
PYXIS = {
    "version": "0.20.0",
    "archive": {"url": "https://mirror.example/pyxis-0.20.0.tar.gz", "sha256": SHA},
}
CONTAINERS: dict[str, Any] = {"enroot": {"packages": [ENROOT, CAPS]}, "pyxis": PYXIS}
ARCHIVE = {"url": "https://mirror.example/slurm-25.05.1.tar.bz2", "sha256": SHA}
SOURCE: dict[str, Any] = {"slurm": "source", "version": "25.05.1-1", "archive": ARCHIVE}


def changed(value: dict[str, Any], path: str, to: Any) -> dict[str, Any]:
    """A copy with one key changed."""
    made = copy.deepcopy(value)
    at: Any = made
    *parents, last = path.split(".")
    for key in parents:
        at = at.setdefault(key, {}) if isinstance(at, dict) else at[int(key)]
    at[last] = to
    return made


def test_defaults_are_the_distribution_and_nothing_else() -> None:
    settings = parse(lab())
    assert settings.packages.slurm == "distribution"
    assert settings.packages.release is None
    assert settings.enroot_pyxis is None
    assert settings.apptainer is None


def test_package_files_say_what_they_are() -> None:
    containers = parse({**lab(), "enrootPyxis": CONTAINERS}).enroot_pyxis
    assert containers is not None
    files = containers.enroot.packages
    assert [(file.package, file.version) for file in files] == [
        ("enroot", "3.5.0-1"),
        ("enroot+caps", "3.5.0-1"),
    ]
    assert containers.enroot.shared_folders == (
        "/run/enroot",
        "/tmp/enroot-cache",
        "/tmp/enroot-data",
    )


def test_what_is_built_is_versioned_by_what_it_is_built_from() -> None:
    def release(**changes: Any) -> str | None:
        return parse({**lab(), "packages": {**SOURCE, **changes}}).packages.release

    first = release()
    assert first is not None
    assert first.startswith("25.05.1-1+slurmstack.")
    assert release() == first
    assert release(features=["pmix"]) != first
    assert release(buildPackages=["libnvidia-ml-dev"]) != first
    assert release(archive={**ARCHIVE, "sha256": SHA[::-1]}) != first


def test_pyxis_is_another_package_for_another_slurm() -> None:
    def release(packages: dict[str, Any]) -> str:
        settings = parse({**lab(), "enrootPyxis": CONTAINERS, "packages": packages})
        assert settings.enroot_pyxis is not None
        return settings.enroot_pyxis.pyxis.release(settings.packages)

    one = release({"version": "24.11.5-4"})
    assert one.startswith("0.20.0+slurmstack.")
    assert release({"version": "24.11.5-4"}) == one
    assert release({"version": "24.11.5-5"}) != one
    assert release(SOURCE) not in {one, release({"version": "25.05.1-1"})}


@pytest.mark.parametrize(
    ("path", "value", "where", "says"),
    [
        ("slurm", "git", "slurm", "'distribution', 'repository' or 'source'"),
        ("version", None, "version", "since slurm is source"),
        ("archive", None, "archive", "since slurm is source"),
        ("archive.sha256", "abc", "archive.sha256", "64 hexadecimal digits"),
        ("archive.url", "ftp://x/y", "archive.url", "http, https or file URL"),
        ("archive.url", "https://me:secret@x/y.tar", "archive.url", "auth.conf"),
        ("archive.url", "https://x/$(id).tar", "archive.url", "without spaces, quotes"),
        ("archive.url", "https://x/", "archive.url", "the URL of a file"),
        ("features", ["cuda"], "features[0]", "'nvml'"),
        ("buildPackages", ["a b"], "buildPackages[0]", "the name of a package"),
        ("host", "cn09", "host", "a host of slurmstack:hosts"),
        ("slurm", "distribution", "archive", "slurm: source beside it"),
        ("slurm", "repository", "repository", "since slurm is repository"),
        ("version", "25.05.1-1+slurmstack.1", "version", "debian/changelog"),
    ],
)
def test_mistakes_in_packages(path: str, value: Any, where: str, says: str) -> None:
    found = mistakes({"packages": changed(SOURCE, path, value)})
    assert says in found[f"slurmstack:packages.{where}"]


def test_a_package_host_that_is_lost() -> None:
    hosts = {**lab()["hosts"], "pkg": {"address": "10.73.0.13", "lost": True}}
    found = mistakes({"hosts": hosts, "packages": {**SOURCE, "host": "pkg"}})
    assert found == {
        "slurmstack:packages.host": "expected a host that is not lost; found pkg, lost"
    }


@pytest.mark.parametrize(
    ("sources", "key", "where", "says"),
    [
        ("deb http://x y main", None, "sources", "deb822 paragraph"),
        ("Types: deb\nURIs: http://x\nSuites: ./\nSigned-By: /x\n", None, "sources", "under key"),
        ("Types: deb\nURIs: http://me:pw@x\nSuites: ./\n", None, "sources", "without a password"),
        ("Types: deb\nURIs:\n http://me:pw@x\nSuites: ./\n", None, "sources", "without a password"),
        (
            "Types: deb\nuris: http://y\n\thttp://me:pw@x\nSuites: ./\n",
            None,
            "sources",
            "without a password",
        ),
        ("Types: deb\nURIs: http://x\nSuites: ./\nsigned-by: /x\n", None, "sources", "under key"),
        ("Types: deb\nURIs: http://x\nSuites: ./\n", "mQENB…", "key", "ASCII-armoured"),
    ],
)
def test_mistakes_in_a_repository(sources: str, key: str | None, where: str, says: str) -> None:
    repository = {"sources": sources, "key": key}
    found = mistakes({"packages": {"slurm": "repository", "repository": repository}})
    assert says in found[f"slurmstack:packages.repository.{where}"]
    assert "me:pw" not in str(found)


def test_a_password_in_the_url_of_a_file_is_not_shown() -> None:
    url = "https://me:pw@m.example/slurm.tar.gz"
    found = mistakes({"packages": changed(SOURCE, "archive.url", url)})
    assert "without a user or password" in found["slurmstack:packages.archive.url"]
    assert "me:pw" not in str(found)


@pytest.mark.parametrize(
    ("path", "value", "where", "says"),
    [
        ("enroot.packages", [], "enroot.packages", "at least 1"),
        ("enroot.packages", [CAPS], "enroot.packages", "the package enroot among them"),
        ("enroot.packages.0.url", "https://x/enroot.deb", "enroot.packages[0].url", "NAME_VERSION"),
        (
            "enroot.packages.0.url",
            "https://x/enroot_3.4.1-1_amd64.deb",
            "enroot.packages[0]",
            "Enroot 3.5.0 or newer",
        ),
        ("enroot.conf", {"ENROOT_DATA_PATH": "/tmp/data"}, "enroot.conf", "each user's own"),
        ("enroot.conf", {"ENROOT_TEMP_PATH": "/x;reboot"}, "enroot.conf", "without shell"),
        ("enroot.conf", {"ENROOT_TEMP_PATH": "$(reboot)"}, "enroot.conf", "without shell"),
        ("enroot.conf", {"Enroot_x": "y"}, "enroot.conf", "'Enroot_x'"),
        ("pyxis.version", "0.19.0", "pyxis.version", "0.20.0 or newer"),
        ("pyxis.options", {"container_scope": "node"}, "pyxis.options.container_scope", "'global'"),
        ("pyxis.options", {"sbatch": True}, "pyxis.options.sbatch", "an unknown key"),
        ("pyxis.options", {"use_squashfuse": True}, "pyxis.options.use_squashfuse", "0.22"),
    ],
)
def test_mistakes_in_enroot_and_pyxis(path: str, value: Any, where: str, says: str) -> None:
    found = mistakes({"enrootPyxis": changed(CONTAINERS, path, value)})
    assert says in found[f"slurmstack:enrootPyxis.{where}"]


APPTAINER = {"url": "https://mirror.example/apptainer_1.4.2_amd64.deb", "sha256": SHA}
SUID = {"url": "https://mirror.example/apptainer-suid_1.4.2_amd64.deb", "sha256": SHA}


@pytest.mark.parametrize(
    ("apptainer", "where", "says"),
    [
        ({"conf": {"allow suid": False}}, "conf", '"allow setuid"'),
        ({"conf": {"mount hostsf": False}}, "conf", "'mount hostsf'"),
        ({"conf": {"mount hostfs": "maybe"}}, "conf", "mount hostfs: yes or no"),
        ({"conf": {"enable underlay": "try"}}, "conf", "yes, no, preferred"),
        ({"conf": {"sessiondir max size": -1}}, "conf", "sessiondir max size: a whole number"),
        ({"conf": {"mksquashfs mem": "1G\nmount hostfs = yes"}}, "conf", "a text of one line"),
        ({"conf": {"bind path": ["/a\nmount hostfs = yes"]}}, "conf", "texts without commas"),
        ({"conf": {"limit container owners": ["null"]}}, "conf", "null is taken as a name"),
        ({"packages": [APPTAINER, SUID]}, "packages", "no apptainer-suid"),
        (
            {"packages": [SUID], "conf": {"allow setuid": True}},
            "packages",
            "the package apptainer among them",
        ),
    ],
)
def test_mistakes_in_apptainer(apptainer: dict[str, Any], where: str, says: str) -> None:
    assert says in mistakes({"apptainer": apptainer})[f"slurmstack:apptainer.{where}"]
