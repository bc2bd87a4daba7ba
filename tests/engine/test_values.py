"""Property values, paths, differences, the order of resources and the journal: laws they obey."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.journal import Entry, fold
from engine.order import in_order
from engine.paths import contains, format_path, parse_path
from engine.properties import detailed_diff, difference, reset
from engine.state import (
    SECRET,
    SIGNATURE,
    Resource,
    Secret,
    Snapshot,
    from_disk,
    reveal,
    to_disk,
)
from engine.wire import properties_from_wire, properties_to_wire
from tests.engine.conftest import Reversible

text = st.text(max_size=8)
keys = st.one_of(st.sampled_from(["a", "b.c", 'd"e', "f[0]"]), text.filter(bool))
numbers = st.one_of(st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False))
leaves = st.one_of(st.none(), st.booleans(), numbers, text)


def containers(inner: Any) -> Any:
    maps = st.dictionaries(keys, inner, max_size=3)
    return st.one_of(st.lists(inner, max_size=3), maps, inner.map(Secret))


values = st.recursive(leaves, containers, max_leaves=10)
properties = st.dictionaries(keys, values, max_size=4)


def whole(value: Any) -> Any:
    """As Pulumi has numbers and secrets: all numbers are floats, no secret right in a secret."""
    if isinstance(value, Secret):
        inner = whole(value.value)
        return inner if isinstance(inner, Secret) else Secret(inner)
    if isinstance(value, dict):
        return {k: whole(v) for k, v in value.items()}
    if isinstance(value, list):
        return [whole(v) for v in value]
    return float(value) if type(value) is int else value


@given(properties)
def test_the_wire_keeps_values(value: dict[str, Any]) -> None:
    assert whole(properties_from_wire(properties_to_wire(value))) == whole(value)


@given(properties)
def test_the_disk_keeps_values(value: dict[str, Any]) -> None:
    crypter = Reversible()
    for encrypt in (crypter.encrypt, None):
        kept = json.loads(json.dumps(to_disk(value, encrypt)))
        opened = from_disk(kept, crypter.decrypt)
        assert whole(opened) == whole(value)
        assert from_disk(to_disk(opened, crypter.encrypt), crypter.decrypt) == opened


@given(st.one_of(st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False)))
def test_a_number_is_the_same_from_the_program_and_from_the_disk(value: float) -> None:
    """Pulumi writes the shortest digits: `12345678901234567000` for a float that is ...168."""
    sent = properties_from_wire(properties_to_wire({"n": value}))
    for text in (json.dumps(value), json.dumps(sent["n"]), str(Decimal(repr(float(value))))):
        assert from_disk({"n": json.loads(text)}, str) == sent


def secrets_in(value: Any) -> list[Any]:
    """The maps that stand for secrets in a document."""
    if isinstance(value, list):
        return [found for v in value for found in secrets_in(v)]
    if not isinstance(value, dict):
        return []
    if value.get(SIGNATURE) == SECRET:
        return [value]
    return [found for v in value.values() for found in secrets_in(v)]


@given(properties)
def test_a_secret_within_a_secret_is_encrypted_once(value: dict[str, Any]) -> None:
    """As Pulumi writes it: the plain text where the ciphertext would be, and nothing else."""
    crypter = Reversible()
    document = to_disk({"outer": Secret(value)}, crypter.encrypt)
    (outer,) = secrets_in(document)
    left = [crypter.decrypt(outer["ciphertext"])]
    while left:
        for secret in secrets_in(json.loads(left.pop())):
            assert set(secret) == {SIGNATURE, "ciphertext"}
            left.append(secret["ciphertext"])
    again = from_disk(document, crypter.decrypt)
    moved = {"out": again["outer"].value}  # what was within is a secret of its own now
    assert from_disk(to_disk(moved, crypter.encrypt), crypter.decrypt) == moved
    for secret in secrets_in(to_disk(moved, crypter.encrypt)):
        assert secret["ciphertext"].startswith("v1:")


@pytest.mark.parametrize("form", [{}, {"ciphertext": ""}, {"ciphertext": "a", "plaintext": "1"}])
def test_a_secret_that_is_none(form: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="malformed secret value"):
        from_disk({"k": {SIGNATURE: SECRET, **form}}, Reversible().decrypt)


@given(st.lists(st.one_of(keys.filter(lambda k: k != "*"), st.integers(0, 9)), min_size=1))
def test_a_path_survives_its_text(path: list[str | int]) -> None:
    path = ["top", *path]
    if not any("\\" in str(step) for step in path):
        assert parse_path(format_path(tuple(path))) == tuple(path)


@given(properties, properties)
def test_a_difference_is_none_exactly_for_equals(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert detailed_diff(one, one) == {}
    found = detailed_diff(one, two)
    swapped = {"add": "delete", "delete": "add", "update": "update"}
    assert detailed_diff(two, one) == {path: swapped[kind] for path, kind in found.items()}


# "*" as a path stands for every property, and is not a key here.
@given(properties, properties, keys.filter(lambda key: key != "*"))
def test_a_reset_property_does_not_differ(
    old: dict[str, Any], new: dict[str, Any], key: str
) -> None:
    found, _ = reset((key,), old, new)
    assert found.get(key) == old.get(key)
    others = {k: v for k, v in new.items() if k != key}
    assert {k: v for k, v in found.items() if k != key} == others


def test_paths_as_pulumi_reads_them() -> None:
    assert parse_path('a.b[0]["x.y"].*') == ("a", "b", 0, "x.y", "*")
    assert contains(parse_path("triggers[*]"), parse_path("triggers[3]"))
    assert not contains(parse_path("triggers[*]"), parse_path("triggers"))
    assert contains(parse_path("environment"), parse_path('environment["a.b"]'))
    assert detailed_diff({"a": {"b.c": 1}}, {"a": {"b.c": 2}}) == {'a["b.c"]': "update"}
    assert detailed_diff({"a": [1, 2]}, {"a": [1]}) == {"a[1]": "delete"}
    assert detailed_diff({"a": 1}, {"a": True}) == {"a": "update"}
    # A key that is null is none, an element that is null is one.
    assert detailed_diff({"a": None, "b": [None]}, {"b": [1, None]}) == {
        "b[0]": "add",
        "b[1]": "add",
    }
    found = difference({"b": 1, "d": 1, "__i": 1}, {"a": 1, "c": 1, "d": 1}, internals=False)
    assert found
    assert found.items
    kinds = [(key, kind) for key, (kind, _) in found.items.items()]
    assert kinds == [("a", "add"), ("b", "delete"), ("c", "add"), ("d", "same")]


@given(st.data())
def test_in_order_puts_what_is_needed_first(data: Any) -> None:
    count = data.draw(st.integers(1, 8))
    resources = [
        Resource(
            f"urn:pulumi:s::p::t::{i}",
            "t",
            dependencies=[
                f"urn:pulumi:s::p::t::{d}"
                for d in data.draw(st.sets(st.integers(0, i - 1) if i else st.nothing()))
            ],
        )
        for i in range(count)
    ]
    mixed = data.draw(st.permutations(resources))
    seen: set[str] = set()
    for r in in_order(mixed):
        assert r.all_dependencies() <= seen
        seen.add(r.urn)
    assert in_order(resources) == resources


@given(st.data())
def test_the_journal_holds_what_was_done(data: Any) -> None:
    """Any sequence of creates, updates, deletes and interruptions against a plain dictionary."""
    base = [f"old{i}" for i in range(data.draw(st.integers(0, 5)))]
    model: dict[str, str] = {name: name for name in base}
    left = list(range(len(base)))
    entries: list[Entry[str]] = []
    interrupted = []
    for step in range(data.draw(st.integers(0, 8))):
        op = data.draw(st.sampled_from(["create", *(["update", "delete"] if left else [])]))
        old = left.pop(data.draw(st.integers(0, len(left) - 1))) if op != "create" else None
        name = base[old] if old is not None else f"new{step}"
        entries.append(Entry(step, op, pending=name))
        if data.draw(st.booleans()):
            interrupted.append((op, name))
            continue
        new = None if op == "delete" else f"{name}'"
        entries.append(Entry(step, finished=True, old=old, new=new))
        model.pop(name, None)
        if new:
            model[name] = new
    resources, pending = fold(base, entries)
    assert sorted(resources) == sorted(model.values())
    assert pending == interrupted


def test_an_unknown_key_of_a_checkpoint_is_kept() -> None:
    document = {
        "manifest": {},
        "resources": [{"urn": "u::a", "custom": True, "type": "t", "id": "i", "viewOf": "x"}],
        "metadata": {"integrity_error": {}},
    }
    snapshot = Snapshot.load(document, Reversible())
    again = snapshot.dump(Reversible())
    assert again["resources"] == document["resources"]
    assert again["metadata"] == document["metadata"]


def test_secrets_do_not_show_themselves() -> None:
    secret = Secret({"a": Secret("s3cret")})
    assert "s3cret" not in f"{secret} {secret!r} {[secret]}"
    assert reveal(secret) == {"a": "s3cret"}


def test_ignored_changes_do_not_lay_a_secret_bare() -> None:
    old = {"a": Secret({"k": "s3cret"})}
    assert reset(("a",), old, {"a": "plain"})[0] == old
    assert reset(("a", "k"), old, {"a": {"k": "new"}})[0] == {"a": {"k": Secret("s3cret")}}
