"""Every setting, taken from the model: with what cannot be its value, the report names its path."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from settings import Settings, parse
from settings.problems import SettingsError
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
