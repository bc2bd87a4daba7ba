"""`pulumi config …`."""

from __future__ import annotations

import json
import sys
from typing import Any

from engine import config
from engine.cli import Invocation
from engine.errors import CommandError, refuse
from engine.printing import print_json, table
from engine.workspace import StackFile


def entry(value: Any, file: StackFile, show_secrets: bool) -> dict[str, Any]:
    """One value in the form of `config --json`."""
    secret = config.has_secure(value)
    if secret and not show_secrets:
        return {"secret": True}
    plain = config.decrypt(value, file.crypter.decrypt)
    found: dict[str, Any] = {"value": config.to_text(plain)}
    if isinstance(plain, list | dict):
        found["objectValue"] = plain
    return found | {"secret": secret}


def show(call: Invocation) -> int:
    file, shown = call.stack_file, bool(call.flag("show-secrets"))
    values = file.values
    if call.flag("json"):
        print_json({key: entry(value, file, shown) for key, value in values.items()})
        return 0
    rows = []
    for key, value in values.items():
        plain = config.decrypt(value, file.crypter.decrypt if shown else lambda _: "[secret]")
        rows.append((key.removeprefix(f"{file.project}:"), config.to_text(plain)))
    table(("KEY", "VALUE"), rows)
    return 0


def get(call: Invocation) -> int:
    file, text = call.stack_file, call.arguments[0]
    key, path = config.parse_key(text, file.project, bool(call.flag("path")))
    try:
        value = config.get(file.values[key], path)
    except (KeyError, IndexError):
        shown = text.removeprefix(f"{file.project}:")
        raise CommandError(
            f"configuration key '{shown}' not found for stack '{call.stack.name}'"
        ) from None
    found = entry(value, file, show_secrets=True)
    if call.flag("json"):
        print(config.escape(json.dumps(found, indent=2, ensure_ascii=False)))
    else:
        print(found["value"])
    return 0


def _set(file: StackFile, text: str, value: str, *, path: bool, secret: bool) -> None:
    key, below = config.parse_key(text, file.project, path)
    if secret:
        file.set(key, below, {"secure": file.crypter.encrypt(value)})
    else:
        file.set(key, below, config.coerce(value) if below else value)


def set_value(call: Invocation) -> int:
    file, text = call.stack_file, call.arguments[0]
    secret, plaintext = bool(call.flag("secret")), bool(call.flag("plaintext"))
    if secret and plaintext:
        raise CommandError(
            "if any flags in the group [secret plaintext type] are set none of the others can be; "
            "[plaintext secret] were all set"
        )
    if len(call.arguments) > 1:
        value = call.arguments[1]
    elif not sys.stdin.isatty():
        value = sys.stdin.read()
        if not call.flag("raw"):
            value = value.removesuffix("\n").removesuffix("\r")
    elif call.flag("non-interactive"):
        raise CommandError("config value must be specified in non-interactive mode")
    else:
        from getpass import getpass

        value = getpass("value: ") if secret else input("value: ")
    try:
        _set(file, text, value, path=bool(call.flag("path")), secret=secret)
    except config.PathError as error:
        raise CommandError(f"could not set config: {error}") from None
    file.save()
    return 0


def set_all(call: Invocation) -> int:
    file, path = call.stack_file, bool(call.flag("path"))
    document = call.flag("json")
    if document and (path or call.flag("secret") or call.flag("plaintext")):
        raise CommandError(
            "the --json option cannot be used with the --plaintext, --secret or --path options"
        )
    for kind in ("plaintext", "secret"):
        for pair in call.flag(kind, []):
            text, equals, value = pair.partition("=")
            if not equals:
                raise CommandError("config value must be in the form [key]=[value]")
            _set(file, text, value, path=path, secret=kind == "secret")
    for text, found in _parsed(document or "{}").items():
        key, _ = config.parse_key(text, file.project)
        if found.get("value") is None:
            raise CommandError(f'value for --json object key "{text}" is nil')
        if found.get("objectValue") is not None:
            if found.get("secret"):
                raise refuse(f"a structured secret in --json ('{text}')")
            file.set(key, (), json.loads(found["value"]))
        else:
            _set(file, text, found["value"], path=False, secret=bool(found.get("secret")))
    file.save()
    return 0


def _parsed(document: str) -> dict[str, Any]:
    try:
        found = json.loads(document)
    except ValueError as error:
        raise CommandError(f"could not parse --json argument: {error}") from error
    if not isinstance(found, dict):
        raise CommandError("could not parse --json argument: expected an object")
    return found


def remove(call: Invocation) -> int:
    file = call.stack_file
    for text in call.arguments:
        file.remove(*config.parse_key(text, file.project, bool(call.flag("path"))))
    file.save()
    return 0


def refresh(call: Invocation) -> int:
    """Restore the configuration that the last operation used."""
    if not call.flag("force"):
        raise refuse("`pulumi config refresh` without --force")
    history = call.backend.history(call.stack)
    if not history:
        raise CommandError("getting latest configuration: no previous deployment")
    file = call.stack_file
    file.document.pop("config", None)
    for key, value in history[0].get("config", {}).items():
        file.set(key, (), value)
    deployment = call.backend.load(call.stack).deployment or {}
    salt = deployment.get("secrets_providers", {}).get("state", {}).get("salt")
    if salt:
        file.document["encryptionsalt"] = salt
    file.save()
    return 0
