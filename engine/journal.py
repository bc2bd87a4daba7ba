"""The journal: what an operation has done so far, on disk before anyone is told.

One JSON document a line. The first names the checkpoint it goes on from; `begin` marks a step
under way, `finish` what it left. :func:`fold` makes the new list of resources from the old one
and the entries; the engine uses it at the end of an operation and :func:`recover` after a crash.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from engine.state import Crypter, Resource

T = TypeVar("T")


@dataclass
class Entry(Generic[T]):
    """``step`` numbers steps; several entries may be of one step, the last ``new`` counts.
    ``old`` is an index into the resources at the start: gone, or with ``keep`` changed in place
    into ``new``. An entry with ``pending`` says that ``operation`` is under way."""

    step: int
    operation: str = ""
    pending: T | None = None
    finished: bool = False
    old: int | None = None
    new: T | None = None
    keep: bool = False


def fold(base: list[T], entries: Iterable[Entry[T]]) -> tuple[list[T], list[tuple[str, T]]]:
    """The resources and pending operations after the entries: new ones in order of completion,
    then the old ones that are left, as Pulumi's snapshot manager orders them."""
    rest: dict[int, T] = dict(enumerate(base))
    made: dict[int, T] = {}
    pending: dict[int, tuple[str, T]] = {}
    for entry in entries:
        if entry.pending is not None:
            pending[entry.step] = (entry.operation, entry.pending)
        if entry.finished:
            pending.pop(entry.step, None)
        if entry.keep and entry.old is not None and entry.new is not None:
            rest[entry.old] = entry.new
        else:
            if entry.old is not None:
                rest.pop(entry.old, None)
            if entry.new is not None:
                made[entry.step] = entry.new
    return [*made.values(), *rest.values()], list(pending.values())


class Journal:
    """An open journal. ``base`` identifies the checkpoint that it goes on from (the front gives
    the SHA-256 of the file). Entries reach the disk in groups: one fsync for all that wait."""

    def __init__(self, path: Path, crypter: Crypter, base: str) -> None:
        self._crypter = crypter
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        self._buffer: list[str] = [json.dumps({"journal": 1, "base": base})]
        self._flushing = asyncio.Lock()
        self.bytes_written = 0

    def add(self, entry: Entry[Resource]) -> None:
        """Note an entry; it is safe only after the next :meth:`sync`."""
        doc: dict[str, Any] = {k: v for k, v in vars(entry).items() if v or type(v) is int}
        for state in {"pending", "new"} & doc.keys():
            doc[state] = doc[state].dump(self._crypter)
        self._buffer.append(json.dumps(doc, ensure_ascii=False))

    async def sync(self) -> None:
        """Return when all entries so far are on disk. Raises OSError (disk full, read-only)."""
        async with self._flushing:
            if not self._buffer:
                return
            lines, self._buffer = self._buffer, []
            data = ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")
            try:
                await asyncio.to_thread(self._write, data)
            except OSError:
                self._buffer = lines + self._buffer
                raise

    def _write(self, data: bytes) -> None:
        rest = data
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
            os.fsync(self._file)
        except OSError:  # a torn line would hide the ones after it
            os.ftruncate(self._file, self.bytes_written)
            raise
        self.bytes_written += len(data)

    def close(self) -> None:
        """The front removes the file after it has saved the checkpoint."""
        os.close(self._file)


def recover(path: Path, base: str, deployment: dict[str, Any]) -> dict[str, Any] | None:
    """The deployment with an interrupted operation's journal folded in, secrets still encrypted.

    None when there is nothing to recover: no journal, or one of another checkpoint (the crash came
    after the checkpoint was saved). A torn last line is left out: its step was told to nobody.
    """
    try:
        lines = path.read_text("utf-8", "surrogatepass").split("\n")
    except FileNotFoundError:
        return None
    entries: list[Entry[dict[str, Any]]] = []
    try:
        if json.loads(lines[0]).get("base") != base:
            return None
        for line in lines[1:-1]:
            entries.append(Entry(**json.loads(line)))
    except ValueError:
        if not entries:
            return None
    resources, pending = fold(list(deployment.get("resources") or []), entries)
    known = list(deployment.get("pending_operations") or [])
    known = [o for o in known if o["type"] == "creating"]
    operations = known + [{"resource": r, "type": operation} for operation, r in pending]
    return deployment | {"resources": resources, "pending_operations": operations}
