"""People on real nodes: the same numbers everywhere, jobs, and who gets in by SSH."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.conftest import RunningLab, await_that

pytestmark = pytest.mark.lab

NODES = ("ctl", "login01", "cn01", "cn02")
REFUSED = "Access denied by pam_slurm_adopt: you have no active jobs on this node"


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """anna's."""
    path = tmp_path_factory.mktemp("key") / "anna"
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "anna@desk", "-f", str(path)]
    subprocess.run(words, check=True)
    return path


def declared(key: Path) -> dict[str, Any]:
    return {
        "local": {
            "groups": {"optics": {"gid": 6100}},
            "users": {
                "anna": {
                    "uid": 6001,
                    "groups": ["optics"],
                    "fullName": "Anna Example",
                    "sshKeys": [key.with_suffix(".pub").read_text().strip()],
                    "account": "physics",
                },
                "ben": {"uid": 6002, "group": "optics", "shell": "/bin/sh", "account": "physics"},
            },
        },
        "jobAccess": {"groups": ["optics-admins"]},
    }


@pytest.fixture(scope="module")
def people(lab: RunningLab, key: Path) -> Iterator[RunningLab]:
    """The lab with two people; in the end they are gone, and so is the rule."""
    rules = lab.ssh("cn01", "cat /etc/pam.d/sshd").stdout
    try:
        with lab.having(directory=declared(key)):
            yield lab
        assert lab.ssh("cn01", "cat /etc/pam.d/sshd").stdout == rules
        left = "ls -d /etc/slurmstack/people /etc/ssh/slurmstack-keys /etc/pam.d/slurmstack-*"
        for node in NODES:
            assert lab.ssh(node, left, check=False).stdout == ""
    finally:
        for node in NODES:
            lab.ssh(node, "for u in anna ben; do userdel -r $u; done; groupdel optics", check=False)


@pytest.fixture
def changed(people: RunningLab) -> Iterator[RunningLab]:
    """For a test that changes people; afterwards they are as they were."""
    before = people.settings.read_text()
    yield people
    people.settings.write_text(before)
    people.up()


def ssh(lab: RunningLab, key: Path, node: str) -> tuple[int, str]:
    """A login of anna's with her key: exit code, and what she reads."""
    return lab.login("anna", key, node)


def job(lab: RunningLab, user: str, options: str = "-w cn01") -> str:
    """A job that lasts: its number, once it runs (or waits, where it is held)."""
    words = f"sbatch --parsable {options} -D / -o /dev/null --wrap 'sleep 600'"
    number = lab.ssh("login01", f"cd / && runuser -u {user} -- {words}").stdout.strip()
    if "-H" not in options:
        await_that(lambda: lab.ssh("ctl", f"squeue -h -j {number} -o %T").stdout == "RUNNING\n")
    return number


def test_people_are_the_same_on_all_hosts_and_run_jobs(people: RunningLab) -> None:
    lab = people
    for node in NODES:
        told = lab.ssh(node, "id anna; id ben; getent passwd anna ben").stdout.splitlines()
        assert told == [
            "uid=6001(anna) gid=6001(anna) groups=6001(anna),6100(optics)",
            "uid=6002(ben) gid=6100(optics) groups=6100(optics)",
            "anna:x:6001:6001:Anna Example:/home/anna:/bin/bash",
            "ben:x:6002:6100::/home/ben:/bin/sh",
        ]
        assert lab.ssh(node, "stat -c '%U:%G %a' /home/anna").stdout == "anna:anna 700\n"
    for user in ("anna", "ben"):
        said = lab.ssh("login01", f"cd / && runuser -u {user} -- srun -N2 -l id -un").stdout
        assert sorted(said.splitlines()) == [f"0: {user}", f"1: {user}"]
    held = lab.ssh("ctl", "sacctmgr -nP show assoc user=anna,ben format=user,account").stdout
    assert sorted(held.split()) == ["anna|physics", "ben|physics"]
    assert "unchanged" in lab.pulumi("up", "--yes", "--expect-no-changes").stdout


def test_a_node_is_entered_while_a_job_runs_there(people: RunningLab, key: Path) -> None:
    lab = people
    assert ssh(lab, key, "login01") == (0, "anna\n")
    code, said = ssh(lab, key, "cn01")
    assert code == 255
    assert REFUSED in said
    number = job(lab, "anna")
    try:
        assert ssh(lab, key, "cn01") == (0, "anna\n")
        assert ssh(lab, key, "cn02")[0] == 255
        # Whatever becomes of Slurm, root gets in.
        lab.ssh("cn01", "systemctl stop slurmd")
        assert lab.ssh("cn01", "id -un").stdout == "root\n"
        lab.ssh("cn01", "systemctl start slurmd")
    finally:
        lab.ssh("ctl", f"scancel {number}")
    await_that(lambda: REFUSED in ssh(lab, key, "cn01")[1])


def test_administrators_get_in_without_a_job(people: RunningLab, key: Path) -> None:
    lab = people
    lab.ssh("cn01", "groupadd optics-admins && gpasswd -a anna optics-admins")
    try:
        assert ssh(lab, key, "cn01") == (0, "anna\n")
    finally:
        lab.ssh("cn01", "groupdel optics-admins")
    assert ssh(lab, key, "cn01")[0] == 255


def test_who_leaves_is_locked_once_no_job_is_left(changed: RunningLab, key: Path) -> None:
    lab = changed
    number = job(lab, "anna", "-H")
    lab.ssh("cn01", "runuser -u anna -- touch /home/anna/hers")
    lab.change(lambda it: it["directory"]["local"]["users"].pop("anna"))
    try:
        refused = lab.up(check=False)
        assert re.search(rf"ctl: guard leavers-have-no-jobs: .*anna: job {number} PENDING", refused)
        for node in NODES:
            assert lab.ssh(node, "ls /etc/ssh/slurmstack-keys").stdout == "anna\n"
        assert "anna" in lab.ssh("ctl", "sacctmgr -nP show assoc user=anna format=user").stdout
    finally:
        lab.ssh("ctl", f"scancel {number}")
    lab.up()
    for node in NODES:
        assert lab.ssh(node, "ls /etc/ssh/slurmstack-keys", check=False).stdout == ""
        assert lab.ssh(node, "getent passwd anna").stdout.strip().endswith(":/usr/sbin/nologin")
        assert lab.ssh(node, "id -nG anna").stdout == "anna\n"
    assert ssh(lab, key, "login01")[0] == 255
    assert lab.ssh("cn01", "stat -c %U /home/anna/hers").stdout == "anna\n"
    assert lab.ssh("ctl", "sacctmgr -nP show assoc user=anna format=user").stdout == ""


def test_who_comes_back_gets_in(people: RunningLab, key: Path) -> None:
    assert ssh(people, key, "login01") == (0, "anna\n")
    assert people.ssh("cn01", "id -nG anna").stdout == "anna optics\n"


def test_numbers_of_others_stop_all_before_anything_is_changed(
    people: RunningLab, kept: RunningLab
) -> None:
    lab = kept
    new = {"cleo": {"uid": 6003}, "dora": {"uid": 6004}, "emil": {"uid": 6005}}
    lab.change(lambda it: it["directory"]["local"]["users"].update(new))
    lab.ssh("cn01", "useradd -M -u 6003 other")
    lab.ssh("cn02", "useradd -M -u 6999 dora; touch /srv/old && chown 6005 /srv/old")
    before = [lab.ssh(node, "sha256sum /etc/slurmstack/people").stdout for node in NODES]
    try:
        refused = lab.up(check=False)
    finally:
        lab.ssh("cn01", "userdel other")
        lab.ssh("cn02", "userdel dora; rm /srv/old")
    for line in (
        "cn01: people: user other has the number 6003, which cleo is to get",
        "cn02: people: user dora has the number 6999, and 6004 in the settings",
        "cn02: people: /srv/old is owned by the number 6005, which nobody has here and user emil",
    ):
        assert line in refused
    assert "nothing was changed" in refused
    assert [lab.ssh(node, "sha256sum /etc/slurmstack/people").stdout for node in NODES] == before


def test_a_rule_that_would_lock_the_applier_out_is_taken_out_again(people: RunningLab) -> None:
    """sshd's own file refuses everybody from the moment on in which the rule stands in it."""
    lab, rules, program = (
        people,
        "/etc/pam.d/sshd",
        "/usr/local/lib/slurmstack-job-access/job-access",
    )
    before = lab.ssh("cn02", f"cat {rules}").stdout
    assert "slurmstack-job-access" in before
    lab.ssh(
        "cn02",
        f"{program} take && cp -p {rules} /root/sshd"
        f" && printf '#!/bin/sh\\n! grep -q slurmstack-job-access {rules}\\n' >/root/refuses"
        " && chmod 0755 /root/refuses"
        f" && sed -i '/pam_nologin/a account requisite pam_exec.so quiet /root/refuses' {rules}",
    )
    try:
        refused = lab.ssh("cn02", f"{program} put", check=False)
        assert refused.returncode == 1
        assert refused.stdout.startswith("root has to get in, and with the rule: ")
        assert "slurmstack-job-access" not in lab.ssh("cn02", f"cat {rules}").stdout
    finally:
        lab.ssh("cn02", f"mv /root/sshd {rules}; rm -f /root/refuses")
        lab.ssh("cn02", f"{program} put")
    assert lab.ssh("cn02", f"cat {rules}").stdout == before
