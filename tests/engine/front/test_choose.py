"""Which engine is chosen, and that nobody waits for an installer twice."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from engine import choose
from tests.engine.front.scenarios import Sandbox

WANTED = "3.260.0"


def command(folder: Path, version: str, host: bool = True) -> Path:
    """A stand-in that answers `version` as Pulumi does."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "pulumi"
    path.write_text(f"#!/bin/sh\necho v{version}\n")
    path.chmod(0o755)
    if host:
        (folder / choose.HOST).write_text("#!/bin/sh\n")
        (folder / choose.HOST).chmod(0o755)
    return path


@pytest.fixture
def venv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty environment, a PATH without Pulumi, and an installer that fails at once."""
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/usr/bin:/bin")
    monkeypatch.setattr(choose, "_INSTALL", "raise SystemExit('no way out')")
    monkeypatch.setattr(choose.install, "__defaults__", (60, "raise SystemExit('no way out')"))
    return tmp_path / "venv"


def chosen(venv: Path) -> Path:
    return (venv / "bin" / "pulumi").resolve()


def embedded(venv: Path) -> bool:
    done = subprocess.run([venv / "bin" / "pulumi", "about"], capture_output=True, text=True,
                          check=False, cwd=venv)  # fmt: skip
    return "slurmstack embedded engine" in done.stdout.partition("\n")[0]


def test_the_one_on_path(venv: Path) -> None:
    path = command(venv.parent / "path", "3.261.1")
    for _ in range(2):
        line, code = choose.choose(venv, "", WANTED)
        assert (code, chosen(venv)) == (0, path)
        assert line.startswith("engine: Pulumi 3.261.1 (on PATH: ")


@pytest.mark.parametrize(
    ("version", "host", "why"),
    [("3.259.9", True, "too old"), ("4.0.0", True, "another major"), ("3.260.0", False, "no host"),
     ("x", True, "no version")],
)  # fmt: skip
def test_one_that_will_not_do(version: str, host: bool, why: str, venv: Path) -> None:
    command(venv.parent / "path", version, host)
    line, code = choose.choose(venv, "", WANTED)
    assert (code, embedded(venv)) == (0, True), why
    assert "its installer failed: no way out" in line
    line, code = choose.choose(venv, "cli", WANTED)
    assert code == 1
    assert "no Pulumi 3.260.0 or newer on PATH, and its installer failed" in line


def test_failure_is_remembered_until_cli_is_asked_for(
    venv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = venv / "tries"
    program = f"open({str(tries)!r}, 'a').write('x'); raise SystemExit('no way out')"
    monkeypatch.setattr(choose.install, "__defaults__", (60, program))
    lines = [choose.choose(venv, "", WANTED)[0] for _ in range(3)]
    assert len(set(lines)) == 1
    assert tries.read_text() == "x"
    assert choose.choose(venv, "cli", WANTED)[1] == 1
    assert tries.read_text() == "xx"
    path = command(venv.parent / "path", WANTED)
    choose.choose(venv, "", WANTED)
    assert chosen(venv) == path, "a command that came later is found"
    choose.choose(venv, "embedded", WANTED)
    assert embedded(venv)


def test_installer_that_works(venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "import os, sys; d = sys.argv[1] + '/bin'; os.makedirs(d)\n"
        f"for n in ('pulumi', {choose.HOST!r}):\n"
        "  open(f'{d}/{n}', 'w').write('#!/bin/sh\\necho v3.260.0\\n'); os.chmod(f'{d}/{n}', 0o755)"
    )
    monkeypatch.setattr(choose.install, "__defaults__", (60, program))
    for _ in range(2):
        line, code = choose.choose(venv, "", WANTED)
        assert (code, chosen(venv)) == (0, venv / "pulumi-3.260.0" / "bin" / "pulumi")
        assert "fetched by the SDK's installer" in line


def test_installer_that_hangs_is_ended_with_all_it_started(venv: Path) -> None:
    marker = venv / "pid"
    program = (
        "import subprocess, sys\n"
        "p = subprocess.Popen(['sleep', '45'])\n"
        f"open({str(marker)!r}, 'w').write(str(p.pid))\n"
        "p.wait()"
    )
    started = time.monotonic()
    assert "did not finish within 2 s" in choose.install(venv / "x", 2, program)
    # It is killed, and gone as soon as the kernel comes to it: long before its own end.
    while is_running(marker.read_text()):
        assert time.monotonic() - started < 40
        time.sleep(0.01)


def is_running(pid: str) -> bool:
    try:
        return (Path("/proc") / pid / "stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def site(venv: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site's folder with a release and a plugin, and the settings that name them."""
    folder = venv.parent / "site"
    command(folder / "pulumi", "3.260.0").write_text(
        '#!/bin/sh\n[ "$1" = version ] && exec echo v3.260.0\n[ "$*" = '
        '"plugin install resource command v1.2.1 --file $7" ] && tar tzf "$7" >/dev/null &&\n'
        'mkdir -p "$PULUMI_HOME/plugins/resource-command-v1.2.1"\n'
    )
    (folder / "pulumi-resource-command").write_text("a plugin")
    settings = 'source = "SOURCE"\n[sha256]\n'.replace("SOURCE", str(folder))
    for name, content in (RELEASE, "pulumi"), (PLUGIN, "pulumi-resource-command"):
        settings += packed(folder, name, folder / content)
    (venv.parent / "engine.toml").write_text(settings)
    monkeypatch.setattr(choose, "SETTINGS", venv.parent / "engine.toml")
    monkeypatch.setenv("PULUMI_HOME", str(venv.parent / "home"))
    return folder


RELEASE = "pulumi-v3.260.0-linux-x64.tar.gz"
PLUGIN = "pulumi-resource-command-v1.2.1-linux-amd64.tar.gz"


def packed(folder: Path, name: str, *contents: Path) -> str:
    """Make an archive; the line of the settings that names it."""
    with tarfile.open(folder / name, "w:gz", compresslevel=0) as archive:
        for content in contents:
            archive.add(content, content.name)
    return f'"{name}" = "{hashlib.sha256((folder / name).read_bytes()).hexdigest()}"\n'


def test_release_of_the_site_goes_first(venv: Path, site: Path) -> None:
    command(venv.parent / "path", "3.261.1")
    for _ in range(2):
        line, code = choose.choose(venv, "", WANTED)
        assert (code, "the site's release, engine.toml" in line) == (0, True), line
        assert chosen(venv).parent.parent.parent == venv
        assert [p.name for p in (venv.parent / "home" / "plugins").iterdir()] == [
            "resource-command-v1.2.1"
        ]
        for archive in site.glob("*.gz"):
            archive.unlink()  # what is installed is not asked for again
    choose.choose(venv, "embedded", WANTED)
    assert embedded(venv)


def test_release_from_a_mirror(venv: Path, site: Path) -> None:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        settings = choose.SETTINGS.read_text()
        choose.SETTINGS.write_text(settings.replace(str(site), f"{url}/none"))
        line, code = choose.choose(venv, "", WANTED)
        assert (code, "not found" in line) == (1, True), line
        choose.SETTINGS.write_text(settings.replace(str(site), url))
        line, code = choose.choose(venv, "", WANTED)
        assert (code, "the site's release" in line) == (0, True), line
        server.shutdown()


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('" = "', '" = "0', "sha256 is another"),
        ("source", "sauce", "expected `source`"),
        (RELEASE, PLUGIN.replace("command", "other"), "expected `source`"),
        ("[sha256]", "[sha256", "expected `source`"),
        ("site", "nowhere", "No such file"),
    ],
)
def test_release_that_cannot_be_had(
    old: str, new: str, reason: str, venv: Path, site: Path
) -> None:
    """Nothing is put in place, and no other engine chosen."""
    command(venv.parent / "path", WANTED)
    choose.SETTINGS.write_text(choose.SETTINGS.read_text().replace(old, new))
    line, code = choose.choose(venv, "", WANTED)
    assert (code, reason in line) == (1, True), line
    assert not (venv / "bin" / "pulumi").exists()
    assert [p.name for p in venv.iterdir()] == ["bin"]
    assert not (venv.parent / "home").exists()


def test_real_release(real: Path, venv: Path, site: Path, tmp_path: Path) -> None:
    names = ("pulumi", "pulumi-language-python", "pulumi-language-python-exec")
    choose.SETTINGS.write_text(
        f'source = "{site}"\n[sha256]\n'
        + packed(site, RELEASE, *(real.parent / name for name in names))
        + packed(site, PLUGIN, real.parent / "pulumi-resource-command")
    )
    line, code = choose.choose(venv, "", WANTED)
    assert code == 0, line
    sandbox = Sandbox(tmp_path / "sandbox", chosen(venv))
    sandbox.env["PULUMI_HOME"] = str(venv.parent / "home")
    (sandbox.project / "__main__.py").write_text(
        "from pulumi_command import local\nlocal.Command('a', create='true')\n"
    )
    assert sandbox.run("stack", "init", "dev").code == 0
    done = sandbox.run("up", "-yf")
    assert (done.code, "2 created" in done.out) == (0, True), done.out + done.err


def test_wish_that_is_none(venv: Path) -> None:
    assert choose.choose(venv, "both", WANTED)[1] == 1
    assert not (venv / "bin" / "pulumi").exists()


def test_the_sdk_has_the_installer_that_is_called() -> None:
    compile(choose._INSTALL, "install", "exec")
    code = "import pulumi.automation as a; a.PulumiCommand.install"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
