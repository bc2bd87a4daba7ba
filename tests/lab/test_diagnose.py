"""Jobs that fail in real ways, and what the verb and the users' own command say of each."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.conftest import RunningLab, await_that

pytestmark = pytest.mark.lab

COMMAND = "/opt/slurm/bin/diagnose_training_failure.py"
DEBUG = "/var/log/slurm/debug"
#: What a user has in the environment of a job, and a program prints.
TOKEN = "not-for-anyone-7f3a9c"
NODES = ("cn01", "cn02")
#: A rank of a job on two nodes: the second one raises, the first one would go on.
_RANK = f"""\
import os, time
print("HF_TOKEN=" + os.environ["HF_TOKEN"], flush=True)
assert os.environ["HF_TOKEN"] == "{TOKEN}"
if os.environ["SLURM_PROCID"] == "1":
    raise ValueError("step 7 has no data")
time.sleep(300)
"""
#: A rank that is killed, beside one that would go on.
_KILL = '[ "$SLURM_PROCID" = 0 ] || kill -9 $$\nsleep 300\n'
_FILL = "with open('/mnt/full/model.pt', 'wb') as file: file.write(bytes(1 << 20))\n"
_GROW = "import time\nheld = bytearray(400 << 20)\ntime.sleep(60)\n"
_PROLOG = "#!/bin/sh\n[ ! -e /run/prolog-fails ]\n"


def submitted(lab: RunningLab, wrap: str, options: str = "") -> str:
    """A job of alice's."""
    inner = (
        f"cd && HF_TOKEN={TOKEN} sbatch --parsable --mem=50 {options} --wrap {shlex.quote(wrap)}"
    )
    return lab.ssh("ctl", f"su alice -c {shlex.quote(inner)}").stdout.strip()


def ended(lab: RunningLab, job: str) -> bool:
    """It neither waits nor runs any more."""
    return lab.ssh("ctl", f"squeue -h -j {job}", check=False).stdout == ""


def verb(lab: RunningLab, job: str) -> dict[str, Any]:
    done = lab.run("slurmstack", "diagnose", job, "--json", "--stack", lab.name)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.fixture(scope="module")
def jobs(users: RunningLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What goes wrong → the job it went wrong in, once all have ended."""
    lab = users
    before = lab.settings.read_text()
    limited = submitted(lab, "sleep 300", "-w cn01 -t 1")
    scripts = tmp_path_factory.mktemp("scripts")
    (scripts / "Prolog").write_text(_PROLOG)
    (scripts / "Epilog").write_text("#!/bin/sh\ntouch /run/site-epilog-$SLURM_JOB_ID\n")
    try:
        lab.set(diagnosis={}, scripts={it.name: str(it) for it in scripts.iterdir()})
        lab.up()
        for node in NODES:
            programs = {"rank.py": _RANK, "fill.py": _FILL, "grow.py": _GROW, "kill.sh": _KILL}
            for name, text in programs.items():
                lab.send(node, f"cat >/home/alice/{name}", text.encode())
        lab.ssh("cn02", "mkdir -p /mnt/full && mount -t tmpfs -o size=64k,mode=1777 x /mnt/full")
        found = {
            "walltime": limited,
            "exception": submitted(lab, "srun -l -K python3 rank.py", "-N2 -o out-%j"),
            "killed": submitted(lab, "srun -K sh kill.sh", "-N2 -o out-%j"),
            "disk": submitted(lab, "python3 fill.py", "-w cn02 -o out-%j"),
            "memory": submitted(lab, "srun python3 grow.py", "-w cn02 -o out-%j"),
            "missing": submitted(lab, "srun /opt/nosuch/train", "-w cn02 -o out-%j"),
            "fine": submitted(lab, "srun true", "-w cn02 -o out-%j"),
        }
        for job in list(found.values())[1:]:
            await_that(lambda job=job: ended(lab, job))  # type: ignore[misc]
        lab.ssh("cn02", "touch /run/prolog-fails")
        found["prolog"] = submitted(lab, "true", "-w cn02")
        held = f"squeue -h -j {found['prolog']} -o %r"
        await_that(lambda: "launch" in lab.ssh("ctl", held).stdout)
        await_that(lambda: ended(lab, limited))
        yield found
    finally:
        lab.ssh("cn02", "rm -f /run/prolog-fails; ! mountpoint -q /mnt/full || umount /mnt/full")
        lab.ssh("ctl", "squeue -h -o %A | xargs -r scancel --full")
        lab.ssh("ctl", "scontrol update NodeName=cn02 State=RESUME", check=False)
        lab.settings.write_text(before)
        lab.up()
        for node in ("login01", *NODES):
            assert lab.ssh(node, f"[ ! -e {COMMAND} ]").returncode == 0


@pytest.mark.parametrize(
    ("case", "cause", "words"),
    [
        ("exception", "python-exception", "ValueError: step 7 has no data"),
        ("killed", "killed", "Killed"),
        ("walltime", "walltime", "DUE TO TIME LIMIT"),
        ("disk", "disk-full", "No space left on device"),
        ("memory", "host-oom", "memory limit"),
        ("missing", "program-missing", "/opt/nosuch/train"),
        ("prolog", "prolog", "Prolog launch failure"),
    ],
)
def test_the_verb_names_the_cause(
    users: RunningLab, jobs: dict[str, str], case: str, cause: str, words: str
) -> None:
    told = verb(users, jobs[case])
    first = told["findings"][0]
    assert told["cause"] == first["rule"] == cause, told
    assert any(words in it["line"] for it in first["evidence"]), first
    assert told["missing"] == {}
    if case in ("exception", "killed"):
        assert told["asked"] == list(NODES)
        where = users.ssh("ctl", f"scontrol -o show job {jobs[case]}").stdout
        assert "NodeList=cn[01-02]" in where
        assert (told["first"]["rank"], told["first"]["node"]) == (1, "cn02")


def test_the_report_is_kept_and_read_by_its_user_alone(
    users: RunningLab, jobs: dict[str, str]
) -> None:
    job = jobs["exception"]
    done = users.run("slurmstack", "diagnose", job, "--stack", users.name)
    assert f"report: ctl:{DEBUG}/{job}" in done.stdout
    kept = users.ssh("ctl", f"su alice -c 'cat {DEBUG}/{job}/report.txt'").stdout
    assert kept.strip() in done.stdout
    assert "First to fail: rank 1 on cn02" in kept
    assert json.loads(users.ssh("ctl", f"cat {DEBUG}/{job}/report.json").stdout)["version"] == 1
    for node, name in (("ctl", "report.txt"), ("cn01", "evidence.json")):
        path = f"{DEBUG}/{job}/{name}"
        assert users.ssh(node, f"su bob -c 'cat {path}'", check=False).returncode != 0
        assert users.ssh(node, f"su alice -c 'cat {path}'").stdout


def test_a_user_asks_for_a_job_of_their_own_and_no_other(
    users: RunningLab, jobs: dict[str, str]
) -> None:
    job = jobs["exception"]
    # The job began on cn01, so that its output is there.
    done = users.ssh("cn01", f"su alice -c '{COMMAND} {job}'")
    assert "Cause: The program ended with a Python exception of its own" in done.stdout
    assert "cn02: no evidence from it: ask on that node, or an operator" in done.stdout
    refused = users.ssh("cn01", f"su bob -c '{COMMAND} {job}'", check=False)
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert f"job {job} is alice's" in refused.stderr
    unknown = users.ssh("login01", f"su alice -c '{COMMAND} 999999'", check=False)
    assert "neither slurmctld nor accounting knows it" in unknown.stderr
    # Where nothing of it lies, Slurm's own word is left.
    there = users.ssh("login01", f"su alice -c '{COMMAND} --json {jobs['walltime']}'")
    assert json.loads(there.stdout)["cause"] == "walltime"


def test_no_secret_is_kept_or_shown(users: RunningLab, jobs: dict[str, str]) -> None:
    job = jobs["exception"]
    assert TOKEN in users.ssh("cn01", f"cat /home/alice/out-{job}").stdout
    shown = users.run("slurmstack", "diagnose", job, "--json", "--stack", users.name).stdout
    shown += users.ssh("cn01", f"su alice -c '{COMMAND} {job} --json'").stdout
    for node in ("ctl", *NODES):
        shown += users.ssh(
            node, f"cat {DEBUG}/*/* /var/log/slurm/job_metrics.log* 2>/dev/null; true"
        ).stdout
    assert "ValueError: step 7" in shown
    assert TOKEN not in shown


def test_each_job_leaves_one_line_and_only_failed_ones_evidence(
    users: RunningLab, jobs: dict[str, str]
) -> None:
    text = users.ssh("cn02", "cat /var/log/slurm/job_metrics.log").stdout
    lines = {str(it["job"]): it for it in map(json.loads, text.splitlines())}
    assert len(lines) == len(text.splitlines())
    kept = users.ssh("cn02", f"ls {DEBUG}").stdout.split()
    assert jobs["fine"] not in kept
    assert lines[jobs["fine"]]["failed"] is False
    for case in ("exception", "killed", "disk", "memory", "missing"):
        assert lines[jobs[case]]["failed"] is True
        assert lines[jobs[case]]["user"] == "alice"
        assert jobs[case] in kept
    assert lines[jobs["disk"]]["exit_code"] == 1
    # What the links carried; None where no card is, as on these machines.
    assert "received" in lines[jobs["fine"]]
    # The site's own epilog ran as well.
    ran = users.ssh("cn02", "ls /run").stdout
    assert {f"site-epilog-{jobs[case]}" for case in ("fine", "disk")} <= set(ran.split())


def test_links_are_counted_while_a_job_is_there(users: RunningLab, jobs: dict[str, str]) -> None:
    def kept() -> list[str]:
        return users.ssh("cn01", "ls /run/slurmstack/links").stdout.split()

    assert not set(jobs.values()) & set(kept())
    job = submitted(users, "sleep 300", "-w cn01 -o out-%j")
    await_that(lambda: job in kept())
    users.ssh("ctl", f"scancel {job}")
    await_that(lambda: job not in kept())


def test_the_epilog_is_quick_and_never_drains(users: RunningLab, jobs: dict[str, str]) -> None:
    run = "env -i PATH=$PATH SLURM_JOB_ID=1 SLURM_JOB_UID=0 SLURM_JOB_GID=0 SLURM_JOB_EXIT_CODE=%s "
    run += "SLURM_JOB_START_TIME=$(date +%%s) /etc/slurmstack/scripts/Epilog-diagnosis"
    begin = time.monotonic()
    users.ssh("cn01", run % 0)
    # With the connection, on a machine that does other things as well.
    assert time.monotonic() - begin < 5
    hidden = "/usr/local/lib/slurmstack/on_node/diagnosis"
    users.ssh("cn01", f"mv {hidden}/gather.py {hidden}/gone")
    try:
        assert users.ssh("cn01", run % 256).returncode == 0
    finally:
        users.ssh("cn01", f"mv {hidden}/gone {hidden}/gather.py")
    told = users.ssh("cn01", "journalctl -q -t slurmstack-diagnosis --no-pager -o cat").stdout
    assert re.search(r"job 1: not all was kept: .*gather", told)
    drained = users.ssh("ctl", "sinfo -h -t drain,fail,down -o '%n %E'").stdout.splitlines()
    assert [it for it in drained if "rolog" not in it] == []
    assert Path(COMMAND).name in users.ssh("cn01", "ls /opt/slurm/bin").stdout
