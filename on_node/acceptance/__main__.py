"""Measures of a compute node, made inside a Slurm job; needs nothing but Python.

    node        what the node does alone: memory, HPL, folders; kept on the node where it keeps them
    fresh       the same, and what was best before is forgotten
    gate        the same as `node`, by the node's own configuration: ends with 1 where a figure is
                below the least, or below the node's own best
    pair SERVER CLIENT ADDRESS PORT    two tasks on two nodes: bandwidth and latency between them
    allreduce ADDRESS PORT      all tasks of a step: bus bandwidth of an all-reduce

Prints a line ``word TEST|NODE|VERDICT|FIGURE|UNIT|WORDS`` a figure, ``version NODE|NAME|TEXT``,
``reduced TEST|VERDICT|FIGURE|UNIT|WORDS``, and of pairs
``pair TEST|SERVER|CLIENT|VERDICT|FIGURE|UNIT|WORDS``.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from on_node.acceptance import pairs, reduced
from on_node.acceptance.alone import measures
from on_node.acceptance.figures import Measured, better, judged
from on_node.acceptance.versions import versions

CONFIG = "/etc/slurmstack/acceptance.json"
#: There only where the role is: what was best, and what was last.
KEPT = Path("/var/lib/slurmstack-acceptance/results.json")


def main(words: Sequence[str]) -> int:
    verb, *rest = words
    if verb == "pair":
        server, client, address, port = rest
        pairs.pair(server, client, address, int(port))
        return 0
    if verb == "allreduce":
        reduced.all_reduce(rest[0], int(rest[1]))
        return 0
    config = json.loads(Path(CONFIG).read_text() if verb == "gate" else rest[0])
    node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    found = [*measures(config)]
    kept = {} if verb == "fresh" else _kept()
    against = [*judged(found, kept.get("best", {}), config)] if verb == "gate" else []
    running = versions()
    _keep(found, kept.get("best", {}), running)
    for name, text in running.items():
        print(f"version {node}|{name}|{text}")
    for it in (*found, *against):
        figure = "" if it.figure is None else f"{it.figure:.6g}"
        said = " ".join(it.words.replace("|", " ").split())[-200:]
        print(f"word {it.test}|{node}|{it.verdict}|{figure}|{it.unit}|{said}")
    if verb != "gate":
        return 0
    failed = [it for it in (*found, *against) if it.verdict == "failed"]
    if failed:
        print("; ".join(f"{it.test}: {it.words}" for it in failed))
    return 1 if failed else 0


def _kept() -> dict[str, Any]:
    try:
        kept: dict[str, Any] = json.loads(KEPT.read_text())
        return kept
    except (OSError, ValueError):
        return {}


def _keep(found: Sequence[Measured], best: Mapping[str, float], running: Mapping[str, str]) -> None:
    """Beside what was best before; nowhere where the role is not."""
    if not KEPT.parent.is_dir():
        return
    figures = {it.test: (it.figure, it.unit) for it in found if it.figure is not None}
    top = dict(best)
    for test, (figure, unit) in figures.items():
        top[test] = better(unit, [figure, *([best[test]] if test in best else [])])
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    last = {"time": at, "versions": dict(running), "figures": figures}
    new = KEPT.with_suffix(".new")
    new.write_text(json.dumps({"best": top, "last": last}, indent=1) + "\n")
    new.replace(KEPT)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
