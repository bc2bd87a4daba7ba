"""The inputs of a resource type as the SDK's package of its provider declares them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any, get_args, get_origin

from pulumi._types import input_type_py_to_pulumi_names, input_type_types, is_input_type

from engine.paths import PropertyPath, format_path
from engine.state import UNKNOWN, Properties, Secret, Value

Scalar = Callable[[type, Value], Value]
"""Makes a plain value one of the declared type. Raises ValueError where the provider does not."""
KINDS = {
    **{str: "text", bool: "a boolean", int: "a number", float: "a number", list: "a list"},
    type(None): "null",
}


class _Declared:
    """Types by property, and which properties must be given."""

    def __init__(self, arguments: type) -> None:
        self.types = input_type_types(arguments)
        names = input_type_py_to_pulumi_names(arguments)
        parameters = inspect.signature(arguments).parameters.values()
        self.required = [names[p.name] for p in parameters if p.default is p.empty]


declared = cache(_Declared)


def arguments_of(kind: str) -> type:
    """The SDK's class of arguments of a type such as command:remote:Command."""
    package, module, name = kind.split(":")
    module = module.split("/")[0]
    found = import_module(f"pulumi_{package}" + ("" if module == "index" else f".{module}"))
    arguments: type = getattr(found, f"{name}Args")
    return arguments


def mismatch(expected: str, value: Value) -> ValueError:
    return ValueError(f"expected {expected}, got {KINDS.get(type(value), 'a map')}")


def convert(
    kind: str, inputs: Properties, scalar: Scalar
) -> tuple[Properties, list[tuple[str, str]]]:
    """The inputs as the provider takes them, and all that is wrong: (property, reason)."""
    wrong: list[tuple[str, str]] = []

    def tell(path: PropertyPath, reason: str) -> None:
        within = f"{format_path(path[1:])}: " if path[1:] else ""
        wrong.append((str(path[0]), within + reason))

    def one(value: Value, expected: Any, path: PropertyPath) -> Value:
        if isinstance(value, Secret):
            return Secret(one(value.value, expected, path))
        if value == UNKNOWN or expected is Any:
            return value
        origin, elements = get_origin(expected), get_args(expected)
        try:
            if is_input_type(expected):
                return properties(value, declared(expected), path)
            if origin not in (Mapping, Sequence):
                return scalar(expected, value)
            # The SDK takes an element, an Awaitable or an Output of it.
            element = next(iter(get_args(elements[-1])), elements[-1])
            if origin is Sequence and isinstance(value, list):
                return [one(v, element, (*path, i)) for i, v in enumerate(value)]
            if origin is Sequence or not isinstance(value, dict):
                raise mismatch("a list" if origin is Sequence else "a map", value)
            return {k: v if v is None else one(v, element, (*path, k)) for k, v in value.items()}
        except ValueError as error:
            tell(path, str(error))

    def properties(value: Value, wanted: _Declared, path: PropertyPath) -> Properties:
        if not isinstance(value, dict):
            raise mismatch("a map", value)
        for key in wanted.required:
            if value.get(key) is None:
                tell((*path, key), "missing required property")
        for key in value.keys() - wanted.types.keys():
            tell((*path, key), "unknown property")
        known = [key for key in value if key in wanted.types]
        return {key: one(value[key], wanted.types[key], (*path, key)) for key in known}

    return properties(inputs, declared(arguments_of(kind)), ()), wrong
