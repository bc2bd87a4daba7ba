"""``slurmstack:jwt``: keys that sign tokens, how long tokens may live, and whom else to trust."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import jwt
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from settings.base import Model, matching
from settings.duration import Duration
from settings.problems import Problem, refused, shown

#: RFC 7518, 6.3.2 and 6.4.1: what makes a key private (or, for `k`, shared).
_PRIVATE = ("d", "p", "q", "dp", "dq", "qi", "oth", "k")
#: RFC 7518, 3.3: RS256 needs a modulus of 2,048 bits or more.
_LEAST_BITS = 2048

KeyName = Annotated[
    str,
    matching(
        r"[a-z0-9][a-z0-9-]{0,31}",
        "a name of lower-case letters, digits and hyphens, such as a or key-2026",
    ),
]


def _some_keys(value: Any) -> Any:
    """Before each is looked at: those that are wrong would not be counted, and missed twice."""
    if isinstance(value, list | tuple) and not value:
        raise refused("at least one key", "none")
    return value


class TrustedKey(BaseModel):
    """A foreign public key as RFC 7517 writes it; what slurmctld does not read is left out."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kty: str
    alg: str | None = None
    use: str | None = None
    kid: str
    n: str
    e: str

    @model_validator(mode="before")
    @classmethod
    def _public_and_rsa(cls, value: Any) -> Any:
        """A key of another kind lacks other things, too: say only that it is of another kind."""
        if not isinstance(value, Mapping):
            raise refused("a key, which is an object", shown(value))
        private = [name for name in _PRIVATE if name in value]
        if private:
            raise refused(
                "a public key", f"the private part{'s' * (len(private) > 1)} {', '.join(private)}"
            )
        if value.get("kty") != "RSA":
            raise refused("kty RSA, the one kind that slurmctld verifies", _one(value, "kty"))
        if value.get("alg") not in (None, "RS256"):
            raise refused("alg RS256, the one that slurmctld verifies", _one(value, "alg"))
        if value.get("use") not in (None, "sig"):
            raise refused("use sig; leave keys for encryption out", _one(value, "use"))
        return value

    @field_validator("kid")
    @classmethod
    def _plain(cls, value: str) -> str:
        if not value or any(c in '"\\' or not " " <= c <= "~" for c in value):
            raise refused("printable ASCII without quotes and backslashes", shown(value))
        return value

    @field_validator("n", "e")
    @classmethod
    def _number(cls, value: str) -> str:
        try:
            base64.b64decode(value + "=" * (-len(value) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise refused("base64url", shown(value)) from None
        return value.rstrip("=")

    @model_validator(mode="after")
    def _strong(self) -> TrustedKey:
        try:
            key: Any = jwt.PyJWK.from_dict(self.line() | {"alg": "RS256"}).key
            bits = int(key.key_size)
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise refused("an RSA public key", f"{type(error).__name__}: {error}") from None
        if bits < _LEAST_BITS:
            raise refused(f"at least {_LEAST_BITS} bits (RFC 7518, 3.3)", f"{bits} bits")
        return self

    def line(self) -> dict[str, str]:
        """The key as slurmctld needs it: it passes over keys that do not say RS256 themselves
        (auth_jwt.c, _verify_rs256_jwt)."""
        return {
            "kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.kid, "n": self.n, "e": self.e,
        }  # fmt: skip


def _one(value: Mapping[Any, Any], name: str) -> str:
    return shown(value[name]) if name in value else f"no {name}"


class Jwks(BaseModel):
    """A JSON Web Key Set (RFC 7517, 5), as an object or as the text of its file."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    keys: tuple[TrustedKey, ...]

    _keys = field_validator("keys", mode="before")(_some_keys)

    @model_validator(mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError as error:
                raise refused("a JWKS in JSON", f"text that is not JSON: {error}") from None
        if not isinstance(value, Mapping):
            raise refused("a JWKS: an object with keys", shown(value))
        return value


class Jwt(Model):
    """``slurmstack:jwt``; present, the cluster takes tokens."""

    #: Names of the controller's own key pairs. The first signs; all are accepted.
    keys: tuple[KeyName, ...] = ("a",)
    #: Bits of a pair that is yet to be made.
    key_size: Annotated[int, Field(ge=_LEAST_BITS, le=16384, multiple_of=8)] = 3072
    #: Name of the HS256 key of `scontrol token`; another name makes another key.
    scontrol_key: KeyName = "a"
    #: Seconds that a token lives at most, and when nothing is said.
    max_lifetime: Duration = 86400
    default_lifetime: Duration = 3600
    #: Whether users may get tokens for themselves by `scontrol token`.
    user_tokens: bool = True
    #: The claim that names the user in foreign tokens without `sun`.
    user_claim: (
        Annotated[
            str,
            matching(r"[A-Za-z0-9_.:-]+", "the name of a claim, such as preferred_username"),
        ]
        | None
    ) = None
    #: Name → a JWKS whose keys are trusted besides the controller's own.
    trusted_jwks: dict[str, Jwks] = Field(default_factory=dict)

    _keys = field_validator("keys", mode="before")(_some_keys)

    @model_validator(mode="after")
    def _default_within_limit(self) -> Jwt:
        if self.default_lifetime > self.max_lifetime:
            # With no default of its own, a small limit is the default, too.
            if "default_lifetime" in self.model_fields_set:
                raise refused(
                    f"defaultLifetime of at most maxLifetime, {self.max_lifetime} s",
                    f"{self.default_lifetime} s",
                )
            object.__setattr__(self, "default_lifetime", self.max_lifetime)
        return self

    def trusted(self) -> tuple[TrustedKey, ...]:
        """All foreign keys, in the order of the settings."""
        return tuple(key for jwks in self.trusted_jwks.values() for key in jwks.keys)


def problems(setting: Jwt, path: str) -> Iterator[Problem]:
    """Names and key ids that are there twice."""
    for index, name in enumerate(setting.keys):
        if name in setting.keys[:index]:
            yield Problem(f"{path}.keys[{index}]", "each name once", f"{name} again")
    seen: dict[str, str] = {}
    for title, jwks in setting.trusted_jwks.items():
        for index, key in enumerate(jwks.keys):
            where = f"{path}.trustedJwks.{title}.keys[{index}]"
            if key.kid in seen:
                yield Problem(
                    f"{where}.kid", "each kid once", f"{shown(key.kid)}, already at {seen[key.kid]}"
                )
            seen.setdefault(key.kid, where)
