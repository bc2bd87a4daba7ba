"""Commands over SSH: one connection for each host and way of logging in, shared by its commands.

Follows pulumi-command's provider/pkg/provider/remote/connection.go: the same inputs, the same
retries of a failing dial. Unlike it, a connection is reused, a dial that hangs after TCP's answer
is bounded by perDialTimeout too, and a peer gone silent is noticed within about a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable
from typing import Any

import asyncssh
from asyncssh.channel import SSHClientChannel
from asyncssh.constants import OPEN_REQUEST_SESSION_FAILED

SESSIONS = 8
"""Commands at once on one connection: OpenSSH's MaxSessions is 10 by default."""
KEEPALIVE = 15
"""Seconds between keepalives; four without an answer end the connection."""

CIPHERS = [
    *("aes128-gcm@openssh.com", "aes256-gcm@openssh.com"),  # one call a packet: the quickest here
    *("chacha20-poly1305@openssh.com", "aes256-ctr", "aes192-ctr", "aes128-ctr"),
]

OPTIONAL = "PULUMI_COMMAND_"
ENV_HELP = (
    ": the SSH server has to accept it (AcceptEnv); or write the variable before the command, in "
    "the form 'VAR=value command'"
)

Connection = dict[str, Any]


class SshError(Exception):
    """A connection that cannot be had or was lost; the message names the host."""


class HostKeyMismatch(SshError):
    """Not retried, and nothing has been sent but the key exchange."""


class Outcome:
    """What a command says while it runs and leaves when it has ended: ``status`` is None when a
    signal ended it. ``on_output`` gets pieces of output and whether they are standard error."""

    def __init__(self, on_output: Callable[[bytes, bool], None]) -> None:
        self._on_output = on_output
        self._pieces: list[tuple[bytes, bool]] = []
        self.status: int | None = None
        self.signal = ""

    async def read(self, reader: Any, is_stderr: bool) -> None:
        """Take what comes from an asyncio or asyncssh reader, to its end."""
        while data := await reader.read(65536):
            self._pieces.append((data, is_stderr))
            self._on_output(data, is_stderr)

    def _joined(self, *streams: bool) -> bytes:
        return b"".join(data for data, is_stderr in self._pieces if is_stderr in streams)

    @property
    def stdout(self) -> bytes:
        return self._joined(False)

    @property
    def stderr(self) -> bytes:
        return self._joined(True)

    @property
    def both(self) -> bytes:
        return self._joined(False, True)


class _Client(asyncssh.SSHClient):
    """Accepts the pinned host key only, or any key where none is pinned."""

    def __init__(self, pinned: asyncssh.SSHKey | None, password: str | None) -> None:
        self._pinned = pinned
        self._password = password
        self._asked = False
        self.seen: asyncssh.SSHKey | None = None

    def validate_host_public_key(
        self, host: str, addr: str, port: int, key: asyncssh.SSHKey
    ) -> bool:
        self.seen = key
        return self._pinned is None or key.public_data == self._pinned.public_data

    def kbdint_auth_requested(self) -> str | None:
        """Once: asking again with the same password would go on for ever."""
        again, self._asked = self._asked, True
        return "" if self._password is not None and not again else None

    def kbdint_challenge_received(
        self, name: str, instructions: str, lang: str, prompts: Any
    ) -> list[str]:
        return [self._password or ""] * len(prompts)


class EnvironmentRefused(Exception):
    """The server does not accept the variable of this name (its AcceptEnv)."""


class _Channel(SSHClientChannel[bytes]):
    """Asks for an answer to each environment variable before the command is run; asyncssh itself
    sends them without asking. Variables of the provider's own may be refused."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._variables: list[tuple[str, asyncio.Future[bool]]] = []
        self.refused: list[str] = []

    def _send_request(self, request: bytes, *args: bytes, want_reply: bool = False) -> None:
        if request == b"env":
            answer: asyncio.Future[bool] = self._loop.create_future()
            self._variables.append((args[0][4:].decode(), answer))  # after its length
            self._request_waiters.append(answer)
            want_reply = True
        super()._send_request(request, *args, want_reply=want_reply)

    async def _make_request(self, request: bytes, *args: bytes) -> bool | None:
        self.refused = [name for name, answer in self._variables if not await answer]
        for name in self.refused:
            if not name.startswith(OPTIONAL):
                raise EnvironmentRefused(name)
        return await super()._make_request(request, *args)


vars(asyncssh.connection)["SSHClientChannel"] = _Channel


class Pool:
    """The connections of one operation. Use within one event loop; close at the end."""

    def __init__(self) -> None:
        self._connections: dict[str, asyncio.Task[asyncssh.SSHClientConnection]] = {}
        self._slots: dict[str, asyncio.Semaphore] = {}

    async def run(
        self, connection: Connection, command: str, stdin: str, environment: dict[str, str],
        on_output: Callable[[bytes, bool], None], log: Callable[[str], None],
    ) -> Outcome:  # fmt: skip
        """Run a command. ``connection`` is the provider's input, secrets laid bare, defaults
        filled in. ``on_output`` gets pieces of output and whether they are standard error.

        Raises SshError.
        """
        key = json.dumps(connection, sort_keys=True)
        slots = self._slots.setdefault(key, asyncio.Semaphore(SESSIONS))
        where = f"{connection['user']}@{connection['host']}:{int(connection['port'])}"
        ran = Outcome(on_output)
        async with slots, contextlib.AsyncExitStack() as closing:
            ssh = await self._connect(connection, log)
            try:
                try:
                    process = await ssh.create_process(command, env=environment, encoding=None)
                except asyncssh.ChannelOpenError as error:
                    if error.code == OPEN_REQUEST_SESSION_FAILED:
                        raise
                    # The server has no room for another session on this connection (sshd counts
                    # those that have just ended a moment longer). Nothing has run, so the command
                    # gets a connection of its own, as each has with the provider.
                    own = await self._dial_with_retry(connection, log, "Dial")
                    ssh = await closing.enter_async_context(own)
                    process = await ssh.create_process(command, env=environment, encoding=None)
            except EnvironmentRefused as refused:
                raise SshError(
                    f'could not set environment variable "{refused}"{ENV_HELP}'
                ) from None
            except (asyncssh.Error, OSError) as error:
                raise SshError(f"connection to {where} lost: {_reason(error)}") from None
            lost = " before the command ended"
            try:
                with contextlib.suppress(BrokenPipeError):  # it ended before it was fed
                    process.stdin.write(stdin.encode("utf-8", "surrogatepass"))
                    process.stdin.write_eof()
                async with process:
                    await asyncio.gather(
                        ran.read(process.stdout, False), ran.read(process.stderr, True)
                    )
                    await process.wait_closed()
            except (asyncssh.Error, OSError) as error:
                lost = f": {_reason(error)}"
            if process.exit_status is None:  # what the server reported counts, however it ended
                raise SshError(f"connection to {where} lost{lost}")
            for name in getattr(process.channel, "refused", ()):
                log(f"Unable to set '{name}'{ENV_HELP}")
            if process.exit_signal:
                ran.signal = process.exit_signal[0]
            else:
                ran.status = process.exit_status
            return ran

    async def _connect(
        self, connection: Connection, log: Callable[[str], None], what: str = "Dial"
    ) -> asyncssh.SSHClientConnection:
        key = json.dumps(connection, sort_keys=True)
        task = self._connections.get(key)
        if task is not None and task.done():
            failed = task.cancelled() or task.exception() is not None
            if failed or task.result().is_closed():
                task = None
        if task is None:
            task = asyncio.create_task(self._dial_with_retry(connection, log, what))
            self._connections[key] = task
        return await asyncio.shield(task)

    async def _dial_with_retry(
        self, connection: Connection, log: Callable[[str], None], what: str
    ) -> asyncssh.SSHClientConnection:
        """All hosts behind a proxy share one connection to it."""
        tunnel = None
        if proxy := connection.get("proxy"):
            try:
                tunnel = await self._connect(proxy, log, "Dial proxy")
            except SshError as error:
                raise type(error)(f"proxy: {error}") from None
        limit = int(connection.get("dialErrorLimit", 10))
        delay, failures = 0.1, 0
        while True:
            try:
                return await _dial(connection, tunnel)
            except HostKeyMismatch:
                raise
            except SshError as error:
                failures += 1
                if limit > -1 and failures > limit:
                    raise SshError(f"after {failures - 1} failed attempts: {error}") from None
                shown = "inf" if limit == -1 else str(limit)
                log(f"{what} {failures}/{shown} failed: retrying")
            await asyncio.sleep(delay)
            delay = min(delay * 1.5, 5)

    async def close(self) -> None:
        for task in self._connections.values():
            task.cancel()
            with contextlib.suppress(BaseException):
                (await task).close()


async def _dial(
    connection: Connection, tunnel: asyncssh.SSHClientConnection | None
) -> asyncssh.SSHClientConnection:
    host, port = str(connection["host"]), int(connection["port"])
    where = f"{host}:{port}"
    timeout = int(connection.get("perDialTimeout", 15)) or None
    try:
        pinned = connection.get("hostKey")
        pin = None if pinned is None else asyncssh.import_public_key(pinned)
    except (asyncssh.KeyImportError, ValueError) as error:
        raise HostKeyMismatch(f"{where}: failed to parse host key: {error}") from None
    keys: list[asyncssh.SSHKey | asyncssh.SSHKeyPair] = []
    if (private := connection.get("privateKey")) is not None:
        try:
            keys = [asyncssh.import_private_key(private, connection.get("privateKeyPassword"))]
        except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
            raise HostKeyMismatch(f"{where}: private key: {error}") from None
    password = connection.get("password")
    agent = await _agent(connection)
    client = _Client(pin, password)
    try:
        if agent is not None:
            keys += await agent.get_keys()
        async with asyncio.timeout(timeout):
            return await asyncssh.connect(
                host, port, tunnel=tunnel or (), config=[], username=str(connection["user"]),
                password=password, client_keys=keys or None, agent_path=None, gss_host=None,
                known_hosts=([], [], []), server_host_key_algs=_algorithms(pin),
                client_factory=lambda: client, encryption_algs=CIPHERS,
                keepalive_interval=KEEPALIVE, keepalive_count_max=4,
            )  # fmt: skip
    except asyncssh.HostKeyNotVerifiable:
        seen = client.seen.get_fingerprint() if client.seen else "none"
        expected = pin.get_fingerprint() if pin else "any"
        raise HostKeyMismatch(
            f"{where}: host key mismatch: expected {expected}, the host showed {seen}; nothing was "
            "sent. Find out why the key changed before you pin the new one"
        ) from None
    except TimeoutError:
        raise SshError(f"dial {where}: no SSH answer within {timeout} s") from None
    except (asyncssh.Error, OSError, ValueError, OverflowError) as error:  # what no host or port is
        raise SshError(f"dial {where}: {_reason(error)}") from None
    finally:
        if agent is not None:
            agent.close()


async def _agent(connection: Connection) -> asyncssh.SSHAgentClient | None:
    """The SSH agent, where there is one; one that does not answer fails the dial, as with the
    provider. (asyncssh asks it by itself only together with the key files of ~/.ssh.)"""
    path = connection.get("agentSocketPath") or os.environ.get("SSH_AUTH_SOCK")
    if not path:
        return None
    try:
        return await asyncssh.connect_agent(str(path))
    except (OSError, asyncssh.Error) as error:
        raise SshError(f"SSH agent {path}: {_reason(error)}") from None


def _algorithms(pin: asyncssh.SSHKey | None) -> Any:
    """The pinned key's algorithms first, so that a host with several keys shows that one."""
    if pin is None:
        return ()
    name = pin.get_algorithm()
    first = ["rsa-sha2-512", "rsa-sha2-256"] if name == "ssh-rsa" else [name]
    others = ["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "rsa-sha2-512"]
    return first + [a for a in others if a not in first]


def _reason(error: BaseException) -> str:
    text = getattr(error, "reason", "") or getattr(error, "strerror", "") or str(error)
    return text or type(error).__name__
