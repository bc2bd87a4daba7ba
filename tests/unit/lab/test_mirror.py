"""The mirror's configuration, judged by nginx itself where it is installed."""

import shutil
from pathlib import Path

import pytest

from lab import mirror
from lab.names import Lab
from lab.sources import Mirrors
from lab.system import SEARCH, run

MIRRORS = Mirrors("http://localhost:1/debian", "https://user:p%40ss@localhost/debian-security")


def test_each_archive_has_its_upstream_and_its_password_stays_off_the_address(
    tmp_path: Path,
) -> None:
    text = mirror.render(Lab("lab", tmp_path, 0), MIRRORS, tmp_path / "cache")
    assert "server localhost:1;" in text
    assert "server localhost:443;" in text
    assert "proxy_pass http://debian_mirror/debian/;" in text
    assert "proxy_pass https://debian_security_mirror/debian-security/;" in text
    assert "listen 10.73.0.1:8073;" in text
    assert 'Authorization "Basic dXNlcjpwQHNz"' in text  # user:p@ss
    assert "p%40ss" not in text


def test_a_mirror_that_cannot_be_resolved_leaves_the_cache_in_use(tmp_path: Path) -> None:
    mirrors = Mirrors("http://nowhere.invalid/debian", "http://nowhere.invalid/debian-security")
    text = mirror.render(Lab("lab", tmp_path, 0), mirrors, tmp_path)
    assert "server 127.0.0.1:9;" in text
    assert "proxy_set_header Host nowhere.invalid;" in text


def test_nginx_accepts_the_configuration(tmp_path: Path) -> None:
    if shutil.which("nginx", path=SEARCH) is None:
        pytest.skip("needs nginx")
    lab = Lab("lab", tmp_path, 0)
    folder = lab.folder / "mirror"
    (folder / "tmp").mkdir(parents=True)
    (tmp_path / "cache").mkdir()
    config = folder / "nginx.conf"
    # The bridge's address is not this machine's yet, and `nginx -t` binds.
    text = mirror.render(lab, MIRRORS, tmp_path / "cache").replace(lab.gateway, "127.0.0.1")
    config.write_text(text)
    run(["nginx", "-t", "-e", folder / "error.log", "-p", folder, "-c", config])
