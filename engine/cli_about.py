"""`pulumi version`, `about` and `whoami`."""

from __future__ import annotations

import json
import platform

from engine import VERSION
from engine.cli import Invocation
from engine.errors import CommandError
from engine.printing import table

ENGINE = "slurmstack embedded engine"


def version(call: Invocation) -> int:
    print(f"v{VERSION}")
    return 0


def whoami(call: Invocation) -> int:
    user, url = call.backend.user, call.backend.url
    if call.flag("json"):
        print(json.dumps({"user": user, "url": url}, indent=2))
    else:
        print(user)
    return 0


def about(call: Invocation) -> int:
    """Says which engine runs, above all."""
    from importlib.metadata import version as installed

    packages = {name: installed(f"pulumi-{name}") for name in ("command", "random")}
    print(f"Engine: {ENGINE}, standing in for Pulumi {VERSION}")
    print("It is not Pulumi's own engine: production is better served by that one (see README).\n")
    print("Providers built in")
    table(("NAME", "VERSION"), packages.items())
    print(f"\nHost: {platform.system()} {platform.machine()}, Python {platform.python_version()}")
    try:
        print(f"Backend: {call.backend.url} (user {call.backend.user})")
        print(f"Current stack: {call.stack.full}")
    except CommandError as error:
        print(f"note: {error}")
    return 0
