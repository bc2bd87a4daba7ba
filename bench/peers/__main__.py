"""``python -m bench.peers``: slurmstack beside Ansible and pyinfra, which do the same work on the
same machines of a lab in the same run (root). What counts is the ratios."""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from bench.peers import many, real, tools
from bench.peers.real import OURS, Figures

#: Step → tool → how many times as long as slurmstack it should take, at least.
GOALS: Mapping[str, Mapping[str, float]] = {
    "no-op": {"Ansible": 10, "pyinfra": 3},
    "one line": {"Ansible": 10, "pyinfra": 3},
    "one node added": {"Ansible": 20},
    "first deployment": {"Ansible": 1, "pyinfra": 1},
}


def table(title: str, figures: Figures) -> Table:
    """Seconds by the clock, the median of those taken, and how many times as long as slurmstack;
    with seconds of the processors here, which hold where the machine is busy, too."""
    shown = Table(title=title, title_justify="left")
    shown.add_column("what")
    shown.add_column(f"{OURS}, s (processors)", justify="right")
    for tool in ("Ansible", "pyinfra"):
        for column in (f"{tool}, s (processors)", "times as long", "goal"):
            shown.add_column(column, justify="right")
    for step, of_tool in figures.items():
        seconds = {
            tool: statistics.median(one.seconds for one in took) for tool, took in of_tool.items()
        }
        processors = {
            tool: statistics.median(one.cpu for one in took) for tool, took in of_tool.items()
        }
        row = [step, f"{seconds[OURS]:.1f} ({processors[OURS]:.1f})"]
        for tool in ("Ansible", "pyinfra"):
            ratio, goal = seconds[tool] / seconds[OURS], GOALS.get(step, {}).get(tool)
            row += [f"{seconds[tool]:.1f} ({processors[tool]:.1f})", f"{ratio:.1f}"]
            met = "" if goal is None or ratio >= goal else ", missed"
            row.append("" if goal is None else f"{goal:g}{met}")
        shown.add_row(*row)
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument(
        "--many", type=int, default=64, help="addresses of one machine; 0: leave out"
    )
    parser.add_argument("--no-real", action="store_true", help="leave the four machines out")
    parser.add_argument("--times", type=int, default=3, help="of what can be done again")
    options = parser.parse_args()
    console = Console(width=max(130, Console().width))

    def load() -> str:
        return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"

    tools.install()
    console.print(load())
    with real.bare_lab() as lab:
        if options.no_real:
            real.deploy_ours(lab)
        else:
            found = real.measured(lab, options.times, console.print)
            console.print(table(f"4 real nodes; {load()}", found))
        if options.many:
            found = many.measured(lab, real.held(lab), options.many, console.print)
            title = (
                f"one machine at {options.many} addresses; slurmstack: simulated nodes; {load()}"
            )
            console.print(table(title, found))


if __name__ == "__main__":
    main()
