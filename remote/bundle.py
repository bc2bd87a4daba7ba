"""What one role puts on one node, as typed parts, and its text form for the applier.

The text (`Bundle.render`) is what `remote.Command` carries in `stdin` and what `preview --diff`
shows, so it is line oriented and sorted wherever order has no meaning. Its grammar is described in
README.md beside this file; `applier/bundle.sh` is its reader and checks the same rules again.
"""

import base64
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

VERSION = 1

#: The backslash is systemd's: the unit of /srv/my-data is srv-my\x2ddata.mount.
_PATH = re.compile(r"/[A-Za-z0-9._/@:%+=~\\-]+")
_TARGET = re.compile(r"[A-Za-z0-9._/@:%+=~-]+")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@:+-]*")
_ROLE = re.compile(r"[a-z0-9][a-z0-9-]*")
_OWNER = re.compile(r"[A-Za-z0-9_.-]+:[A-Za-z0-9_.-]+")
_MODE = re.compile(r"[0-7]{4}")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_PACKAGE_VERSION = re.compile(r"[0-9A-Za-z][A-Za-z0-9.+:~-]*")
_UNIT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@:+\\-]*\.(service|socket|timer|target|mount|path)")
_BASE64_WIDTH = 76


class BundleError(ValueError):
    """A bundle that must not be sent: says which node, role and part, what was found, expected."""


def _require(pattern: re.Pattern[str], text: str, what: str) -> None:
    if not pattern.fullmatch(text):
        raise BundleError(f"{text!r} is not {what}")


def _require_path(path: str) -> None:
    _require(_PATH, path, "an absolute path of plain characters without spaces")
    if any(part in ("", ".", "..") for part in path.split("/")[1:]):
        raise BundleError(f"{path!r} is not a plain absolute path (no //, ., .., or / at the end)")


def _require_seconds(seconds: int) -> None:
    if seconds < 1:
        raise BundleError(f"timeout {seconds} is not a positive number of seconds")


def _require_text(text: str, what: str) -> None:
    if "\0" in text:
        raise BundleError(f"{what} holds a zero byte")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BundleError(f"{what} is not valid Unicode: {error.reason}") from None


def _indented(text: str) -> Iterator[str]:
    """Lines of a block. Only the newline separates lines; an empty line stays empty."""
    for line in text.removesuffix("\n").split("\n") if text else ():
        yield f"  {line}" if line else ""


def _script(text: str, what: str) -> Iterator[str]:
    _require_text(text, what)
    if not text.strip():
        raise BundleError(f"{what} is empty")
    yield from _indented(text.strip("\n"))


def _attributes(**values: object) -> str:
    """` key=value` for each value that is neither empty nor None."""
    return "".join(
        f" {key.replace('_', '-')}={','.join(value) if isinstance(value, tuple) else value}"
        for key, value in values.items()
        if value
    )


@dataclass(frozen=True, kw_only=True)
class _Part:
    """One entry of a bundle. `kind` decides its place in the text, `key` must be unique."""

    kind: ClassVar[str]

    @property
    def key(self) -> str:
        raise NotImplementedError

    def lines(self) -> Iterator[str]:
        """Text lines, the first without indentation. Raises `BundleError` on what is not valid."""
        raise NotImplementedError


@dataclass(frozen=True)
class Guard(_Part):
    """Shell text that runs before anything is changed; a non-zero exit stops the bundle."""

    kind: ClassVar[str] = "guard"
    name: str
    script: str
    when: Literal["apply", "remove", "both"] = "apply"
    timeout: int = 30

    @property
    def key(self) -> str:
        return f"guard {self.name}"

    def lines(self) -> Iterator[str]:
        _require(_NAME, self.name, "a name")
        _require_seconds(self.timeout)
        when = None if self.when == "apply" else self.when
        yield f"guard {self.name}" + _attributes(when=when, timeout=self.timeout)
        yield from _script(self.script, "the script")


@dataclass(frozen=True)
class Withdrawal(_Part):
    """Shell text that takes the node out of use before a change which a unit must not meet at work
    (its ``drain_on`` and ``drain_keys``), and gives it back. One a bundle.

    `on`, `unit`: the same for a unit that another role of the node has applied: what of this bundle
    must not change while it is at work. Where no role has applied it, there is no work to meet.

    ``$SLURMSTACK_SERVICE`` says which: ``out`` before anything is changed (a non-zero exit stops
    the bundle, but 4, which says that it need not be), ``back`` when all is done and checked (4:
    another role gives it back), ``unchanged`` or ``failed`` when the run ends otherwise. A run that
    was killed says nothing: the next one gives back, with or without ``out`` before; so the text
    has to find by itself what it left, and to end where the process ``$SLURMSTACK_PROCESS``, its
    run, has.
    """

    kind: ClassVar[str] = "withdraw"
    name: str
    script: str
    timeout: int = 3600
    on: tuple[str, ...] = ()
    unit: str | None = None

    @property
    def key(self) -> str:
        return "withdraw"

    def lines(self) -> Iterator[str]:
        _require(_NAME, self.name, "a name")
        _require_seconds(self.timeout)
        if bool(self.on) != (self.unit is not None):
            raise BundleError("either both or none of: what must not change, and the unit at work")
        if self.unit is not None:
            _require(_UNIT, self.unit, "a unit name with its suffix")
        yield f"withdraw {self.name}" + _attributes(
            on=tuple(sorted(self.on)), unit=self.unit, timeout=self.timeout
        )
        yield from _script(self.script, "the script")


@dataclass(frozen=True)
class Package(_Part):
    """A package to be installed, at exactly `version` if given."""

    kind: ClassVar[str] = "package"
    name: str
    version: str | None = None

    @property
    def key(self) -> str:
        return f"package:{self.name}"

    def lines(self) -> Iterator[str]:
        _require(_PACKAGE, self.name, "a package name")
        if self.version is None:
            yield f"package {self.name}"
        else:
            _require(_PACKAGE_VERSION, self.version, "a package version")
            yield f"package {self.name} {self.version}"


@dataclass(frozen=True)
class Group(_Part):
    """A system group; an existing one with another gid is an error, never changed."""

    kind: ClassVar[str] = "group"
    name: str
    gid: int | None = None

    @property
    def key(self) -> str:
        return f"group {self.name}"

    def lines(self) -> Iterator[str]:
        _require(_NAME, self.name, "a group name")
        yield f"group {self.name}" + ("" if self.gid is None else f" {self.gid}")


@dataclass(frozen=True)
class User(_Part):
    """A system user; `None` leaves a value to the system. An existing uid is never changed."""

    kind: ClassVar[str] = "user"
    name: str
    uid: int | None
    group: str
    home: str | None = "/nonexistent"
    shell: str | None = "/usr/sbin/nologin"

    @property
    def key(self) -> str:
        return f"user {self.name}"

    def lines(self) -> Iterator[str]:
        _require(_NAME, self.name, "a user name")
        _require(_NAME, self.group, "a group name")
        for path in (self.home, self.shell):
            if path is not None:
                _require_path(path)
        uid = "-" if self.uid is None else self.uid
        yield f"user {self.name} {uid} {self.group} {self.home or '-'} {self.shell or '-'}"


@dataclass(frozen=True)
class Directory(_Part):
    """A directory. Its parent must exist or be declared too, unless with `parents`.

    `ephemeral`: what is in it may go with it when the role is removed.
    `parents`: folders above that are not there are made (0755, root's), those that are stay as
    they are.
    """

    kind: ClassVar[str] = "directory"
    path: str
    owner: str = "root:root"
    mode: str = "0755"
    ephemeral: bool = False
    parents: bool = False

    @property
    def key(self) -> str:
        return self.path

    def lines(self) -> Iterator[str]:
        _require_path(self.path)
        _require(_OWNER, self.owner, "owner:group")
        _require(_MODE, self.mode, "a mode of four octal digits")
        words = (" ephemeral" if self.ephemeral else "") + (" parents" if self.parents else "")
        yield f"directory {self.path} {self.owner} {self.mode}{words}"


@dataclass(frozen=True)
class File(_Part):
    """A regular file. Text that ends in a newline (or is empty) is sent as readable lines; other
    text and all bytes as base64. Content never shows in `repr`, as it may be secret.

    `lasting`: when the bundle no longer has it, it stays until the role goes.
    """

    kind: ClassVar[str] = "file"
    path: str
    content: str | bytes
    owner: str = "root:root"
    mode: str = "0644"
    lasting: bool = False

    def __repr__(self) -> str:
        return f"File({self.path!r}, owner={self.owner!r}, mode={self.mode!r})"

    @property
    def key(self) -> str:
        return self.path

    def lines(self) -> Iterator[str]:
        _require_path(self.path)
        _require(_OWNER, self.owner, "owner:group")
        _require(_MODE, self.mode, "a mode of four octal digits")
        place = f"{self.path} {self.owner} {self.mode}" + (" lasting" if self.lasting else "")
        content = self.content
        if isinstance(content, str):
            try:
                data = content.encode()
            except UnicodeEncodeError:
                raise BundleError("its content is not valid Unicode; give bytes") from None
            if (not content or content.endswith("\n")) and "\0" not in content:
                yield f"file {place}"
                yield from _indented(content)
                return
        else:
            data = content
        yield f"file-base64 {place}"
        encoded = base64.b64encode(data).decode()
        for start in range(0, len(encoded), _BASE64_WIDTH):
            yield f"  {encoded[start : start + _BASE64_WIDTH]}"


@dataclass(frozen=True)
class Link(_Part):
    """A symbolic link at `path` that holds `target` as written."""

    kind: ClassVar[str] = "link"
    path: str
    target: str

    @property
    def key(self) -> str:
        return self.path

    def lines(self) -> Iterator[str]:
        _require_path(self.path)
        _require(_TARGET, self.target, "a link target of plain characters")
        yield f"link {self.path} {self.target}"


@dataclass(frozen=True)
class Absent(_Part):
    """A file or link that must not be there (a copy is kept; it returns when the role goes)."""

    kind: ClassVar[str] = "absent"
    path: str

    @property
    def key(self) -> str:
        return self.path

    def lines(self) -> Iterator[str]:
        _require_path(self.path)
        yield f"absent {self.path}"


@dataclass(frozen=True)
class Validate(_Part):
    """Shell text by which the reader of files in `on` reads them, before any of them is in place;
    it runs when one of them is to change, and a non-zero exit leaves all as it was.

    `$SLURMSTACK_STAGED` is a folder in which all files and links of the bundle stand at their
    paths as they are to be. What the script prints are the reader's words, which the error
    carries. Unit files of systemd need none: the applier has them read itself.
    """

    kind: ClassVar[str] = "validate"
    name: str
    script: str
    on: tuple[str, ...]
    timeout: int = 60

    @property
    def key(self) -> str:
        return f"validate {self.name}"

    def lines(self) -> Iterator[str]:
        _require(_NAME, self.name, "a name")
        _require_seconds(self.timeout)
        if not self.on:
            raise BundleError("it names no file that it reads")
        yield f"validate {self.name}" + _attributes(on=tuple(sorted(self.on)), timeout=self.timeout)
        yield from _script(self.script, "the script")


@dataclass(frozen=True)
class Command(_Part):
    """Shell text that runs when something in `on` changed, when its own text changed, until it
    succeeded once, or when `probe` (shell text) finds that what it made is no longer so.
    `when="remove"`: runs each time the role is taken back, before all else.

    `restarts` and `reloads` name the units, of whichever role, to which the script does so where
    they run and need it. The plan is told from it, and the answer names those it was done to.
    `reboots`: where the node needs it, it is rebooted after this run, which ends first. The plan is
    told from it. By exit status 4 the script says that what follows can only be after that boot:
    units of the bundle are enabled or disabled and otherwise left as they are, and nothing is
    checked. Whoever has the node booted proves it.

    Lines `key value` written to `$SLURMSTACK_FACTS` come back as facts, also from later runs in
    which the command itself is not due.
    """

    kind: ClassVar[str] = "command"
    name: str
    script: str
    on: tuple[str, ...] = ()
    when: Literal["apply", "remove"] = "apply"
    timeout: int = 600
    probe: str | None = None
    restarts: tuple[str, ...] = ()
    reloads: tuple[str, ...] = ()
    reboots: bool = False

    @property
    def key(self) -> str:
        return f"command {self.name}"

    def lines(self) -> Iterator[str]:
        _require(_NAME, self.name, "a name")
        _require_seconds(self.timeout)
        if self.probe is not None:
            yield f"probe {self.name}"
            yield from _script(self.probe, "the probe")
        when = None if self.when == "apply" else self.when
        for unit in (*self.restarts, *self.reloads):
            _require(_UNIT, unit, "a unit name with its suffix")
        yield f"command {self.name}" + _attributes(
            on=tuple(sorted(self.on)),
            when=when,
            restarts=tuple(sorted(self.restarts)),
            reloads=tuple(sorted(self.reloads)),
            reboots="yes" if self.reboots else None,
            timeout=self.timeout,
        )
        yield from _script(self.script, "the script")


@dataclass(frozen=True)
class Unit(_Part):
    """A systemd unit and what makes it restart or reload.

    `enabled`, `running`: True, False, or None for "leave as it is". `restart_on`, `reload_on`:
    paths of this bundle, or `package:NAME`. `reload`: shell text instead of `systemctl reload`; it
    runs after a restart, too, if it is due, as it tells others of the files.
    `restart_keys`: lines that, when they differ from those last applied, ask for a restart where a
    reload would have done (or nothing was to be done). `drain_on`, `drain_keys`: the same for the
    bundle's `Withdrawal`: what must not change while the unit is at work.
    """

    kind: ClassVar[str] = "unit"
    name: str
    enabled: bool | None = True
    running: bool | None = True
    restart_on: tuple[str, ...] = ()
    reload_on: tuple[str, ...] = ()
    reload: str | None = None
    restart_keys: tuple[str, ...] = ()
    drain_on: tuple[str, ...] = ()
    drain_keys: tuple[str, ...] = ()
    timeout: int = 90

    @property
    def key(self) -> str:
        return f"unit {self.name}"

    def lines(self) -> Iterator[str]:
        _require(_UNIT, self.name, "a unit name with its suffix")
        _require_seconds(self.timeout)
        enabled = {True: "enabled", False: "disabled", None: "-"}[self.enabled]
        running = {True: "running", False: "stopped", None: "-"}[self.running]
        yield f"unit {self.name} {enabled} {running}" + _attributes(
            restart_on=tuple(sorted(self.restart_on)),
            reload_on=tuple(sorted(self.reload_on)),
            drain_on=tuple(sorted(self.drain_on)),
            timeout=self.timeout,
        )
        if self.reload is not None:
            for line in self.reload.strip("\n").split("\n"):
                yield from self._one_line("reload", line)
        for line in sorted(self.restart_keys):
            yield from self._one_line("restart-key", line)
        for line in sorted(self.drain_keys):
            yield from self._one_line("drain-key", line)

    def _one_line(self, word: str, text: str) -> Iterator[str]:
        _require_text(text, word)
        if not text.strip() or "\n" in text:
            raise BundleError(f"{word} {text!r} is not one line")
        yield f"  {word} {text}"


@dataclass(frozen=True)
class Check(_Part):
    """Shell text that must succeed at the end; tried once a second for `timeout` seconds."""

    kind: ClassVar[str] = "check"
    name: str
    script: str
    timeout: int = 60

    @property
    def key(self) -> str:
        return f"check {self.name}"

    def lines(self) -> Iterator[str]:
        _require(_NAME, self.name, "a name")
        _require_seconds(self.timeout)
        yield f"check {self.name}" + _attributes(timeout=self.timeout)
        yield from _script(self.script, "the script")


Part = (
    Guard
    | Withdrawal
    | Package
    | Group
    | User
    | Directory
    | File
    | Link
    | Absent
    | Validate
    | Command
    | Unit
    | Check
)

# The order in the text. Kinds marked True are sorted by key: their order has no meaning (and a
# directory sorts before what is in it). Of the others, the order given is the order of execution.
_ORDER: tuple[tuple[type[_Part], bool], ...] = (
    (Guard, False),
    (Withdrawal, False),
    (Group, True),
    (User, True),
    (Package, True),
    (Directory, True),
    (File, True),
    (Link, True),
    (Absent, True),
    (Validate, False),
    (Command, False),
    (Unit, False),
    (Check, False),
)


@dataclass(frozen=True)
class Bundle:
    """All that `role` puts on `node`."""

    node: str
    role: str
    parts: tuple[Part, ...]

    def __init__(self, node: str, role: str, parts: Iterable[Part]) -> None:
        object.__setattr__(self, "node", node)
        object.__setattr__(self, "role", role)
        object.__setattr__(self, "parts", tuple(parts))

    def render(self, reapply: str | None = None) -> str:
        """The bundle's text. `reapply` is any word: another one makes another text of
        the same bundle, so that an engine sends it again. Raises `BundleError` naming node, role
        and part."""
        where = f"bundle of role {self.role} for {self.node}"
        try:
            _require(_NAME, self.node, "a node name")
            _require(_ROLE, self.role, "a role name (lower case letters, digits, -)")
            if reapply is not None:
                _require(_NAME, reapply, "a word that tells one wish to apply again from another")
        except BundleError as error:
            raise BundleError(f"{where}: {error}") from None
        self._refuse_duplicates(where)
        lines = [f"slurmstack-bundle {VERSION}", f"node {self.node}", f"role {self.role}"]
        if reapply is not None:
            lines.append(f"reapply {reapply}")
        for kind, unordered in _ORDER:
            parts: list[_Part] = [part for part in self.parts if isinstance(part, kind)]
            for part in sorted(parts, key=lambda part: part.key) if unordered else parts:
                try:
                    self._check_triggers(part)
                    lines.extend(part.lines())
                except BundleError as error:
                    name = part.key.removeprefix(f"{part.kind}:").removeprefix(f"{part.kind} ")
                    raise BundleError(f"{where}: {part.kind} {name}: {error}") from None
        lines.append("end")
        return "\n".join(lines) + "\n"

    def _refuse_duplicates(self, where: str) -> None:
        seen: set[str] = set()
        for part in self.parts:
            if part.key in seen:
                raise BundleError(f"{where}: {part.key} is there twice")
            seen.add(part.key)

    def _check_triggers(self, part: _Part) -> None:
        """What a unit or command waits for must be in this very bundle, else it never comes."""
        triggers: tuple[str, ...] = ()
        if isinstance(part, Unit):
            triggers = part.restart_on + part.reload_on + part.drain_on
        elif isinstance(part, Command | Validate | Withdrawal):
            triggers = part.on
        held = {other.key for other in self.parts}
        for trigger in triggers:
            if " " in trigger or trigger not in held:
                raise BundleError(f"{trigger!r} is no path or package:NAME of this bundle")
