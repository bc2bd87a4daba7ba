"""Which engine is chosen, and that nobody waits for an installer twice."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine import choose

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


def test_wish_that_is_none(venv: Path) -> None:
    assert choose.choose(venv, "both", WANTED)[1] == 1
    assert not (venv / "bin" / "pulumi").exists()


def test_the_sdk_has_the_installer_that_is_called() -> None:
    compile(choose._INSTALL, "install", "exec")
    code = "import pulumi.automation as a; a.PulumiCommand.install"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
