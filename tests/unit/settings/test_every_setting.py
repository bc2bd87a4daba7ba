"""Every setting, taken from the model: with what cannot be its value, the report names its path."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from settings import Settings, parse
from settings.load import _validated
from settings.problems import Problem, SettingsError
from tests.unit.settings.test_settings import lab

#: No setting takes these: a mapping with odd keys where a value belongs, a number where a mapping
#: or a list does.
NO_VALUE, NO_MAPPING = {"no such key!": ["no value"]}, 1.5
#: A place in the settings: keys and indexes.
Place = tuple[str | int, ...]


def places(annotation: Any, at: Place) -> Iterator[tuple[Place, Any]]:
    """Each place at and below this one, with a wrong value for it."""
    models = [it for it in parts(annotation) if isinstance(it, type) and issubclass(it, BaseModel)]
    mappings = [it for it in parts(annotation) if get_origin(it) is dict]
    sequences = [it for it in parts(annotation) if get_origin(it) in (tuple, list)]
    yield at, NO_MAPPING if models or mappings else NO_VALUE
    for model in models:
        if model.model_config.get("extra") != "forbid":
            continue  # a JWKS: others may write more into it than is read (test_jwt.py)
        yield (*at, "noSuchKey"), 1
        for name, info in model.model_fields.items():
            yield from places(info.annotation, (*at, info.alias or name))
    for mapping in mappings:
        yield from places(get_args(mapping)[1], (*at, "name"))
    for sequence in sequences:
        yield from places(get_args(sequence)[0], (*at, 0))


def parts(annotation: Any) -> list[Any]:
    """The members of a union, without what is only said about them."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return parts(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [part for member in get_args(annotation) for part in parts(member)]
    if origin is Literal or annotation is type(None):
        return []
    return [annotation]


def every() -> Iterator[tuple[Place, Any]]:
    for name, info in Settings.model_fields.items():
        key = info.alias or name
        if "key" in name or "password" in name:
            yield (key,), "wrong"
        else:
            yield from places(info.annotation, (key,))


def wrapped(place: Place, value: Any) -> Any:
    for key in reversed(place):
        value = [value] if key == 0 else {key: value}
    return value


def path(place: Place) -> str:
    first, *rest = place
    return f"slurmstack:{first}" + "".join(
        f"[{key}]" if isinstance(key, int) else f".{key}" for key in rest
    )


PLACES = list(every())


def test_there_are_hundreds() -> None:
    assert len(PLACES) > 400
    assert {place[0] for place, _ in PLACES} >= {"hosts", "packages", "enrootPyxis", "rest", "jwt"}


@pytest.mark.parametrize(("place", "value"), PLACES, ids=[path(place) for place, _ in PLACES])
def test_a_wrong_value_is_named_by_its_path(place: Place, value: Any) -> None:
    with pytest.raises(SettingsError) as caught:
        parse({**lab(), **wrapped(place, value)}, stack="lab")
    report = str(caught.value)
    # Where a list may be written as text, too, the report names the list.
    where = path(place[:-1] if place[-1] == 0 else place)
    named = [problem for problem in caught.value.problems if problem.path.startswith(where)]
    assert named, report
    assert all(problem.expected and problem.found for problem in named)
    if value == "wrong":
        assert "'wrong'" not in report


#: Whatever may stand in a YAML file, each wrong for most settings.
VALUES: list[Any] = [
    "no such thing!", "", "two\nlines", -1, 10**30, 1.5, True, None,
    [], [{}], [["x"]], {}, {"x": []},
]  # fmt: skip
#: What pydantic and Python call things; nobody finds these in a stack file.
WORDS = re.compile(
    r"tuple|dictionary|\bdict\b|instance|pattern|[Ii]nput|should (be|have|match)|valid |found None"
    r"|NoneType|True|False|items? after|unable to|parse|\bstr\b|string|\bint\b|integer|boolean"
    r"|float|Mapping"
)


def classes(annotation: Any) -> set[str]:
    found: set[str] = set()
    for part in parts(annotation):
        if isinstance(part, type) and issubclass(part, BaseModel):
            found.add(part.__name__)
            for info in part.model_fields.values():
                found |= classes(info.annotation)
        for argument in get_args(part):
            found |= classes(argument)
    return found


def test_no_report_speaks_of_python() -> None:
    fields = {info.alias or name: info for name, info in Settings.model_fields.items()}
    keys = {str(part) for place, _ in PLACES for part in place}
    # Some are words of Slurm's, too.
    names = {it for info in fields.values() for it in classes(info.annotation)} - keys - {
        "Cgroup", "Gres", "JobContainer", "Script", "Switch",
    }  # fmt: skip
    assert {"Jwt", "NodeClass"} <= names
    named = re.compile(r"\b(" + "|".join(names) + r")\b")
    reports: set[str] = set()
    for place, _ in PLACES:
        key = str(place[0])
        if "key" in key.lower() or "password" in key.lower():
            continue
        for value in VALUES:
            found: list[Problem] = []
            _validated(fields[key].annotation, wrapped(place, value)[key], key, found)
            reports |= {str(problem) for problem in found}
    assert len(reports) > 3000
    assert {it for it in reports if WORDS.search(it) or named.search(it)} == set()
    assert not {it for it in reports if "docs/settings.md" in it}
