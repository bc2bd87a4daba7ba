"""`pulumi version`, `about`, `whoami`, `cancel` and `stack …`: verbs that deploy nothing."""

from __future__ import annotations

import json
import platform
import re
import shlex
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any

from engine import VERSION, config
from engine.backend import StackRef, manifest
from engine.cli import Invocation
from engine.errors import STACK_NOT_FOUND, CommandError, StackNotFound, refuse
from engine.secrets import IncorrectPassphrase, PassphraseCrypter

ROOT = "pulumi:pulumi:Stack"
ENGINE = "slurmstack embedded engine"


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], prefix: str = "") -> None:
    """Columns as Pulumi prints them: two spaces between, further lines of a cell below it."""
    cells = [[cell.split("\n") for cell in row] for row in (headers, *rows)]
    widths = [max(len(line) for row in cells for line in row[i]) for i in range(len(headers))]
    for row in cells:
        for lines in zip_longest(*row, fillvalue=""):
            padded = (line.ljust(width) for line, width in zip(lines, widths, strict=True))
            print(prefix + "  ".join(padded).rstrip())


_AGES = {
    31536000: "year", 2592000: "month", 604800: "week", 86400: "day", 3600: "hour", 60: "minute",
    1: "second",
}  # fmt: skip


def ago(when: datetime) -> str:
    """As go-humanize says it."""
    seconds = int((datetime.now(UTC) - when).total_seconds())
    for size, unit in _AGES.items():
        if seconds >= size:
            count = seconds // size
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "now"


def parse_time(text: str) -> datetime:
    """A time as Go writes it: up to nine digits of a second, UTC or an offset. Raises CommandError
    for what is none."""
    match = re.fullmatch(r"(.{19})(?:\.(\d+))?(Z|[+-]\d\d:\d\d)", text)
    if not match:
        raise CommandError(f"failed to load checkpoint: '{text}' is not a time")
    zone = "+00:00" if match[3] == "Z" else match[3]
    return datetime.fromisoformat(f"{match[1]}.{(match[2] or '0')[:6].ljust(6, '0')}{zone}")


def iso_milliseconds(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{when.microsecond // 1000:03d}Z"


def version(call: Invocation) -> int:
    print(f"v{VERSION}")
    return 0


def whoami(call: Invocation) -> int:
    user, url = call.backend.user, call.backend.url
    if call.flag("json"):
        print(json.dumps({"user": user, "url": url}, indent=2))
    elif call.flag("verbose"):
        print(f"User: {user}\nOrganizations: \nBackend URL: {url}\nToken type: personal")
    else:
        print(user)
    return 0


def about(call: Invocation) -> int:
    """Says which engine runs, above all."""
    from importlib.metadata import version as installed

    packages = {name: installed(f"pulumi-{name}") for name in ("command", "random")}
    errors: list[str] = []
    backend: dict[str, Any] | None = None
    current: dict[str, Any] | None = None
    try:
        backend = {"name": socket.gethostname(), "url": call.backend.url,
                   "user": call.backend.user, "organizations": None}  # fmt: skip
        deployment = call.backend.load(call.stack).deployment or {}
        found = [{"type": r["type"], "urn": r["urn"]} for r in deployment.get("resources") or []]
        current = {"name": call.stack.name, "fullyQualifiedName": call.stack.full,
                   "resources": found, "pendingOps": []}  # fmt: skip
    except CommandError as error:
        errors.append(str(error))
    if call.flag("json"):
        print_json({
            "engine": ENGINE,
            "cliAbout": {"version": VERSION, "engine": ENGINE},
            "plugins": [{"name": n, "version": v, "kind": "resource"} for n, v in packages.items()],
            "host": {"os": platform.system().lower(), "arch": platform.machine()},
            "runtime": {"language": "python", "version": platform.python_version(),
                        "executable": sys.executable},
            "backend": backend, "currentStack": current, "errors": errors,
        })  # fmt: skip
        return 0
    print(f"Engine: {ENGINE}, standing in for Pulumi {VERSION}")
    print("It is not Pulumi's own engine: production is better served by that one (see README).\n")
    print("Providers built in")
    table(("NAME", "VERSION"), packages.items())
    print(f"\nHost: {platform.system()} {platform.machine()}, Python {platform.python_version()}")
    if backend:
        print(f"Backend: {backend['url']} (user {backend['user']})")
    if current:
        print(f"Current stack: {current['fullyQualifiedName']}")
    for line in errors:
        print(f"note: {line}")
    return 0


def cancel(call: Invocation) -> int:
    ref = call.ref(call.arguments[0] if call.arguments else None)
    if not call.flag("yes") and call.interactive:
        confirm(f"This will irreversibly cancel the currently running update for '{ref.name}'!",
                ref.name)  # fmt: skip
    call.backend.cancel(ref)
    print(f"The currently running update for '{ref.name}' has been canceled!")
    return 0


def confirm(warning: str, name: str) -> None:
    """Ask for the stack's name. Raises CommandError when it is not given."""
    print(f"{warning}\nPlease confirm that this is what you'd like to do by typing `{name}`: ",
          end="", flush=True)  # fmt: skip
    if sys.stdin.readline().strip() != name:
        raise CommandError("confirmation declined", 8)


def outputs(call: Invocation, deployment: dict[str, Any], show_secrets: bool) -> dict[str, Any]:
    """The stack's outputs from a checkpoint, secrets blinded unless they are to be shown."""
    from engine.state import Secret, from_disk

    root: dict[str, Any] = next((r for r in deployment.get("resources") or []
                 if r["type"] == ROOT and not r.get("delete")), {})  # fmt: skip
    opened = crypter_of(deployment).decrypt if show_secrets else lambda _: '"[secret]"'

    def plain(value: Any) -> Any:
        if isinstance(value, Secret):
            return plain(value.value) if show_secrets else "[secret]"
        if isinstance(value, dict):
            return {k: plain(value[k]) for k in sorted(value)}
        return [plain(v) for v in value] if isinstance(value, list) else value

    try:
        found = root.get("outputs") or {}
        return {k: plain(from_disk(found[k], opened)) for k in sorted(found)}
    except IncorrectPassphrase as error:
        raise cannot_decrypt() from error


def cannot_decrypt(prefix: str = "") -> CommandError:
    return CommandError(
        f"{prefix}failed to decrypt: incorrect passphrase, please set PULUMI_CONFIG_PASSPHRASE to "
        "the correct passphrase or set PULUMI_CONFIG_PASSPHRASE_FILE to a file containing the "
        "passphrase"
    )


def crypter_of(deployment: dict[str, Any]) -> PassphraseCrypter:
    """The crypter that a checkpoint names."""
    provider = deployment.get("secrets_providers") or {}
    if provider.get("type") != "passphrase":
        raise refuse(f"secrets provider {provider.get('type') or 'none'!r} in the checkpoint")
    return PassphraseCrypter(provider["state"]["salt"])


def _print_outputs(values: dict[str, Any], prefix: str = "") -> None:
    print(f"Current stack outputs ({len(values)}):")
    if not values:
        print("    No output values currently in this stack")
        return
    table(("OUTPUT", "VALUE"), ((k, config.to_text(v)) for k, v in values.items()), "    ")


def show(call: Invocation) -> int:
    ref = call.stack
    if call.flag("show-name"):
        print(ref.name)
        return 0
    deployment = call.backend.load(ref).deployment or {}
    resources = deployment.get("resources") or []
    print(f"Current stack is {ref.name}:\n    Managed by {socket.gethostname()}")
    if stamp := deployment.get("manifest", {}).get("time"):
        when = parse_time(stamp)
        shown = stamp.replace("T", " ").replace("Z", " +0000 UTC")
        print(f"    Last updated: {ago(when)} ({shown})")
        print(f"    Pulumi version used: {deployment['manifest'].get('version', '')}")
    print(f"Current stack resources ({len(resources)}):")
    if resources:
        _print_tree(resources, call)
        print()
        _print_outputs(outputs(call, deployment, bool(call.flag("show-secrets"))))
    else:
        print("    No resources currently in this stack")
    print("\nUse `pulumi stack select` to change stack; `pulumi stack ls` lists known ones")
    return 0


def _print_tree(resources: list[dict[str, Any]], call: Invocation) -> None:
    known = {r["urn"] for r in resources}
    children: dict[str, list[dict[str, Any]]] = {}
    for resource in resources:
        parent = resource.get("parent", "")
        children.setdefault(parent if parent in known else "", []).append(resource)
    rows: list[tuple[str, str]] = []

    def add(found: list[dict[str, Any]], stem: str, top: bool) -> None:
        for resource in found:
            last = resource is found[-1]
            below = stem if top else stem + ("   " if last else "│  ")
            branch = "" if top else "└─ " if last else "├─ "
            inner = children.get(resource["urn"], [])
            rows.append((f"{stem}{branch}{resource['type']}", resource["urn"].rsplit("::", 1)[1]))
            for label, key in (("URN", "urn"), ("ID", "id")):
                if call.flag(f"show-{key}s") and resource.get(key):
                    rows.append((f"{below}{'│  ' if inner else '   '}{label}: {resource[key]}", ""))
            add(inner, below, False)

    add(children.get("", []), "", True)
    width = max(len(kind) for kind, name in rows if name)
    for kind, name in (("TYPE", "NAME"), *rows):
        print(f"    {kind.ljust(width)}  {name}".rstrip())


def init(call: Invocation) -> int:
    name = call.named
    if not name and call.interactive:
        name = input("Please enter your desired stack name: ")
    if not name:
        raise CommandError("missing stack name", 2)
    create(call, call.ref(name, must_exist=False), select=not call.flag("no-select"))
    return 0


def create(call: Invocation, ref: StackRef, select: bool) -> None:
    """Make an empty stack with a secrets provider of its own."""
    if call.flag("secrets-provider", "default") not in ("default", "passphrase", ""):
        raise refuse(f"--secrets-provider {call.flag('secrets-provider')}")
    if call.backend.exists(ref):
        raise CommandError(f"stack '{ref.full}' already exists")
    file = call.project.stack_file(ref.name)
    had = file.salt
    try:
        state = file.crypter.check().state if had else file.crypter.state
    except CommandError as error:
        raise CommandError(f"could not create secrets manager for new stack: {error}") from error
    with call.backend.lock(ref):
        if not had:
            file.save()
        provider = {"type": "passphrase", "state": {"salt": state}}
        deployment = {"manifest": manifest(), "secrets_providers": provider, "metadata": {}}
        call.backend.save(ref, deployment)
    print(f"Created stack '{ref.name}'", file=sys.stderr)
    if select:
        call.project.select(call.backend.url, ref.full)


def select(call: Invocation) -> int:
    name = call.named
    if not name:
        raise CommandError("no stack selected; specify a stack name with --stack", STACK_NOT_FOUND)
    ref = call.ref(name, must_exist=False)
    if call.backend.exists(ref):
        call.project.select(call.backend.url, ref.full)
    elif call.flag("create"):
        create(call, ref, select=True)
    else:
        raise StackNotFound(ref.name)
    return 0


def unselect(call: Invocation) -> int:
    call.project.select(call.backend.url, None)
    print("Stack was unselected", file=sys.stderr)
    return 0


def list_stacks(call: Invocation) -> int:
    everywhere = bool(call.flag("all"))
    wanted = call.flag("project")
    try:
        project = call.project.name
    except CommandError as error:
        if not everywhere and not wanted:
            raise CommandError(f"could not detect current project: {error}", error.code) from error
        project = ""
    current = call.project.selected(call.backend.url) if project else None
    found: list[dict[str, Any]] = []
    rows: list[tuple[str, str, str]] = []
    for ref in call.backend.stacks():
        if not everywhere and ref.project != (wanted or project):
            continue
        deployment = call.backend.load(ref).deployment or {}
        stamp = deployment.get("manifest", {}).get("time")
        when = parse_time(stamp) if stamp else None
        name = ref.name if ref.project == project else ref.full
        count = len(deployment.get("resources") or [])
        summary = {"name": name, "current": current == ref.full}
        summary |= {"lastUpdate": iso_milliseconds(when)} if when else {}
        found.append(summary | {"resourceCount": count})
        state = "in progress" if call.backend.locked(ref) else ago(when) if when else "n/a"
        rows.append((f"{name}{'*' if current == ref.full else ''}", state, str(count)))
    if call.flag("json"):
        print_json(found)
    else:
        table(("NAME", "LAST UPDATE", "RESOURCE COUNT"), rows)
    return 0


def remove(call: Invocation) -> int:
    ref = call.ref(call.named)
    if not call.flag("yes"):
        if not call.interactive:
            raise CommandError("non-interactive mode requires --yes flag")
        confirm(f"This will permanently remove the '{ref.name}' stack!", ref.name)
    with call.backend.lock(ref):
        resources = (call.backend.load(ref).deployment or {}).get("resources") or []
        if not call.flag("force") and (len(resources) > 1 or
                                       any(r["type"] != ROOT for r in resources)):  # fmt: skip
            raise CommandError(
                f"'{ref.name}' still has resources; removal rejected. Possible actions:\n"
                f"- Make sure that '{ref.name}' is the stack that you want to destroy\n"
                "- Run `pulumi destroy` to delete the resources, then run `pulumi stack rm`\n"
                "- Run `pulumi stack rm --force` to override this error"
            )
        call.backend.remove(ref, backups=bool(call.flag("remove-backups")))
    if not call.flag("preserve-config") and ref.project == call.project.name:
        (call.project.root / f"Pulumi.{ref.name}.yaml").unlink(missing_ok=True)
    print(f"Stack '{ref.name}' has been removed!")
    call.project.select(call.backend.url, None)
    return 0


def output(call: Invocation) -> int:
    deployment = call.backend.load(call.stack).deployment or {}
    values = outputs(call, deployment, bool(call.flag("show-secrets")))
    if call.arguments:
        name = call.arguments[0]
        if name not in values:
            raise CommandError(f"current stack does not have output property '{name}'")
        if call.flag("json"):
            print_json(values[name])
        elif call.flag("shell"):
            print(f"{name}={shlex.quote(config.to_text(values[name]))}")
        else:
            print(config.to_text(values[name]))
    elif call.flag("json"):
        print_json(values)
    elif call.flag("shell"):
        for name, value in values.items():
            print(f"{name}={shlex.quote(config.to_text(value))}")
    else:
        _print_outputs(values)
    return 0


def export(call: Invocation) -> int:
    from engine.state import Snapshot

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
    from engine.state import Snapshot

    file, text = call.flag("file"), ""
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
        raise CommandError(f"the stack '{call.stack.name}' is too old to be used by this version "
                           "of the Pulumi CLI")  # fmt: skip
    if document["version"] != 3 or document.get("features"):
        raise refuse(f"deployment version {document['version']} {document.get('features') or ''}")
    wrong = [u for u in urns if u.split("::")[0].removeprefix("urn:pulumi:") != call.stack.name]
    if wrong and not call.flag("force"):
        lines = [f"resource '{u}' is from a different stack "
                 f"({u.split('::')[0].removeprefix('urn:pulumi:')} != {call.stack.name})"
                 for u in wrong]  # fmt: skip
        lines.append("importing this file could be dangerous; rerun with --force to proceed anyway")
        numbered = "".join(f"\n    {i}) {line}" for i, line in enumerate(lines, 1))
        raise CommandError(f"{len(lines)} errors occurred:{numbered}")
    with call.backend.lock(call.stack):
        before = call.backend.load(call.stack).deployment or {}
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
        call.backend.save(call.stack, deployment)
    print("Import complete.")
    return 0


def history(call: Invocation) -> int:
    size, page = call.flag("page-size", 10), max(1, call.flag("page", 1))
    updates = call.backend.history(call.stack)
    updates = updates[(page - 1) * size : page * size] if size > 0 else updates
    if call.flag("json"):
        from engine.cli_config import entry

        shown = bool(call.flag("show-secrets"))
        opened: Callable[[Any], dict[str, Any]] = lambda v: entry(v, call.stack_file, shown)  # noqa: E731
        print(json.dumps([_update(u, opened) for u in updates], indent=2, ensure_ascii=False))
        return 0
    if not updates:
        print(f"No stack updates found on page '{page}'" if page > 1
              else "Stack has never been updated")  # fmt: skip
    for update in updates:
        changes = update.get("resourceChanges") or {}
        counts = [changes.get(op, 0) for op in ("create", "delete", "update", "same")]
        start = datetime.fromtimestamp(update["startTime"], UTC)
        when = str(start) if call.flag("full-dates") else ago(start)
        print(f"Version: {update.get('version', 0)}\nUpdateKind: {update['kind']}")
        print(f"Status: {update['result']}\nMessage: {update['message']}")
        print(f"+{counts[0]}-{counts[1]}~{counts[2]} {counts[3]} Updated {when} took "
              f"{update['endTime'] - update['startTime']}s")  # fmt: skip
        for key, value in sorted(update.get("environment", {}).items()):
            if value.strip():
                print(f"    {key}: {value}")
        print()
    return 0


def _update(update: dict[str, Any], opened: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    def stamp(seconds: int) -> str:
        return iso_milliseconds(datetime.fromtimestamp(seconds, UTC))

    return {
        "version": update.get("version", 0),
        "kind": update["kind"],
        "startTime": stamp(update["startTime"]),
        "message": update["message"],
        "environment": dict(sorted(update.get("environment", {}).items())),
        "config": {k: opened(v) for k, v in sorted(update.get("config", {}).items())},
        "result": update["result"],
        "endTime": stamp(update["endTime"]),
        "resourceChanges": dict(sorted((update.get("resourceChanges") or {}).items())),
    }
