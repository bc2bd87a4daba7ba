"""`pulumi stack output`, `export`, `import` and `history`: what is kept of a stack."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engine import config
from engine.backend import crypter_of, manifest, newer
from engine.cli import Invocation
from engine.errors import CommandError, refuse
from engine.printing import iso_milliseconds, print_json, table
from engine.secrets import IncorrectPassphrase
from engine.state import STACK_TYPE, Snapshot, blind, from_disk, reveal


def outputs(deployment: dict[str, Any], show_secrets: bool) -> dict[str, Any]:
    """The stack's outputs from a checkpoint, secrets blinded unless they are to be shown."""
    found: dict[str, Any] = {}
    for resource in deployment.get("resources") or []:
        if resource["type"] == STACK_TYPE and not resource.get("delete"):
            found = dict(sorted(resource.get("outputs", {}).items()))
    if not show_secrets:
        return {k: blind(v, "[secret]") for k, v in found.items()}
    try:
        opened = crypter_of(deployment).decrypt
        return {k: reveal(from_disk(v, opened)) for k, v in found.items()}
    except IncorrectPassphrase as error:
        raise cannot_decrypt() from error


def cannot_decrypt(prefix: str = "") -> CommandError:
    return CommandError(
        f"{prefix}failed to decrypt: incorrect passphrase, please set PULUMI_CONFIG_PASSPHRASE to "
        "the correct passphrase or set PULUMI_CONFIG_PASSPHRASE_FILE to a file containing the "
        "passphrase"
    )


def print_outputs(values: dict[str, Any]) -> None:
    print(f"Current stack outputs ({len(values)}):")
    if not values:
        print("    No output values currently in this stack")
        return
    table(("OUTPUT", "VALUE"), ((k, config.to_text(v)) for k, v in values.items()), "    ")


def output(call: Invocation) -> int:
    deployment = call.backend.load(call.stack).deployment or {}
    values = outputs(deployment, bool(call.flag("show-secrets")))
    name = call.arguments[0] if call.arguments else None
    if name is not None and name not in values:
        raise CommandError(f"current stack does not have output property '{name}'")
    if call.flag("json"):
        print_json(values if name is None else values[name])
    elif name is None:
        print_outputs(values)
    else:
        print(config.to_text(values[name]))
    return 0


def export(call: Invocation) -> int:
    deployment = call.backend.load(call.stack).deployment
    if deployment and call.flag("show-secrets"):
        try:
            shown = Snapshot.load(deployment, crypter_of(deployment)).dump(None)
        except IncorrectPassphrase as error:
            raise cannot_decrypt("could not deserialize deployment: ") from error
        deployment = {**shown, "manifest": deployment["manifest"]}
    text = json.dumps({"version": 3, "deployment": deployment}, indent=4, ensure_ascii=False)
    if call.flag("file"):
        Path(call.flag("file")).write_text(text + "\n")
    else:
        print(text)
    return 0


def import_state(call: Invocation) -> int:
    file, text, ref = call.flag("file"), "", call.stack
    try:
        text = Path(file).read_text() if file else sys.stdin.read()
        document = json.loads(text)
        deployment = document.get("deployment") or {}
        resources = deployment.get("resources") or []
        urns = [r["urn"] for r in resources]
    except OSError as error:
        raise CommandError(f"could not open file: open {file}: {error.strerror}") from error
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        reason = f"could not deserialize deployment: {error}" if text.strip() else "EOF"
        raise CommandError(reason) from error
    if not document.get("version"):
        raise CommandError(f"the stack '{ref.name}' is too old to be used by this version "
                           "of the Pulumi CLI")  # fmt: skip
    if document["version"] != 3 or document.get("features"):
        raise refuse(newer(document["version"], document))
    wrong = [u for u in urns if u.split("::")[0].removeprefix("urn:pulumi:") != ref.name]
    if wrong and not call.flag("force"):
        lines = [f"resource '{u}' is from a different stack "
                 f"({u.split('::')[0].removeprefix('urn:pulumi:')} != {ref.name})"
                 for u in wrong]  # fmt: skip
        lines.append("importing this file could be dangerous; rerun with --force to proceed anyway")
        numbered = "".join(f"\n    {i}) {line}" for i, line in enumerate(lines, 1))
        raise CommandError(f"{len(lines)} errors occurred:{numbered}")
    with call.backend.lock(ref):
        before = call.backend.load(ref).deployment or {}
        provider = deployment.get("secrets_providers") or before.get("secrets_providers")
        if provider is None:
            state = {"salt": call.stack_file.crypter.state}
            provider = {"type": "passphrase", "state": state}
            call.stack_file.save()
        deployment["secrets_providers"] = provider
        deployment.setdefault("metadata", {})
        if '"plaintext"' in text:
            crypter = crypter_of(deployment)
            try:
                deployment = {**deployment, **Snapshot.load(deployment, crypter).dump(crypter)}
            except IncorrectPassphrase as error:
                raise cannot_decrypt("could not deserialize deployment: ") from error
        deployment["manifest"] = document["deployment"].get("manifest") or manifest()
        call.backend.save(ref, deployment)
    print("Import complete.")
    return 0


def history(call: Invocation) -> int:
    from engine.cli_config import entry

    if not call.flag("json"):
        raise refuse("`pulumi stack history` without --json")
    size, page = call.flag("page-size", 10), max(1, call.flag("page", 1))
    updates = call.backend.history(call.stack)
    updates = updates[(page - 1) * size : page * size] if size > 0 else updates
    shown = bool(call.flag("show-secrets"))
    print_json([_update(u, lambda v: entry(v, call.stack_file, shown)) for u in updates])
    return 0


def _update(update: dict[str, Any], opened: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    def stamp(seconds: int) -> str:
        return iso_milliseconds(datetime.fromtimestamp(seconds, UTC))

    return {
        "version": update.get("version", 0), "kind": update["kind"],
        "startTime": stamp(update["startTime"]), "message": update["message"],
        "environment": dict(sorted(update.get("environment", {}).items())),
        "config": {k: opened(v) for k, v in sorted(update.get("config", {}).items())},
        "result": update["result"], "endTime": stamp(update["endTime"]),
        "resourceChanges": dict(sorted((update.get("resourceChanges") or {}).items())),
    }  # fmt: skip
