"""The mirror's configuration, judged by nginx itself where it is installed."""

import shutil
import subprocess
import sys
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


#: It starts another one in its place, as a daemon does, and ends; that one is told to end, too.
STARTS = """
import os, sys
read, write = os.pipe()
if os.fork():
    os.read(read, 1)
    print("begun", flush=True)
    sys.stdin.read()
os.setsid()
os.close(1)
os.write(write, b".")
sys.stdin.read()
"""


def test_one_that_is_being_started_is_ended_too(tmp_path: Path) -> None:
    """Its command was killed; it holds no log open yet, and its arguments tell whose it is."""
    lab, other = Lab("lab", tmp_path, 0), Lab("other", tmp_path, 1)
    config = lab.folder / "mirror" / "nginx.conf"
    program = tmp_path / "starts.py"
    program.write_text(STARTS)
    words = ["nginx", str(program), "-c", str(config)]
    with subprocess.Popen(
        words, executable=sys.executable, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as started:
        assert started.stdout
        assert started.stdout.readline() == b"begun\n"
        assert not mirror.down(other)
        assert len(mirror._processes(lab)) == 2
        assert mirror.down(lab)
        assert mirror._processes(lab) == []
        assert not mirror.down(lab)
