"""``make bench``: the figures as tables. Ratios within a run count; seconds are the machine's."""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys

from rich.console import Console
from rich.table import Table

from bench.fleet import PROJECT
from bench.steps import Step, on_the_lab, production, simulated


def _table(title: str, steps: list[Step]) -> Table:
    """A row a step; the columns of commands only where somebody counted. Seconds of the processors
    hold where the machine is busy, too."""
    counted = any(result.commands is not None for _, result in steps)
    figures = Table(title=title, title_justify="left")
    columns = ["what", "seconds", "of the first", "processors, s", "peak MiB"]
    columns += ["commands", "controller", "another, at most"] if counted else []
    for column in columns:
        figures.add_column(column, justify="left" if column == "what" else "right")
    first = steps[0][1].seconds
    for what, result in steps:
        row = [what, f"{result.seconds:.1f}", f"{result.seconds / first:.2f}"]
        row += [f"{result.cpu:.1f}", f"{result.peak_mib:.0f}"]
        if counted:
            row += map(str, (result.commands, result.on_controller, result.on_a_node))
        figures.add_row(*row)
    return figures


def _growth(sizes: dict[int, list[Step]]) -> Table:
    """From each size to the next: the power of the number of nodes by which a step grows, 1 where
    it is linear."""
    growth = Table(title="growth: n^x", title_justify="left")
    growth.add_column("what")
    pairs = list(zip(sizes, list(sizes)[1:], strict=False))
    for few, many in pairs:
        growth.add_column(f"{few} to {many}", justify="right")
    for index, (what, _) in enumerate(next(iter(sizes.values()))):
        row = []
        for few, many in pairs:
            ratio = sizes[many][index][1].seconds / sizes[few][index][1].seconds
            row.append(f"{math.log(ratio) / math.log(many / few):.2f}")
        growth.add_row(what, *row)
    return growth


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--nodes", default="3,64,256", help="simulated nodes, with commas")
    parser.add_argument("--no-lab", action="store_true", help="leave the real nodes out")
    options = parser.parse_args()
    console = Console(width=max(100, Console().width))
    command = [sys.executable, "-m", "engine.choose"]
    chosen = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    console.print(f"{chosen.stdout.strip()}; {os.cpu_count()} cores")
    console.print(_table("Pulumi.prod.yaml, no host reached", production()))
    sizes: dict[int, list[Step]] = {}
    for count in sorted({int(text) for text in options.nodes.split(",")}):
        sizes[count] = simulated(count)
        console.print(_table(f"{count} simulated nodes, every component", sizes[count]))
    if len(sizes) > 1:
        console.print(_growth(sizes))
    if not options.no_lab:
        console.print(_table("4 real nodes, as make lab makes them", on_the_lab()))


if __name__ == "__main__":
    main()
