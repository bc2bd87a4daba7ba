"""What a person sees and can do: the last screen of `up`, and a user's first job."""

from __future__ import annotations

import re
import subprocess

import pytest

from lab import deploy
from tests.lab.conftest import RunningLab, await_that
from tests.lab.terminal import last_screen
from tests.lab.test_cluster import Edit, edit

__all__ = ["edit"]

pytestmark = pytest.mark.lab

SINFO = re.compile(r"^ *main\* +up +\S+ +2 +idle +cn\[01-02\]$", re.MULTILINE)


def up(lab: RunningLab) -> tuple[int, str, str]:
    """`pulumi up` on a terminal: exit code, last screen, all that was printed."""
    program = lab.lab.checkout / ".venv/bin/pulumi"
    words = [str(program), "up", "--yes", "--skip-preview", "--stack", lab.name]
    return last_screen(words, lab.lab.checkout, deploy.program_environment(lab.lab))


def test_the_last_screen_says_what_was_done_sinfo_and_what_is_next(
    lab: RunningLab, edit: Edit
) -> None:
    lab.up()
    code, screen, _ = up(lab)
    assert code == 0
    assert "nothing was to be done" in screen
    assert SINFO.search(screen), screen
    edit("slurmstack:slurm.MessageTimeout", 77)
    code, screen, _ = up(lab)
    assert code == 0
    assert re.search(r"^ *ctl: reloaded slurmctld; 1 file$", screen, re.MULTILINE), screen
    assert "nothing was to be done" not in screen
    assert SINFO.search(screen), screen
    assert f"next: slurmstack inventory --stack {lab.name}" in screen


@pytest.mark.parametrize(
    ("make", "mend", "cause", "remedy"),
    [
        (
            "mv /usr/local/lib/slurmstack/apply /root",
            "mv /root/apply /usr/local/lib/slurmstack",
            "cn02: apply: /usr/local/lib/slurmstack/apply is missing",
            "slurmstack node replace cn02 puts all of it there again",
        ),
        ("", "", "cn02: connect: ", "see that it is up"),
    ],
    ids=["without applier", "off"],
)
def test_the_last_screen_of_a_failed_up(
    lab: RunningLab, edit: Edit, make: str, mend: str, cause: str, remedy: str
) -> None:
    lab.up()
    if make:
        lab.ssh("cn02", make)
    else:
        lab.kill("cn02")
    try:
        edit("slurmstack:limits.nofile", 15000 + len(make))
        code, screen, printed = up(lab)
    finally:
        if not make:
            lab.boot("cn02")
        else:
            lab.ssh("cn02", mend)
    assert code != 0
    assert "Traceback" not in printed
    flowed = screen.replace("\n", "")
    assert cause in flowed, screen
    assert remedy in flowed, screen
    # In this form it stands there once.
    assert flowed.count(cause) == 1
    assert re.search(r"^ *done: cn01\b", screen, re.MULTILINE), screen
    assert re.search(r"^ *sinfo: .*main\* \d \S+ cn", screen, re.MULTILINE), screen
    assert re.search(r"^ *next: .*pulumi up --stack", screen, re.MULTILINE), screen
    # What the controller and the nodes said last is still told.
    held = lab.run("slurmstack", "inventory", "--json", "--stack", lab.name).stdout
    assert "/etc/munge/munge.key" in held
    lab.up()
    assert lab.ssh("ctl", "timeout 240 srun -w cn02 hostname").stdout.strip() == "cn02"


def as_alice(lab: RunningLab, command: str, *, check: bool = True) -> str:
    """What a command of the lab's user says, who comes in by SSH."""
    words = ["ssh", "-F", str(lab.lab.ssh_config), "alice@login01", command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=480, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_the_labs_user_runs_jobs_on_all_nodes(lab: RunningLab) -> None:
    assert sorted(as_alice(lab, "srun -N2 hostname").split()) == ["cn01", "cn02"]
    assert as_alice(lab, "srun -w cn02 id -un").strip() == "alice"


def test_a_job_beyond_its_memory_is_ended(lab: RunningLab) -> None:
    # Twice a hundred megabytes in a shell's variable, and time to be looked at.
    hungry = "x=$(head -c 200000000 /dev/zero | tr '\\0' x); sleep 60; echo survived"
    said = as_alice(
        lab, f'srun --mem=50M -w cn01 sh -c "{hungry}"'.replace("$", "\\$"), check=False
    )
    assert "survived" not in said
    assert re.search(r"exceeded|[Oo]ut [Oo]f [Mm]emory|oom", said), said
    assert as_alice(lab, "srun --mem=50M -w cn01 echo fits").strip() == "fits"


def test_the_selected_stack_is_the_default(lab: RunningLab) -> None:
    lab.run("pulumi", "stack", "select", lab.name)
    assert "login01" in lab.run("slurmstack", "inventory").stdout
    lines = lab.run("slurmstack", "check").stdout.splitlines()
    assert any(line.startswith("cn01 ") for line in lines)


def test_the_scripts_of_a_node_say_what_they_found(lab: RunningLab) -> None:
    folder = "/usr/local/lib/slurmstack"
    assert "in order: RS256 keys" in lab.ssh("ctl", f"{folder}/jwt-keys check").stdout
    assert "nothing to do" in lab.ssh("ctl", f"{folder}/jwt-keys").stdout
    assert "not due for renewal" in lab.ssh("ctl", f"{folder}/rest-certificate").stdout
    renewed = lab.ssh("ctl", f"{folder}/rest-certificate renew").stdout
    assert re.search(r"certificate renewed: valid until .* GMT", renewed)


#: Slurm's own, and why they are there: docs/lab.md.
KNOWN = re.compile(
    r"SRUN_JOB_COMPLETE|PrologFlags=Contain for pam_slurm_adopt|"
    r'"Include" failed in file /etc/slurm/plugstack\.conf'
)


def test_no_other_errors_grow_in_the_log_of_slurmctld(lab: RunningLab) -> None:
    log = "/var/log/slurm/slurmctld.log"
    # A job of the last five minutes (MinJobAge) on a node that another test took away is looked up
    # with each reconfigure.
    jobs = "scontrol show jobs"
    await_that(lambda: "cn03" not in lab.ssh("ctl", jobs).stdout, 400)
    before = len(lab.ssh("ctl", f"cat {log}").stdout.splitlines())
    for _ in range(3):
        lab.ssh("ctl", "scontrol reconfigure")
        as_alice(lab, "srun -N2 hostname")
        as_alice(lab, "sbatch -W -o /dev/null --wrap true")
    lines = lab.ssh("ctl", f"tail -n +{before + 1} {log}").stdout.splitlines()
    errors = [line for line in lines if "error:" in line]
    assert [line for line in errors if not KNOWN.search(line)] == []
    # Not one of those either goes on by itself: three a reconfigure, and for a srun one of each of
    # its nodes (it may be gone when slurmctld tells it of its job's end).
    assert len(errors) <= 15, errors
