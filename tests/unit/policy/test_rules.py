"""The policy pack's rules: production's commands keep them, and each is broken by one edit."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from pulumi.runtime.rpc import _special_sig_key

from policy import rules
from tests.prod import sent
from tests.unit.components.test_cluster import plain

PROJECT = Path(__file__).parents[3]
Json = dict[str, Any]
Rule = Callable[[Mapping[str, Any]], Iterable[str]]


@cache
def production() -> tuple[tuple[str, Json, frozenset[str]], ...]:
    """Name of each of its commands, its inputs, and which of these are secrets."""
    return tuple(
        (
            name,
            {key: _plain(value) for key, value in inputs.items()},
            frozenset(
                k for k, v in inputs.items() if isinstance(v, dict) and _special_sig_key in v
            ),
        )
        for name, inputs in sent().items()
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict) and _special_sig_key in value:
        return value["value"]
    return value


def inputs_of(name: str) -> Json:
    (found,) = [inputs for it, inputs, _ in production() if it == name]
    return copy.deepcopy(found)


RULES: tuple[Rule, ...] = (rules.host_keys_pinned, rules.logging_off, rules.guarded)


@pytest.mark.parametrize("rule", RULES)
def test_every_command_of_production_keeps_it(rule: Rule) -> None:
    assert len(production()) > 64
    # The controller's host has a pinned key in these tests, as `up` would demand of all.
    assert [(name, *found) for name, inputs, _ in production() if (found := [*rule(inputs)])] == []


def test_no_input_of_production_that_is_no_secret_holds_one() -> None:
    for name, inputs, secrets in production():
        readable = {key: value for key, value in inputs.items() if key not in secrets}
        assert [*rules.cleartext(readable)] == [], name


def test_production_would_be_caught_were_its_secrets_none() -> None:
    """Every bundle that is a secret holds what the rule knows by sight: it misses no kind."""
    secret = [inputs for _, inputs, secrets in production() if "stdin" in secrets]
    assert len(secret) > 64
    for inputs in secret:
        assert [*rules.cleartext({"stdin": inputs["stdin"]})], inputs["stdin"][:60]


def test_a_host_key_that_is_missing() -> None:
    inputs = inputs_of("cn01-slurmd")
    del inputs["connection"]["hostKey"]
    (found,) = rules.host_keys_pinned(inputs)
    assert inputs["connection"]["host"] in found
    inputs = inputs_of("cn01-slurmd")
    inputs["connection"]["proxy"] = {"host": "192.0.2.1", "hostKey": ""}
    (found,) = rules.host_keys_pinned(inputs)
    assert "192.0.2.1" in found
    inputs["connection"]["proxy"]["hostKey"] = "ssh-ed25519 AAAA"
    assert [*rules.host_keys_pinned(inputs)] == []
    assert [*rules.host_keys_pinned({})] != []


@pytest.mark.parametrize("logging", ["stdout", "stdoutAndStderr", None])
def test_a_command_that_shows_its_output(logging: str | None) -> None:
    inputs = inputs_of("cn01-munge-key") | {"logging": logging}
    assert len([*rules.logging_off(inputs)]) == 1
    assert [*rules.logging_off({"logging": logging, "create": "true"})] == []


@pytest.mark.parametrize(
    ("suffix", "guard"),
    [
        ("slurmctld", "state-stays"),
        ("slurmctld", "jobs-stay"),
        ("slurmdbd", "state-stays"),
        ("destroy-guard", "jobs-end"),
    ],
)
def test_a_guard_that_is_gone(suffix: str, guard: str) -> None:
    (name,) = [name for name, _, _ in production() if name.endswith(f"-{suffix}")]
    inputs = inputs_of(name)
    assert f"guard {guard} " in inputs["stdin"]
    # As a file's content it guards nothing.
    inputs["stdin"] = inputs["stdin"].replace(f"\nguard {guard} ", f"\n  guard {guard} ")
    (found,) = rules.guarded(inputs)
    assert guard in found


def test_a_controller_or_a_database_without_what_refuses_destroy() -> None:
    texts = [plain(inputs.get("stdin", "")) for _, inputs, _ in production()]
    assert [*rules.deletion_guarded(texts)] == []
    without = [text for text in texts if "\nrole destroy-guard\n" not in text]
    assert [found.split()[0] for found in rules.deletion_guarded(without)] == [
        "slurmctld",
        "slurmdbd",
    ]
    assert [*rules.deletion_guarded(["slurmstack-bundle 1\nnode a\nrole slurmd\nend\n"])] == []


@pytest.mark.parametrize(
    ("properties", "found"),
    [
        ({"stdin": "role a\nfile /etc/x root:root 0400\n  y\n"}, "/etc/x"),
        ({"stdin": "role a\nfile-base64 /etc/x root:root 0600 lasting\n  y\n"}, "/etc/x"),
        ({"environment": {"KEY": "-----BEGIN RSA PRIVATE KEY-----\n"}}, "private key"),
        ({"triggers": ["a", "-----BEGIN OPENSSH PRIVATE KEY-----\n"]}, "private key"),
        ({"stdin": "file /etc/x root:root 0644\n  StoragePass=hunter2\n"}, "password"),
    ],
)
def test_what_the_state_would_keep_readable(properties: Json, found: str) -> None:
    (said,) = rules.cleartext(properties)
    assert found in said
    assert "hunter2" not in said


def test_what_is_no_secret() -> None:
    text = (
        "file /etc/x root:root 0644\n  file /etc/y root:root 0400\n  -----BEGIN CERTIFICATE-----\n"
    )
    assert [*rules.cleartext({"stdin": text, "length": 3.0, "logging": None})] == []


@pytest.mark.parametrize(
    "key",
    [
        "mungeKey",
        "restTlsKey",
        "accountingPassword",
        "monitoringPassword",
        "directoryBindPassword",
        "registryPassword",
    ],
)
def test_a_setting_in_cleartext(key: str) -> None:
    (found,) = rules.settings_encrypted({f"slurmstack:{key}": "k" * 64})
    assert f"slurmstack:{key}" in found
    assert "kkk" not in found
    assert [*rules.settings_encrypted({f"slurmstack:{key}": {"secure": "v1:x"}})] == []


@pytest.mark.parametrize("key", ["monitoringSecrets", "registrySecrets"])
def test_a_table_of_secrets_with_one_in_cleartext(key: str) -> None:
    table = {"relay": {"secure": "v1:x"}, "duty": "kkk"}
    (found,) = rules.settings_encrypted({f"slurmstack:{key}": table})
    assert f"slurmstack:{key}.duty is in cleartext" in found
    assert "kkk" not in found
    whole = {f"slurmstack:{key}": {"secure": "v1:x"}}
    assert [*rules.settings_encrypted(whole)] == []


@pytest.mark.parametrize("stack", ["lab", "prod"])
def test_the_stacks_of_this_checkout_are_encrypted(stack: str) -> None:
    config = yaml.safe_load((PROJECT / f"Pulumi.{stack}.yaml").read_text())["config"]
    assert [*rules.settings_encrypted(config)] == []


def test_every_secret_setting_is_known() -> None:
    from settings.load import _SECRET_KEYS

    assert set(rules._SECRET_SETTINGS) == set(_SECRET_KEYS)


def test_the_rules_stand_without_the_program() -> None:
    """What is edited in the program cannot loosen them; the pack's environment has none of it."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); before = set(sys.modules); "
        "from policy import rules; new = {n.split('.')[0] for n in set(sys.modules) - before}; "
        "print(sorted(new - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(PROJECT)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "['policy']"
