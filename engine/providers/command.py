"""pulumi-command 1.2.1: remote.Command and local.Command.

Behaviour is that of the provider's provider/pkg/provider (commandController.go,
commandOutputs.go) and, for check, difference and preview, of pulumi-go-provider's infer package.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import json
import os
import secrets
import signal
from typing import Any

from engine.errors import refuse
from engine.processes import end, start
from engine.properties import detailed_diff
from engine.providers import Context, Difference, ProviderError, Refused, top_level
from engine.providers.schema import KINDS, arguments_of, convert, declared, mismatch
from engine.providers.ssh import Outcome, Pool, SshError
from engine.state import UNKNOWN, Properties, Secret, Value, reveal

REMOTE = "command:remote:Command"
LOCAL = "command:local:Command"
ASSETS = {"assetPaths", "archivePaths"}
DEFAULTS = {"user": "root", "port": 22, "dialErrorLimit": 10, "perDialTimeout": 15}
SECRETS = ("password", "privateKey", "privateKeyPassword")


class CommandProvider:
    types = frozenset({REMOTE, LOCAL})

    def __init__(self) -> None:
        self._pool = Pool()

    def configuration(self) -> Properties:
        return {"__pulumi-go-provider-version": "1.2.0"}

    def check(self, kind: str, inputs: Properties) -> Properties:
        inputs = _without_nulls(inputs)
        for key in ASSETS & inputs.keys():
            raise refuse(f"{key} of {kind}")
        checked, wrong = convert(kind, inputs, _scalar)
        if wrong:
            raise Refused(*wrong)
        if kind == REMOTE:
            checked["connection"] = Secret(_connection(reveal_outer(checked["connection"])))
        return checked

    def difference(self, kind: str, old: Properties, new: Properties) -> Difference:
        detail = detailed_diff(old, new)
        if "triggers" in detail:
            detail["triggers"] += "-replace"
        replacing = ["triggers"] if "triggers" in detail else []
        return Difference(bool(detail), replacing, top_level(detail), detail)

    def preview(
        self, context: Context, new: Properties, old_outputs: Properties | None
    ) -> tuple[str, Properties]:
        if old_outputs is None:
            return _new_id(context), {**new, "stderr": UNKNOWN, "stdout": UNKNOWN}
        changed = any(
            new.get(key) == UNKNOWN or (key in old_outputs and new.get(key) != old_outputs[key])
            for key in declared(arguments_of(context.type)).types
        )
        run = {k: UNKNOWN if changed else old_outputs.get(k, "") for k in ("stderr", "stdout")}
        return "", {**new, **run}

    async def create(self, context: Context, inputs: Properties) -> tuple[str, Properties]:
        outputs = {**inputs, "stderr": "", "stdout": ""}
        if "create" in inputs:
            outputs |= await self._run(context, reveal(inputs["create"]), outputs)
        return _new_id(context), outputs

    async def update(
        self, context: Context, inputs: Properties, old_outputs: Properties
    ) -> Properties:
        before = {k: old_outputs.get(k, "") for k in ("stderr", "stdout")}
        outputs = {**inputs, **before}
        command = reveal(inputs.get("update", inputs.get("create")))
        if command is not None:
            outputs |= await self._run(context, command, outputs)
        return outputs

    async def delete(self, context: Context, outputs: Properties) -> None:
        command = reveal(outputs.get("delete"))
        if command is not None:
            await self._run(context, command, outputs)

    async def close(self) -> None:
        await self._pool.close()

    async def _run(self, context: Context, command: str, state: Properties) -> Properties:
        """Run a command with the state's settings; returns stdout and stderr."""
        plain = reveal(state)
        previous = {}
        if plain.get("addPreviousOutputInEnv", True):
            for name in ("stdout", "stderr"):
                if plain.get(name):
                    previous[f"PULUMI_COMMAND_{name.upper()}"] = str(plain[name])
        lines = _Lines(context, plain.get("logging", "stdoutAndStderr"))
        try:
            if context.type == REMOTE:
                ran = await self._pool.run(
                    plain["connection"], command, plain.get("stdin", ""),
                    previous | plain.get("environment", {}), lines.add, context.log,
                )  # fmt: skip
            else:
                ran = await _run_here(context, command, plain, previous, lines)
        except SshError as error:
            raise ProviderError(f"{context.name}: {error}") from None
        lines.end()
        if ran.status != 0 or ran.signal:
            failure = _failure(context.type, ran)
            raise ProviderError(f"{failure}: running {_quote(command)}:\n{_text(ran.both)}")
        outputs = {}
        for name, data in (("stdout", ran.stdout), ("stderr", ran.stderr)):
            try:
                outputs[name] = data.decode().removesuffix("\n")
            except UnicodeDecodeError as error:
                failure = f"{name} is not UTF-8 ({error.reason} at byte {error.start})"
                raise ProviderError(
                    f"{failure}: running {_quote(command)}:\n{_text(ran.both)}"
                ) from None
        return outputs


class _Lines:
    """Output as it comes, line by line, as far as the resource's `logging` lets it be shown."""

    def __init__(self, context: Context, logging: str) -> None:
        self._log = context.log
        self._shown = ("stdout" in logging, logging in ("stderr", "stdoutAndStderr"))
        self._rest = ""
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def add(self, data: bytes, is_stderr: bool) -> None:
        if self._shown[is_stderr]:
            *lines, self._rest = (self._rest + self._decode(data)).split("\n")
            for line in lines:
                self._log(line)

    def end(self) -> None:
        if self._rest:
            self._log(self._rest)


async def _run_here(
    context: Context, command: str, plain: Any, previous: dict[str, str], lines: _Lines
) -> Outcome:
    interpreter = plain.get("interpreter") or ["/bin/sh", "-c"]
    variables = plain.get("environment", {}) | previous  # a name may hold a `=`, as with Go
    ran = Outcome(lines.add)
    try:
        environment = os.environ | dict(f"{k}={v}".split("=", 1) for k, v in variables.items())
        folder = plain.get("dir") or context.folder
        process = await start(*interpreter, command, cwd=folder, env=environment)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the command or a variable
        raise ProviderError(f"{error}: running {_quote(command)}:\n") from None

    async def feed(writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            writer.write(plain.get("stdin", "").encode("utf-8", "surrogatepass"))
            await writer.drain()
        writer.close()

    assert process.stdin and process.stdout and process.stderr  # noqa: PT018
    try:
        await asyncio.gather(
            feed(process.stdin), ran.read(process.stdout, False), ran.read(process.stderr, True)
        )
        ran.status = await process.wait()
    except asyncio.CancelledError:
        await end(process, signal.SIGTERM)
        raise
    return ran


def _without_nulls(value: Value) -> Value:
    """A property that is null is none; an element of a list stays."""
    if isinstance(value, Secret):
        return Secret(_without_nulls(value.value))
    if isinstance(value, dict):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    return [_without_nulls(v) for v in value] if isinstance(value, list) else value


def _scalar(expected: type, value: Value) -> Value:
    """As Go decodes a property: nothing is converted but a number that is to be whole."""
    if expected is bool and isinstance(value, bool):
        return value
    if expected in (int, float) and isinstance(value, int | float) and not isinstance(value, bool):
        return int(value) if expected is int else value
    if issubclass(expected, str) and isinstance(value, str):
        return value
    raise mismatch(KINDS.get(expected, KINDS[str]), value)


def reveal_outer(value: Value) -> Value:
    """The value itself where it is a secret as a whole."""
    while isinstance(value, Secret):
        value = value.value
    return value


def _connection(value: Value) -> Value:
    """A connection with the provider's defaults, its credentials secret; its proxy likewise."""
    if not isinstance(value, dict):
        return value
    found = DEFAULTS | value
    for key in SECRETS:
        if key in found and not isinstance(found[key], Secret):
            found[key] = Secret(found[key])
    if "proxy" in found:
        found["proxy"] = _connection(found["proxy"])
    return found


def _new_id(context: Context) -> str:
    return context.name + secrets.token_hex(4)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _quote(text: str) -> str:
    """As Go's %q, near enough: a reader sees one line."""
    return json.dumps(text, ensure_ascii=False)


def _failure(kind: str, ran: Outcome) -> str:
    """How the command ended, in the provider's words."""
    if kind == REMOTE:
        status = 128 + getattr(signal, f"SIG{ran.signal}", 0) if ran.signal else ran.status
        ending = f" from signal {ran.signal}" if ran.signal else ""
        return f"Process exited with status {status}{ending}"
    if ran.status is not None and ran.status < 0:
        return f"signal: {signal.strsignal(-ran.status) or -ran.status}".lower()
    return f"exit status {ran.status}"
