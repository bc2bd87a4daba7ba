"""Both engines taking turns on one stack end where either alone would have ended.

Each turn changes a program of random shape, in one way or in several at once, and operates on it.
ENGINE_TURNS says how many operations (one of each kind without it; a hundred take about twenty
minutes), ENGINE_SEED which: a failure names its own.
"""

from __future__ import annotations

import copy
import json
import os
import random
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.backend import Backend, StackRef
from engine.secrets import PassphraseCrypter
from engine.state import from_disk, to_disk
from tests.engine.conftest import PROGRAMS, Json, SshServer, local, remote
from tests.engine.front.displays import with_plugin
from tests.engine.front.scenarios import Outcome, Sandbox, embedded_pulumi
from tests.engine.test_real import normal_state

SEED = int(os.environ.get("ENGINE_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)
REF = StackRef("small", "dev")
UP = ["up", "-yf"]
URN = "urn:pulumi:dev::small::"


@dataclass
class Wish:
    """What the program is to make next, and the operation that is to make it."""

    chance: random.Random
    items: list[Json] = field(default_factory=list)
    exports: Json = field(default_factory=dict)
    secrets: int = 0
    count: int = 0
    argv: list[str] = field(default_factory=lambda: list(UP))

    def some(self, *kinds: str) -> list[Json]:
        return [i for i in self.items if i["kind"] in kinds]

    def one(self, *kinds: str) -> Json:
        """An item of these kinds, a command where none is named."""
        return self.chance.choice(self.some(*(kinds or ("local", "remote"))))

    def new(self) -> str:
        self.count += 1
        return f"r{self.count}"

    def text(self) -> str:
        self.count += 1
        return f"text {self.count}\n"

    def value(self, depth: int = 2) -> Any:
        """Any value that a list may hold."""
        simple = [
            *(None, True, False, 0, -1, 2.5, 1e-7, 2**53 + 2, "", "é\u2028", "null", self.text()),
            f"${{secret:{self.text()}}}",
        ]
        if depth and self.chance.random() < 0.4:
            inner = [self.value(depth - 1) for _ in range(self.chance.randrange(3))]
            return inner if self.chance.random() < 0.5 else {f"k {n}.x": v for n, v in
                                                             enumerate(inner)}  # fmt: skip
        return self.chance.choice(simple)

    def maybe(self, *kinds: str) -> str | None:
        found = self.some(*kinds)
        return self.chance.choice(found)["name"] if found and self.chance.random() < 0.5 else None

    # What the program is changed to

    def create(self) -> None:
        options: Json = {}
        if before := self.maybe("local", "remote", "password"):
            options["depends_on"] = [before]
        if parent := self.maybe("group"):
            options["parent"] = parent
        kind = self.chance.choice([local, remote])
        item = kind(self.new(), "cat", stdin=self.text(), delete="true", **options)
        if source := self.maybe("local", "remote"):
            item["args"]["environment"] = {"FROM": f"${{{source}.stdout}}"}
        self.items.append(item)

    def component(self) -> None:
        options = {"parent": parent} if (parent := self.maybe("group")) else {}
        args = {"value": self.value()}
        group: Json = {"name": self.new(), "kind": "group", "args": args, "options": options}
        self.items.append(group | {"outputs": {"out": self.value()}})

    def password(self) -> None:
        self.items.append({"name": self.new(), "kind": "password", "options": {}, "args": {}})
        self.password_arguments(self.items[-1])

    def password_arguments(self, item: Json | None = None) -> None:
        """Other arguments, which often come to the same as those before."""
        length = self.chance.choice([12, 12, "12", "${secret:12}", 13])
        more: list[Json] = [
            *({}, {"special": True}, {"min_lower": 0}, {"numeric": True}, {"number": True}),
            *({"keepers": {}}, {"keepers": {"a": "1"}}, {"keepers": {"a": 1}}),
            {"override_special": "!"},
        ]
        item = item or self.one("password")
        item["args"] = {"length": length} | self.chance.choice(more) | self.chance.choice(more)

    def provider(self) -> None:
        """A provider of its own for one that is there, or none any more."""
        item = self.one()
        if item["options"].pop("provider", None) is None:
            name = self.maybe("provider")
            if name is None:
                name = self.new()
                made = {"name": name, "kind": "provider", "args": {}, "options": {}}
                self.items.insert(0, made)
            item["options"]["provider"] = name

    def update(self) -> None:
        self.one()["args"]["stdin"] = self.text()

    def values(self) -> None:
        item = self.one()
        item["args"]["triggers"] = [self.value() for _ in range(self.chance.randrange(4))]
        names = ("A", "B.c", 'D"e', "F")
        item["args"]["environment"] = {name: self.text() for name in
                                       self.chance.sample(names, 2)}  # fmt: skip

    def secret(self) -> None:
        item = self.one()
        item["args"] |= {"stdin": f"${{secret:{self.text()}}}", "logging": "none"}
        item["args"]["environment"] = {"S": f"${{secret:{self.text()}}}"}
        item["options"]["additional_secret_outputs"] = ["stdout"]

    def replace(self) -> None:
        """With the first triggers, or with none: another trigger is an update."""
        if self.one()["args"].pop("triggers", None) is None:
            self.one()["args"]["triggers"] = [self.text()]

    def option(self) -> None:
        options = self.one()["options"]
        key, value = self.chance.choice([
            ("protect", True), ("retain_on_delete", True), ("delete_before_replace", True),
            ("ignore_changes", ["environment", "stdin"]), ("replace_on_changes", ["stdin"]),
            ("additional_secret_outputs", ["stderr"]), ("custom_timeouts", {"create": "5m"}),
            ("ignore_changes", ["triggers[0]"]), ("replace_on_changes", ["*"]),
        ])  # fmt: skip
        if options.pop(key, None) is None:
            options[key] = value

    def delete(self) -> None:
        text = json.dumps([[i["args"], i["options"], i.get("outputs")] for i in self.items])
        named = set(re.findall(r"\br\d+\b", text))
        free = [i for i in self.items if i["name"] not in named]
        if len(self.items) > 4 and free:
            self.items.remove(self.chance.choice(free))

    def rename(self) -> None:
        """With an alias; whatever names it follows."""
        old, new = self.one("local", "remote", "group", "password")["name"], self.new()
        text = re.sub(rf"\b{old}\b", new, json.dumps(self.items))
        self.items = json.loads(text)
        for item in self.items:
            if item["name"] == new:
                item["options"]["aliases"] = [{"name": old}]

    def move(self) -> None:
        """To another parent, with an alias that names the one before."""
        item = self.one()
        before = item["options"].pop("parent", None)
        earlier = [i["name"] for i in self.items[: self.items.index(item)] if i["kind"] == "group"]
        if earlier and self.chance.random() < 0.7:
            item["options"]["parent"] = self.chance.choice(earlier)
        alias: Json = {"no_parent": True}
        if before:
            alias = {"parent": self.urn(before)}
        item["options"]["aliases"] = [alias]

    def urn(self, group: str) -> str:
        """Of a component."""
        kinds, name = "test:index:Group", group
        while name := next(i for i in self.items if i["name"] == name)["options"].get("parent"):
            kinds = f"test:index:Group${kinds}"
        return f"{URN}{kinds}::{group}"

    def export(self) -> None:
        self.exports["list"] = [self.value(), self.text()]
        self.exports["out"] = f"${{{self.one()['name']}.stdout}}"

    def config(self) -> None:
        self.secrets += 1

    # What is done with it

    def several(self, without: Any = None) -> None:
        for _ in range(3):
            self.chance.choice([shape for shape in self.SHAPES if shape != without])(self)

    def apply(self) -> None:
        """All that is still to be done."""

    def failure(self) -> None:
        self.one()["args"] |= {"create": "echo no >&2; exit 3", "stdin": self.text()}

    def refused(self) -> None:
        self.one()["args"] |= {"environment": {"A": self.chance.choice([5, True])}}

    def preview(self) -> None:
        self.several()
        self.argv = ["preview"]

    def refresh(self) -> None:
        self.argv = ["refresh", "-yf"]

    def target(self) -> None:
        """Whether the provider that an untargeted one had is there is a matter of time."""
        self.several(without=Wish.provider)
        self.argv = [*UP, "--target", f"**::{self.chance.choice(self.items)['name']}"]

    def target_dependents(self) -> None:
        self.target()
        self.argv.append("--target-dependents")

    def replace_flag(self) -> None:
        self.argv = [*UP, "--replace", f"**::{self.one()['name']}"]

    def destroy_target(self) -> None:
        name = self.one("local", "remote", "password")["name"]
        self.argv = ["destroy", "-yf", "--target", f"**::{name}", "--target-dependents"]

    SHAPES = (create, update, replace, delete, rename, secret, values, component, password,
              password_arguments, provider, option, move, export, config)  # fmt: skip
    KINDS = (*SHAPES, failure, target, refused, several, refresh, preview, target_dependents,
             replace_flag, destroy_target)  # fmt: skip


TURNS = int(os.environ.get("ENGINE_TURNS", "0")) or len(Wish.KINDS) + 4


@dataclass
class Line:
    """One stack, and the engines that take turns on it."""

    sandbox: Sandbox
    engines: list[Path]
    connection: Json
    turn: int = 0
    crypter: PassphraseCrypter | None = None
    made: Json = field(default_factory=dict)

    def run(self, *argv: str) -> Outcome:
        self.sandbox.pulumi = self.engines[self.turn % len(self.engines)]
        return self.sandbox.run(*argv)

    def take(self, wish: Wish) -> Json:
        """One operation: how it ended, what it did and the state that it leaves, readable."""
        settings = self.sandbox.project / "Pulumi.dev.yaml"
        document = yaml.safe_load(settings.read_text()) or {}
        config = document.setdefault("config", {})
        config |= {"small:resources": wish.items, "small:exports": wish.exports}
        config["small:connection"] = self.connection
        settings.write_text(yaml.safe_dump(document))
        if wish.secrets != self.made.get("secrets"):
            self.made["secrets"] = wish.secrets
            done = self.run("config", "set", "--secret", "token", f"token {wish.secrets}")
            assert done.code == 0, done.err
        done = self.run(*wish.argv)
        self.turn += 1
        counts = re.findall(r"^ +(\S )?(\d+ [a-z]+ ?[a-z]*)", done.out.partition("\nResources:")[2],
                            re.MULTILINE)  # fmt: skip
        found: Json = {"code": done.code, "state": self.state()}
        if done.code == 0:  # how far others had come at a failure is a matter of time
            found["counts"] = sorted(counts)
        return found | {"text": done.out + done.err}

    def state(self) -> Json:
        deployment = Backend(self.sandbox.env["PULUMI_BACKEND_URL"]).load(REF).deployment or {}
        assert "pending_operations" not in deployment
        if self.crypter is None:
            salt = deployment["secrets_providers"]["state"]["salt"]
            self.crypter = PassphraseCrypter(salt, self.sandbox.env["PULUMI_CONFIG_PASSPHRASE"])
        opened = normal_state(to_disk(from_disk(deployment, self.crypter.decrypt), None))
        for resource in opened["resources"]:
            if "RandomPassword" in resource["type"]:
                # The real one's refresh writes numbers where text was given, as outputs have them.
                resource["inputs"] = sorted(resource["inputs"])
                self.number(resource["outputs"])
        return opened

    def number(self, outputs: Json) -> None:
        """A password is the line's own: what counts is whether it stays. A bridge's note on how
        to read its state is the real provider's alone, which does without it."""
        outputs.pop("__pulumi_raw_state_delta", None)
        for key in ("result", "bcryptHash"):
            text = json.dumps(outputs[key])
            outputs[key] = self.made.setdefault(text, f"made {len(self.made)}")


@pytest.mark.timeout(600 + 60 * TURNS)
def test_taking_turns(real: Path, tmp_path: Path, server: SshServer) -> None:
    connection = server.connection  # the key's text is another one each time

    def line(name: str, *engines: Path) -> Line:
        sandbox = Sandbox(tmp_path / name, real)
        shutil.copy(PROGRAMS / "graph" / "__main__.py", sandbox.project)
        with_plugin(sandbox)
        found = Line(sandbox, list(engines), connection)
        assert found.run("stack", "init", "dev").code == 0
        return found

    ours = embedded_pulumi(tmp_path)
    lines = [line("turns", ours, real), line("ours", ours), line("real", real)]
    wish = Wish(random.Random(SEED))
    first = [Wish.create, Wish.create, Wish.component, Wish.password]
    kinds = [*first, *Wish.KINDS][:TURNS]
    kinds += wish.chance.choices(Wish.KINDS, k=TURNS - len(kinds))
    # How far others come beside one that fails is a matter of time: it fails alone.
    alone = (Wish.failure, Wish.refused, Wish.target, Wish.target_dependents)
    kinds = [k for kind in kinds for k in ([Wish.apply, kind] if kind in alone else [kind])]
    good: list[Json] = []
    for turn, kind in enumerate(kinds):
        wish.argv = list(UP)
        kind(wish)
        with ThreadPoolExecutor(len(lines)) as threads:
            turns, own, theirs = threads.map(Line.take, lines, map(copy.deepcopy, [wish] * 3))
        where = f"seed {SEED}, turn {turn}: {kind.__name__}: {' '.join(wish.argv)}"
        told = [found.pop("text") for found in (turns, own, theirs)]
        print(where, theirs["code"], flush=True)
        for which, found in (("each alone", own), ("in turns", turns)):
            wrong = differences(found, theirs)
            assert not wrong, "\n".join([f"{where}, {which}", *wrong, *told])
        if theirs["code"]:
            wish.items = copy.deepcopy(good)
        elif wish.argv == UP:
            good = copy.deepcopy(wish.items)
    wish.argv = list(UP)
    assert [found.take(wish)["code"] for found in lines] == [0, 0, 0]
    for engine in (real, ours):
        lines[0].engines = [engine]
        final = lines[0].run("preview", "--expect-no-changes")
        assert final.code == 0, final.out + final.err


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Where two documents differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        pairs = [(k, one.get(k), other.get(k)) for k in sorted({*one, *other})]
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = list(zip(map(str, range(len(one))), one, other, strict=True))
    else:
        return [] if one == other else [f"{path}: {json.dumps(one)} != {json.dumps(other)}"]
    return [d for key, a, b in pairs for d in differences(a, b, f"{path}.{key}")]
