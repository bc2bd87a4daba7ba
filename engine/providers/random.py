"""pulumi-random 4: RandomPassword, made once and replaced when an input changes; a change of
`keepers` is the usual way to ask for that. Attributes are terraform-provider-random's."""

from __future__ import annotations

import asyncio
import re
import secrets
import string
from decimal import Decimal
from typing import Any

import bcrypt

from engine.providers import Context, Difference, Provider, Refused
from engine.providers.schema import KINDS, convert, mismatch
from engine.state import UNKNOWN, Properties, Secret, Value, reveal

PASSWORD = "random:index/randomPassword:RandomPassword"

CLASSES = {"lower", "upper", "numeric", "special"}
MINIMA = {f"min{name.capitalize()}" for name in CLASSES}
SPECIAL = "!@#$%&*()-_=+[]{}<>:?"
MADE = ("bcryptHash", "result", "id", "__meta")
"""Outputs of a password that an update leaves as they are."""
NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"


class RandomProvider(Provider):
    types = frozenset({PASSWORD})

    def check(self, kind: str, inputs: Properties) -> Properties:
        checked = {k: v for k, v in inputs.items() if v is not None}
        wrong = convert(kind, reveal(checked), _scalar)[1]
        if wrong := wrong or _contradictions(_planned(kind, checked)):
            raise Refused(*wrong)
        return checked

    def difference(self, kind: str, old: Properties, new: Properties) -> Difference:
        before, after = _planned(kind, old), _planned(kind, new)
        keys = sorted(before.keys() | after.keys())
        changed = [k for k in keys if before.get(k) != after.get(k)]
        replacing = [k for k in changed if _replaces(k, before.get(k), after.get(k))]
        return Difference(bool(changed), replacing, changed)

    def preview(
        self, context: Context, new: Properties, old_outputs: Properties | None
    ) -> tuple[str, Properties]:
        computed = {"bcryptHash": Secret(UNKNOWN), "result": Secret(UNKNOWN), "id": UNKNOWN}
        return "", _outputs(context.type, new) | (_made(old_outputs) if old_outputs else computed)

    async def create(self, context: Context, inputs: Properties) -> tuple[str, Properties]:
        outputs = _outputs(context.type, inputs)
        plain = reveal(outputs)
        text = _password(plain)
        hashed = await asyncio.to_thread(_bcrypt, text)
        made = {"result": Secret(text), "id": "none", "__meta": '{"schema_version":"3"}'}
        return "none", outputs | made | {"bcryptHash": Secret(hashed)}

    async def update(
        self, context: Context, inputs: Properties, old_outputs: Properties
    ) -> Properties:
        return _outputs(context.type, inputs) | _made(old_outputs)


def _scalar(expected: type, value: Value) -> Value:
    """As the bridge to Terraform's provider converts: text to a number, what is plain to text."""
    is_bool = isinstance(value, bool)
    is_number = isinstance(value, int | float) and not is_bool
    if expected is bool and is_bool:
        return value
    if expected is int and (is_number or isinstance(value, str)):
        number = float(value) if re.fullmatch(NUMBER, str(value)) else None
        if number is not None and number.is_integer() and abs(number) < 1 << 63:
            return int(number)
        if value == "":
            return None
        raise ValueError("expected a whole number")
    if expected is str and (is_bool or is_number):
        return str(value).lower() if is_bool else f"{Decimal(repr(float(value))).normalize():f}"
    if expected is str and isinstance(value, str):
        return value
    raise mismatch(KINDS[expected], value)


def _planned(kind: str, inputs: Properties) -> Properties:
    """What the provider makes of the inputs, with its defaults."""
    given = {k: v for k, v in convert(kind, reveal(inputs), _scalar)[0].items() if v is not None}
    defaults: dict[str, Value] = dict.fromkeys(CLASSES, True) | dict.fromkeys(MINIMA, 0)
    numeric = given.get("numeric", given.get("number", True))
    return {"number": numeric} | defaults | {"numeric": numeric} | given


def _contradictions(planned: Properties) -> list[tuple[str, str]]:
    """What is wrong with inputs that are each of their type."""
    length, wrong = planned.get("length"), []
    if length is None:
        wrong.append(("length", "missing required property"))
    elif length != UNKNOWN and length < 1:
        wrong.append(("length", f"expected at least 1, got {length}"))
    minima = {key: planned[key] for key in sorted(MINIMA) if planned[key] != UNKNOWN}
    wrong += [(key, f"expected at least 0, got {m}") for key, m in minima.items() if m < 0]
    least = sum(minima.values())
    if not wrong and length != UNKNOWN and length < least and len(minima) == len(MINIMA):
        wrong.append(("length", f"{length} is less than the sum of the minima, {least}"))
    if len({planned["number"], planned["numeric"]} - {UNKNOWN}) > 1:
        wrong.append(("number", "is not as numeric is; number is deprecated, use numeric"))
    if not any(planned[key] is True for key in CLASSES):
        wrong.append(("", f"at least one of {', '.join(sorted(CLASSES))} must be true"))
    return wrong


def _replaces(key: str, old: Value, new: Value) -> bool:
    """Whether another value of a password's property makes another password."""
    if key == "overrideSpecial":
        return new != UNKNOWN and (new is not None or old != "")
    if key != "keepers":
        return True
    old, new = old or {}, {} if new in (None, UNKNOWN) else new
    return bool(old.keys() - new.keys()) or any(
        value is not None if key not in old else value != old[key] for key, value in new.items()
    )


def _outputs(kind: str, inputs: Properties) -> Properties:
    """The settings as outputs carry them, secret where the inputs are."""
    return {k: _secret_as(inputs.get(k), v) for k, v in _planned(kind, inputs).items()}


def _secret_as(example: Value, value: Value) -> Value:
    if isinstance(example, Secret):
        return Secret(value)
    if isinstance(example, dict) and isinstance(value, dict):
        return {k: _secret_as(example.get(k), v) for k, v in value.items()}
    return value


def _made(outputs: Properties) -> Properties:
    """What an update leaves as it was made."""
    return {k: outputs[k] for k in MADE if k in outputs}


def _password(plain: dict[str, Any]) -> str:
    letters = {"lower": string.ascii_lowercase, "upper": string.ascii_uppercase,
               "numeric": string.digits,
               "special": plain.get("overrideSpecial") or SPECIAL}  # fmt: skip
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
