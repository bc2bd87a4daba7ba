"""The command provider: connections, what is stored, what an error says and never says."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncssh
import pytest

from engine.providers.ssh import Outcome as Ended
from engine.providers.ssh import Pool, SshError
from engine.state import SECRET, SIGNATURE
from tests.engine.conftest import Outcome, SshServer, Stack, local, remote


@pytest.fixture
def fast(server: SshServer) -> dict[str, Any]:
    return server.connection | {"dialErrorLimit": 0}


async def test_connection_is_secret_and_has_its_defaults(stack: Stack, server: SshServer) -> None:
    stack.config["resources"] = [remote("a")]
    stack.secrets = frozenset({"connection"})
    done = await stack.up()
    stored = stack.resources()["a"]
    text = str(stored["inputs"]["connection"]["ciphertext"])[::-1]
    assert '"dialErrorLimit":10' in text
    assert '"perDialTimeout":15' in text
    assert '"user":"admin"' in text
    assert (
        f'{{"{SIGNATURE}":"{SECRET}","ciphertext":"'
        in text  # within it, readable, as Pulumi has it
    )
    key = server.connection["privateKey"].splitlines()[1]
    assert key not in done.text
    assert key not in str(stack.document)


async def test_one_connection_carries_all_commands_of_a_host(
    stack: Stack, server: SshServer
) -> None:
    stack.config["resources"] = [remote(f"r{i}") for i in range(5)]
    await stack.up()
    assert server.connections == 1
    assert len(server.commands) == 5


async def test_stdin_environment_and_previous_output(stack: Stack, server: SshServer) -> None:
    command = 'cat; echo "$GREETING $PULUMI_COMMAND_STDOUT"'
    stack.config["resources"] = [remote("a", command, stdin="in\n", environment={"GREETING": "hi"})]
    await stack.up()
    assert stack.resources()["a"]["outputs"]["stdout"] == "in\nhi "
    stack.config["resources"] = [remote("a", command, stdin="on\n", environment={"GREETING": "yo"})]
    await stack.up()
    assert stack.resources()["a"]["outputs"]["stdout"] == "on\nyo in\nhi "


ENDINGS = {
    "at once": ("exit 3", 3),
    "after closing stdin": ("exec <&-; echo closed", 0),
    "after reading all": ("test $(wc -c) -eq $SIZE", 0),
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("size", [0, 1_000_000])
async def test_a_command_that_has_ended_has_the_status_that_the_server_reports(
    server: SshServer, ending: str, size: int
) -> None:
    """Whatever became of its stdin: each of these ends while the others are being fed."""
    command, expected = ENDINGS[ending]
    async with _pool() as run:
        ended = await asyncio.gather(
            *(run(server.connection, f"SIZE={size}; {command}", "x" * size) for _ in range(8))
        )
    assert [ran.status for ran in ended] == [expected] * 8
    assert len(server.commands) == 8


class AtOnce(asyncssh.SSHServerSession[bytes]):
    """A command whose start, output, status and end come in one packet with those before them;
    ``dies``: the status is the last that the server says, the channel is never closed."""

    def __init__(self, dies: bool = False) -> None:
        self._dies = dies

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._channel = chan

    def exec_requested(self, command: str) -> bool:
        return True

    def session_started(self) -> None:
        self._channel.write(b"out")
        if self._dies:
            self._channel._send_request(b"exit-status", asyncssh.packet.UInt32(3))
            self._channel.get_extra_info("socket").shutdown(socket.SHUT_WR)
        else:
            self._channel.exit(3)


@pytest.mark.parametrize("dies", [False, True])
async def test_a_command_that_ends_before_it_is_fed_keeps_status_and_output(
    server: SshServer, dies: bool
) -> None:
    server.stop()
    server.session = lambda _: AtOnce(dies)
    server.start()
    async with _pool() as run:
        for size in (0, 1, 1_000_000):
            ran = await run(server.connection, "x", "x" * size)
            assert (ran.status, ran.stdout) == (3, b"out")


async def test_a_command_refused_for_lack_of_sessions_gets_a_connection_of_its_own(
    server: SshServer,
) -> None:
    """OpenSSH's MaxSessions, which also counts a session that has just ended."""

    def only_elsewhere(connection: int) -> AtOnce:
        if connection == 1:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "open failed")
        return AtOnce()

    server.stop()
    server.session = only_elsewhere
    server.start()
    async with _pool() as run:
        assert (await run(server.connection, "x")).stdout == b"out"
    assert server.connections == 2


async def test_environment_that_the_server_refuses_is_an_error(
    stack: Stack, server: SshServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse = lambda *_: False  # noqa: E731
    monkeypatch.setattr(asyncssh.channel.SSHServerChannel, "_process_env_request", refuse)
    stack.config["resources"] = [remote("previous")]
    await stack.up()
    stack.config["resources"] = [remote("previous", "echo $PULUMI_COMMAND_STDOUT.")]
    warned = await stack.up()
    assert stack.resources()["previous"]["outputs"]["stdout"] == "."
    assert any("Unable to set 'PULUMI_COMMAND_STDOUT'" in line for line in _progress(warned))
    stack.config["resources"] = [remote("a", environment={"GREETING": "hi"})]
    done = await stack.up()
    assert done.result.result == "failed"
    assert 'could not set environment variable "GREETING"' in done.failures[0]
    assert len(server.commands) == 2


async def test_error_quotes_command_and_output_but_not_stdin_or_environment(
    stack: Stack, server: SshServer
) -> None:
    stack.config["resources"] = [
        remote(
            *("a", "cat > got; echo out; echo err >&2; exit 3"),
            stdin="${secret:s3cret-stdin}",
            environment={"PASSWORD": "${secret:s3cret-env}"},
        )
    ]
    stack.secrets = frozenset({"resources"})
    done = await stack.up()
    assert (server.folder / "got").read_text() == "s3cret-stdin"
    message = done.failures[0]
    assert message.startswith(
        'Process exited with status 3: running "cat > got; echo out; echo err >&2; exit 3":\n'
    )
    assert "out\n" in message
    assert "err\n" in message
    assert "s3cret" not in done.text
    assert "a" not in stack.resources()
    assert not stack.document["resources"][-1].get("initErrors")  # type: ignore[index]


async def test_output_is_shown_as_far_as_logging_says(stack: Stack) -> None:
    both = "echo to-out; echo to-err >&2"
    stack.config["resources"] = [
        *(remote(f"r-{how}", both, logging=how) for how in ("stdout", "stderr", "none")),
        local("r-local", both),
    ]
    done = await stack.up()
    shown = {
        (d["urn"].rsplit("::", 1)[1], d["message"].strip())
        for e in done.events
        if (d := e.get("diagnosticEvent", {})).get("ephemeral")
    }
    assert shown == {
        *(("r-stdout", "to-out"), ("r-stderr", "to-err")),
        *(("r-local", "to-out"), ("r-local", "to-err")),
    }


async def test_changed_host_key_is_refused_before_anything_is_sent(
    stack: Stack, server: SshServer
) -> None:
    stack.config["resources"] = [remote("node-cn01-munge", stdin="${secret:s3cret}")]
    pinned = server.host_key.get_fingerprint()
    server.change_host_key()
    done = await stack.up()
    assert done.result.result == "failed"
    for part in ("node-cn01-munge", f"127.0.0.1:{server.port}", pinned, "host key mismatch"):
        assert part in done.failures[0]
    assert server.host_key.get_fingerprint() in done.failures[0]
    assert server.commands == []


async def test_dial_is_retried_and_then_given_up(
    stack: Stack, server: SshServer, fast: dict[str, Any]
) -> None:
    server.stop()
    stack.config["connection"] = fast | {"dialErrorLimit": 2}
    stack.config["resources"] = [remote("a")]
    waiting = asyncio.create_task(stack.up())
    done = await waiting
    assert "after 2 failed attempts: dial 127.0.0.1" in done.failures[0]
    assert _progress(done) == ["Dial 1/2 failed: retrying", "Dial 2/2 failed: retrying"]


def _progress(done: Outcome) -> list[str]:
    found = [e["diagnosticEvent"] for e in done.events if "diagnosticEvent" in e]
    return [d["message"].strip() for d in found if d.get("ephemeral")]


async def test_a_host_that_accepts_and_never_answers_is_bounded(
    stack: Stack, fast: dict[str, Any]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        stack.config["connection"] = fast | {"port": port, "perDialTimeout": 1}
        stack.config["resources"] = [remote("a")]
        done = await asyncio.wait_for(stack.up(), 60)
    assert "no SSH answer within 1 s" in done.failures[0]


@pytest.mark.parametrize("credentials", [{"password": "right"}, {"password": "wrong"}, {}])
async def test_password(stack: Stack, fast: dict[str, Any], credentials: dict[str, str]) -> None:
    connection = {k: v for k, v in fast.items() if k != "privateKey"} | credentials
    stack.config["connection"] = connection
    stack.config["resources"] = [remote("a")]
    done = await stack.up()
    if credentials.get("password") == "right":
        assert done.result.result == "succeeded"
    else:
        assert "Permission denied" in done.failures[0]


async def answers(socket: str) -> bool:
    """Whether somebody listens at it."""
    try:
        _, writer = await asyncio.open_unix_connection(socket)
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    writer.close()
    await writer.wait_closed()
    return True


async def test_agent(
    stack: Stack, server: SshServer, fast: dict[str, Any], tmp_path: Any, monkeypatch: Any
) -> None:
    """A key that only the agent holds, and a socket that only the environment names."""
    path = str(tmp_path / "agent.sock")
    agent = await asyncio.create_subprocess_exec(
        *("ssh-agent", "-D", "-a", path), stdout=asyncio.subprocess.DEVNULL
    )
    try:
        # Its socket is there before somebody listens at it.
        async with asyncio.timeout(30):
            while not await answers(path):
                await asyncio.sleep(0.01)
        async with asyncssh.connect_agent(path) as client:
            await client.add_keys([server.user_key])
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        stack.config["connection"] = {k: v for k, v in fast.items() if k != "privateKey"}
        stack.config["resources"] = [remote("a")]
        assert (await stack.up()).result.result == "succeeded"
    finally:
        agent.terminate()
        await agent.wait()


async def test_proxy(stack: Stack, server: SshServer, tmp_path: Any) -> None:
    folder = tmp_path / "bastion"
    folder.mkdir()
    bastion = SshServer(folder)
    try:
        stack.config["connection"] = server.connection | {"proxy": bastion.connection}
        stack.config["resources"] = [remote("a"), remote("b")]
        assert (await stack.up()).result.result == "succeeded"
        assert (bastion.connections, server.connections) == (1, 1)
        bastion.change_host_key()
        refused = await stack.destroy()
        assert refused.result.result == "succeeded"  # nothing to run there
        stack.config["resources"] = [remote("c")]
        wrong = await stack.up()
        assert "proxy: 127.0.0.1" in wrong.failures[0]
    finally:
        bastion.close()


async def test_delete_gets_stdin_and_a_dead_host_stops_it(stack: Stack, server: SshServer) -> None:
    stack.config["resources"] = [remote("a", delete="cat > gone", stdin="bundle")]
    stack.config["connection"] |= {"dialErrorLimit": 0}
    await stack.up()
    server.stop()
    failed = await stack.destroy()
    assert failed.result.result == "failed"
    assert "a" in stack.resources()
    server.start()
    assert (await stack.destroy()).result.result == "succeeded"
    assert (server.folder / "gone").read_text() == "bundle"


async def test_output_that_is_large(stack: Stack) -> None:
    command = "head -c 50000000 /dev/zero | tr '\\0' x"
    stack.config["resources"] = [remote("large", command, logging="none")]
    done = await stack.up()
    assert done.result.result == "succeeded"
    assert len(stack.resources()["large"]["outputs"]["stdout"]) == 50_000_000


async def test_output_that_is_not_utf8_cannot_be_kept(stack: Stack) -> None:
    stack.config["resources"] = [remote("binary", r"printf 'a\377b'")]
    done = await stack.up()
    assert done.failures[0].startswith(
        "stdout is not UTF-8 (invalid start byte at byte 1): running"
    )
    assert "a\N{REPLACEMENT CHARACTER}b" in done.failures[0]


async def test_a_connection_that_breaks_is_said_and_made_anew(server: SshServer) -> None:
    connection = server.connection | {"dialErrorLimit": 1}
    async with _pool() as run:
        assert (await run(connection, "echo 1")).stdout == b"1\n"
        server.before = lambda _: server.loop.create_task(_break(server))
        for stdin in ("", "x" * 1_000_000):
            with pytest.raises(SshError, match="lost"):
                await run(connection, "sleep 5", stdin)
        server.before = None
        assert (await run(connection, "echo 2")).stdout == b"2\n"
        assert server.connections == 3


@contextlib.asynccontextmanager
async def _pool() -> AsyncIterator[Callable[..., Awaitable[Ended]]]:
    """Runs a command on a connection, perhaps with stdin."""
    pool = Pool()

    def run(connection: dict[str, Any], command: str, stdin: str = "") -> Awaitable[Ended]:
        return pool.run(connection, command, stdin, {}, lambda *_: None, lambda _: None)

    try:
        yield run
    finally:
        await pool.close()


async def _break(server: SshServer) -> None:
    for connection in list(server.open):
        connection.abort()
