"""Host keys: whose are shown and pinned where; and what `pulumi up` is asked."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import asyncssh
import pytest

from operations.cluster import Cluster
from operations.host_keys import NewKey, new_keys, pin, reached
from operations.refused import Refused
from operations.up import NotDone, up
from remote.host import Host, fingerprint
from remote.known_hosts import KnownHosts
from settings import Settings, parse
from tests.unit.settings.test_settings import lab

HOSTS = {
    "ctl": "10.73.0.10",
    "cn01": "10.73.0.21",
    "cn02": {"address": "10.73.0.22", "lost": True},
    "spare": "10.73.0.30",
}


def public(key: asyncssh.SSHKey) -> str:
    return key.export_public_key("openssh").decode().strip()


OLD, NEW = (public(asyncssh.generate_private_key("ssh-ed25519")) for _ in range(2))
SERVED = asyncssh.generate_private_key("ssh-ed25519")


def settings(**changes: object) -> Settings:
    return parse({**lab(), "hosts": HOSTS, **changes})


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="needs ssh-keygen")
def test_a_new_key_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    known = tmp_path / "known"
    other = f"10.73.0.10,ctl {OLD}\n"
    known.write_text(
        f"cn01 {OLD}\n10.73.0.21 {OLD}\n{other}[10.73.0.30]:2222 {OLD}\n10.73.0.30 {OLD}\n"
    )
    read = settings(ssh={"knownHosts": "known"})
    pin(
        [
            NewKey(Host("cn01", "10.73.0.21", OLD), f"{NEW} comment"),
            NewKey(Host("spare", "10.73.0.30", OLD, port=2222), NEW),
        ],
        read,
        tmp_path,
    )
    # What is served at another port of the same address is another server.
    assert known.read_text() == (
        f"{other}10.73.0.30 {OLD}\n10.73.0.21,cn01 {NEW}\n[10.73.0.30]:2222,spare {NEW}\n"
    )
    assert KnownHosts.read(known).key_for("spare", "10.73.0.30", 2222) == NEW


def test_a_key_of_the_settings_is_for_a_person_to_change(tmp_path: Path) -> None:
    typed = {**HOSTS, "cn01": {"address": "10.73.0.21", "hostKey": OLD}}
    (tmp_path / "known").write_text("")
    read = settings(hosts=typed, ssh={"knownHosts": "known"})
    with pytest.raises(Refused) as error:
        pin([NewKey(Host("cn01", "10.73.0.21", OLD), NEW)], read, tmp_path)
    assert str(error.value) == (
        "host keys stand in the settings (slurmstack:hosts.NAME.hostKey); correct there: "
        f"cn01: {NEW}"
    )
    assert (tmp_path / "known").read_text() == ""


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="needs ssh-keygen")
def test_a_first_key_makes_the_file(tmp_path: Path) -> None:
    change = NewKey(Host("cn01", "10.73.0.21", ""), NEW)
    pin([change], settings(ssh={"knownHosts": "known"}), tmp_path)
    assert (tmp_path / "known").read_text() == f"10.73.0.21,cn01 {NEW}\n"


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="needs ssh-keygen")
def test_a_file_that_ssh_does_not_understand_is_left_and_told(tmp_path: Path) -> None:
    known = tmp_path / "known"
    known.write_text(f"cn01 {OLD}\nnonsense\n")
    with pytest.raises(Refused, match="no key was pinned"):
        pin(
            [NewKey(Host("cn01", "10.73.0.21", OLD), NEW)],
            settings(ssh={"knownHosts": "known"}),
            tmp_path,
        )
    assert known.read_text() == f"cn01 {OLD}\nnonsense\n"
    assert [path.name for path in tmp_path.iterdir()] == ["known"]


@pytest.fixture
def port() -> Iterator[int]:
    """Of an SSH server on loopback that shows SERVED."""
    ready, ports = Event(), list[int]()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        server = await asyncssh.listen("127.0.0.1", 0, server_host_keys=[SERVED])
        ports.append(server.get_port())
        ready.set()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(serve())
        loop.run_forever()

    thread = Thread(target=run)
    thread.start()
    assert ready.wait(60)
    yield ports[0]
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_a_host_that_shows_another_key_is_told_with_both_fingerprints(port: int) -> None:
    behind = Host("far", "192.0.2.1", OLD, bastion=Host("gate", "192.0.2.2", OLD))
    same = Host("same", "127.0.0.1", public(SERVED), port=port)
    other = Host("other", "127.0.0.1", OLD, port=port)
    (change,) = new_keys([behind, same, other])
    assert str(change) == (
        f"other (127.0.0.1) shows the host key {fingerprint(public(SERVED))}; "
        f"pinned is {fingerprint(OLD)}"
    )


def test_hosts_that_show_no_key_are_all_named(port: int) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = closed.getsockname()[1]
        hosts = [Host(name, "127.0.0.1", OLD, port=nobody) for name in ("a", "b")]
        with pytest.raises(Refused) as error:
            new_keys([*hosts, Host("c", "127.0.0.1", OLD, port=port)])
    first, second = str(error.value).splitlines()
    assert first.startswith(f"a: host key: 127.0.0.1:{nobody} shows none (")
    assert "Connect call failed" in first
    assert first.endswith("); see that it is up and that sshd listens there")
    assert second.startswith("b: host key: ")


@pytest.mark.parametrize(("yes", "code"), [(False, 7), (True, 1), (True, 0)])
def test_pulumi_up_takes_these_resources_alone(
    yes: bool, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "pulumi"
    tool.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{tmp_path}/words\nexit {code}\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    failing = pytest.raises(NotDone, match=f"pulumi up ended with {code}")
    with failing if code else contextlib.nullcontext():
        up(Cluster(settings(), tmp_path, "lab"), yes, ["urn:a", "urn:b"])
    assert (tmp_path / "words").read_text().split() == [
        "up", "--stack", "lab", "--cwd", str(tmp_path), "--suppress-outputs",
        "--target", "urn:a", "--target", "urn:b",
        *(["--yes", "--skip-preview"] if yes else []),
    ]  # fmt: skip


def test_a_host_has_the_pinned_key_or_none(tmp_path: Path) -> None:
    (tmp_path / "known").write_text(f"10.73.0.21,cn01 {OLD}\n")
    read = settings(ssh={"knownHosts": "known"})
    known, unknown = reached(["cn01", "spare"], read, tmp_path)
    assert (known.host_key, unknown.host_key) == (OLD, "")
    assert "pinned is none" in str(NewKey(unknown, NEW))
    assert (known.user, known.port, known.bastion) == ("root", 22, None)
    nowhere = settings(ssh={"knownHosts": "not-made-yet"})
    (first,) = reached(["cn01"], nowhere, tmp_path)
    assert first.host_key == ""
    # What a person has typed for a host comes before what holds for all.
    typed = {"address": "10.73.0.21", "hostKey": NEW, "port": 2222, "user": "admin"}
    own = settings(hosts={**HOSTS, "cn01": typed}, ssh={"knownHosts": "known"})
    (host,) = reached(["cn01"], own, tmp_path)
    assert (host.host_key, host.port, host.user) == (NEW, 2222, "admin")
    behind = settings(ssh={"knownHosts": "known", "bastion": {"address": "10.0.0.1"}})
    # Nobody but the bastion reaches it.
    assert new_keys(reached(["cn01"], behind, tmp_path)) == []
