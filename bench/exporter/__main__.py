"""What a look at slurmctld costs with many nodes and jobs: the exporter as it is, beside Slurm's
commands with ``--json`` and slurmrestd (root: a machine of a lab of its own is made and removed).

    python -m bench.exporter [--nodes 64] [--jobs 10000] [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.fleet import PROJECT

_LAB = "bench-exporter"
_EXPORTER = PROJECT / "templates/monitoring/slurm_exporter.py"
_MACHINE = PROJECT / "bench/exporter/machine.py"
_PACKAGES = "munge slurm-client slurm-wlm-basic-plugins slurmctld slurmd slurmrestd python3"
_INSTALL = f"""set -e
printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d
chmod +x /usr/sbin/policy-rc.d
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq -y --no-install-recommends install {_PACKAGES} >/dev/null
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.exporter", description=__doc__)
    parser.add_argument("--nodes", type=int, default=64)
    parser.add_argument("--jobs", type=int, default=10000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    command = [sys.executable, "-m", "lab", "--lab", _LAB]
    environment = {**os.environ, "NODES": "ctl"}
    try:
        subprocess.run(
            [*command, "up", "--machines-only"], cwd=PROJECT, env=environment, check=True
        )
        from lab import lifecycle, machine

        lab = lifecycle.require(_LAB)
        machine.ssh(lab, "ctl", _INSTALL, timeout=600)
        for file in (_EXPORTER, _MACHINE):
            words = ["ssh", "-F", str(lab.ssh_config), "ctl", f"cat >/root/{file.name}"]
            subprocess.run(words, input=file.read_bytes(), check=True)
        numbers = f"{options.nodes} {options.jobs} {options.rounds}"
        script = f"python3 /root/{_MACHINE.name} /root/{_EXPORTER.name} {numbers}"
        done = machine.ssh(lab, "ctl", script, timeout=3000)
        found = json.loads(done.stdout.splitlines()[-1])
    finally:
        subprocess.run([*command, "down"], cwd=PROJECT, env=environment, check=True)
    _show(found)


def _show(found: dict[str, Any]) -> None:
    nodes, jobs = found.pop("nodes"), found.pop("jobs")
    table = Table(title=f"one look, {nodes} nodes, {jobs} jobs: medians", title_justify="left")
    for column in ("by", "seconds", "CPU s of who asks", "of slurmctld", "RPCs", "their seconds"):
        table.add_column(column, justify="left" if column == "by" else "right")
    for name, looks in found.items():

        def median(key: str, looks: list[dict[str, Any]] = looks) -> str:
            return f"{statistics.median(look[key] for look in looks):.3f}"

        # One of them is sdiag's own question for these figures.
        count = statistics.median(sum(look["rpcs"].values()) for look in looks)
        figures = map(median, ("seconds", "asker", "slurmctld"))
        table.add_row(name, *figures, f"{count:.0f}", median("rpc_seconds"))
    console = Console(width=max(100, Console().width))
    console.print(table)
    console.print({name: looks[-1]["rpcs"] for name, looks in found.items()})


if __name__ == "__main__":
    main()
