"""What pydantic found wrong, in the words of YAML and of the setting: what is expected, with an
example, and what is there."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from settings.parameters import find, nearest
from settings.problems import Problem, shown
from settings.slurm_value import unknown

#: pydantic's types of error → what is expected. The names in braces are its context.
_WORDS = {
    "string_type": "text",
    "string_too_short": "text of at least {min_length} characters",
    "string_too_long": "text of at most {max_length} characters",
    "int_type": "a whole number, such as 60",
    "int_parsing": "a whole number, such as 60",
    "int_parsing_size": "a whole number, such as 60",
    "int_from_float": "a whole number, such as 60",
    "float_type": "a number, such as 1.5",
    "float_parsing": "a number, such as 1.5",
    "finite_number": "a number, such as 1.5",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "list_type": "a list, such as [one, two]",
    "tuple_type": "a list, such as [one, two]",
    "too_short": "at least {min_length} entries",
    "too_long": "at most {max_length} entries",
    "dict_type": "names and their values, such as {{NAME: value}}",
    "literal_error": "one of {expected}",
    "missing": "a value",
}
_MAPPINGS = {"model_type", "model_attributes_type", "dataclass_type"}


def problems(path: str, annotation: Any, value: Any, error: ValidationError) -> Iterator[Problem]:
    """The mistakes in a value of this type. What may be of several types is one mistake, not one a
    type: of the type that went furthest."""
    by_place: dict[str, list[Problem]] = {}
    for item in error.errors():
        problem = _problem(path + _place(value, item), annotation, item)
        by_place.setdefault(problem.path, []).append(problem)
    for where, alike in by_place.items():
        if any(other.startswith((f"{where}[", f"{where}.")) for other in by_place):
            continue
        expected = dict.fromkeys(problem.expected for problem in alike)
        yield Problem(where, " or ".join(expected), alike[0].found)


def unknown_key(key: str, keys: list[str]) -> str:
    """What is expected in place of a key that there is not."""
    near = nearest(key, keys)
    return f"{near}, the nearest key" if near else "one of " + ", ".join(keys)


def _place(value: Any, error: Any) -> str:
    """Where in the value a mistake is. Between keys and indexes, pydantic names the types that it
    tried (``list[str]``), which nobody finds in a file."""
    where = ""
    for part in error["loc"]:
        if isinstance(value, Mapping) and part in value:
            where, value = f"{where}.{part}", value[part]
        elif isinstance(value, list) and isinstance(part, int):
            where, value = f"{where}[{part}]", value[part]
    if error["type"] == "missing":
        where += f".{error['loc'][-1]}"
    return where


def _problem(where: str, annotation: Any, error: Any) -> Problem:
    kind, context, value = error["type"], error.get("ctx", {}), error["input"]
    if kind == "extra_forbidden":
        model = _model(annotation, error["loc"][:-1])
        return Problem(where, _key_of(model, str(error["loc"][-1])), "an unknown key")
    if kind == "missing":
        return Problem(where, _WORDS[kind], "nothing")
    if kind == "refused":
        return Problem(where, str(context["expected"]), str(context["found"]))
    if kind == "value_error":
        return Problem(where, str(context.get("error", error["msg"])), shown(value))
    if kind in _MAPPINGS:
        keys = _keys(_model(annotation, error["loc"]))
        example = f", such as {{{keys[0]}: …}}" if keys else ""
        return Problem(where, f"keys and their values{example}", shown(value))
    # A type of error that no setting is known to raise says at least where it is.
    words = _WORDS.get(kind, "another value (docs/settings.md)")
    return Problem(where, words.format(**context), shown(value))


def _key_of(model: type[BaseModel] | None, key: str) -> str:
    """What is expected in place of a key that a model has not."""
    if model is None:
        return "a key of docs/settings.md"
    keys = _keys(model)
    file = getattr(model, "file", None)
    parameter = find(file, key) if file is not None else None
    if file is None or (parameter is None and nearest(key, keys)):
        return unknown_key(key, keys)
    if parameter is None or parameter.gone or "extra" not in keys:
        note = parameter.note if parameter is not None else ""
        return f"no {key}: {note}" if note else unknown(file, key, parameter)
    if parameter.name in keys:
        return f"{parameter.name}, as Slurm spells it"
    return f"{parameter.name} one level down, in extra"


def _keys(model: type[BaseModel] | None) -> list[str]:
    fields = model.model_fields.items() if model is not None else ()
    return [info.alias or name for name, info in fields]


def _model(annotation: Any, location: tuple[Any, ...]) -> type[BaseModel] | None:
    """The model at a place in a value of this type."""
    at = [*_members(annotation)]
    for part in location:
        below = [child for member in at for child in _below(member, part)]
        # A type that pydantic tried is no place of the value.
        at = below or at
    return next(
        (model for model in at if isinstance(model, type) and issubclass(model, BaseModel)), None
    )


def _below(annotation: Any, part: Any) -> Iterator[Any]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is dict and isinstance(part, str):
        yield from _members(arguments[1])
    elif origin in (list, tuple) and isinstance(part, int):
        yield from _members(arguments[0])
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, info in annotation.model_fields.items():
            if part in (name, info.alias):
                yield from _members(info.annotation)


def _members(annotation: Any) -> Iterator[Any]:
    """The members of a union, without what is only said about them."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _members(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from _members(member)
    else:
        yield annotation
