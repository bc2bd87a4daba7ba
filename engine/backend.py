"""The state folder, laid out as Pulumi's DIY backend lays it out (pkg/backend/diy, version 1).

    .pulumi/meta.yaml
    .pulumi/stacks/PROJECT/STACK.json and .json.bak      the checkpoint and the one before
    .pulumi/history/PROJECT/STACK/STACK-TIME.{history,checkpoint}.json
    .pulumi/backups/PROJECT/STACK/STACK.TIME.json
    .pulumi/locks/organization/PROJECT/STACK/UUID.json   one for each running operation
    .pulumi/journals/PROJECT/STACK.jsonl                 this engine's own: see engine.journal

Every write is atomic and synced before it counts. A journal left by a killed operation is folded
into what :meth:`Backend.load` returns; the next operation saves that before it starts.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from engine import VERSION
from engine.errors import CommandError, StackNotFound, refuse
from engine.secrets import PassphraseCrypter
from engine.workspace import ProjectFile, pulumi_home, write_atomically


@dataclass(frozen=True)
class StackRef:
    project: str
    name: str

    @property
    def full(self) -> str:
        return f"organization/{self.project}/{self.name}"

    @classmethod
    def parse(cls, text: str, project: str | None) -> StackRef:
        """``STACK``, ``organization/STACK`` or ``organization/PROJECT/STACK``."""
        parts = text.split("/")
        if len(parts) > 3 or not parts[-1]:
            raise CommandError("a stack name may not be empty")
        if len(parts) > 1 and parts[0] != "organization":
            raise CommandError("organization name must be 'organization'")
        found = parts[1] if len(parts) == 3 else project
        if not found:
            raise CommandError("if you're using the --stack flag, pass the fully qualified name")
        if wrong := re.search(r"[^a-zA-Z0-9._-]", parts[-1]):
            raise CommandError(
                "a stack name may only contain alphanumeric, hyphens, underscores, or periods: "
                f"invalid character '{wrong[0]}' at position {wrong.start()}"
            )
        return cls(found, parts[-1])


@dataclass
class Checkpoint:
    """``deployment`` is None for a stack never deployed; ``digest`` is the file's SHA-256, by
    which a journal names what it goes on from; ``recovered``: a journal was folded in."""

    deployment: dict[str, Any] | None
    digest: str
    recovered: bool = False


class Backend:
    """A state folder. ``url`` as the operator gave it, since selections are kept under it."""

    def __init__(self, url: str) -> None:
        if not url.startswith("file://"):
            raise refuse(f"backend {url.split('://')[0]}://")
        self.url = url
        folder = Path(url.removeprefix("file://").split("?")[0] or ".").expanduser()
        folder = Path(os.path.normpath(Path.cwd() / folder))
        if not folder.is_dir():
            raise CommandError(
                f'unable to open state directory "{url}": stat {folder}: no such file or directory'
            )
        self.root = folder / ".pulumi"
        meta = self.root / "meta.yaml"
        if not meta.exists():
            if list((self.root / "stacks").glob("*.json")):
                raise refuse("a legacy state folder (use `pulumi state upgrade`)")
            write_atomically(meta, b"version: 1\n", 0o600)
        elif not re.search(r"^version: 1\s*$", meta.read_text(), re.MULTILINE):
            raise CommandError(
                f"state store unsupported: {meta} is not of version 1, the only one supported"
            )

    @classmethod
    def open(cls, project: ProjectFile | None) -> Backend:
        """The backend of PULUMI_BACKEND_URL, of Pulumi.yaml, or of the last `pulumi login`."""
        url = os.environ.get("PULUMI_BACKEND_URL") or (project and project.backend_url)
        credentials = pulumi_home() / "credentials.json"
        if not url and credentials.exists():
            with suppress(ValueError):
                url = json.loads(credentials.read_text()).get("current")
        if not url:
            raise CommandError(
                "no state folder: set PULUMI_BACKEND_URL to file:// and the folder's path"
            )
        return cls(str(url))

    @property
    def user(self) -> str:
        return getpass.getuser()

    def _stack(self, ref: StackRef) -> Path:
        return self.root / "stacks" / ref.project / f"{ref.name}.json"

    def _locks(self, ref: StackRef) -> Path:
        return self.root / "locks" / "organization" / ref.project / ref.name

    def _history(self, ref: StackRef) -> Path:
        return self.root / "history" / ref.project / ref.name

    def _backups(self, ref: StackRef) -> Path:
        return self.root / "backups" / ref.project / ref.name

    def _journal(self, ref: StackRef) -> Path:
        return self.root / "journals" / ref.project / f"{ref.name}.jsonl"

    def journal(self, ref: StackRef) -> Path:
        """Where an operation on the stack keeps its journal; the folder exists."""
        path = self._journal(ref)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CommandError(f"cannot write {path}: {error.strerror}") from error
        return path

    def exists(self, ref: StackRef) -> bool:
        self._refuse_compressed(ref)
        return self._stack(ref).exists()

    def _refuse_compressed(self, ref: StackRef) -> None:
        for suffix in (".gz", ".zst"):
            if Path(f"{self._stack(ref)}{suffix}").exists():
                raise refuse(f"the compressed checkpoint {self._stack(ref)}{suffix}")

    def stacks(self) -> list[StackRef]:
        found = sorted((self.root / "stacks").glob("*/*.json"))
        return [StackRef(path.parent.name, path.stem) for path in found]

    def load(self, ref: StackRef) -> Checkpoint:
        """The stack's checkpoint, an interrupted operation's journal folded in.

        Raises StackNotFound, or CommandError where the file is no checkpoint of version 3.
        """
        path = self._stack(ref)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            self._refuse_compressed(ref)
            raise StackNotFound(ref.name) from None
        except OSError as error:
            raise CommandError(f"failed to load checkpoint: {path}: {error.strerror}") from error
        try:
            document = json.loads(data)
            version, deployment = document["version"], document["checkpoint"].get("latest")
            if not isinstance(deployment, dict | None):
                raise TypeError("'latest' is not a map")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CommandError(
                f"failed to load checkpoint: {path} is not a checkpoint ({error}); the one before "
                f"is {path}.bak, older ones are in {self._backups(ref)}"
            ) from error
        if deployment and (version != 3 or document.get("features")):
            if version == 4 or document.get("features"):
                raise refuse(newer(version, document))
            raise CommandError(
                f"failed to load checkpoint: {path} has version {version}; this engine reads 3"
            )
        digest = hashlib.sha256(data).hexdigest()
        if self._journal(ref).exists():
            from engine.journal import recover

            folded = recover(self._journal(ref), digest, deployment or {})
            if folded is not None:
                return Checkpoint(folded, digest, recovered=True)
        return Checkpoint(deployment, digest)

    def save(self, ref: StackRef, deployment: dict[str, Any] | None) -> str:
        """Replace the checkpoint, keep the one before as ``.bak``, drop the journal that is now
        part of it. Returns the new file's SHA-256."""
        latest = {"latest": deployment} if deployment is not None else {}
        document = {"version": 3, "checkpoint": {"stack": ref.full} | latest}
        data = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode(
            "utf-8", "surrogatepass"
        )
        path = self._stack(ref)
        if path.exists():
            backup = path.with_name(f".{path.name}.bak.new")
            with suppress(OSError):
                backup.unlink(missing_ok=True)
                os.link(path, backup)
                backup.replace(f"{path}.bak")
        write_atomically(path, data)
        for stale in (path, path.with_name(f"{path.name}.bak")):
            # Pulumi's own note of the checksum of the file just replaced.
            stale.with_name(f"{stale.name}.attrs").unlink(missing_ok=True)
        self._journal(ref).unlink(missing_ok=True)
        return hashlib.sha256(data).hexdigest()

    def record(self, ref: StackRef, update: dict[str, Any]) -> None:
        """Add an operation to the history, with the checkpoint it ended in, and back that up."""
        stamp = time.time_ns()
        prefix = self._history(ref) / f"{ref.name}-{stamp}"
        text = json.dumps(update, ensure_ascii=False, separators=(",", ":"))
        write_atomically(Path(f"{prefix}.history.json"), text.encode())
        backups = self._backups(ref)
        backups.mkdir(parents=True, exist_ok=True)
        backup = backups / f"{ref.name}.{stamp}.json"
        for copy in (Path(f"{prefix}.checkpoint.json"), backup):
            # A checkpoint is replaced, never written into, so a hard link is a copy.
            try:
                os.link(self._stack(ref), copy)
            except OSError:
                shutil.copyfile(self._stack(ref), copy)

    def history(self, ref: StackRef) -> list[dict[str, Any]]:
        """Operations, the last one first, as Pulumi stores them."""
        found = sorted(self._history(ref).glob("*.history.json"), reverse=True)
        try:
            return [json.loads(path.read_text()) for path in found]
        except ValueError as error:
            raise CommandError(f"reading history of {ref.name}: {error}") from error

    def remove(self, ref: StackRef, backups: bool) -> None:
        """Remove checkpoint and history; as with Pulumi, ``.bak`` stays unless ``backups``."""
        path = self._stack(ref)
        path.replace(f"{path}.bak")
        path.with_name(f"{path.name}.attrs").unlink(missing_ok=True)
        path.with_name(f"{ref.name}.pulumi-tags").unlink(missing_ok=True)
        self._journal(ref).unlink(missing_ok=True)
        shutil.rmtree(self._history(ref), ignore_errors=True)
        if backups:
            Path(f"{path}.bak").unlink(missing_ok=True)
            shutil.rmtree(self._backups(ref), ignore_errors=True)

    def locked(self, ref: StackRef) -> list[Path]:
        return sorted(self._locks(ref).glob("*.json"))

    def cancel(self, ref: StackRef) -> None:
        """Remove all locks: the way out after a killed operation."""
        for path in self._locks(ref).glob("*.json*"):
            path.unlink(missing_ok=True)

    def _refuse_if_locked(self, ref: StackRef, own: Path | None) -> None:
        others = [path for path in self.locked(ref) if path != own]
        if not others:
            return
        lines = [
            f"the stack is currently locked by {len(others)} lock(s). Either wait for the other "
            "process(es) to end or delete the lock file with `pulumi cancel`."
        ]
        for path in others:
            try:
                lock = json.loads(path.read_text())
                stamp = re.sub(r"\.\d+", "", lock["timestamp"])
                line = (
                    f"  file://{path}: created by {lock['username']}@{lock['hostname']} "
                    f"(pid {lock['pid']}) at {stamp}"
                )
                if lock["hostname"] == socket.gethostname() and not _alive(int(lock["pid"])):
                    line += ": that process is gone, its lock was left behind"
            except (OSError, ValueError, KeyError):
                line = f"  file://{path}: not a readable lock"
            lines.append(line)
        raise CommandError("\n".join(lines))

    @contextmanager
    def lock(self, ref: StackRef) -> Iterator[None]:
        """Hold the stack's lock. Raises CommandError with Pulumi's text when another does."""
        self._refuse_if_locked(ref, None)
        own = self._locks(ref) / f"{uuid.uuid4()}.json"
        content = {"pid": os.getpid(), "username": self.user, "hostname": socket.gethostname(),
                   "timestamp": datetime.now().astimezone().isoformat()}  # fmt: skip
        write_atomically(own, json.dumps(content, separators=(",", ":")).encode())
        try:
            self._refuse_if_locked(ref, own)
            yield
        finally:
            own.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def newer(version: int, document: dict[str, Any]) -> str:
    """What a checkpoint of another version than 3 is called: 4 has features, `taint` among them."""
    features = ", ".join(document.get("features") or ()) or "none named"
    return f"a checkpoint of version {version} (features: {features})"


def manifest() -> dict[str, str]:
    """Who wrote the checkpoint and when, in the form whose ``magic`` Pulumi verifies."""
    from engine.state import now

    version = f"v{VERSION}"
    magic = hashlib.sha256(version.encode()).hexdigest()
    return {"time": now(), "magic": magic, "version": version}


def crypter_of(deployment: dict[str, Any]) -> PassphraseCrypter:
    """The crypter that a checkpoint names."""
    provider = deployment.get("secrets_providers") or {}
    if provider.get("type") != "passphrase":
        raise refuse(f"secrets provider {provider.get('type') or 'none'!r} in the checkpoint")
    return PassphraseCrypter(provider["state"]["salt"])
