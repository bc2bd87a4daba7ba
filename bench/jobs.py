"""What runs with jobs on their nodes, and how long `slurmstack diagnose` takes of a job on eight:
on a lab of its own that is made and removed (root).

Programs are run in turns on one node, with a shell that does nothing beside them: how many times as
long as that is what to compare between machines.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.fleet import PROJECT
from bench.measure import measure
from bench.steps import OnLab
from lab import lifecycle, machine

NODES = 8
_SCRIPTS = "/etc/slurmstack/scripts"
#: What slurmd runs; of a job that ended well (0) or not (256).
PROGRAMS = {
    "a shell that does nothing": "sh -c exit",
    "prolog: links": f"{_SCRIPTS}/Prolog-diagnosis",
    "prolog: health": f"{_SCRIPTS}/Prolog-health",
    "epilog: diagnosis": f"{_SCRIPTS}/Epilog-diagnosis",
    "epilog: diagnosis of a failed job": f"SLURM_JOB_EXIT_CODE=256 {_SCRIPTS}/Epilog-diagnosis",
    "epilog: health": f"{_SCRIPTS}/Epilog-health",
    "health check": "/usr/local/lib/slurmstack/health-check",
}
#: Each in turn, so that what else the machine does meets all of them.
_TIMED = """
import json, os, statistics, subprocess, sys, time
programs, times = json.loads(sys.argv[1]), {}
job = {"SLURM_JOB_ID": "1", "SLURM_JOB_UID": "0", "SLURM_JOB_GID": "0", "SLURM_JOB_EXIT_CODE": "0",
       "SLURM_JOB_START_TIME": str(int(time.time())), "SLURM_JOB_WORK_DIR": "/"}
for _ in range(21):
    for name, program in programs.items():
        began = time.monotonic()
        subprocess.run(program, shell=True, env={**os.environ, **job}, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        times.setdefault(name, []).append(time.monotonic() - began)
print(json.dumps({name: statistics.median(it) for name, it in times.items()}))
"""


def grown(config: dict[str, Any], addresses: dict[str, str]) -> dict[str, Any]:
    """The lab's settings with as many compute nodes as these, health checks and diagnosis."""
    computes = sorted(addresses)
    nodes = config["slurmstack:nodes"]
    nodes[1]["hosts"] = f"{computes[1]},{','.join(computes[2:])}"
    config["slurmstack:hosts"] |= {name: addresses[name] for name in computes[2:]}
    config.pop("slurmstack:topology", None)
    limits = {"freeDisk": {"/": 1}, "forkTime": 9000}
    return config | {
        "slurmstack:healthCheck": {"by": "slurmstack", "interval": 3600, "limits": limits},
        "slurmstack:diagnosis": {},
    }


def figures() -> Iterator[tuple[str, float]]:
    """What → seconds."""
    command = [str(PROJECT / ".venv/bin/python"), "-m", "lab", "--lab", "bench"]
    environment = {**os.environ, "LAB": "bench"}
    computes = [f"cn{number:02}" for number in range(1, NODES + 1)]
    try:
        names = ",".join(["ctl", "login01", *computes[:2]])
        measure([*command, "up", "--nodes", names], PROJECT, environment)
        for name in computes[2:]:
            measure([*command, "node-up", name], PROJECT, environment)
        lab = lifecycle.require("bench")
        real = OnLab(lab)
        addresses = {name: lab.address(name) for name in computes}
        real.change(lambda config: grown(config, addresses))
        real.pulumi("up", "--yes", "--skip-preview", "--suppress-outputs")
        timed = shlex.join(["python3", "-c", _TIMED, json.dumps(PROGRAMS)])
        yield from json.loads(machine.ssh(lab, "cn02", timed, timeout=600).stdout).items()
        fails = "srun -l -K sh -c 'test $SLURM_PROCID != 5 || exit 3; sleep 60'"
        submit = ["sbatch", "--parsable", "--wait", f"-N{NODES}", "-o", "/var/tmp/out-%j"]
        words = f"cd / && {shlex.join([*submit, '--wrap', fails])} || true"
        job = machine.ssh(lab, "ctl", words, timeout=600).stdout.strip()
        for _ in range(2):
            took = real.slurmstack("diagnose", job, "--json")
        assert len(json.loads(took.output)["asked"]) == NODES, took.output
        yield f"slurmstack diagnose, {NODES} nodes", took.seconds
        yield "the same, seconds of processors here", took.cpu
    finally:
        measure([*command, "down"], PROJECT, environment)


def main() -> None:
    table = Table(title=f"With jobs, {os.cpu_count()} cores", title_justify="left")
    for column in ("what", "seconds", "of a shell"):
        table.add_column(column, justify="left" if column == "what" else "right")
    shell = 0.0
    for what, seconds in figures():
        shell = shell or seconds
        table.add_row(what, f"{seconds:.3f}", f"{seconds / shell:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
