"""pulumi-random 4: RandomBytes and RandomPassword.

Both are made once and replaced when an input changes; a change of `keepers` is the usual
way to ask for that. Attributes are those of terraform-provider-random's resources of these names.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
import string
from typing import Any

import bcrypt

from engine.properties import detailed_diff
from engine.providers import Context, Difference, Refused, top_level
from engine.state import UNKNOWN, Properties, Secret, Value, reveal

BYTES = "random:index/randomBytes:RandomBytes"
PASSWORD = "random:index/randomPassword:RandomPassword"

CLASSES = {"lower", "upper", "numeric", "special"}
MINIMA = {f"min{name.capitalize()}" for name in CLASSES}
SPECIAL = "!@#$%&*()-_=+[]{}<>:?"
INPUTS = {
    BYTES: {"length", "keepers"},
    PASSWORD: {"length", "keepers", "number", "overrideSpecial"} | CLASSES | MINIMA,
}
COMPUTED = {BYTES: ("base64", "hex"), PASSWORD: ("bcryptHash", "result")}


class RandomProvider:
    types = frozenset(INPUTS)

    def configuration(self) -> Properties:
        return {}

    def check(self, kind: str, inputs: Properties) -> Properties:
        checked = {k: v for k, v in inputs.items() if v is not None}
        failures = [(k, f"unknown property of {kind}") for k in checked if k not in INPUTS[kind]]
        length = reveal(checked.get("length"))
        least = sum(int(reveal(checked.get(m, 0)) or 0) for m in MINIMA)
        if "length" not in checked:
            failures.append(("length", "Missing required property 'length'"))
        elif length != UNKNOWN and (not isinstance(length, int) or length < 1):
            reason = f"expected a whole number of at least 1, got {length!r}"
            failures.append(("length", reason))
        elif isinstance(length, int) and length < least:
            reason = f"{length} is less than the sum of the minima, {least}"
            failures.append(("length", reason))
        if failures:
            raise Refused(*failures)
        return checked

    def difference(self, kind: str, old: Properties, new: Properties) -> Difference:
        detail = {path: f"{change}-replace" for path, change in detailed_diff(old, new).items()}
        keys = top_level(detail)
        return Difference(bool(detail), keys, keys, detail, delete_before_replace=False)

    def preview(
        self, context: Context, new: Properties, old_outputs: Properties | None
    ) -> tuple[str, Properties]:
        computed = dict.fromkeys(COMPUTED[context.type], Secret(UNKNOWN))
        return "", _settings(context.type, new) | computed

    async def create(self, context: Context, inputs: Properties) -> tuple[str, Properties]:
        outputs = _settings(context.type, inputs)
        plain = reveal(outputs)
        if context.type == BYTES:
            data = secrets.token_bytes(plain["length"])
            encoded = base64.b64encode(data).decode()
            return "none", outputs | {"base64": Secret(encoded), "hex": Secret(data.hex())}
        text = _password(plain)
        hashed = await asyncio.to_thread(_bcrypt, text)
        made = {"result": Secret(text), "id": "none", "__meta": '{"schema_version":"3"}'}
        return "none", outputs | made | {"bcryptHash": Secret(hashed)}

    async def update(
        self, context: Context, inputs: Properties, old_outputs: Properties
    ) -> Properties:
        raise AssertionError("every change of a random resource replaces it")

    async def delete(self, context: Context, outputs: Properties) -> None:
        return None

    async def close(self) -> None:
        return None


def _settings(kind: str, inputs: Properties) -> Properties:
    """The inputs with the provider's defaults, as its outputs carry them."""
    if kind == BYTES:
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
