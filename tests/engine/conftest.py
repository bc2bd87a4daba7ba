"""A local SSH server that runs commands, a stack on the embedded engine, and the real one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from engine.api import Cancel, Event, Project, Request, Result
from engine.journal import Journal
from engine.operation import run
from engine.processes import end
from engine.state import Snapshot, blind

PROGRAMS = Path(__file__).parent / "programs"
Json = dict[str, Any]


class Reversible:
    """Secrets of these tests: marked, and readable enough to search for."""

    def encrypt(self, plaintext: str) -> str:
        return "v1:" + plaintext[::-1]

    def decrypt(self, ciphertext: str) -> str:
        return ciphertext.removeprefix("v1:")[::-1]


class SshServer:
    """Runs commands with /bin/sh in a folder; a thread with an event loop of its own.

    ``before`` may be set: called with each command, it can raise, or wait, before the command
    runs. So may ``session``, between ``stop`` and ``start``: called with the connection's number,
    it returns what serves a session instead, or raises asyncssh.ChannelOpenError.
    ``connections`` and ``commands`` count and list what came.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.connections = 0
        self.running = self.most_running = 0
        self.commands: list[str] = []
        self.open: list[asyncssh.SSHServerConnection] = []
        self.before: Callable[[str], Any] | None = None
        self.session: Callable[[int], asyncssh.SSHServerSession[bytes]] | None = None
        self.user_key = asyncssh.generate_private_key("ssh-ed25519")
        self.host_key = asyncssh.generate_private_key("ssh-ed25519")
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self._listener: asyncssh.SSHAcceptor | None = None
        self.port = 0
        self.start()

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def start(self) -> None:
        self._call(self._start())

    async def _start(self) -> None:
        owner = self

        class Server(asyncssh.SSHServer):
            def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
                owner.connections += 1
                self.number = owner.connections
                owner.open.append(conn)

            def begin_auth(self, username: str) -> bool:
                return True

            def password_auth_supported(self) -> bool:
                return True

            def validate_password(self, username: str, password: str) -> bool:
                return password == "right"

            def public_key_auth_supported(self) -> bool:
                return True

            def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
                return key.public_data == owner.user_key.public_data

            def session_requested(self) -> Any:
                return owner.session(self.number) if owner.session else False

            def connection_requested(self, *_: Any) -> bool:
                return True  # a bastion, too

        self._listener = await asyncssh.listen(
            "127.0.0.1",
            self.port,
            server_factory=Server,
            server_host_keys=[self.host_key],
            process_factory=None if self.session else self._serve,
            encoding=None,
        )
        self.port = self._listener.sockets[0].getsockname()[1]

    async def _serve(self, process: Any) -> None:
        command = process.command
        self.commands.append(command)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            if self.before is not None:
                waiting = self.before(command)
                if waiting is not None:
                    await waiting
            child = await asyncio.create_subprocess_exec(
                *("/bin/sh", "-c", command),
                cwd=self.folder,
                env=os.environ | dict(process.env),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
            assert child.stdin
            assert child.stdout
            assert child.stderr
            feeding = asyncio.create_task(_feed(process.stdin, child.stdin))
            try:
                out, err = await asyncio.gather(child.stdout.read(), child.stderr.read())
                await child.wait()
            except asyncio.CancelledError:
                await end(child, signal.SIGKILL)
                raise
            finally:
                feeding.cancel()
            process.stdout.write(out)
            process.stderr.write(err)
            process.exit(child.returncode or 0)
        finally:
            self.running -= 1

    def stop(self) -> None:
        async def close() -> None:
            if self._listener:
                self._listener.close()
                await self._listener.wait_closed()

        self._call(close())

    def change_host_key(self) -> None:
        self.stop()
        self.host_key = asyncssh.generate_private_key("ssh-ed25519")
        self.start()

    def close(self) -> None:
        async def leave() -> None:
            for connection in self.open:
                connection.abort()
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

        with contextlib.suppress(Exception):
            self.stop()
        self._call(leave())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)
        self.loop.close()

    @property
    def connection(self) -> Json:
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "user": "admin",
            "privateKey": self.user_key.export_private_key().decode(),
            "hostKey": self.host_key.export_public_key().decode().strip(),
        }


async def _feed(source: asyncssh.SSHReader[bytes], sink: asyncio.StreamWriter) -> None:
    """Stdin as it comes, as an SSH server passes it on: the command may end before."""
    with contextlib.suppress(ConnectionError, asyncssh.Error):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    sink.close()


@dataclass
class Outcome:
    result: Result
    events: list[Event]

    @property
    def steps(self) -> list[tuple[str, str]]:
        """(op, name) of each resource that a step began for, without what stayed the same."""
        found = [e["resourcePreEvent"]["metadata"] for e in self.events if "resourcePreEvent" in e]
        return [(m["op"], m["urn"].rsplit("::", 1)[1]) for m in found if m["op"] != "same"]

    @property
    def failures(self) -> list[str]:
        found = [e["diagnosticEvent"] for e in self.events if "diagnosticEvent" in e]
        return [d["message"] for d in found if d["severity"] == "error"]

    @property
    def text(self) -> str:
        return json.dumps(self.events)


@dataclass
class Stack:
    """One stack on the embedded engine. Its state goes through its form on disk every time."""

    program: str
    folder: Path
    config: Json = field(default_factory=dict)
    secrets: frozenset[str] = frozenset()
    document: Json | None = None
    cancel: Cancel | None = None
    on_event: Callable[[Event], None] = lambda event: None

    @property
    def project(self) -> Project:
        return Project(self.program, PROGRAMS / self.program)

    @property
    def journal_file(self) -> Path:
        return self.folder / "journal"

    async def operate(self, **options: Any) -> Outcome:
        events: list[Event] = []

        def emit(event: Event) -> None:
            events.append(blind(event))
            self.on_event(event)

        crypter = Reversible()
        values = {
            f"{self.program}:{k}": v if isinstance(v, str) else json.dumps(v)
            for k, v in self.config.items()
        }
        secret = frozenset(f"{self.program}:{k}" for k in self.secrets)
        request = Request(self.project, "test", values, secret, **options)
        journal = None if request.dry_run else Journal(self.journal_file, crypter, "base")
        before = Snapshot.load(self.document, crypter)
        result = await run(request, before, emit, journal, self.cancel)
        if journal:
            journal.close()
            self.document = json.loads(json.dumps(result.snapshot.dump(crypter)))
        return Outcome(result, events)

    async def up(self, **options: Any) -> Outcome:
        return await self.operate(**options)

    async def preview(self, **options: Any) -> Outcome:
        return await self.operate(dry_run=True, **options)

    async def destroy(self, **options: Any) -> Outcome:
        return await self.operate(operation="destroy", **options)

    def resources(self, *kinds: str) -> dict[str, Json]:
        """By name, those of these types (part of the type is enough; all without any)."""
        found = (self.document or {}).get("resources", [])
        return {
            r["urn"].rsplit("::", 1)[1]: r
            for r in found
            if not kinds or any(k in r["type"] for k in kinds)
        }


@pytest.fixture(autouse=True)
def _no_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SshServer]:
    folder = tmp_path / "node"
    folder.mkdir()
    server = SshServer(folder)
    yield server
    server.close()


@pytest.fixture
def stack(tmp_path: Path, server: SshServer) -> Stack:
    return Stack("graph", tmp_path, {"connection": server.connection})


class Real:
    """The real engine on a copy of a program, with a state folder of its own."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self._stack = stack
        self.folder = folder / "real-program"
        shutil.copytree(PROGRAMS / stack.program, self.folder)
        venv = json.dumps(str(Path(sys.prefix)))
        settings = {"name": stack.program, "runtime": {"name": "python", "options": {}}}
        settings["runtime"]["options"] = {"virtualenv": json.loads(venv)}  # type: ignore[index]
        (self.folder / "Pulumi.yaml").write_text(json.dumps(settings))
        state, home = folder / "real-state", folder / "real-home"
        state.mkdir()
        home.mkdir()
        self._env = os.environ | {
            "PULUMI_BACKEND_URL": state.as_uri(),
            "PULUMI_HOME": str(home),
            "PULUMI_CONFIG_PASSPHRASE": "test",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DEBUG_COMMANDS": "true",
        }
        self("stack", "init", "test")

    def __call__(self, *arguments: str, check: bool = True) -> str:
        done = subprocess.run(
            ["pulumi", "--non-interactive", *arguments],
            cwd=self.folder,
            env=self._env,
            capture_output=True,
            text=True,
            timeout=300,
        )
        if check and done.returncode:
            raise AssertionError(f"pulumi {' '.join(arguments)}:\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def configure(self) -> None:
        for key, value in self._stack.config.items():
            text = value if isinstance(value, str) else json.dumps(value)
            kind = "--secret" if key in self._stack.secrets else "--plaintext"
            self("config", "set", kind, key, "--", text)

    def operate(self, verb: str, *arguments: str, check: bool = True) -> list[Event]:
        self.configure()
        log = self.folder / "events.json"
        log.unlink(missing_ok=True)
        self(verb, "--event-log", str(log), *arguments, check=check)
        return [json.loads(line) for line in log.read_text().splitlines()]

    def up(self, check: bool = True) -> list[Event]:
        return self.operate("up", "--yes", "--skip-preview", check=check)

    def preview(self) -> list[Event]:
        return self.operate("preview")

    def export(self) -> Json:
        """The deployment, secrets in plain text."""
        found: Json = json.loads(self("stack", "export", "--show-secrets"))["deployment"]
        return found

    def take(self, snapshot: Snapshot) -> None:
        """Go on from a state of the embedded engine."""
        settings = (self.folder / "Pulumi.test.yaml").read_text()
        salt = re.search(r"encryptionsalt: (.*)", settings)
        assert salt
        secrets = {"type": "passphrase", "state": {"salt": salt[1]}}
        deployment = snapshot.dump(None) | {"secrets_providers": secrets}
        document = {"version": 3, "deployment": deployment}
        (self.folder / "state.json").write_text(json.dumps(document))
        self("stack", "import", "--file", "state.json")


@pytest.fixture
def real(stack: Stack, tmp_path: Path) -> Real:
    if not shutil.which("pulumi") or not shutil.which("pulumi-resource-command"):
        pytest.skip("no real pulumi with pulumi-resource-command on PATH to compare with")
    version = subprocess.run(
        ["pulumi", "version"],
        env=os.environ | {"PULUMI_SKIP_UPDATE_CHECK": "true"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    found = re.match(r"v?(\d+)\.(\d+)", version.stdout)
    if not found or (int(found[1]), int(found[2])) < (3, 260):
        pytest.skip(f"pulumi {version.stdout.strip()} is older than 3.260")
    return Real(stack, tmp_path)


def local(name: str, create: str = "", **rest: Any) -> Json:
    """A local.Command for graph:resources; keywords that are no arguments are options."""
    return _item("local", name, create or f"echo {name}", rest)


def remote(name: str, create: str = "", **rest: Any) -> Json:
    return _item("remote", name, create or f"echo {name}", rest)


ARGUMENTS = {
    *("update", "delete", "stdin", "environment", "triggers", "logging", "dir", "connection"),
    "interpreter",
}


def _item(kind: str, name: str, create: str, rest: Json) -> Json:
    args = {"create": create} | {k: v for k, v in rest.items() if k in ARGUMENTS}
    options = {k: v for k, v in rest.items() if k not in ARGUMENTS}
    return {"name": name, "kind": kind, "args": args, "options": options}
