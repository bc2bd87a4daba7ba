"""What the real providers answer to Check and Diff: asked directly, without an engine between.

``python -m tests.engine.answers`` asks anew and records; it needs `pulumi-resource-command` and
`pulumi-resource-random` on PATH, of the versions that the lock file has for the SDK.
"""

from __future__ import annotations

import gzip
import itertools
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import struct_pb2
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from engine.state import UNKNOWN, Properties, Secret, from_disk, to_disk
from engine.wire import properties_from_wire, properties_to_wire
from tests.engine.conftest import Json

FILE = Path(__file__).parent / "front" / "recorded" / "answers.json.gz"
LOCAL, REMOTE = "command:local:Command", "command:remote:Command"
PASSWORD = "random:index/randomPassword:RandomPassword"

VALUES: list[Any] = [
    *("a", "", "16", "16.5", " 16", "0x10", "1e1", "true", "1", "a\0b", 0, 16, -1, 16.5, 1e-7),
    *(True, False, [], ["a"], [1], [["a"]], [{"a": 1}], [True, None, {"a": None}]),
    *({}, {"a": "b"}, {"a": None}, {"a": 5}, {"a": True}, {"a": {"b": "c"}}, {"a": ["b"]}),
    *({"A=B": "x"}, {"a": UNKNOWN}, UNKNOWN, Secret("a"), Secret(16), Secret({"a": "b"})),
    *(Secret({"a": 5}), {"a": Secret("b")}, {"a": Secret(5)}, Secret(["a"]), [Secret("a")]),
]
HOST = {"host": "h"}


def commands() -> Iterator[tuple[str, Properties]]:
    for key in ("create", "delete", "update", "stdin", "logging", "dir"):
        yield from ((LOCAL, {key: value}) for value in VALUES)
    for key in ("environment", "triggers", "addPreviousOutputInEnv", "interpreter"):
        yield from ((LOCAL, {key: value}) for value in VALUES)
    yield LOCAL, {}
    yield LOCAL, {"create": 5, "environment": {"A": 5, "B": 6}, "nope": 1}
    yield REMOTE, {}
    yield from ((REMOTE, {"connection": value}) for value in VALUES)
    for key in ("host", "port", "user", "hostKey", "agentSocketPath", "dialErrorLimit", "nope"):
        yield from ((REMOTE, {"connection": HOST | {key: value}}) for value in VALUES)
    for key in ("perDialTimeout", "password", "privateKey", "privateKeyPassword", "proxy"):
        yield from ((REMOTE, {"connection": HOST | {key: value}}) for value in VALUES)
    for proxy in (
        *({"host": "p", "x": 1}, {"user": "u"}, {"host": "p", "port": "22"}),
        *({"host": "p", "proxy": HOST}, {"host": "p", "password": Secret("x")}),
    ):
        yield REMOTE, {"connection": Secret(HOST | {"proxy": proxy})}


def randoms() -> Iterator[tuple[str, Properties]]:
    for key in ("length", "keepers", "upper", "numeric", "number", "minLower", "overrideSpecial"):
        yield from ((PASSWORD, {"length": 8, key: value}) for value in VALUES)
    off = {"length": 8, "upper": False, "lower": False, "special": False}
    for inputs in (
        *({}, off, off | {"numeric": False}, off | {"number": False}, off | {"number": UNKNOWN}),
        *(off | {"numeric": Secret(False)}, off | {"numeric": True, "number": True}),
        *({"length": 4, "minLower": 3, "minUpper": 3}, {"length": 6, "minLower": 3, "minUpper": 3}),
        *({"length": UNKNOWN, "minLower": 3}, {"length": 4, "minLower": UNKNOWN, "minUpper": 9}),
        *({"length": "4", "minLower": "5"}, {"length": Secret(4), "minLower": Secret(5)}),
        *({"length": 8, "number": False, "numeric": False}, {"length": 8, "number": False}),
        {"length": 8, "upper": False, "minUpper": 3},
    ):
        yield PASSWORD, inputs


def pairs() -> Iterator[tuple[str, Properties, Properties]]:
    """Inputs before and after; all are good ones."""
    passwords: list[Properties] = [
        *({}, {"special": True}, {"minLower": 0}, {"special": False}, {"minLower": 1}),
        *({"numeric": True}, {"number": True}, {"numeric": False}, {"number": False}),
        *({"length": "8"}, {"length": Secret(8)}, {"length": 9}, {"length": UNKNOWN}),
        *(
            {"keepers": {}},
            {"keepers": {"a": None}},
            {"keepers": {"a": "1"}},
            {"keepers": {"a": 1}},
        ),
        *({"keepers": Secret({"a": "1"})}, {"keepers": {"a": "1", "b": None}}),
        *({"keepers": {"a": "1", "b": "2"}}, {"keepers": {"a": UNKNOWN}}, {"keepers": UNKNOWN}),
        *({"overrideSpecial": ""}, {"overrideSpecial": "x"}, {"overrideSpecial": UNKNOWN}),
        {"upper": Secret(True), "minSpecial": "0", "number": True, "numeric": True},
    ]
    for before, after in itertools.permutations(passwords, 2):
        if UNKNOWN not in json.dumps(plain(before)):
            yield PASSWORD, {"length": 8} | before, {"length": 8} | after


class Plugin:
    """A provider's process. It has no engine, so what it logs is lost."""

    def __init__(self, package: str) -> None:
        self._process = subprocess.Popen(
            [f"pulumi-resource-{package}", "127.0.0.1:1"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert self._process.stdout
        channel = grpc.insecure_channel(f"127.0.0.1:{int(self._process.stdout.readline())}")
        self._stub = provider_pb2_grpc.ResourceProviderStub(channel)
        request = provider_pb2.ConfigureRequest(acceptSecrets=True, acceptResources=True)
        request.args.SetInParent()
        self._secrets = self._stub.Configure(request).acceptSecrets

    def _wire(self, properties: Properties) -> struct_pb2.Struct:
        return properties_to_wire(properties if self._secrets else _bare(properties))

    def check(self, kind: str, inputs: Properties) -> Properties | None:
        """The inputs to store, secrets as the engine takes them over; None when refused."""
        request = provider_pb2.CheckRequest(urn=_urn(kind), news=self._wire(inputs))
        request.olds.SetInParent()
        try:
            answer = self._stub.Check(request)
        except grpc.RpcError:
            return None
        checked: Properties = properties_from_wire(answer.inputs)
        if answer.failures:
            return None
        return checked if self._secrets else _marked(checked, inputs)

    def difference(self, kind: str, before: Properties, after: Properties) -> tuple[str, list[str]]:
        """Of a resource made anew: "same", "update" or "replace", and what has changed."""
        inputs = self._wire(before)
        made = self._stub.Create(provider_pb2.CreateRequest(urn=_urn(kind), properties=inputs))
        answer = self._stub.Diff(provider_pb2.DiffRequest(
            id=made.id, urn=_urn(kind), olds=made.properties, old_inputs=inputs,
            news=self._wire(after),
        ))  # fmt: skip
        changes = answer.changes == provider_pb2.DiffResponse.DIFF_SOME
        result = "replace" if answer.replaces else "update" if changes else "same"
        return result, sorted(answer.replaces or answer.diffs)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def _urn(kind: str) -> str:
    return f"urn:pulumi:dev::small::{kind}::x"


def _bare(value: Any) -> Any:
    if isinstance(value, Secret):
        return _bare(value.value)
    if isinstance(value, dict):
        return {k: _bare(v) for k, v in value.items()}
    return [_bare(v) for v in value] if isinstance(value, list) else value


def _marked(value: Any, example: Any) -> Any:
    """As the engine marks as secret what a provider that knows no secrets has returned."""
    if isinstance(example, dict) and isinstance(value, dict):
        return {k: _marked(v, example.get(k)) for k, v in value.items()}
    return Secret(value) if isinstance(example, Secret) else value


def plain(value: Any) -> Any:
    """As it is recorded."""
    return json.loads(json.dumps(to_disk(value, None)))


def record() -> None:
    found: Json = {"checks": [], "differences": []}
    command, random = Plugin("command"), Plugin("random")
    for plugin, questions in ((command, commands()), (random, randoms())):
        for kind, inputs in questions:
            answer = plugin.check(kind, inputs)
            found["checks"].append([kind, plain(inputs), plain(answer)])
    for kind, before, after in pairs():
        difference = random.difference(kind, before, after)
        found["differences"].append([kind, plain(before), plain(after), *difference])
    command.close()
    random.close()
    with gzip.GzipFile(FILE, "wb", mtime=0) as file:
        file.write(json.dumps(found, ensure_ascii=False).encode())


def recorded() -> Json:
    found: Json = json.loads(gzip.decompress(FILE.read_bytes()))
    for rows in found.values():
        rows[:] = [[from_disk(cell, str) for cell in row] for row in rows]
    return found


if __name__ == "__main__":
    record()
