"""How long it takes until 200 files dropped into the submit folder at once are jobs, beside as many
calls of sbatch in a row: on a lab of its own that is made and removed (root)."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from bench.steps import lab_of_its_own, timed
from lab import machine

FILES = 200
_SHARE = "/srv/nas"
_FOLDER = f"{_SHARE}/slurm-jobs"
_USER = "alice"
_JOB = """\
#!/bin/bash
#SBATCH --partition=main --mem=50M --time=5 --output=/srv/nas/%j.out
true
"""
_BRIDGE = {
    "folder": _FOLDER,
    "folders": [_SHARE],
    "registries": [{"name": "nas-hub.local:5407"}],
    "settled": 1,
    "waitingFiles": FILES,
}
#: As the user: what is timed, seconds.
_TIMED = {
    f"{FILES} files at once: all are jobs": f"""
        for number in $(seq {FILES}); do cp {_SHARE}/job.sh {_FOLDER}/submit/$number.sh; done
        until [ "$(ls {_FOLDER}/processed | grep -c txt)" -ge {FILES} ]; do sleep 0.1; done""",
    f"sbatch, {FILES} times": f"""
        for number in $(seq {FILES}); do sbatch --parsable {_SHARE}/job.sh; done""",
}


def figures() -> Iterator[tuple[str, float]]:
    """What → seconds."""
    with lab_of_its_own() as real:
        lab = real.lab
        real.change(lambda config: config | {"slurmstack:kubernetesBridge": _BRIDGE})
        for node in ("ctl", "cn01", "cn02"):
            machine.ssh(lab, node, f"install -d -m 1777 {_SHARE}")
        real.pulumi("up", "--yes", "--skip-preview", "--suppress-outputs")
        machine.ssh(lab, "ctl", f"printf %s {shlex.quote(_JOB)} >{_SHARE}/job.sh")
        for what, script in _TIMED.items():
            as_user = f"timeout 900 runuser -u {_USER} -- sh -c {shlex.quote(script)}"
            yield what, timed(lab, "ctl", as_user, 960)


def main() -> None:
    table = Table(title=f"The submit folder, {os.cpu_count()} cores", title_justify="left")
    for column in ("what", "seconds", "of the last"):
        table.add_column(column, justify="left" if column == "what" else "right")
    found = [*figures()]
    for what, seconds in found:
        table.add_row(what, f"{seconds:.1f}", f"{seconds / found[-1][1]:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
