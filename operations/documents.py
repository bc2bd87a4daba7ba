"""What the tasks asked for and what of it is shown, from ``documents.toml``."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_TABLE = Path(__file__).with_name("documents.toml")


@dataclass(frozen=True)
class Row:
    """One criterion of one task."""

    task: str
    criterion: str
    verdict: Literal["proven", "stand-in", "not here"]
    #: The test that shows it, or what is missing.
    how: str


def rows() -> list[Row]:
    """All of them, in the order of the tasks."""
    tasks = tomllib.loads(_TABLE.read_text())["task"]
    return [Row(task["title"], *criterion) for task in tasks for criterion in task["criteria"]]
