"""`pulumi version`, `about` and `whoami`."""

from __future__ import annotations

import json
import platform
import socket
import sys
from typing import Any

from engine import VERSION
from engine.cli import Invocation
from engine.errors import CommandError
from engine.printing import print_json, table

ENGINE = "slurmstack embedded engine"


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
