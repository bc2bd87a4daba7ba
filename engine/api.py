"""What the two halves of the engine say to each other.

The front calls engine.operation.run with a :class:`Request`; the core answers with Pulumi's own
engine events while it works and with a :class:`Result` at the end. Nothing here knows files.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from engine.filter import SecretFilter
from engine.state import Snapshot

Kind = Literal["update", "refresh", "destroy"]
Ending = Literal["succeeded", "failed", "canceled"]
"""Pulumi's words for the outcome of an operation."""

Event = dict[str, Any]
"""One apitype.EngineEvent as `--event-log` writes it, without `sequence` and `timestamp`. Plain
texts have been through the secret filter; values that are secret are readable for the sake of
`--show-secrets`, and blinded on their way out (engine.display)."""

PARALLEL = 4 * (os.cpu_count() or 1)
"""Pulumi's default for the greatest number of steps at once."""

Emit = Callable[[Event], None]


@dataclass(frozen=True)
class Project:
    """What the core needs of Pulumi.yaml: ``root`` is its folder, ``main`` the program's folder
    or file within it (Pulumi's `main`), ``virtualenv`` the Python runtime's option of that name
    (absolute or relative to root; None runs the interpreter this engine runs in)."""

    name: str
    root: Path
    main: str = "."
    virtualenv: str | None = None


@dataclass(frozen=True)
class Request:
    """One preview, update, refresh or destroy of a stack. ``config`` is decrypted, keys in full
    (``project:key``), structured values as JSON text; ``secret_keys`` names those that are secret.
    ``targets`` and ``replace`` are URNs, with `*` and `**` as Pulumi matches them; ``refresh`` has
    the resources refreshed first; ``parallel`` is the greatest number of steps at once;
    ``clear_pending_creates`` makes a refresh forget interrupted creates, as it forgets all other
    pending operations; ``debug`` adds the SDK's debug messages to the events; ``filter`` knows the
    configuration's secrets, and learns the others."""

    project: Project
    stack: str
    config: Mapping[str, str]
    secret_keys: frozenset[str]
    operation: Kind = "update"
    dry_run: bool = False
    parallel: int = PARALLEL
    targets: tuple[str, ...] = ()
    target_dependents: bool = False
    replace: tuple[str, ...] = ()
    refresh: bool = False
    continue_on_error: bool = False
    clear_pending_creates: bool = False
    debug: bool = False
    filter: SecretFilter = field(default_factory=SecretFilter)
    organization: str = "organization"


class Cancel:
    """The one cancel flag. First ``set()``: running steps finish, none starts. Second: running
    steps are abandoned and stay in the state as pending operations."""

    def __init__(self) -> None:
        self.level = 0
        self.graceful = asyncio.Event()
        self.hard = asyncio.Event()

    def set(self) -> None:
        """Call it from the event loop (`loop.add_signal_handler`)."""
        self.level += 1
        (self.graceful if self.level == 1 else self.hard).set()


@dataclass
class Result:
    """``snapshot`` is what to save (for a dry run: nothing is to be saved). ``changes`` counts
    steps as summaryEvent does, e.g. ``{"create": 3, "same": 1}``. ``result`` is Pulumi's word for
    the outcome. ``unsupported`` is not empty when the program asked for what this engine does not
    have: the diagnostic has been emitted, the snapshot is to be saved, the exit code is 2."""

    snapshot: Snapshot
    changes: dict[str, int] = field(default_factory=dict)
    result: Ending = "succeeded"
    unsupported: str = ""
