"""The random provider: what it makes is of the kind that was asked for, however many at once."""

from __future__ import annotations

import json
import string
from typing import Any

import bcrypt

from tests.engine.conftest import Reversible, Stack


def opened(resource: dict[str, Any], key: str) -> str:
    found: str = json.loads(Reversible().decrypt(resource["outputs"][key]["ciphertext"]))
    return found


def password(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "kind": "password", "args": arguments}


async def test_many_passwords_at_once_have_their_own_hashes(stack: Stack) -> None:
    stack.config["resources"] = [password(f"p{n}", length=40 + n) for n in range(24)]
    done = await stack.up()
    assert done.result.result == "succeeded", done.failures
    made = stack.resources("RandomPassword")
    texts = {name: opened(resource, "result") for name, resource in made.items()}
    assert [len(texts[f"p{n}"]) for n in range(24)] == [40 + n for n in range(24)]
    assert len(set(texts.values())) == 24
    for name, text in texts.items():
        hashed = opened(made[name], "bcryptHash")
        assert hashed.startswith("$2a$10$")
        assert bcrypt.checkpw(text.encode()[:72], hashed.encode())


async def test_characters_are_those_asked_for(stack: Stack) -> None:
    stack.config["resources"] = [
        password("plain", length=200, special=False),
        password("numbers", length=12, lower=False, upper=False, special=False),
        password("own", length=64, override_special="@%", min_special=30),
    ]
    assert (await stack.up()).result.result == "succeeded"
    made = {name: opened(r, "result") for name, r in stack.resources("RandomPassword").items()}
    assert set(made["plain"]) <= set(string.ascii_letters + string.digits)
    assert set(made["numbers"]) <= set(string.digits)
    assert sum(made["own"].count(one) for one in "@%") >= 30


async def test_another_length_is_another_password(stack: Stack) -> None:
    stack.config["resources"] = [password("p", length=20)]
    await stack.up()
    before = opened(stack.resources()["p"], "result")
    assert (await stack.up()).steps == []
    stack.config["resources"] = [password("p", length=21)]
    assert ("replace", "p") in (await stack.up()).steps
    after = opened(stack.resources()["p"], "result")
    assert (len(before), len(after)) == (20, 21)
