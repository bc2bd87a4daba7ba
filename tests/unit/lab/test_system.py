"""Commands with an end, processes found by what they are."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import keys, mirror
from lab.errors import LabError
from lab.names import Lab
from lab.system import is_alive, processes, run, wait_for


def test_a_failing_command_says_what_ran_and_what_it_printed() -> None:
    with pytest.raises(LabError, match=r"`sh -c 'echo it broke >&2; exit 3'` failed.* 3: it broke"):
        run(["sh", "-c", "echo it broke >&2; exit 3"])


def test_a_command_that_does_not_end_is_ended() -> None:
    with pytest.raises(LabError, match="did not end within 0 s"):
        run(["sleep", "60"], timeout=0.2)


def test_a_missing_tool_is_named() -> None:
    with pytest.raises(LabError, match="no-such-tool is not installed"):
        run(["no-such-tool"])


def test_a_log_takes_the_output_and_the_error_names_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(LabError, match=str(log)):
        run(["sh", "-c", "echo one; echo two >&2; exit 1"], log=log)
    assert log.read_text() == "one\ntwo\n"


def test_waiting_ends_with_what_was_waited_for() -> None:
    with pytest.raises(LabError, match="the moon did not rise within 0 s"):
        wait_for(lambda: False, seconds=0.1, what="the moon did not rise")


def test_a_process_is_alive_until_it_ends_even_before_it_is_collected() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert is_alive(child.pid)
    # The kernel shows the words of a process a moment after it has begun.
    wait_for(
        lambda: any(pid == child.pid and words[2:] == ["input()"] for pid, words in processes()),
        seconds=60,
        what="the child is not among the processes",
    )
    assert child.stdin is not None
    child.stdin.close()
    wait_for(lambda: not is_alive(child.pid), seconds=60, what="the child did not end")
    assert Path(f"/proc/{child.pid}").exists()  # a zombie until the next line
    child.wait()


def test_taking_down_ends_no_process_that_only_looks_alike(tmp_path: Path) -> None:
    """As after a reboot, when another process has the number or a like name."""
    lab = Lab("lab", tmp_path, 0)
    lab.folder.mkdir(parents=True)
    other = ["ssh-agent", "-D", "-a", f"{lab.agent_socket}.other"]
    child = subprocess.Popen(other, stdout=subprocess.DEVNULL)
    lookalike = subprocess.Popen(["sleep", "60"], env={**os.environ, "NOTE": str(lab.folder)})
    try:
        assert keys.agent_down(lab) is False
        assert mirror.down(lab) is False
        assert child.poll() is None
        assert lookalike.poll() is None
    finally:
        for process in (child, lookalike):
            process.terminate()
            process.wait()
        Path(other[-1]).unlink(missing_ok=True)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """`tmp_path` can be too long for a socket."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def test_an_agent_is_started_once_holds_the_key_and_is_ended(short_path: Path) -> None:
    lab = Lab("lab", short_path, 0)
    lab.folder.mkdir(parents=True)
    keys.make_user_key(lab)
    assert lab.key.stat().st_mode & 0o777 == 0o600
    try:
        assert keys.agent_up(lab) is True
        assert keys.agent_up(lab) is False
        env = {"SSH_AUTH_SOCK": str(lab.agent_socket)}
        run(["ssh-add", "-D"], env=env)
        assert keys.agent_up(lab) is True  # the key was missing
        assert keys.public(lab.key).split()[1] in run(["ssh-add", "-L"], env=env).stdout
    finally:
        assert keys.agent_down(lab) is True
    assert not lab.agent_socket.exists()
    assert keys.agent_down(lab) is False


def test_a_passphrase_is_made_once_for_root_alone(tmp_path: Path) -> None:
    lab = Lab("lab", tmp_path, 0)
    keys.make_passphrase(lab)
    first = lab.passphrase.read_text()
    keys.make_passphrase(lab)
    assert lab.passphrase.read_text() == first
    assert len(first.strip()) >= 32
    assert lab.passphrase.stat().st_mode & 0o777 == 0o600


def test_known_hosts_names_every_node_with_its_own_key(tmp_path: Path) -> None:
    lab = Lab("lab", tmp_path, 0)
    keys.make_user_key(lab)
    for node in ("cn01", "ctl"):
        keys.make_host_key(lab, node)
    keys.write_ssh_files(lab)
    lines = lab.known_hosts.read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["10.73.0.10,ctl", "10.73.0.21,cn01"]
    assert len({line.split()[2] for line in lines}) == 2
    found = run(["ssh-keygen", "-F", "10.73.0.21", "-f", lab.known_hosts]).stdout
    public = keys.public(lab.node_folder("cn01") / "ssh_host_ed25519_key")
    assert public.split()[1] in found
    options = run(["ssh", "-G", "-F", lab.ssh_config, "cn01"]).stdout
    assert "hostname 10.73.0.21" in options
    assert "stricthostkeychecking true" in options
