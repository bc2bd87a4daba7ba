"""Contact with real SSH servers on loopback, and a real agent."""

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest

from remote import contact
from remote.contact import (
    ContactError,
    Reply,
    follow_on_hosts,
    run_on_hosts,
    scan_host_key,
    wait_for,
)
from remote.host import Host, fingerprint

pytestmark = pytest.mark.skipif(not shutil.which("ssh-agent"), reason="needs ssh-agent")


def public(key: asyncssh.SSHKey) -> str:
    return key.export_public_key("openssh").decode().strip()


HOST_KEY = asyncssh.generate_private_key("ssh-ed25519")
OTHER_KEY = asyncssh.generate_private_key("ssh-ed25519")
ECDSA_KEY = asyncssh.generate_private_key("ecdsa-sha2-nistp256")
USER_KEY = asyncssh.generate_private_key("ssh-ed25519")


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[str]:
    """An ssh-agent that holds USER_KEY."""
    path = str(tmp_path / "agent")
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)

    async def add() -> None:
        # The socket's file is there a moment before the agent listens.
        async with asyncio.timeout(60):
            while True:
                assert process.poll() is None
                with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                    async with asyncssh.connect_agent(path) as client:
                        await client.add_keys([USER_KEY])
                        return
                await asyncio.sleep(0.01)

    asyncio.run(add())
    yield path
    process.terminate()
    process.wait()


class Server(asyncssh.SSHServer):
    def __init__(self, served: "Served") -> None:
        self.served = served

    def connection_made(self, _: asyncssh.SSHServerConnection) -> None:
        self.served.connections += 1

    def connection_lost(self, _: Exception | None) -> None:
        self.served.connections -= 1

    def begin_auth(self, username: str) -> bool:
        self.served.users.append(username)
        return True

    def connection_requested(self, *_: object) -> bool:
        return True  # a bastion may forward anywhere (only loopback is asked for)


class Served:
    """What a test server saw: scripts, who logged in, and what was open at once."""

    def __init__(self) -> None:
        self.scripts: list[str] = []
        self.users: list[str] = []
        self.connections = 0
        self.open = 0
        self.most = 0

    async def session(self, process: "asyncssh.SSHServerProcess[str]") -> None:
        self.open += 1
        self.most = max(self.most, self.open)
        script = await process.stdin.read()
        self.scripts.append(script)
        assert process.command == "sh -s"
        child = await asyncio.create_subprocess_exec("sh", "-s", stdin=-1, stdout=-1, stderr=-1)
        try:
            stdout, stderr = await child.communicate(script.encode())
        finally:  # cancelled when the test ends before the script does
            if child.returncode is None:
                child.kill()
                await child.communicate()
        process.stdout.write(stdout.decode())
        process.stderr.write(stderr.decode())
        self.open -= 1
        process.exit(child.returncode or 0)


@asynccontextmanager
async def serve(
    key: asyncssh.SSHKey = HOST_KEY,
    user_key: asyncssh.SSHKey = USER_KEY,
    session: "Callable[[asyncssh.SSHServerProcess[str]], object] | None" = None,
) -> AsyncIterator[tuple[Host, Served]]:
    served = Served()
    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_factory=lambda: Server(served),
        server_host_keys=[key],
        authorized_client_keys=asyncssh.import_authorized_keys(public(user_key)),
        process_factory=session or served.session,
    )
    try:
        yield Host("cn01", "127.0.0.1", public(HOST_KEY), port=server.get_port()), served
    finally:
        server.close()
        await server.wait_closed()


async def ask(host: Host, agent: str, script: str = "hostname") -> ContactError:
    (answer,) = (await run_on_hosts([host], script, agent_path=agent)).values()
    assert isinstance(answer, ContactError)
    return answer


async def test_a_shell_that_ends_before_it_is_fed_is_no_broken_connection(agent: str) -> None:
    """As /usr/sbin/nologin does: its words are what was found."""

    def session(process: "asyncssh.SSHServerProcess[str]") -> None:
        process.stdout.write("not available\n")
        process.exit(1)

    async with serve(session=session) as (host, _):
        error = await ask(host, agent)
    assert (error.step, "ends in 'not available'" in error.found) == ("run", True)


async def test_each_host_may_have_a_script_of_its_own(agent: str) -> None:
    async with serve() as (host, served):
        hosts = [replace(host, name=name, user="admin") for name in ("cn01", "cn02")]
        replies = await run_on_hosts(hosts, lambda it: f"echo {it.name}", agent_path=agent)
    assert replies == {name: Reply(f"{name}\n", "", 0) for name in ("cn01", "cn02")}
    assert served.users == ["admin"] * 2


async def test_a_connection_that_breaks_is_told_as_such(agent: str) -> None:
    def session(process: "asyncssh.SSHServerProcess[str]") -> None:
        process.channel.get_connection().abort()

    async with serve(session=session) as (host, _):
        error = await ask(host, agent)
    assert str(error) == "cn01: run: connection broke before it had answered; run again"


async def shell(process: "asyncssh.SSHServerProcess[str]") -> None:
    """Runs the command that it was given, line by line."""
    child = await asyncio.create_subprocess_shell(str(process.command), stdout=-1)
    assert child.stdout is not None
    async for line in child.stdout:
        process.stdout.write(line.decode())
    process.exit(await child.wait())


async def test_lines_are_shown_as_they_come(agent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", agent)
    shown: list[tuple[str, str]] = []
    async with serve(session=shell) as (host, _):
        hosts = [replace(host, name=name) for name in ("cn01", "cn02")]
        script = "echo \"it's\"; echo ' two '"
        await follow_on_hosts(hosts, script, lambda it, line: shown.append((it.name, line)))
    assert sorted(shown) == [
        (name, line) for name in ("cn01", "cn02") for line in (" two ", "it's")
    ]


async def test_what_is_followed_and_breaks_is_told(
    agent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", agent)

    def session(process: "asyncssh.SSHServerProcess[str]") -> None:
        process.channel.get_connection().abort()

    async with serve(session=session) as (host, _):
        with pytest.raises(ExceptionGroup) as several:
            await follow_on_hosts([host], "true", lambda *_: None)
    (error,) = several.value.exceptions
    assert isinstance(error, ContactError)
    assert error.found.startswith("connection broke")


async def test_script_runs_on_all_and_one_failure_hides_nothing(agent: str) -> None:
    async with serve() as (host, served):
        hosts = [replace(host, name=f"cn{n:02}") for n in range(12)]
        free = socket.socket()
        free.bind(("127.0.0.1", 0))
        dead = replace(host, name="dead", port=free.getsockname()[1])
        replies = await run_on_hosts(
            [*hosts, dead], "echo out; echo err >&2; exit 3", connections=4, agent_path=agent
        )
        free.close()
    assert list(replies) == [*(h.name for h in hosts), "dead"]
    for one in hosts:
        assert replies[one.name] == Reply("out\n", "err\n", 3)
    error = replies["dead"]
    assert isinstance(error, ContactError)
    assert str(error).startswith(f"dead: connect: 127.0.0.1:{dead.port}: ")
    assert 1 < served.most <= 4


async def test_other_host_key_is_refused_before_anything_is_sent(agent: str) -> None:
    async with serve(key=OTHER_KEY) as (host, served):
        error = await ask(host, agent)
        assert str(error) == (
            f"cn01: host key: 127.0.0.1:{host.port} shows {fingerprint(public(OTHER_KEY))}, "
            f"expected {fingerprint(public(HOST_KEY))}; nothing was sent; if the machine was "
            "reinstalled, compare with its console and replace the pinned key"
        )
        assert served.scripts == []


async def test_host_key_of_another_kind(agent: str) -> None:
    async with serve(key=ECDSA_KEY) as (host, served):
        error = await ask(host, agent)
        assert error.step == "host key"
        assert f"shows {fingerprint(public(ECDSA_KEY))}, expected" in str(error)
        assert served.scripts == []


async def test_an_rsa_key_is_pinned_by_what_openssh_still_signs_with(agent: str) -> None:
    """Not by SHA-1, which pulumi-command would offer (remote/known_hosts.py)."""
    key = asyncssh.generate_private_key("ssh-rsa", key_size=2048)
    async with serve(key=key) as (host, _):
        pinned = replace(host, host_key=public(key))
        assert await run_on_hosts([pinned], "echo it", agent_path=agent) == {
            "cn01": Reply("it\n", "", 0)
        }


async def test_a_pinned_key_that_is_none(agent: str) -> None:
    async with serve() as (host, served):
        error = await ask(replace(host, host_key="ssh-ed25519 nonsense"), agent)
    assert (error.step, error.remedy) == ("host key", "correct it")
    assert served.users == []


async def test_something_silent_is_not_waited_for_for_ever(
    agent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contact, "CONNECT_SECONDS", 0.3)
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    error = await ask(Host("cn01", "127.0.0.1", public(HOST_KEY), port=port), agent)
    assert str(error).startswith(f"cn01: connect: 127.0.0.1:{port}: no answer within 0.3 s; ")
    server.close()


async def test_refused_user_key(agent: str) -> None:
    async with serve(user_key=OTHER_KEY) as (host, served):
        error = await ask(host, agent)
        assert error.step == "log in"
        assert fingerprint(public(USER_KEY)) in str(error)
        assert "user root" in str(error)
        assert served.scripts == []


@pytest.mark.parametrize("path", ["/nonexistent/agent", ""])
async def test_no_agent(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    async with serve() as (host, _):
        error = await ask(host, path)
        assert error.step == "log in"
        assert "no SSH agent" in str(error)
        assert "ssh-add" in str(error)


async def test_empty_agent(agent: str) -> None:
    async with asyncssh.connect_agent(agent) as client:
        await client.remove_all()
    async with serve() as (host, _):
        assert "the SSH agent holds no key" in str(await ask(host, agent))


async def test_script_that_hangs(agent: str) -> None:
    async with serve() as (host, _):
        (answer,) = (
            await run_on_hosts([host], "exec sleep 3", seconds=0.3, agent_path=agent)
        ).values()
        assert str(answer) == "cn01: run: not done after 0.3 s; see what hangs on the node"


async def test_through_a_bastion(agent: str) -> None:
    async with serve() as (host, served), serve(key=OTHER_KEY) as (gate, through):
        bastion = replace(gate, name="gate", host_key=public(OTHER_KEY))
        hosts = [replace(host, name=f"cn{n}", bastion=bastion) for n in range(3)]
        replies = await run_on_hosts(hosts, "echo hello", agent_path=agent)
        assert all(reply == Reply("hello\n", "", 0) for reply in replies.values())
        assert len(served.scripts) == 3
        # One connection for all, which ends with the last of them.
        assert len(through.users) == 1
        async with asyncio.timeout(60):
            while through.connections or served.connections:
                await asyncio.sleep(0.01)
        wrong = replace(host, bastion=replace(bastion, host_key=public(HOST_KEY)))
        error = await ask(wrong, agent)
        assert str(error).startswith("cn01: bastion gate: host key: ")


async def test_scan() -> None:
    async with serve(key=OTHER_KEY) as (host, served):
        assert await scan_host_key("127.0.0.1", host.port) == public(OTHER_KEY)
        assert served.scripts == []


async def test_scan_of_something_silent_is_bounded() -> None:
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(TimeoutError):
        await scan_host_key("127.0.0.1", port, seconds=0.3)
    server.close()


async def test_wait_for_inside_a_running_loop() -> None:
    async def answer() -> int:
        await asyncio.sleep(0)
        return os.getpid()

    async def problem() -> None:
        raise KeyError("x")

    assert wait_for(answer()) == os.getpid()
    with pytest.raises(KeyError):
        wait_for(problem())
