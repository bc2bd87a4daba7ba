"""Both engines taking turns on one stack end where either alone would have ended.

ENGINE_TURNS says how many operations (12 without it, one of most kinds; 100 take about twenty
minutes), ENGINE_SEED which: a failure names its own.
"""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.backend import Backend, StackRef
from engine.secrets import PassphraseCrypter
from engine.state import from_disk, to_disk
from tests.engine.conftest import PROGRAMS, Json, local
from tests.engine.front.displays import with_plugin
from tests.engine.front.scenarios import Outcome, Sandbox, embedded_pulumi
from tests.engine.test_real import normal_state

TURNS = int(os.environ.get("ENGINE_TURNS", "12"))
SEED = int(os.environ.get("ENGINE_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)
REF = StackRef("small", "dev")


@dataclass
class Wish:
    """What the program is to make next. ``commands`` go before the update, ``arguments`` with it;
    ``afterwards`` puts back what was to fail."""

    chance: random.Random
    items: list[Json] = field(default_factory=list)
    count: int = 0
    commands: list[list[str]] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    fails: bool = False
    afterwards: Callable[[], None] = lambda: None

    def one(self) -> Json:
        return self.chance.choice(self.items)

    def text(self) -> str:
        self.count += 1
        return f"text {self.count}\n"

    def create(self) -> None:
        before = [self.one()["name"]] if self.items and self.chance.random() < 0.6 else []
        name = f"r{self.count}"
        self.items.append(local(name, "cat", stdin=self.text(), delete="true", depends_on=before))

    def update(self) -> None:
        self.one()["args"]["stdin"] = self.text()

    def replace(self) -> None:
        self.one()["args"]["triggers"] = [self.text()]

    def delete_before_replace(self) -> None:
        item = self.one()
        item["args"]["triggers"] = [self.text()]
        item["options"]["delete_before_replace"] = True

    def delete(self) -> None:
        needed = {name for i in self.items for name in i["options"].get("depends_on", [])}
        free = [i for i in self.items if i["name"] not in needed]
        if len(self.items) > 3:
            self.items.remove(self.chance.choice(free))

    def alias(self) -> None:
        item = self.one()
        old, item["name"] = item["name"], f"n{self.count}"
        self.count += 1
        item["options"]["aliases"] = [{"name": old}]
        for other in self.items:
            names = other["options"].get("depends_on", [])
            other["options"]["depends_on"] = [item["name"] if n == old else n for n in names]

    def failure(self) -> None:
        item = self.one()
        kept = dict(item["args"])
        item["args"] |= {"create": "echo no >&2; exit 3", "stdin": self.text()}
        self.fails, self.afterwards = True, lambda: item.update(args=kept)

    def target(self) -> None:
        chosen = self.one()
        for item in (chosen, self.one()):
            item["args"]["stdin"] = self.text()
        self.arguments = ["--target", f"**::{chosen['name']}"]

    def secret(self) -> None:
        item = self.one()
        item["args"] |= {"stdin": f"${{secret:{self.text()}}}", "logging": "none"}
        item["options"]["additional_secret_outputs"] = ["stdout"]

    def config(self) -> None:
        self.commands = [
            ["config", "set", "--path", "exports.list[0]", self.text()],
            ["config", "set", "--path", "exports.out", f"${{{self.one()['name']}.stdout}}"],
            ["config", "set", "--secret", "token", self.text()],
        ]

    KINDS = (create, update, replace, delete, alias, failure, target, secret, config,
             delete_before_replace)  # fmt: skip


@dataclass
class Line:
    """One stack, and the engines that take turns on it."""

    sandbox: Sandbox
    engines: list[Path]
    turn: int = 0
    crypter: PassphraseCrypter | None = None

    def run(self, *argv: str) -> Outcome:
        self.sandbox.pulumi = self.engines[self.turn % len(self.engines)]
        return self.sandbox.run(*argv)

    def take(self, wish: Wish) -> Json:
        """One operation; the state that it leaves, readable."""
        settings = self.sandbox.project / "Pulumi.dev.yaml"
        document = yaml.safe_load(settings.read_text()) or {}
        config = document.setdefault("config", {})
        config["small:resources"] = wish.items
        known = {i["name"] for i in wish.items}
        shown = config.get("small:exports", {})
        if str(shown.get("out", "")).strip("${}").split(".")[0] not in known:
            shown.pop("out", None)
        settings.write_text(yaml.safe_dump(document))
        for argv in wish.commands:
            done = self.run(*argv)
            assert done.code == 0, done.err
        done = self.run("up", "-yf", *wish.arguments)
        self.turn += 1
        assert bool(done.code) == wish.fails, done.out + done.err
        return self.state()

    def state(self) -> Json:
        deployment = Backend(self.sandbox.env["PULUMI_BACKEND_URL"]).load(REF).deployment or {}
        assert "pending_operations" not in deployment
        if self.crypter is None:
            salt = deployment["secrets_providers"]["state"]["salt"]
            self.crypter = PassphraseCrypter(salt, self.sandbox.env["PULUMI_CONFIG_PASSPHRASE"])
        opened = to_disk(from_disk(deployment, self.crypter.decrypt), None)
        return normal_state(opened)


@pytest.mark.timeout(600 + 60 * TURNS)
def test_taking_turns(real: Path, tmp_path: Path) -> None:
    def line(name: str, *engines: Path) -> Line:
        sandbox = Sandbox(tmp_path / name, real)
        shutil.copy(PROGRAMS / "graph" / "__main__.py", sandbox.project)
        with_plugin(sandbox)
        found = Line(sandbox, list(engines))
        assert found.run("stack", "init", "dev").code == 0
        return found

    ours = embedded_pulumi(tmp_path)
    lines = [line("turns", ours, real), line("ours", ours), line("real", real)]
    wish = Wish(random.Random(SEED))
    for turn in range(TURNS):
        kind = Wish.create  # three, then one of each kind, then by chance
        if turn >= 3:
            known = turn - 2 < len(Wish.KINDS)
            kind = Wish.KINDS[turn - 2] if known else wish.chance.choice(Wish.KINDS)
        wish.commands, wish.arguments, wish.fails, wish.afterwards = [], [], False, lambda: None
        kind(wish)
        where = f"seed {SEED}, turn {turn}: {kind.__name__}"
        wishes = [copy.copy(wish) for _ in lines]
        with ThreadPoolExecutor(len(lines)) as threads:
            turns, own, theirs = threads.map(Line.take, lines, wishes)
        assert differences(own, theirs) == [], f"{where}, each alone"
        assert differences(turns, theirs) == [], where
        wish.afterwards()
        print(where, flush=True)
    for engine in (real, ours):
        lines[0].engines = [engine]
        final = lines[0].run("preview", "--expect-no-changes")
        assert final.code == 0 or wish.fails or wish.arguments, final.out + final.err


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Where two documents differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        pairs = [(k, one.get(k), other.get(k)) for k in sorted({*one, *other})]
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = list(zip(map(str, range(len(one))), one, other, strict=True))
    else:
        return [] if one == other else [f"{path}: {json.dumps(one)} != {json.dumps(other)}"]
    return [d for key, a, b in pairs for d in differences(a, b, f"{path}.{key}")]
