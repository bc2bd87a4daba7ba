"""Property values, paths, differences, the order of resources and the journal: laws they obey."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from engine.journal import Entry, fold
from engine.order import in_order
from engine.paths import contains, format_path, parse_path
from engine.properties import detailed_diff, difference, reset
from engine.state import Resource, Secret, Snapshot, from_disk, reveal, to_disk
from engine.wire import properties_from_wire, properties_to_wire
from tests.engine.conftest import Reversible

text = st.text(max_size=8)
keys = st.one_of(st.sampled_from(["a", "b.c", 'd"e', "f[0]"]), text.filter(bool))
numbers = st.one_of(st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False))
leaves = st.one_of(st.none(), st.booleans(), numbers, text)


def containers(inner: Any) -> Any:
    maps = st.dictionaries(keys, inner, max_size=3)
    return st.one_of(st.lists(inner, max_size=3), maps, inner.map(Secret))


values = st.recursive(leaves, containers, max_leaves=10)
properties = st.dictionaries(keys, values, max_size=4)


def whole(value: Any) -> Any:
    """As Pulumi keeps numbers and secrets: whole floats are integers, no secret in a secret."""
    if isinstance(value, Secret):
        inner = whole(value.value)
        return inner if isinstance(inner, Secret) else Secret(inner)
    if isinstance(value, dict):
        return {k: whole(v) for k, v in value.items()}
    if isinstance(value, list):
        return [whole(v) for v in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return int(value)
    return value


@given(properties)
def test_the_wire_keeps_values(value: dict[str, Any]) -> None:
    assert properties_from_wire(properties_to_wire(value)) == whole(value)


@given(properties)
def test_the_disk_keeps_values(value: dict[str, Any]) -> None:
    crypter = Reversible()
    for encrypt in (crypter.encrypt, None):
        kept = json.loads(json.dumps(to_disk(value, encrypt)))
        assert from_disk(kept, crypter.decrypt) == value


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
