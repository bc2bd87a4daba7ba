"""Reaching many machines at once, before anything is planned: their keys, and one script on all.

Every function bounds its time and its number of connections. A machine that cannot be reached
never hides the others: each has its own result or its own `ContactError`.
"""

import asyncio
import base64
import hashlib
import shlex
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import TypeVar

import asyncssh

from remote.framing import FrameError, framed, within_frame
from remote.host import Host, fingerprint

CONNECT_SECONDS = 15.0
"""To connect, exchange keys and log in."""

CONNECTIONS = 32
"""Open at once; OpenSSH begins to drop unauthenticated ones at ten a server, not over all."""

_T = TypeVar("_T")


class ContactError(Exception):
    """One machine that could not be asked: `NODE: STEP: what was found; remedy`."""

    def __init__(self, host: Host, step: str, found: str, remedy: str) -> None:
        super().__init__(f"{host.name}: {step}: {found}; {remedy}")
        self.host = host
        self.step = step
        self.found = found
        self.remedy = remedy


@dataclass(frozen=True)
class Reply:
    """What a script said. `status` is its exit status, negative for a signal."""

    stdout: str
    stderr: str
    status: int


def wait_for(work: Coroutine[object, object, _T]) -> _T:
    """Runs `work` to its end from code that is not async itself, whether or not an event loop
    (such as Pulumi's) runs in this thread. Raises what `work` raises."""
    outcome: list[_T] = []
    error: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(asyncio.run(work))
        except BaseException as problem:
            error.append(problem)

    thread = threading.Thread(target=run, name="remote.contact", daemon=True)
    thread.start()
    thread.join()
    if error:
        raise error[0]
    return outcome[0]


async def scan_host_key(address: str, port: int = 22, seconds: float = CONNECT_SECONDS) -> str:
    """The key a machine shows, as a line `ssh-ed25519 AAAA…`. Only the key exchange is done:
    nobody logs in and nothing is sent. Raises OSError or asyncssh.Error."""
    async with asyncio.timeout(seconds):
        key = await asyncssh.get_server_host_key(
            address,
            port,
            config=None,
            server_host_key_algs=["ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512"],
        )
    if key is None:
        raise OSError(f"{address}:{port} shows no host key")
    return key.export_public_key("openssh").decode().strip()


async def run_on_hosts(
    hosts: Sequence[Host],
    script: str | Callable[[Host], str],
    *,
    seconds: float = 60.0,
    connections: int = CONNECTIONS,
    agent_path: str | None = None,
) -> dict[str, Reply | ContactError]:
    """Runs `script` (sh, from stdin; the same or one for each host) on all `hosts` at once; results
    by node name.

    Keys come from the SSH agent alone (`agent_path`, else `SSH_AUTH_SOCK`), as with
    pulumi-command. `seconds` bounds the script, `CONNECT_SECONDS` what comes before it. A host is
    spoken to only after it has shown its pinned key, and its bastion too.
    """
    async with AsyncExitStack() as stack:
        keys, agent_problem = await _agent_keys(stack, agent_path)
        contact = _Contact(stack, keys, agent_problem)
        limit = asyncio.Semaphore(connections)

        async def ask(host: Host) -> Reply | ContactError:
            async with limit:
                try:
                    text = script if isinstance(script, str) else script(host)
                    return await contact.run(host, text, seconds)
                except ContactError as error:
                    return error

        replies = await asyncio.gather(*(ask(host) for host in hosts))
    return {host.name: reply for host, reply in zip(hosts, replies, strict=True)}


async def follow_on_hosts(
    hosts: Sequence[Host], script: str, show: Callable[[Host, str], None]
) -> None:
    """Runs `script` on all `hosts` at once and shows each line that it prints, as it comes, until
    it ends or the caller does. The script should end with its stdin.

    Raises:
        ContactError: a host cannot be asked, or its connection broke.
    """
    async with AsyncExitStack() as stack:
        keys, agent_problem = await _agent_keys(stack)
        contact = _Contact(stack, keys, agent_problem)
        async with asyncio.TaskGroup() as group:
            for host in hosts:
                group.create_task(contact.follow(host, script, show))


async def _agent_keys(
    stack: AsyncExitStack, agent_path: str | None = None
) -> tuple[list[asyncssh.SSHKeyPair], str]:
    """The SSH agent's keys, and what is wrong with it where it has none."""
    try:
        agent = await asyncssh.connect_agent(agent_path or "")
        keys = list(await agent.get_keys())
        stack.callback(agent.close)
    except (OSError, asyncssh.Error, ValueError) as error:
        return [], f"no SSH agent: {error or 'SSH_AUTH_SOCK is not set'}"
    return keys, "" if keys else "the SSH agent holds no key"


class _PinnedClient(asyncssh.SSHClient):
    """Accepts the one pinned key, and remembers what was shown."""

    def __init__(self, expected: asyncssh.SSHKey) -> None:
        self.expected = expected
        self.seen: asyncssh.SSHKey | None = None

    def validate_host_public_key(
        self, host: str, addr: str, port: int, key: asyncssh.SSHKey
    ) -> bool:
        self.seen = key
        return key == self.expected


class _Contact:
    """Connections of one call; those to bastions are shared and end with `stack`."""

    def __init__(
        self, stack: AsyncExitStack, keys: Sequence[asyncssh.SSHKeyPair], agent_problem: str
    ) -> None:
        self._stack = stack
        self._keys = keys
        self._agent_problem = agent_problem
        self._bastions: dict[Host, asyncio.Task[asyncssh.SSHClientConnection]] = {}

    async def run(self, host: Host, script: str, seconds: float) -> Reply:
        connection = await self._connect(host)
        async with connection:
            try:
                async with asyncio.timeout(seconds):
                    process = await connection.create_process("sh -s", errors="replace")
                    with suppress(BrokenPipeError):  # it has ended before it was fed
                        process.stdin.write(framed(script))
                        process.stdin.write_eof()
                    done = await process.wait()
            except TimeoutError:
                raise ContactError(
                    host, "run", f"not done after {seconds:g} s", "see what hangs on the node"
                ) from None
            except (OSError, asyncssh.Error) as error:
                raise ContactError(host, "run", f"connection broke: {error}", "run again") from None
        status = done.returncode if done.returncode is not None else -1
        try:
            stdout = within_frame(str(done.stdout or ""))
        except FrameError as error:
            if done.returncode is None:  # neither an exit status nor a signal: it was cut off
                found = "connection broke before it had answered"
                raise ContactError(host, "run", found, "run again") from None
            raise ContactError(
                host, "run", str(error), f"see that {host.user}'s shell there runs commands (sh -s)"
            ) from None
        return Reply(stdout, str(done.stderr or ""), status)

    async def follow(self, host: Host, script: str, show: Callable[[Host, str], None]) -> None:
        connection = await self._connect(host)
        async with connection:
            try:
                command = f"sh -c {shlex.quote(script)}"
                process = await connection.create_process(command, errors="replace")
                async for line in process.stdout:
                    if line:  # the end comes as a line of nothing, not even of its newline
                        show(host, line.rstrip("\n"))
            except (OSError, asyncssh.Error) as error:
                raise ContactError(host, "run", f"connection broke: {error}", "run again") from None

    async def _through(self, host: Host) -> asyncssh.SSHClientConnection | None:
        if host.bastion is None:
            return None
        bastion = host.bastion
        if bastion not in self._bastions:
            self._bastions[bastion] = asyncio.create_task(self._connect(bastion))
            self._stack.callback(_close, self._bastions[bastion])
        try:
            return await asyncio.shield(self._bastions[bastion])
        except ContactError as error:
            raise ContactError(
                host, f"bastion {bastion.name}: {error.step}", error.found, error.remedy
            ) from None

    async def _connect(self, host: Host) -> asyncssh.SSHClientConnection:
        if self._agent_problem:
            raise ContactError(
                host, "log in", self._agent_problem, "start one and add a key (ssh-add)"
            )
        try:
            expected = asyncssh.import_public_key(host.host_key)
        except asyncssh.KeyImportError as error:
            raise ContactError(
                host, "host key", f"the pinned key is none: {error}", "correct it"
            ) from None
        tunnel = await self._through(host)
        client = _PinnedClient(expected)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                return await asyncssh.connect(
                    host.address,
                    host.port,
                    tunnel=tunnel,
                    config=None,
                    username=host.user,
                    client_keys=self._keys,
                    agent_path=None,
                    preferred_auth="publickey",
                    known_hosts=([], [], []),
                    server_host_key_algs=_signatures(expected),
                    client_factory=lambda: client,
                )
        except asyncssh.HostKeyNotVerifiable:
            raise self._wrong_key(host, client.seen) from None
        except asyncssh.KeyExchangeFailed as error:
            # The machine has no key of the pinned kind: say which one it has instead.
            seen = await _shown_instead(host, tunnel)
            if seen is not None:
                raise self._wrong_key(host, seen) from None
            raise _unreachable(host, str(error)) from None
        except asyncssh.PermissionDenied:
            prints = ", ".join(_agent_fingerprint(key) for key in self._keys)
            raise ContactError(
                host,
                "log in",
                f"user {host.user} at {host.address}:{host.port} refuses the keys of the SSH agent "
                f"({prints})",
                f"add one of them to {host.user}'s authorized_keys there",
            ) from None
        except TimeoutError:
            raise _unreachable(host, f"no answer within {CONNECT_SECONDS:g} s") from None
        except (OSError, asyncssh.Error) as error:
            raise _unreachable(host, str(error) or type(error).__name__) from None

    @staticmethod
    def _wrong_key(host: Host, seen: asyncssh.SSHKey | None) -> ContactError:
        shown = fingerprint(seen) if seen is not None else "none"
        return ContactError(
            host,
            "host key",
            f"{host.address}:{host.port} shows {shown}, expected {fingerprint(host.host_key)}; "
            "nothing was sent",
            "if the machine was reinstalled, compare with its console and replace the pinned key",
        )


def _close(task: "asyncio.Task[asyncssh.SSHClientConnection]") -> None:
    if task.done() and not task.cancelled() and task.exception() is None:
        task.result().close()
    else:
        task.cancel()


def _unreachable(host: Host, found: str) -> ContactError:
    return ContactError(
        host,
        "connect",
        f"{host.address}:{host.port}: {found}",
        "see that it is up and that sshd listens there, or take it out of the settings",
    )


def _signatures(key: asyncssh.SSHKey) -> list[str]:
    algorithm = key.get_algorithm()
    return ["rsa-sha2-512", "rsa-sha2-256"] if algorithm == "ssh-rsa" else [algorithm]


async def _shown_instead(
    host: Host, tunnel: asyncssh.SSHClientConnection | None
) -> asyncssh.SSHKey | None:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            return await asyncssh.get_server_host_key(
                host.address, host.port, tunnel=tunnel, config=None
            )
    except (OSError, TimeoutError, asyncssh.Error):
        return None


def _agent_fingerprint(key: asyncssh.SSHKeyPair) -> str:
    digest = base64.b64encode(hashlib.sha256(key.public_data).digest()).decode()
    return f"SHA256:{digest.rstrip('=')}"
