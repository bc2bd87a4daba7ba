"""`pulumi version`, `about` and `whoami`."""

from __future__ import annotations

import json

from engine import VERSION
from engine.cli import Invocation


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
    """Says which engine runs."""
    print(f"Engine: slurmstack embedded engine, standing in for Pulumi {VERSION}")
    print("It is not Pulumi's own engine: production is better served by that one (see README).")
    return 0
