"""Finding the mirror that this machine's own apt sources name."""

import hashlib
import shutil
from pathlib import Path

import pytest

from lab.errors import LabError
from lab.sources import (
    FORMAT,
    Mirrors,
    find_mirrors,
    parse_index_targets,
    parse_one_line_sources,
    parse_override,
)
from lab.system import run

ONE_LINE = """\
deb [trusted=yes] {base}/debian bookworm main
deb [trusted=yes] {base}/other stable main
"""
DEB822 = """\
Types: deb
URIs: {base}/debian
Suites: bookworm
Components: main
Trusted: yes

Types: deb
URIs: {base}/other
Suites: stable
Components: main
Trusted: yes
"""


def targets(*rows: tuple[str, str, str, str]) -> str:
    return "\n".join("\t".join(("site", *row)) for row in rows)


def test_the_archive_and_its_security_updates_are_told_apart_by_their_labels() -> None:
    text = targets(
        ("http://packages.example/linux/debian/", "Someone", "Debian", "main"),
        ("http://mirror.example/debian-security/", "Debian", "Debian-Security", "main"),
        ("http://mirror.example/debian/", "Debian", "Debian", "main"),
        ("http://second.example/debian/", "Debian", "Debian", "main"),
    )
    assert parse_index_targets(text) == (
        "http://mirror.example/debian",
        "http://mirror.example/debian-security",
    )


def test_what_is_not_known_to_be_debian_is_not_taken() -> None:
    text = targets(
        ("http://archive.example/ubuntu/", "Ubuntu", "Ubuntu", "main"),
        ("http://mirror.example/debian/", "$(ORIGIN)", "$(LABEL)", "main"),
        ("http://mirror.example/debian/", "Debian", "Debian", "contrib"),
        ("cdrom://disc/", "Debian", "Debian", "main"),
    )
    assert parse_index_targets(text) == (None, None)


@pytest.mark.parametrize(("name", "text"), [("a.list", ONE_LINE), ("a.sources", DEB822)])
def test_apt_reads_both_formats_of_sources(tmp_path: Path, name: str, text: str) -> None:
    """Through the real apt, with repositories in a folder."""
    if shutil.which("apt-get") is None:
        pytest.skip("needs apt-get")
    architecture = run(["dpkg", "--print-architecture"]).stdout.strip()
    for repository, origin, suite in [
        ("debian", "Debian", "bookworm"),
        ("other", "Someone", "stable"),
    ]:
        release = tmp_path / repository / "dists" / suite
        packages = release / "main" / f"binary-{architecture}" / "Packages"
        packages.parent.mkdir(parents=True)
        packages.write_text(
            f"Package: nothing\nVersion: 1\nArchitecture: {architecture}\n"
            f"Filename: pool/nothing.deb\nSize: 1\nSHA256: {'0' * 64}\n\n"
        )
        digest = hashlib.sha256(packages.read_bytes()).hexdigest()
        (release / "Release").write_text(
            f"Origin: {origin}\nLabel: {origin}\nSuite: {suite}\nCodename: {suite}\n"
            f"Architectures: {architecture}\nComponents: main\n"
            "Date: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n"
            f" {digest} {packages.stat().st_size} {packages.relative_to(release)}\n"
        )
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (parts / name).write_text(text.format(base=f"file:{tmp_path}"))
    for folder in ("lists/partial", "cache/archives/partial"):
        (tmp_path / folder).mkdir(parents=True)
    options = [
        *("-o", "Dir::Etc::sourcelist=/dev/null", "-o", f"Dir::Etc::sourceparts={parts}"),
        *("-o", f"Dir::State::lists={tmp_path}/lists", "-o", f"Dir::Cache={tmp_path}/cache"),
        *("-o", "APT::Sandbox::User=root", "-o", "Acquire::Check-Date=false"),
    ]
    run(["apt-get", *options, "update"])
    answer = run(
        ["apt-get", *options, "indextargets", "--format", FORMAT, "Identifier: Packages"]
    ).stdout
    # The scheme alone keeps it from being taken: nginx stands in front of http(s) only.
    assert parse_index_targets(answer) == (None, None)
    assert parse_index_targets(answer.replace("file:", "http://mirror.example")) == (
        f"http://mirror.example{tmp_path}/debian",
        None,
    )


def test_mmdebstraps_own_sources_are_read() -> None:
    text = (
        "deb http://mirror.example/debian trixie main\n"
        "deb [signed-by=/a/b] http://mirror.example/debian trixie-updates main\n"
        "deb http://security.example/debian-security trixie-security main\n"
        "I: something else\n"
    )
    assert parse_one_line_sources(text) == (
        "http://mirror.example/debian",
        "http://security.example/debian-security",
    )


def test_a_mirror_can_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_MIRROR", "http://a.example/debian/")
    assert find_mirrors() == Mirrors("http://a.example/debian", "http://a.example/debian-security")
    assert parse_override("http://a.example/d, https://b.example/s") == Mirrors(
        "http://a.example/d", "https://b.example/s"
    )


@pytest.mark.parametrize("text", ["a.example", "http://a/,http://b/,http://c/", "http://a/,"])
def test_a_mirror_that_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(LabError, match="LAB_MIRROR"):
        parse_override(text)


def test_without_debian_sources_mmdebstraps_own_mirror_is_taken() -> None:
    """As on Ubuntu; nothing is downloaded."""
    if shutil.which("mmdebstrap") is None:
        pytest.skip("needs mmdebstrap")
    options = ["-o", "Dir::Etc::sourcelist=/dev/null", "-o", "Dir::Etc::sourceparts=/dev/null"]
    found = find_mirrors(options)
    assert found.archive.endswith("/debian")
    assert found.security.endswith("/debian-security")
