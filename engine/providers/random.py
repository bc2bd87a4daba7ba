"""pulumi-random 4: RandomBytes, RandomPassword, RandomString and RandomId.

All of them are made once and replaced when an input changes; a change of `keepers` is the usual
way to ask for that. Attributes are those of terraform-provider-random's resources of these names.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
import string
from typing import Any

import bcrypt

from engine.properties import diff
from engine.providers import Context, Difference, Refused, top_level
from engine.state import UNKNOWN, Properties, Secret, Value, reveal

BYTES = "random:index/randomBytes:RandomBytes"
ID = "random:index/randomId:RandomId"
PASSWORD = "random:index/randomPassword:RandomPassword"
STRING = "random:index/randomString:RandomString"

CLASSES = {"lower", "upper", "numeric", "special"}
MINIMA = {f"min{name.capitalize()}" for name in CLASSES}
SPECIAL = "!@#$%&*()-_=+[]{}<>:?"
INPUTS = {
    BYTES: {"length", "keepers"},
    ID: {"byteLength", "keepers", "prefix"},
    PASSWORD: {"length", "keepers", "number", "overrideSpecial"} | CLASSES | MINIMA,
    STRING: {"length", "keepers", "number", "overrideSpecial"} | CLASSES | MINIMA,
}
COMPUTED = {
    BYTES: ["base64", "hex"],
    ID: ["b64Std", "b64Url", "dec", "hex"],
    PASSWORD: ["bcryptHash", "result"],
    STRING: ["result"],
}


class RandomProvider:
    types = frozenset(INPUTS)

    def configuration(self) -> Properties:
        return {}

    def check(self, kind: str, inputs: Properties) -> Properties:
        checked = {k: v for k, v in inputs.items() if v is not None}
        failures = [(k, f"unknown property of {kind}") for k in checked if k not in INPUTS[kind]]
        key = "byteLength" if kind == ID else "length"
        length = reveal(checked.get(key))
        if key not in checked:
            failures.append((key, f"Missing required property '{key}'"))
        elif length != UNKNOWN and (not isinstance(length, int) or length < 1):
            failures.append((key, f"expected a whole number of at least 1, got {length!r}"))
        elif isinstance(length, int) and kind in (PASSWORD, STRING):
            least = sum(int(reveal(checked.get(m, 0)) or 0) for m in MINIMA)
            if length < least:
                failures.append((key, f"{length} is less than the sum of the minima, {least}"))
        if failures:
            raise Refused(*failures)
        return checked

    def difference(self, kind: str, old: Properties, new: Properties) -> Difference:
        detail = {path: f"{change}-replace" for path, change in diff(old, new).items()}
        keys = top_level(detail)
        return Difference(bool(detail), keys, keys, detail, delete_before_replace=False)

    def preview(
        self, context: Context, new: Properties, old_outputs: Properties | None
    ) -> tuple[str, Properties]:
        outputs = _settings(context.type, new)
        for key in COMPUTED[context.type]:
            secret = context.type in (BYTES, PASSWORD)
            outputs[key] = Secret(UNKNOWN) if secret else UNKNOWN
        return "", outputs

    async def create(self, context: Context, inputs: Properties) -> tuple[str, Properties]:
        kind = context.type
        outputs = _settings(kind, inputs)
        plain = reveal(outputs)
        if kind in (BYTES, ID):
            data = secrets.token_bytes(plain["length" if kind == BYTES else "byteLength"])
            if kind == BYTES:
                encoded = base64.b64encode(data).decode()
                return "none", outputs | {"base64": Secret(encoded), "hex": Secret(data.hex())}
            prefix = plain.get("prefix", "")
            url = base64.urlsafe_b64encode(data).decode().rstrip("=")
            made = {
                "b64Std": prefix + base64.b64encode(data).decode(),
                "b64Url": prefix + url,
                "dec": prefix + str(int.from_bytes(data, "big")),
                "hex": prefix + data.hex(),
            }
            return url, outputs | made | {"id": url}
        text = _password(plain)
        if kind == STRING:
            return text, outputs | {"result": text, "id": text, "__meta": _META["2"]}
        made = {"result": Secret(text), "id": "none", "__meta": _META["3"]}
        hashed = await asyncio.to_thread(_bcrypt, text)
        return "none", outputs | made | {"bcryptHash": Secret(hashed)}

    async def update(
        self, context: Context, inputs: Properties, old_outputs: Properties
    ) -> Properties:
        raise AssertionError("every change of a random resource replaces it")

    async def delete(self, context: Context, outputs: Properties) -> None:
        return None

    async def close(self) -> None:
        return None


_META = {version: f'{{"schema_version":"{version}"}}' for version in ("2", "3")}


def _settings(kind: str, inputs: Properties) -> Properties:
    """The inputs with the provider's defaults, as its outputs carry them."""
    if kind in (BYTES, ID):
        return dict(inputs)
    defaults: dict[str, Value] = dict.fromkeys(CLASSES, True) | dict.fromkeys(MINIMA, 0)
    numeric = inputs.get("numeric", inputs.get("number", True))
    return defaults | inputs | {"numeric": numeric, "number": numeric}


def _password(plain: dict[str, Any]) -> str:
    letters = {
        "lower": string.ascii_lowercase,
        "upper": string.ascii_uppercase,
        "numeric": string.digits,
        "special": plain.get("overrideSpecial") or SPECIAL,
    }
    chosen = "".join(text for name, text in letters.items() if plain[name])
    made: list[str] = []
    for name, text in letters.items():
        made += [secrets.choice(text) for _ in range(plain[f"min{name.capitalize()}"])]
    made += [secrets.choice(chosen) for _ in range(plain["length"] - len(made))]
    secrets.SystemRandom().shuffle(made)
    return "".join(made)


def _bcrypt(text: str) -> str:
    """The hash at cost 10 of the 72 bytes that bcrypt takes, as the real provider has it."""
    return bcrypt.hashpw(text.encode()[:72], bcrypt.gensalt(10, b"2a")).decode()
