"""What `slurmstack drift` found last, for `slurmstack status`: ``.slurmstack/STACK/drift.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from components import history


@dataclass(frozen=True)
class Drift:
    """A look at the hosts: when, by whom, and host → how much differs there."""

    time: str
    by: str
    nodes: dict[str, int]


def keep(place: Path, differences: Mapping[str, int]) -> None:
    """Note what was found.

    Args:
        place: the stack's folder (`history.folder`).
        differences: host → how many things differ there; those where nothing does are left out.
    """
    drift = Drift(history.now(), history.operator(), {k: n for k, n in differences.items() if n})
    place.mkdir(parents=True, exist_ok=True)
    new = place / "drift.json.new"
    new.write_text(json.dumps(asdict(drift)))
    new.replace(place / "drift.json")


def last(place: Path) -> Drift | None:
    """What was found last; None where nobody has looked from here."""
    try:
        return Drift(**json.loads((place / "drift.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
