"""`pulumi stack` but for what is kept of one, `cancel`, `version`, `about` and `whoami`."""

from __future__ import annotations

import socket
import sys
from typing import Any

from engine import VERSION
from engine.backend import StackRef, manifest
from engine.cli import Invocation
from engine.errors import STACK_NOT_FOUND, CommandError, StackNotFound, refuse
from engine.printing import ago, branches, iso_milliseconds, parse_time, print_json, table
from engine.state import STACK_TYPE, urn_name


def show(call: Invocation) -> int:
    from engine.cli_state import outputs, print_outputs

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
    if secrets := deployment.get("secrets_providers"):
        print(f"    Secrets provider: {secrets['type']}")
    print(f"Current stack resources ({len(resources)}):")
    if resources:
        _print_tree(resources, call)
        print()
        print_outputs(outputs(deployment, bool(call.flag("show-secrets"))))
    else:
        print("    No resources currently in this stack")
    print("\nUse `pulumi stack select` to change stack; `pulumi stack ls` lists known ones")
    return 0


def _print_tree(resources: list[dict[str, Any]], call: Invocation) -> None:
    """Without a parent all but the stack is the stack's, after its own."""
    known = {r["urn"] for r in resources}
    children: dict[str, list[dict[str, Any]]] = {}
    for resource in resources:
        parent = resource.get("parent", "")
        children.setdefault(parent if parent in known else "", []).append(resource)
    tops = children.pop("", [])
    if roots := [r for r in tops if r["type"] == STACK_TYPE]:
        children.setdefault(roots[0]["urn"], []).extend(r for r in tops if r is not roots[0])
    rows: list[tuple[str, str]] = []
    for top in roots[:1] or tops:
        for lead, below, r in branches(top, lambda r: children.get(r["urn"], [])):
            rows.append((f"{lead}{r['type']}", urn_name(r["urn"])))
            bar = "│  " if children.get(r["urn"]) else "   "
            if call.flag("show-urns"):
                rows.append((f"{below}{bar}URN: {r['urn']}", ""))
    width = max(len(kind) for kind, name in rows if name)
    for kind, name in (("TYPE", "NAME"), *rows):
        print(f"    {kind.ljust(width)}  {name}".rstrip())


def init(call: Invocation) -> int:
    name = call.named
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
    else:
        raise StackNotFound(ref.name)
    return 0


def list_stacks(call: Invocation) -> int:
    everywhere = bool(call.flag("all"))
    try:
        project = call.project.name
    except CommandError as error:
        if not everywhere:
            raise CommandError(f"could not detect current project: {error}", error.code) from error
        project = ""
    current = call.project.selected(call.backend.url) if project else None
    found: list[dict[str, Any]] = []
    rows: list[tuple[str, str, str]] = []
    for ref in call.backend.stacks():
        if not everywhere and ref.project != project:
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
        if not confirmed(f"This will permanently remove the '{ref.name}' stack!", ref.name):
            return 1
    with call.backend.lock(ref):
        resources = (call.backend.load(ref).deployment or {}).get("resources") or []
        empty = [r["type"] for r in resources] in ([], [STACK_TYPE])
        if not empty and not call.flag("force"):
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


def cancel(call: Invocation) -> int:
    ref = call.ref(call.arguments[0] if call.arguments else None)
    warning = f"This will irreversibly cancel the currently running update for '{ref.name}'!"
    if not call.flag("yes") and call.interactive and not confirmed(warning, ref.name):
        return 1
    call.backend.cancel(ref)
    print(f"The currently running update for '{ref.name}' has been canceled!")
    return 0


def confirmed(warning: str, name: str) -> bool:
    """Whether the stack's name is typed after the warning."""
    print(f"{warning}\nPlease confirm that this is what you'd like to do by typing `{name}`: ",
          end="", flush=True)  # fmt: skip
    if sys.stdin.readline().strip() == name:
        return True
    print("confirmation declined")
    return False


def version(call: Invocation) -> int:
    print(f"v{VERSION}")
    return 0


def whoami(call: Invocation) -> int:
    user, url = call.backend.user, call.backend.url
    if call.flag("json"):
        print_json({"user": user, "url": url})
    else:
        print(user)
    return 0


def about(call: Invocation) -> int:
    """Says which engine runs."""
    print(f"Engine: slurmstack embedded engine, standing in for Pulumi {VERSION}")
    print("It is not Pulumi's own engine: production is better served by that one (see README).")
    return 0
