"""The secret filter: what leaves the engine, as event, text or error, goes through it.

Rules for the configuration's secrets follow sdk/go/common/util/logging (`FilterString`). What
Pulumi does not look for are secrets of the state and of the program: those are masked here, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from engine.state import UNKNOWN, Resource, Secret, Value

MASK = "[secret]"
SHORTEST = 3
"""Characters of a secret of the configuration that is looked for: as in Pulumi."""
SHORTEST_VALUE = 6
"""Of any other: `Output.secret("root")` shall not hide that word everywhere."""
_KEY = re.compile(r"[\w+/=-]{20,}", re.ASCII)
"""A line of a longer secret that is one itself, such as each line of a private key."""


class SecretFilter:
    """Knows the secrets of one operation, more of them as it goes on."""

    def __init__(self) -> None:
        self._secrets: set[str] = set()
        self._ordered: list[str] = []
        self._filtered: dict[str, str] = {}

    def add(self, texts: Iterable[str], shortest: int = SHORTEST) -> None:
        for text in texts:
            lines = (line.strip() for line in text.split("\n"))
            for secret in {text, text.strip(), *filter(_KEY.fullmatch, lines)}:
                if len(secret) >= shortest and secret.lower() not in ("true", "false"):
                    self._secrets |= {secret, json.dumps(secret)[1:-1],
                                      json.dumps(secret, ensure_ascii=False)[1:-1]}  # fmt: skip
        if len(self._secrets) != len(self._ordered):
            self._ordered = sorted(self._secrets, key=len, reverse=True)
            self._filtered.clear()

    def learn(self, value: Value) -> None:
        """Add every text that is a secret by itself in the value."""
        if isinstance(value, Secret) and isinstance(value.value, str):
            self.add({value.value} - {UNKNOWN}, SHORTEST_VALUE)
        elif isinstance(value, Secret):
            self.learn(value.value)
        elif isinstance(value, dict | list):
            for inner in value.values() if isinstance(value, dict) else value:
                self.learn(inner)

    def text(self, text: str) -> str:
        found = self._filtered.get(text)
        if found is None:
            there = "|".join(re.escape(secret) for secret in self._ordered if secret in text)
            found = self._filtered[text] = re.sub(there, MASK, text) if there else text
        return found

    def value(self, value: Value) -> Value:
        """The value with its plain texts filtered; what is a secret stays one."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {k: self.value(v) for k, v in value.items()}
        return [self.value(v) for v in value] if isinstance(value, list) else value

    def resource(self, r: Resource) -> Resource:
        """A copy to show; its own secrets are learnt first."""
        for properties in (r.inputs, r.outputs):
            self.learn(properties)
        shown = ("id", "inputs", "outputs", "init_errors")
        return r.copy(**{name: self.value(getattr(r, name)) for name in shown})
