"""Our own health checks on real nodes: what fails drains with words, what is mended returns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.conftest import RunningLab, await_that

CHECK = "/usr/local/lib/slurmstack/health-check"
DRAINED = "slurmstack: health: "
SETTINGS = {
    "by": "slurmstack",
    "interval": 60,
    "mounts": ["/srv/share"],
    # A lab on a machine at other work answers late.
    "limits": {
        "freeDisk": {"/": 1, "/srv/small": 5},
        "zombies": 5,
        "forkTime": 9000,
        "deadline": 6,
    },
}


@pytest.fixture(scope="module")
def checked(users: RunningLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    """With the checks, a small disk and a share on each node, and Prolog and Epilog of the site."""
    lab, folder = users, tmp_path_factory.mktemp("scripts")
    for name in ("Prolog", "Epilog"):
        (folder / name).write_text(f"#!/bin/sh\necho $SLURM_JOB_ID >>/run/site-{name}\nexit 0\n")
    for node in ("cn01", "cn02"):
        lab.ssh(
            node,
            "mkdir -p /srv/small /srv/share && mount -t tmpfs -o size=10m none /srv/small"
            " && mount -t tmpfs -o size=10m none /srv/share",
        )
    scripts = {name: str(folder / name) for name in ("Prolog", "Epilog")}
    try:
        with lab.having(healthCheck=SETTINGS, scripts=scripts):
            yield lab
        # Gone as it came; what slurm.conf named stays until no script is placed any more.
        assert "health" not in lab.ssh("ctl", "cat /etc/slurm/slurm.conf").stdout
        left = f"ls -d {CHECK} /var/lib/slurmstack-health /etc/slurmstack/health.json"
        assert lab.ssh("cn01", left, check=False).stdout == ""
    finally:
        for node in ("cn01", "cn02"):
            lab.ssh(node, "umount /srv/small /srv/share; rm -rf /srv/small /srv/share", check=False)


def state(lab: RunningLab, node: str = "cn02") -> str:
    return lab.shown(node, "%T %E")


def look(lab: RunningLab, node: str = "cn02") -> int:
    """A run of the checks, as slurmd makes one at each interval."""
    return lab.ssh(node, CHECK, check=False).returncode


FAULTS = {
    "disk": (
        "fallocate -l 8M /srv/small/full",
        "rm /srv/small/full",
        "/srv/small has 2 MiB free, expected 5",
    ),
    "mount": (
        "umount /srv/share",
        "mount -t tmpfs none /srv/share",
        "nothing is mounted at /srv/share",
    ),
    "read-only": (
        "mount -o remount,ro /srv/small",
        "mount -o remount,rw /srv/small",
        "/srv/small is mounted read-only",
    ),
    "munge": ("systemctl stop munge", "systemctl start munge", "munge: "),
    "zombies": (
        "systemd-run -q --unit=zombies python3 -c 'import os, time\n"
        "for n in range(9):\n  if not os.fork(): os._exit(0)\ntime.sleep(600)';"
        " until [ $(ps -eo stat | grep -c ^Z) -ge 9 ]; do sleep 0.1; done",
        "systemctl stop zombies",
        "9 zombie processes, most of them python3, expected 5 at most",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_fails_drains_with_words_and_returns_when_it_is_mended(
    checked: RunningLab, name: str
) -> None:
    lab = checked
    breaks, mends, words = FAULTS[name]
    assert (look(lab), state(lab)) == (0, "idle none")
    lab.ssh("cn02", breaks)
    try:
        # A node without munge cannot tell slurmctld anything: it hears of it with munge's return,
        # and slurmctld sees by itself that it does not answer.
        if name == "munge":
            assert look(lab) == 1
            last = json.loads(lab.ssh("cn02", "cat /var/lib/slurmstack-health/last.json").stdout)
            assert last["told"] == "failed"
            assert last["checks"]["munge"]["words"].startswith(words)
        else:
            # By slurmd itself, which runs them when it starts.
            if name == "disk":
                lab.ssh("cn02", "systemctl restart slurmd")
                await_that(lambda: state(lab).startswith("drained"))
            assert look(lab) == 1
            assert state(lab) == f"drained {DRAINED}{words}"
            metrics = lab.ssh("cn02", "cat /var/lib/slurmstack-metrics/slurmstack_health.prom")
            assert " 0\n" in metrics.stdout
    finally:
        lab.ssh("cn02", mends)
    assert (look(lab), state(lab)) == (0, "idle none")


def test_the_checks_are_not_held_up_by_what_does_not_answer(checked: RunningLab) -> None:
    """munged is stopped in its tracks: late is no fault, and not answering for 10 s is one."""
    lab = checked
    lab.ssh("cn02", "pkill -STOP munged")
    try:
        took = "date +%s%N; " + CHECK + "; echo $?; date +%s%N"
        began, verdict, ended = lab.ssh("cn02", took).stdout.split()
        assert verdict == "0"
        assert int(ended) - int(began) < 9e9

        def words() -> str:
            look(lab)
            last = json.loads(lab.ssh("cn02", "cat /var/lib/slurmstack-health/last.json").stdout)
            return str(last["checks"]["munge"]["words"])

        await_that(lambda: words().startswith("munge does not answer"))
    finally:
        lab.ssh("cn02", "pkill -CONT munged")
    await_that(lambda: look(lab) == 0)
    assert state(lab) == "idle none"


def test_what_a_person_has_decided_stays(checked: RunningLab) -> None:
    lab = checked
    node = "scontrol update NodeName=cn02"
    lab.ssh("ctl", f"{node} State=DRAIN Reason='new memory'")
    lab.ssh("cn02", "umount /srv/share")
    assert (look(lab), state(lab)) == (1, "drained new memory")
    lab.ssh("cn02", "mount -t tmpfs none /srv/share")
    assert (look(lab), state(lab)) == (0, "drained new memory")
    lab.ssh("ctl", f"{node} State=RESUME")
    # Ours, which somebody then makes their own.
    lab.ssh("cn02", "umount /srv/share")
    assert look(lab) == 1
    assert state(lab).startswith(f"drained {DRAINED}")
    lab.ssh("ctl", f"{node} Reason='I look at the share'")
    lab.ssh("cn02", "mount -t tmpfs none /srv/share")
    assert (look(lab), state(lab)) == (0, "drained I look at the share")
    lab.ssh("ctl", f"{node} State=RESUME")


def test_a_job_is_not_begun_on_a_node_that_is_not_fit(checked: RunningLab) -> None:
    lab = checked
    lab.ssh("cn02", "umount /srv/share")
    submit = "sbatch --parsable -w cn02 -o /dev/null --wrap 'touch /run/began'"
    job = lab.ssh("ctl", f"cd / && {submit}").stdout.strip()
    try:
        await_that(lambda: "drain" in state(lab))
        assert f"{DRAINED}nothing is mounted at /srv/share" in state(lab)
        # It is put back into the queue when its Epilog is over.
        waits = f"squeue -h -j {job} -o %T"
        await_that(lambda: lab.ssh("ctl", waits).stdout.strip() == "PENDING")
        assert lab.ssh("cn02", "ls /run/began", check=False).returncode != 0
    finally:
        lab.ssh("ctl", f"scancel {job}")
        lab.ssh("cn02", "mount -t tmpfs none /srv/share")
    await_that(lambda: look(lab) == 0 and state(lab) == "idle none")


def test_what_a_check_found_while_a_job_was_there_is_evidence(checked: RunningLab) -> None:
    """Beyond the drain's reason: a person's stands there, and `diagnose` tells of the fault."""
    lab = checked
    wait = "until [ -e /run/goes-on ]; do sleep 0.1; done; exit 3"
    submit = f"cd / && sbatch --parsable -w cn02 -o /dev/null --wrap '{wait}'"
    job = lab.ssh("ctl", submit).stdout.strip()
    try:
        await_that(lambda: "R" in lab.ssh("ctl", f"squeue -h -j {job} -o %t").stdout)
        lab.ssh("ctl", "scontrol update NodeName=cn02 State=DRAIN Reason='new memory'")
        lab.ssh("cn02", "umount /srv/share")
        assert look(lab) == 1
        lab.ssh("cn02", "touch /run/goes-on")
        await_that(lambda: not lab.ssh("ctl", f"squeue -h -j {job}").stdout)
        said = lab.run("slurmstack", "diagnose", job, "--json", "--stack", lab.name).stdout
        (first, *_) = json.loads(said)["findings"]
        assert first["rule"] == "file-system"
        words = "Health=mount /srv/share: nothing is mounted at /srv/share"
        assert [it["line"] for it in first["evidence"]] == [words]
    finally:
        lab.ssh("cn02", "mount -t tmpfs none /srv/share; rm -f /run/goes-on")
        lab.ssh("ctl", f"scancel {job}; scontrol update NodeName=cn02 State=RESUME")
    await_that(lambda: look(lab) == 0 and state(lab) == "idle none")


def test_what_a_job_leaves_goes_with_it(checked: RunningLab, tmp_path: Path) -> None:
    """What belongs to others stays, and so does all while the user has another job there."""
    lab = checked
    lab.ssh(
        "cn02",
        "cd /dev/shm && for u in alice bob; do runuser -u $u -- sh -c"
        " 'touch /dev/shm/of-$(id -un); mkdir -p -m 0777 /dev/shm/$(id -un)/in'; done;"
        " chmod 0777 alice/in; runuser -u bob -- touch alice/in/of-bob; touch alice/in/of-root",
    )
    stays = lab.ssh(
        "ctl",
        "cd / && runuser -u alice -- sbatch --parsable -w cn02 --mem=50 -o /dev/null"
        " --wrap 'sleep 600'",
    ).stdout.strip()
    await_that(lambda: "R" in lab.ssh("ctl", f"squeue -h -j {stays} -o %t").stdout)
    run = (
        "cd / && runuser -u alice -- srun -w cn02 --mem=50 sh -c"
        " 'setsid sleep 4321 </dev/null >/dev/null 2>&1 &'"
    )
    lab.ssh("ctl", run)
    await_that(lambda: lab.ssh("cn02", "pgrep -f 'sleep 4321'", check=False).returncode == 1)
    assert lab.ssh("cn02", "ls /dev/shm/of-alice", check=False).returncode == 0
    assert lab.ssh("cn02", "pgrep -f 'sleep 600'", check=False).returncode == 0
    lab.ssh("ctl", f"scancel {stays}")
    await_that(lambda: lab.ssh("cn02", "ls /dev/shm/of-alice", check=False).returncode != 0)
    left = lab.ssh("cn02", "cd /dev/shm && find . -mindepth 1 | sort").stdout.split()
    assert left == [
        "./alice", "./alice/in", "./alice/in/of-bob", "./alice/in/of-root",
        "./bob", "./bob/in", "./of-bob",
    ]  # fmt: skip
    # The site's own ran for each of these jobs, too.
    for name in ("Prolog", "Epilog"):
        assert stays in lab.ssh("cn02", f"cat /run/site-{name}").stdout.split()
    lab.ssh("cn02", "rm -r /dev/shm/*")


def test_before_and_after_a_job_it_takes_no_time(checked: RunningLab) -> None:
    """Half a second is what each may take: here both together take less than a second."""
    timed = (
        "export SLURM_JOB_ID=999999 SLURM_JOB_UID=5001; date +%s%N;"
        f" {CHECK} prolog && {CHECK} epilog; date +%s%N"
    )
    spans = []
    for _ in range(3):
        began, ended = checked.ssh("cn01", timed).stdout.split()
        spans.append((int(ended) - int(began)) / 1e9)
    assert min(spans) < 1.0
