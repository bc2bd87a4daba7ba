"""What a plan asks the controller: the scripts run here, beside stand-ins for Slurm's commands."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from operations.jobs_now import _guards, _read, _squeue
from operations.planned import Plan
from remote.bundle import Bundle, File, Guard
from remote.contact import Reply

PLAN = Plan("x", (), ())


def ran(script: str, folder: Path, **commands: str) -> str:
    for name, text in commands.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    place = {"PATH": f"{folder}:{os.environ['PATH']}", "TMPDIR": str(folder)}
    done = subprocess.run(["sh", "-s"], input=script, env=place, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_jobs_are_asked_of_nodes_that_slurmctld_knows(tmp_path: Path) -> None:
    told = ran(
        _squeue(["cn01", "cn02", "new01"]), tmp_path,
        sinfo="printf 'cn01\\ncn010\\ncn02\\n'", squeue='echo "job|7|al|RUNNING|cn01|$6"',
    )  # fmt: skip
    assert told == "job|7|al|RUNNING|cn01|cn01,cn02\n"
    # Nobody is asked of nodes that are not there yet: squeue would refuse the whole list.
    assert ran(_squeue(["new01"]), tmp_path, squeue="echo asked") == ""
    assert ran(_squeue(["cn01"]), tmp_path, squeue="exit 1") == "unasked squeue failed\n"
    assert _squeue([]) == ""


def test_guards_that_only_look_are_asked(tmp_path: Path) -> None:
    here = f"[ -f $SLURMSTACK_BUNDLE ] && touch {tmp_path}/$SLURMSTACK_NODE-$SLURMSTACK_ROLE"
    bundles = [
        Bundle("ctl", "slurmctld", [
            File("/etc/x", "it's\n"),
            Guard("jobs-stay", f"{here}\necho looked\necho job 7 would end\nexit 1\n"),
            Guard("state-stays", "exit 0\n"),
            # One that changes something is left alone.
            Guard("drains", f"touch {tmp_path}/drained; exit 1\n"),
        ]),
        Bundle("ctl", "system", [Guard("precheck", "exit 1\n")]),
    ]  # fmt: skip
    assert ran("".join(_guards(bundles)), tmp_path) == "refused job 7 would end\n"
    assert {path.name for path in tmp_path.iterdir()} == {"ctl-slurmctld"}


def test_what_it_says_is_in_the_plan() -> None:
    text = "job|7|al|RUNNING|cn01|main\nrefused job 7 would end\nof no kind\n"
    it = _read(PLAN, Reply(text, "", 0))
    assert it.jobs == (
        {"id": "7", "user": "al", "state": "RUNNING", "nodes": "cn01", "partition": "main"},
    )
    assert (it.refused, it.unasked) == (("job 7 would end",), None)
    silent = _read(PLAN, Reply("unasked squeue failed\n", "", 0))
    assert (silent.jobs, silent.unasked) == ((), "squeue failed")
