"""The files beside the program: Pulumi.yaml, Pulumi.STACK.yaml, and which stack is selected."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from engine import config
from engine.errors import CommandError, refuse
from engine.filter import SecretFilter
from engine.paths import PropertyPath
from engine.secrets import PassphraseCrypter

KNOWN_PROJECT_KEYS = {
    "name", "runtime", "main", "description", "author", "website", "license", "backend",
}  # fmt: skip


def write_atomically(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace the file as a whole and durably. Raises CommandError naming file and reason."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
    except OSError as error:
        temporary.unlink(missing_ok=True) if os.access(path.parent, os.W_OK) else None
        reason = (error.strerror or str(error)).lower()
        raise CommandError(f"cannot write {path}: {reason}; nothing was replaced") from error


def pulumi_home() -> Path:
    return Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")


def _yaml() -> Any:
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 1 << 20
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def _load(path: Path) -> Any:
    from ruamel.yaml.error import YAMLError

    try:
        return _yaml().load(path.read_text("utf-8"))
    except (OSError, YAMLError, UnicodeDecodeError) as error:
        raise CommandError(f"could not read '{path}': {error}") from error


@dataclass(frozen=True)
class ProjectFile:
    """Pulumi.yaml. ``virtualenv`` as written there, ``main`` relative to the file's folder."""

    path: Path
    name: str
    main: str = "."
    virtualenv: str | None = None
    backend_url: str | None = None

    @property
    def root(self) -> Path:
        return self.path.parent

    @classmethod
    def find(cls) -> ProjectFile:
        """The nearest Pulumi.yaml, searching upwards. Raises CommandError if there is none."""
        here = Path(os.environ.get("PWD", ".")) if _pwd_is_here() else Path.cwd()
        for folder in (here, *here.parents):
            for name in ("Pulumi.yaml", "Pulumi.yml", "Pulumi.json"):
                if (folder / name).is_file():
                    return cls.read(folder / name)
        raise CommandError(
            f"no Pulumi.yaml project file found (searching upwards from {here}). If you have not "
            "created a project yet, use `pulumi new` to do so: no project file found"
        )

    @classmethod
    def read(cls, path: Path) -> ProjectFile:
        document = _load(path)
        if not isinstance(document, dict) or not isinstance(document.get("name"), str):
            raise CommandError(
                f"could not validate '{path}': project is missing a 'name' attribute"
            )
        for key in set(document) - KNOWN_PROJECT_KEYS:
            # An empty section changes nothing, as the Automation API writes some.
            if document[key]:
                raise refuse(f"'{key}' in {path.name}")
        runtime = document.get("runtime")
        runtime = runtime if isinstance(runtime, dict) else {"name": runtime, "options": None}
        if runtime.get("name") != "python":
            raise refuse(f"runtime {runtime.get('name')!r} in {path.name}")
        options = dict(runtime.get("options") or {})
        virtualenv = options.pop("virtualenv", None)
        if options.pop("toolchain", "pip") != "pip" or options:
            raise refuse(f"runtime option {', '.join(options) or 'toolchain'} in {path.name}")
        main, url = str(document.get("main") or "."), (document.get("backend") or {}).get("url")
        return cls(path, str(document["name"]), main, virtualenv, url)

    def stack_file(self, stack: str, config_file: str | None = None) -> StackFile:
        path = Path(config_file) if config_file else self.root / f"Pulumi.{stack}.yaml"
        return StackFile(path, self.name)

    @property
    def _selection(self) -> Path:
        digest = hashlib.sha1(str(self.path).encode(), usedforsecurity=False).hexdigest()
        return pulumi_home() / "workspaces" / f"{self.name}-{digest}-workspace.json"

    def selected(self, backend_url: str) -> str | None:
        """The selected stack's full name (``organization/PROJECT/STACK``) in that backend."""
        try:
            document = json.loads(self._selection.read_text())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise CommandError(f"could not parse file {self._selection}: {error}") from error
        name = document.get("stacks", {}).get(backend_url) or document.get("stack")
        return name if isinstance(name, str) else None

    def select(self, backend_url: str, name: str | None) -> None:
        document: dict[str, Any] = {}
        if self._selection.exists():
            document = json.loads(self._selection.read_text())
        stacks = document.setdefault("stacks", {})
        stacks.pop(backend_url, None)
        if name:
            stacks[backend_url] = name
        if stacks:
            write_atomically(self._selection, json.dumps(document, indent=4).encode())
        else:
            self._selection.unlink(missing_ok=True)


def _pwd_is_here() -> bool:
    """Whether $PWD names the working directory: Go prefers it, and the selected stack's file is
    named after the path as the user wrote it, symbolic links included."""
    pwd = os.environ.get("PWD", "")
    try:
        return Path(pwd).is_absolute() and Path(pwd).samefile(".")
    except OSError:
        return False


class StackFile:
    """Pulumi.STACK.yaml; comments and order survive a write. Values are those of
    :mod:`engine.config`; keys are full (``namespace:name``)."""

    def __init__(self, path: Path, project: str) -> None:
        self.path = path
        self.project = project
        document = _load(path) if path.exists() else None
        if document is None:
            from ruamel.yaml.comments import CommentedMap

            document = CommentedMap()
        if not isinstance(document, dict):
            raise CommandError(f"could not unmarshal '{path}': expected a map")
        self.document = document
        for key in ("secretsprovider", "encryptedkey", "environment"):
            value = document.get(key)
            if value and value not in ("passphrase", "default"):
                raise refuse(f"'{key}' in {path.name}")
        if not isinstance(document.get("config") or {}, dict):
            raise CommandError(f"could not unmarshal '{path}': config must be a map")

    def _full(self, key: str) -> str:
        namespace, _, name = str(key).rpartition(":")
        return f"{namespace.removesuffix(':config') or self.project}:{name}"

    @property
    def values(self) -> dict[str, Any]:
        """All values by full key, sorted as Pulumi lists them."""
        found = {self._full(k): v for k, v in (self.document.get("config") or {}).items()}
        return {key: found[key] for key in sorted(found, key=lambda k: k.split(":", 1))}

    def _key_as_written(self, full: str) -> str:
        for key in self.document.get("config") or {}:
            if self._full(key) == full:
                return str(key)
        return full

    def set(self, full: str, path: PropertyPath, value: Any) -> None:
        if not self.document.get("config"):
            self.document["config"] = {}
        key = self._key_as_written(full)
        if not path:
            self.document["config"][key] = _scalars(value)
            return
        # Errors name the path as Pulumi does, without the namespace.
        values = {key.rpartition(":")[2]: self.document["config"].get(key)}
        config.put(values, (*values, *path), _scalars(value))
        self.document["config"][key] = next(iter(values.values()))

    def remove(self, full: str, path: PropertyPath) -> None:
        values = self.document.get("config") or {}
        config.remove(values, (self._key_as_written(full), *path))
        if not values:
            self.document.pop("config", None)

    @property
    def salt(self) -> str | None:
        return self.document.get("encryptionsalt")

    @cached_property
    def crypter(self) -> PassphraseCrypter:
        """The stack's crypter; a stack without a salt gets one, which :meth:`save` keeps."""
        if self.salt:
            return PassphraseCrypter(str(self.salt))
        fresh = PassphraseCrypter.new()
        if hasattr(self.document, "insert"):
            self.document.insert(0, "encryptionsalt", fresh.state)
        return fresh

    def decrypted(self, secrets: SecretFilter) -> tuple[dict[str, str], frozenset[str]]:
        """What the program gets, and which keys are secret. Raises IncorrectPassphrase."""

        def opened(ciphertext: str) -> str:
            text = self.crypter.decrypt(ciphertext)
            secrets.add([text])
            return text

        values = self.values
        secret = frozenset(k for k, v in values.items() if config.has_secure(v))
        plain = {k: config.decrypt(v, opened) for k, v in values.items()}
        return {k: config.to_text(v) for k, v in plain.items()}, secret

    def save(self) -> None:
        from io import StringIO

        if not self.document:
            if self.path.exists():
                write_atomically(self.path, b"{}\n", 0o644)
            return
        text = StringIO()
        _yaml().dump(self.document, text)
        mode = self.path.stat().st_mode & 0o777 if self.path.exists() else 0o644
        write_atomically(self.path, text.getvalue().encode(), mode)


_AMBIGUOUS = re.compile(
    r"(?i)(y|yes|n|no|on|off|true|false|null|~|)$|[-+.]?[\d.][\d_.,:eExXoOa-fA-F+-]*$|[-+]?\.inf$"
)


def _scalars(value: Any) -> Any:
    """Text that YAML (1.1 or 1.2) would read as something else is quoted, lines are kept."""
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString, LiteralScalarString

    if isinstance(value, str):
        if "\n" in value and value.strip() and not value.startswith((" ", "\n")):
            return LiteralScalarString(value)
        odd = "\n" in value or _AMBIGUOUS.match(value)
        return DoubleQuotedScalarString(value) if odd else value
    if isinstance(value, dict):
        return {k: _scalars(v) for k, v in value.items()}
    return [_scalars(v) for v in value] if isinstance(value, list) else value
