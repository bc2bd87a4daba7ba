"""Tokens that are refused before the controller is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.keys.jwt_key_pair import TOKEN
from operations import token
from operations.token import NoToken, issue
from remote.contact import Reply
from remote.host import Host
from settings import parse
from tests.unit.operations.test_hosts import RAW

JWT = {"defaultLifetime": "30m", "maxLifetime": "2h"}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is sent to the controller."""
    scripts: list[str] = []

    async def run(hosts: list[Host], script: str, **_: Any) -> dict[str, Reply]:
        scripts.append(script.splitlines()[-1])
        return {hosts[0].name: Reply("a-token\n", "", 0)}

    monkeypatch.setattr(token, "hosts", lambda *_: {"ctl": Host("ctl", "10.0.0.1", "")})
    monkeypatch.setattr(token, "run_on_hosts", run)
    settings(monkeypatch, jwt=JWT)
    return scripts


def settings(monkeypatch: pytest.MonkeyPatch, **more: Any) -> None:
    read = parse({**RAW, **more})
    monkeypatch.setattr(token, "settings", lambda *_: (read, Path(), "prod"))


@pytest.mark.parametrize(
    ("lifetime", "privileged", "words"),
    [
        (None, False, "alice 1800"),
        ("2h", False, "alice 7200"),
        ("1s", True, "alice 1 privileged"),
    ],
)
def test_a_token_for_a_while(
    sent: list[str], lifetime: str | None, privileged: bool, words: str
) -> None:
    assert issue(None, Path(), "alice", lifetime, privileged) == "a-token"
    assert sent == [f"exec {TOKEN} {words}"]


@pytest.mark.parametrize("lifetime", ["121m", "0s", "-1h", "soon"])
def test_a_lifetime_beyond_the_limits_is_refused(sent: list[str], lifetime: str) -> None:
    with pytest.raises(NoToken, match=f"--lifetime: expected .*; found {lifetime}"):
        issue(None, Path(), "alice", lifetime)
    assert sent == []


def test_without_tokens_there_is_none(sent: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    settings(monkeypatch)
    with pytest.raises(NoToken, match="stack prod has no tokens: set slurmstack:jwt"):
        issue(None, Path(), "alice")
    assert sent == []


def test_a_name_is_no_command(sent: list[str]) -> None:
    issue(None, Path(), "alice; rm -rf /")
    assert sent == [f"exec {TOKEN} 'alice; rm -rf /' 1800"]
