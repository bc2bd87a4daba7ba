"""A stack's state: resources, property values, and their form in a checkpoint of version 3.

Property values are plain JSON values, with two additions: :class:`Secret` around what is secret,
and the string :data:`UNKNOWN` where a preview cannot know. A reference to a resource is the object
that :func:`reference` makes. The forms are those of Pulumi's
sdk/go/common/apitype/core.go and pkg/resource/stack/deployment.go.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Protocol

SIGNATURE = "4dabf18193072939515e22adb298388d"
SECRET = "1b47061264138c4ac30d75fd1eb44270"
REFERENCE = "5cf8f73096256a8f31e491e813e4eb8e"
ASSETS = {
    "c44067f5952c0a294b673a41bacd8c17": "asset",
    "0def7320c3a5731c473e5ecbe6d01bc7": "archive",
}
PROVIDER_PREFIX = "pulumi:providers:"
STACK_TYPE = "pulumi:pulumi:Stack"
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"

Value = Any
Properties = dict[str, Value]


class Crypter(Protocol):
    """A stack's secrets: both directions on the text `v1:NONCE:DATA`."""

    def encrypt(self, plaintext: str) -> str: ...
    def decrypt(self, ciphertext: str) -> str: ...


@dataclass(eq=False)
class Secret:
    """A secret value; keeps the ciphertext it was read from, so unchanged secrets stay the same
    text on disk. Compares by what it holds and never shows it."""

    value: Value
    ciphertext: str | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.value == other.value

    def __repr__(self) -> str:
        return "[secret]"


def reveal(value: Value) -> Value:
    """The value with every secret in it laid bare."""
    if isinstance(value, Secret):
        return reveal(value.value)
    if isinstance(value, dict):
        return {k: reveal(v) for k, v in value.items()}
    return [reveal(v) for v in value] if isinstance(value, list) else value


def number(value: float) -> float:
    """A number as Pulumi has it, a float: here an integer where it is whole, past 2^53 with the
    digits that tell it from its neighbours, as Go writes it."""
    if isinstance(value, int) and abs(value) <= 2**53:
        return value
    value = float(value)
    return int(Decimal(repr(value))) if value.is_integer() and abs(value) < 1e21 else value


def to_disk(value: Value, encrypt: Callable[[str], str] | None) -> Value:
    """The checkpoint's form; ``encrypt`` None leaves secrets readable, as `stack export
    --show-secrets` does. What is encrypted as a part of a secret is not encrypted once more: a
    secret within one has its plain text where the ciphertext would be."""
    if isinstance(value, Secret):
        if encrypt is None:
            return {SIGNATURE: SECRET, "plaintext": _dump(to_disk(value.value, None))}
        text = value.ciphertext
        if encrypt is _nothing or text is None:
            text = encrypt(_dump(to_disk(value.value, _nothing)))
        if encrypt is not _nothing:
            value.ciphertext = text
        return {SIGNATURE: SECRET, "ciphertext": text}
    if isinstance(value, dict):
        return {k: to_disk(value[k], encrypt) for k in sorted(value)}
    return [to_disk(v, encrypt) for v in value] if isinstance(value, list) else value


def from_disk(value: Value, decrypt: Callable[[str], str]) -> Value:
    """What :func:`to_disk` wrote, or the other engine. Raises ValueError on a malformed secret."""
    if isinstance(value, list):
        return [from_disk(v, decrypt) for v in value]
    if not isinstance(value, dict):
        return number(value) if type(value) in (int, float) else value
    if value.get(SIGNATURE) == SECRET:
        plain, text = value.get("plaintext") or "", value.get("ciphertext") or ""
        if bool(plain) == bool(text):
            raise ValueError("malformed secret value: exactly one of ciphertext and plaintext")
        inner = from_disk(json.loads(plain or decrypt(text)), _nothing)
        return Secret(inner, text if text and decrypt is not _nothing else None)
    return reference({k: from_disk(v, decrypt) for k, v in value.items()})


def reference(found: Properties) -> Properties:
    """Of a reference to a resource the form in which Pulumi keeps it: a custom resource's has an
    id, which is empty as long as it is unknown. Other maps are as they were."""
    if found.get(SIGNATURE) != REFERENCE:
        return found
    kept = {SIGNATURE: REFERENCE, "urn": found["urn"]}
    kept["packageVersion"] = found.get("packageVersion", "")
    return kept | ({"id": found["id"].replace(UNKNOWN, "")} if "id" in found else {})


def urn_name(urn: str) -> str:
    """Names may have `::` in them."""
    return urn.split("::", 3)[-1]


def _nothing(text: str) -> str:
    """What Pulumi encrypts and decrypts with inside a secret."""
    return text


_MARK = {SIGNATURE: SECRET, "ciphertext": "[secret]"}


def blind(value: Any, mark: Any = _MARK) -> Any:
    """What has the checkpoint's form with a mark for every secret, as Pulumi's event log has it."""
    if isinstance(value, dict):
        if value.get(SIGNATURE) == SECRET:
            return mark
        return {k: blind(v, mark) for k, v in value.items()}
    return [blind(v, mark) for v in value] if isinstance(value, list) else value


def _dump(value: Value) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


@dataclass
class Resource:
    """One resource as the checkpoint knows it. Names are the checkpoint's in snake case; ``extra``
    has its other keys."""

    urn: str
    type: str
    custom: bool = True
    delete: bool = False
    id: str = ""
    inputs: Properties = field(default_factory=dict)
    outputs: Properties = field(default_factory=dict)
    parent: str = ""
    protect: bool = False
    external: bool = False
    dependencies: list[str] = field(default_factory=list)
    init_errors: list[str] = field(default_factory=list)
    provider: str = ""
    property_dependencies: dict[str, list[str]] = field(default_factory=dict)
    pending_replacement: bool = False
    additional_secret_outputs: list[str] = field(default_factory=list)
    aliases: list[str] = field(default_factory=list)
    custom_timeouts: dict[str, float] | None = None
    retain_on_delete: bool = False
    deleted_with: str = ""
    created: str = ""
    modified: str = ""
    source_position: str = ""
    ignore_changes: list[str] = field(default_factory=list)
    replace_on_changes: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return urn_name(self.urn)

    @property
    def package(self) -> str:
        return self.type.split(":")[0]

    @property
    def is_provider(self) -> bool:
        return self.type.startswith(PROVIDER_PREFIX)

    @property
    def provider_urn(self) -> str:
        return self.provider.rpartition("::")[0]

    def all_dependencies(self) -> set[str]:
        """URNs that must exist as long as this one does."""
        found = {*self.dependencies, self.parent, self.deleted_with, self.provider_urn}
        for urns in self.property_dependencies.values():
            found.update(urns)
        return found - {""}

    def copy(self, **changes: Any) -> Resource:
        return replace(self, **changes)

    def dump(self, crypter: Crypter | None) -> dict[str, Any]:
        """The checkpoint's form; without a crypter secrets are readable."""
        encrypt = crypter.encrypt if crypter else None
        doc: dict[str, Any] = {"urn": self.urn, "custom": self.custom}
        for attribute, key in FIELDS.items():
            value = getattr(self, attribute)
            if attribute in ("inputs", "outputs"):
                value = to_disk(value, encrypt)
            if value:
                doc[key] = value
        return doc | self.extra

    @classmethod
    def load(cls, doc: dict[str, Any], crypter: Crypter) -> Resource:
        """Raises KeyError or ValueError on a document that is not a resource."""
        found: dict[str, Any] = {"extra": {}}
        for key, value in doc.items():
            if key in ("inputs", "outputs"):
                value = from_disk(value, crypter.decrypt)
            if key in ("urn", "custom"):
                found[key] = value
            elif key in KEYS:
                found[KEYS[key]] = value
            else:
                found["extra"][key] = value
        return cls(**found)


def _camel(attribute: str) -> str:
    head, *tail = attribute.split("_")
    return head + "".join("ID" if word == "id" else word.capitalize() for word in tail)


FIELDS = {
    f.name: _camel(f.name) for f in fields(Resource) if f.name not in ("urn", "custom", "extra")
}
KEYS = {key: attribute for attribute, key in FIELDS.items()}


@dataclass
class PendingOperation:
    """A step that was under way when the engine was killed: creating, updating, deleting, …"""

    resource: Resource
    type: str


@dataclass
class Snapshot:
    """All of a stack. ``rest`` keeps the deployment's other keys (manifest, secrets_providers,
    metadata, …) as they were read; the front fills in secrets_providers for a new stack."""

    resources: list[Resource] = field(default_factory=list)
    pending: list[PendingOperation] = field(default_factory=list)
    rest: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, deployment: dict[str, Any] | None, crypter: Crypter) -> Snapshot:
        """From the value of `checkpoint.latest` (or `deployment` of an export); None is empty.
        Raises KeyError, TypeError or ValueError on a document that is no deployment."""
        if not deployment:
            return cls()
        rest = dict(deployment)
        resources = [Resource.load(r, crypter) for r in rest.pop("resources", None) or []]
        pending = [
            PendingOperation(Resource.load(o["resource"], crypter), o["type"])
            for o in rest.pop("pending_operations", None) or []
        ]
        return cls(resources, pending, rest)

    def dump(self, crypter: Crypter | None) -> dict[str, Any]:
        """The deployment, with a fresh manifest; without a crypter secrets are readable."""
        doc = dict(self.rest)
        doc["manifest"] = {"time": now(), "magic": "", "version": ""}
        doc.setdefault("metadata", {})
        doc["resources"] = [r.dump(crypter) for r in self.resources]
        if self.pending:
            doc["pending_operations"] = [
                {"resource": o.resource.dump(crypter), "type": o.type} for o in self.pending
            ]
        return doc


def now() -> str:
    """Now, as Go writes a time."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
