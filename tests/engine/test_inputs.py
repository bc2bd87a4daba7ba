"""What a program may give to the resources of the built-in providers, held against what the real
providers answered (``answers.py``)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from engine.providers import Provider, Refused
from engine.providers.command import CommandProvider
from engine.providers.random import RandomProvider
from engine.state import UNKNOWN, Properties, Secret, reveal
from tests.engine.answers import PASSWORD, Plugin, plain, recorded
from tests.engine.conftest import Json, Stack, local, remote
from tests.engine.test_random import password

PROVIDERS: dict[str, Provider] = {"command": CommandProvider(), "random": RandomProvider()}
RECORDED = recorded()


def checked(kind: str, inputs: Properties) -> Properties | None:
    try:
        return PROVIDERS[kind.split(":")[0]].check(kind, inputs)
    except Refused:
        return None


def explained(kind: str, inputs: Properties) -> bool:
    """Where we are deliberately other than the real provider, or it is in two minds."""
    if kind == PASSWORD:
        # A negative minimum passes the real one's check and crashes it when the password is made;
        # nested secrets it loses.
        negative = any(reveal(value) == -1 for key, value in inputs.items() if key[:3] == "min")
        keepers = inputs.get("keepers")
        return negative or (isinstance(keepers, dict) and isinstance(keepers.get("a"), Secret))
    # Of what is unknown the real one forgets lists, and keeps secrets in a form of its own.
    connection = inputs.get("connection")
    given = connection.values() if isinstance(connection, dict) else [connection]
    return UNKNOWN in (inputs.get("interpreter"), *given)


def test_inputs_are_refused_and_stored_as_by_the_real_providers() -> None:
    wrong = []
    for kind, inputs, answer in RECORDED["checks"]:
        ours = checked(kind, inputs)
        if plain(ours) != plain(answer) and not explained(kind, inputs):
            wrong.append(f"{kind} {plain(inputs)}: real {plain(answer)}, ours {plain(ours)}")
    assert not wrong, "\n".join(wrong)


def test_differences_are_those_of_the_real_provider() -> None:
    """A password is made anew where the real provider makes it anew, and nowhere else."""
    wrong = []
    for kind, before, after, *answer in RECORDED["differences"]:
        found = PROVIDERS["random"].difference(kind, before, after)
        result = "replace" if found.replaces else "update" if found.changes else "same"
        ours = [result, sorted(found.replace_keys or found.changed_keys)]
        if ours != answer:
            wrong.append(f"{kind} {plain(before)} -> {plain(after)}: real {answer}, ours {ours}")
    assert not wrong, "\n".join(wrong)


@pytest.fixture
def plugins() -> Iterator[dict[str, Plugin]]:
    if not all(shutil.which(f"pulumi-resource-{package}") for package in PROVIDERS):
        pytest.skip("no pulumi-resource-command and pulumi-resource-random on PATH to ask")
    found = {package: Plugin(package) for package in PROVIDERS}
    yield found
    for plugin in found.values():
        plugin.close()


def test_the_real_providers_answer_as_recorded(plugins: dict[str, Plugin]) -> None:
    for kind, inputs, answer in RECORDED["checks"]:
        assert plain(plugins[kind.split(":")[0]].check(kind, inputs)) == plain(answer), inputs
    for kind, before, after, *answer in RECORDED["differences"]:
        assert list(plugins["random"].difference(kind, before, after)) == answer, (before, after)


WRONG: dict[str, tuple[Json, list[str]]] = {
    "environment": (
        local("x", environment={"A": 5, "B": True}),
        ["property environment", "A: expected text, got a number", "B: expected text, got a bool"],
    ),
    "interpreter": (local("x", interpreter=["/bin/sh", 1]), ["[1]: expected text, got a number"]),
    "no list": (local("x", interpreter="/bin/sh"), ["expected a list, got text"]),
    "contradiction": (
        password("x", length=0, number=True, numeric=False),
        ["property length", "expected at least 1, got 0", "property number", "use numeric"],
    ),
    "types": (
        password("x", length="many", lower="yes"),
        ["property length", "expected a whole number", "property lower", "expected a boolean"],
    ),
    "no characters": (
        password("x", length=8, lower=False, upper=False, numeric=False, special=False),
        ["at least one of lower, numeric, special, upper must be true"],
    ),
    "minima": (password("x", length=4, min_lower=3, min_upper=3), ["the sum of the minima, 6"]),
}


@pytest.mark.parametrize("case", WRONG)
async def test_what_is_wrong_is_told_at_once_and_nothing_is_begun(stack: Stack, case: str) -> None:
    item, parts = WRONG[case]
    stack.config["resources"] = [item]
    for done in (await stack.preview(), await stack.up(), await stack.up()):
        assert done.result.result == "failed"
        for part in parts:
            assert part in "\n".join(done.failures)
        assert "pending_operations" not in (stack.document or {})
        assert "x" not in stack.resources()


async def test_mistakes_in_a_connection_are_named_and_no_credential_is_shown(stack: Stack) -> None:
    stack.config["connection"] |= {"port": "22", "hots": "h", "password": "s3cret"}
    stack.config["connection"].pop("host")
    stack.config["resources"] = [remote("x")]
    done = await stack.up()
    assert done.result.result == "failed"
    told = "\n".join(done.failures)
    for part in ("port: expected a number, got text", "hots: unknown property",
                 "host: missing required property"):  # fmt: skip
        assert part in told
    for hidden in ("s3cret", "PRIVATE KEY"):
        assert hidden not in told


async def test_what_the_real_providers_take_is_taken(stack: Stack, server: Any) -> None:
    stack.config["connection"]["port"] = float(server.port) + 0.5
    stack.config["resources"] = [
        local("x", "echo $A", environment={"A=B": "x", "NONE": None}),
        remote("y", "echo $A", environment={"A": "a", "NONE": None}),
        password("z", length="16", keepers={"a": 1, "b": True, "c": None}),
    ]
    done = await stack.up()
    assert done.result.result == "succeeded", done.failures
    made = stack.resources()
    assert made["x"]["outputs"]["stdout"] == "B=x"
    assert made["y"]["outputs"]["stdout"] == "a"
    assert made["z"]["inputs"]["length"] == "16"
    assert made["z"]["outputs"]["length"] == 16
    assert made["z"]["outputs"]["keepers"] == {"a": "1", "b": "true", "c": None}
    assert (await stack.up()).steps == []


@pytest.mark.parametrize(
    "item",
    [
        local("x", "echo a\0b"),
        local("x", environment={"A": "a\0b"}),
        local("x", r"printf 'a\377b'"),
        remote("x", r"printf 'a\377b' >&2"),
        remote("x", connection={"host": "\0", "dialErrorLimit": 0}),
        remote("x", connection={"host": "h" * 300, "dialErrorLimit": 0}),
        remote("x", connection={"host": "127.0.0.1", "port": 70000, "dialErrorLimit": 0}),
    ],
    ids=repr,
)
async def test_what_cannot_be_run_or_kept_fails_as_a_step(stack: Stack, item: Json) -> None:
    """Not as the engine: the operation ends in order, and leaves nothing pending."""
    stack.config["resources"] = [item]
    for done in (await stack.up(), await stack.up()):
        assert done.result.result == "failed"
        assert [e["resOpFailedEvent"]["metadata"]["op"] for e in done.events
                if "resOpFailedEvent" in e] == ["create"]  # fmt: skip
        assert "pending_operations" not in (stack.document or {})


KEPT: list[Json] = [
    {"special": True, "min_lower": 0, "length": 16},
    {"numeric": True, "length": 16},
    {"number": True, "length": "16"},
    {"length": "${secret:16}"},
    {"length": 16, "keepers": {}},
    {"length": 16, "keepers": {"a": None}},
]


async def test_a_made_password_stays_as_long_as_what_was_asked_for_does(stack: Stack) -> None:
    kept = set()
    for arguments in ({"length": 16}, *KEPT):
        stack.config["resources"] = [password("p", **arguments)]
        previewed = await stack.preview()
        done = await stack.up()
        assert done.result.result == "succeeded", done.failures
        assert previewed.steps == done.steps
        outputs = stack.resources()["p"]["outputs"]
        kept.add((json.dumps(outputs["result"]), json.dumps(outputs["bcryptHash"])))
        assert (await stack.up()).steps == []
    assert len(kept) == 1
