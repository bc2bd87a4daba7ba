"""What the lab says while it works: one line a step, with the seconds since the start."""

from __future__ import annotations

import os
import threading
import time

from rich.console import Console
from rich.markup import escape


class Progress:
    """Prints lines; several threads may."""

    def __init__(self) -> None:
        started = os.environ.get("LAB_STARTED")
        # Of the whole command, where make says when it began.
        self._start = float(started) if started else time.time()
        self._console = Console(highlight=False, soft_wrap=True)
        self._lock = threading.Lock()

    @property
    def seconds(self) -> float:
        return time.time() - self._start

    def say(self, text: str) -> None:
        with self._lock:
            self._console.print(f"[dim]\\[{self.seconds:6.1f}s][/] {escape(text)}")

    def title(self, text: str) -> None:
        with self._lock:
            self._console.print(f"[dim]\\[{self.seconds:6.1f}s][/] [bold]{escape(text)}[/]")
