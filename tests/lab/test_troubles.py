"""A node in trouble: the error names node, step and remedy, the others converge, and the next
`up` finishes the rest."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.lab.conftest import RunningLab, await_that, lab_command
from tests.lab.test_cluster import Edit, add_cn03, edit, parameter

__all__ = ["edit"]

pytestmark = pytest.mark.lab

#: dpkg takes record locks: flock(1) has them since util-linux 2.41.
LOCK = "flock --fcntl /var/lib/dpkg/lock-frontend sh -c 'touch /run/locked; exec sleep 600'"

TROUBLES = {
    "locked dpkg": (
        "echo SLURMSTACK_DPKG_WAIT=3 >>/etc/environment;"
        f" systemd-run --quiet --unit=locker sh -c {shlex.quote(LOCK)};"
        " timeout 120 sh -c 'until [ -e /run/locked ]; do sleep 0.1; done'",
        "systemctl stop locker; sed -i /SLURMSTACK/d /etc/environment",
        "dpkg is locked",
        "wait until it has ended",
    ),
    "full disk": (
        "mkdir -p /run/kept && cp -a /etc/default/. /run/kept/"
        " && mount -t tmpfs -o size=64k tmpfs /etc/default && cp -a /run/kept/. /etc/default/;"
        " dd if=/dev/zero of=/etc/default/fill 2>/dev/null; true",
        "umount /etc/default",
        "No space left on device",
        "free space",
    ),
    "missing package": (
        "mkdir -p /root/kept; rm -rf /var/lib/apt/lists/*;"
        " mv /etc/apt/sources.list* /root/kept/ 2>/dev/null; mkdir -p /etc/apt/sources.list.d",
        "rm -rf /etc/apt/sources.list.d; mv /root/kept/* /etc/apt/",
        "not in the package lists of this node",
        "give the node a package source that has it",
    ),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_node_in_trouble(lab: RunningLab, edit: Edit, trouble: str) -> None:
    make, mend, found, remedy = TROUBLES[trouble]
    lab.boot("cn03", fresh=True)
    lab.ssh("cn03", make)
    add_cn03(lab, edit)
    timeout = 61 + list(TROUBLES).index(trouble)
    edit("slurmstack:slurm.MessageTimeout", timeout)
    try:
        failed = lab.pulumi("up", "--yes", "--skip-preview", check=False)
        left = lab.ssh("cn03", "find / -xdev -name '*.slurmstack-new'").stdout
    finally:
        lab.ssh("cn03", mend)
    text = failed.stdout + failed.stderr
    assert failed.returncode != 0
    said = next(line for line in text.splitlines() if "slurmstack: cn03:" in line)
    assert found in said
    assert remedy in said
    # Nothing half-written stays on it, and the others have changed.
    assert left == ""
    assert parameter(lab, "ctl", "MessageTimeout") == f"{timeout} sec"
    lab.pulumi("up", "--yes", "--skip-preview")
    assert lab.ssh("ctl", "srun -w cn03 hostname").stdout.strip() == "cn03"


def test_a_setting_that_goes_back_after_a_failure_reaches_the_node(restored: RunningLab) -> None:
    """Pulumi keeps the inputs of before with a failed update: to it, these are no change."""
    lab = restored
    before = lab.settings.read_text()
    file = "/etc/systemd/system/slurmd.service.d/slurmstack.conf"

    def limit() -> str:
        shown = lab.ssh("cn02", f"grep NOFILE {file}; systemctl show -p LimitNOFILE slurmd").stdout
        return shown.replace("LimitNOFILE=", "")

    good = limit()
    # What fails comes last, after the files and the daemon.
    lab.ssh("cn02", "chmod -x /usr/bin/sinfo")
    try:
        lab.change(lambda it: it["limits"].update(nofile=16001))
        assert "cn02: check node-is-idle" in lab.up(check=False)
        assert limit() == "16001\n16001\n"
    finally:
        lab.ssh("cn02", "chmod +x /usr/bin/sinfo")
    lab.settings.write_text(before)
    lab.up()
    assert limit() == good
    lab.pulumi("up", "--yes", "--expect-no-changes")


#: Cuts the node's answers off as soon as its applier is at work, and lets them through again when
#: the program has long noticed it (`KEEPALIVE` of engine/providers/ssh.py: a minute).
CUT = (
    "until [ -s /run/slurmstack/holder ]; do :; done;"
    " ip link set host0 down; touch /run/cut; sleep 100; ip link set host0 up"
)


def test_a_connection_that_is_lost_in_the_middle(restored: RunningLab) -> None:
    lab = restored
    job = lab.ssh("ctl", "cd / && sbatch --parsable -w cn01 -o /dev/null --wrap 'sleep 900'")
    number = job.stdout.strip()
    lab.ssh("cn02", f"rm -f /run/cut; systemd-run --quiet --unit=cutter sh -c {shlex.quote(CUT)}")
    lab.change(lambda it: it["limits"].update(nofile=16002))
    said = lab.up(check=False)
    assert re.search(r"cn02.* lost", said), said
    # What it was doing there went on to its end or was ended: the next run finishes it.
    await_that(lambda: lab.ssh("cn02", "test -e /run/cut", check=False).returncode == 0)
    lab.up()
    lab.pulumi("up", "--yes", "--expect-no-changes")
    assert lab.ssh("cn02", "systemctl show -p LimitNOFILE slurmd").stdout == "LimitNOFILE=16002\n"
    assert lab.shown("cn02", "%T") == "idle"
    assert lab.ssh("ctl", f"squeue -h -j {number} -o %T").stdout == "RUNNING\n"
    lab.ssh("ctl", f"scancel {number}")


def test_a_first_deployment_whose_programs_do_not_reach_the_controller(
    machines: RunningLab, tmp_path: Path
) -> None:
    """slurmctld does not start on a slurm.conf that names a program which is not there."""
    lab = machines
    script = tmp_path / "prolog-slurmctld.sh"
    script.write_text("#!/bin/sh\ntrue\n")
    lab.change(lambda it: it.update(scripts={"PrologSlurmctld": str(script)}))
    lab.ssh("ctl", "mkdir -p /etc/slurmstack && touch /etc/slurmstack/scripts")
    failed = lab_command(lab.name, "up", check=False)
    said = failed.stdout + failed.stderr
    assert failed.returncode != 0
    assert "slurmstack: ctl: " in said
    assert "/etc/slurmstack/scripts" in said
    assert "Traceback" not in said
    # Nothing was begun that needs them, and nothing half-done is in the way.
    for node, unit in (("ctl", "slurmctld"), ("cn01", "slurmd"), ("login01", "sackd")):
        assert lab.ssh(node, f"command -v {unit}", check=False).returncode != 0, node
    lab.ssh("ctl", "rm /etc/slurmstack/scripts")
    lab_command(lab.name, "up")
    shown = lab.ssh("ctl", "scontrol show config").stdout
    assert "PrologSlurmctld" in shown
    assert lab.ssh("ctl", "srun -w cn01 hostname").stdout.strip() == "cn01"
