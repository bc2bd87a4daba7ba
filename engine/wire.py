"""Property values as the SDK sends and takes them: google.protobuf's Struct."""

from __future__ import annotations

from typing import Any

from google.protobuf import struct_pb2

from engine.state import ASSETS, SECRET, SIGNATURE, Properties, Secret, Value, number, reference


class AssetFound(ValueError):
    """An asset or archive, which this engine does not have."""


def from_wire(value: struct_pb2.Value) -> Value:
    """A property value of a gRPC message. Raises AssetFound."""
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "struct_value":
        return properties_from_wire(value.struct_value)
    if kind == "list_value":
        return [from_wire(v) for v in value.list_value.values]
    if kind == "number_value":
        return number(value.number_value)
    return value.bool_value if kind == "bool_value" else None


def properties_from_wire(struct: struct_pb2.Struct) -> Any:
    found = {k: from_wire(v) for k, v in sorted(struct.fields.items())}
    signature = found.get(SIGNATURE)
    if signature == SECRET:
        value = found["value"]
        return value if isinstance(value, Secret) else Secret(value)
    if signature in ASSETS:
        raise AssetFound(ASSETS[signature])
    return reference(found)


def to_wire(value: Value, into: struct_pb2.Value) -> None:
    if isinstance(value, str):
        into.string_value = value
    elif isinstance(value, Secret):
        fields = into.struct_value.fields
        fields[SIGNATURE].string_value = SECRET
        to_wire(value.value, fields["value"])
    elif isinstance(value, dict):
        into.struct_value.SetInParent()
        for key, item in value.items():
            to_wire(item, into.struct_value.fields[key])
    elif isinstance(value, list):
        into.list_value.SetInParent()
        for item in value:
            to_wire(item, into.list_value.values.add())
    elif isinstance(value, bool):
        into.bool_value = value
    elif value is None:
        into.null_value = struct_pb2.NULL_VALUE
    else:
        into.number_value = value


def properties_to_wire(properties: Properties) -> struct_pb2.Struct:
    struct = struct_pb2.Struct()
    for key, value in properties.items():
        to_wire(value, struct.fields[key])
    return struct
