"""`slurmstack drift` on real nodes: a clean cluster has none and is not touched by looking; each
kind is planted and named, then put right, while a job runs."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.lab.conftest import RunningLab, await_that
from tests.lab.test_cluster import invocation, state_of, submit

pytestmark = pytest.mark.lab

NODES = ("ctl", "login01", "cn01", "cn02")
#: What a login, systemd and the daemons write by themselves, whoever looks.
OWN = (
    "/var/log/journal|/var/log/(wtmp|btmp|lastlog|wtmp.db|lastlog2.db)|/run/log|/run/systemd|/run/user|"
    "/run/utmp|/run/motd|/run/lock|/run/udev|/run/dbus|/run/sshd|/var/lib/mysql|/var/lib/systemd|"
    "/var/lib/lastlog|/var/lib/wtmpdb|/var/spool/slurmctld|/var/spool/slurmd|/run/mysqld|/var/cache|"
    # The folders alone: a login's motd, and the work that is gone.
    "/run$|/dev/shm$"
)


def drift(lab: RunningLab, *words: str, code: int) -> str:
    done = lab.run("slurmstack", "drift", *words, "--stack", lab.name, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def found(lab: RunningLab, *words: str, code: int = 2) -> list[dict[str, Any]]:
    differs: list[dict[str, Any]] = json.loads(drift(lab, "--json", *words, code=code))["differs"]
    return differs


def named(differs: list[dict[str, Any]]) -> dict[tuple[str, str, str], str]:
    return {(one["node"], one["kind"], one["name"]): one["found"] for one in differs}


def test_a_clean_cluster_has_no_drift_and_nothing_is_changed_by_looking(lab: RunningLab) -> None:
    # The first looks load what they need, and files of daemons that have just started settle.
    assert "4 hosts compared, nothing differs" in drift(lab, code=0)
    for node in NODES:
        lab.ssh(node, "touch /root/before-drift")
    log = lab.ssh("ctl", "cat /var/log/slurm/*.log | wc -c").stdout
    assert found(lab, code=0) == []
    assert lab.ssh("ctl", "cat /var/log/slurm/*.log | wc -c").stdout == log
    for node in NODES:
        looked = (
            # What lies in /tmp, but not /tmp, which a daemon's own private one changes.
            "find /etc /var /run /usr /root /tmp /dev/shm -xdev -newer /root/before-drift "
            "! -path /tmp ! -path /var/tmp "
            f"! -path /root/before-drift | grep -vE '^({OWN})' || true"
        )
        changed = lab.ssh(node, f"{looked}; find /dev/shm -name 'slurmst*'")
        assert changed.stdout == "", node


def test_a_machine_that_was_installed_anew(lab: RunningLab) -> None:
    lab.ssh("login01", "mv /var/lib/slurmstack /root/kept; mv /usr/local/lib/slurmstack /root/lib")
    try:
        (one,) = found(lab, "login01")
    finally:
        lab.ssh(
            "login01", "mv /root/kept /var/lib/slurmstack; mv /root/lib /usr/local/lib/slurmstack"
        )
    assert (one["kind"], one["command"]) == ("machine", "slurmstack node replace login01")
    lab.ssh(
        "login01", "cp -p /etc/machine-id /root/id; echo 0123456789abcdef0123456789abcdef >/root/x"
    )
    lab.ssh("login01", "cat /root/x >/etc/machine-id")
    try:
        (one,) = found(lab, "login01")
    finally:
        lab.ssh("login01", "cat /root/id >/etc/machine-id")
    assert "is another machine: its id is 0123456789abcdef" in one["found"]
    assert found(lab, "login01", code=0) == []


def test_a_host_with_another_key_is_named_and_nothing_is_sent(lab: RunningLab) -> None:
    known = lab.lab.known_hosts
    before = known.read_text()
    own = [line for line in before.splitlines() if lab.address("cn02") in line.split()[0]]
    other = [line for line in before.splitlines() if lab.address("cn01") in line.split()[0]]
    lines = before.replace(own[0].split()[2], other[0].split()[2])
    known.write_text(lines)
    try:
        told = json.loads(drift(lab, "--json", code=1))
        refused = drift(lab, "cn02", "--fix", "--yes", code=1)
    finally:
        known.write_text(before)
    assert list(told["unreachable"]) == ["cn02"]
    assert sorted(told["compared"]) == ["cn01", "ctl", "login01"]
    assert "nothing was sent" in told["unreachable"]["cn02"]
    assert told["unreachable"]["cn02"].endswith("slurmstack node replace cn02")
    assert refused.count("\n") == 1
    assert refused.startswith("slurmstack: nothing was changed: cn02: host key: ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("cn99",), "cn99"),
        (("",), "an empty host list"),
        (("--fix", "--what", "daemons"), "--what daemons: expected some of packages"),
        (("--fix", "--what", ""), "--what names nothing"),
    ],
)
def test_what_cannot_be_is_one_line(lab: RunningLab, words: tuple[str, ...], said: str) -> None:
    before = lab.settings.read_text()
    refused = drift(lab, *words, code=1)
    assert refused.startswith("slurmstack: ")
    assert refused.count("\n") == 1
    assert said in refused
    assert lab.settings.read_text() == before


def test_each_host_looks_by_itself_where_that_is_wanted(restored: RunningLab) -> None:
    lab = restored
    lab.set(driftCheck={})
    lab.up()

    def look(node: str) -> tuple[str, str]:
        lab.ssh(node, "systemctl start slurmstack-drift.service")
        shown = "journalctl -u slurmstack-drift.service -o cat -n 4 --no-pager"
        metrics = "cat /var/lib/slurmstack-metrics/slurmstack_drift.prom"
        return lab.ssh(node, shown).stdout, lab.ssh(node, metrics).stdout

    for node in ("ctl", "cn01"):
        lab.ssh(node, "systemctl is-active slurmstack-drift.timer")
        said, metrics = look(node)
        assert "nothing differs from what was applied" in said
        assert 'slurmstack_drift_differences{role="munge-key",kind=""} 0\n' in metrics
        assert "slurmstack_drift_unknown_roles 0\n" in metrics
    assert 'differences{role="cluster",kind=""} 0' in look("ctl")[1]
    lab.ssh("cn01", "echo '# by hand' >>/etc/default/slurmd")
    lab.ssh("ctl", "scontrol update NodeName=cn01 Weight=77")
    said, metrics = look("cn01")
    assert "slurmd: file /etc/default/slurmd content" in said.replace("  ", " ")
    assert 'slurmstack_drift_differences{role="slurmd",kind="file"} 1\n' in metrics
    said, metrics = look("ctl")
    assert "Weight 77, not 10" in said
    assert 'slurmstack_drift_differences{role="cluster",kind="node"} 1\n' in metrics
    for node in NODES:
        secret = lab.ssh(node, "head -c 40 /etc/munge/munge.key").stdout
        kept = "grep -rlF -e {} /var/lib/slurmstack/*/applied /var/lib/slurmstack-metrics; true"
        assert lab.ssh(node, kept.format(shlex.quote(secret))).stdout == ""
    lab.ssh("ctl", "scontrol update NodeName=cn01 Weight=10")
    drift(lab, "--fix", "cn01", "--yes", code=0)


@contextmanager
def running(lab: RunningLab) -> Iterator[str]:
    """A job on cn01, which still runs in the end, never started anew."""
    job = submit(lab, "sleep 900", "-w cn01", "-N1")
    try:
        await_that(lambda: state_of(lab, job) == "RUNNING")
        yield job
        assert state_of(lab, job) == "RUNNING"
        assert "Restarts=0" in lab.ssh("ctl", f"scontrol show job {job}").stdout
    finally:
        lab.ssh("ctl", f"scancel {job}")


#: Node → what is done there by hand.
PLANTED = {
    "cn01": """
        echo '# by hand' >>/etc/default/slurmd
        rm /etc/slurmstack/scripts/TaskProlog
        chmod 0700 /etc/slurmstack/stand-in
        systemctl disable --quiet slurmd
        echo by-hand >/etc/slurm/slurm.conf.bak
        printf '[Service]\\nNice=5\\n' >/etc/systemd/system/slurmd.service.d/zz.conf
        echo '# by hand' >>/run/slurm/conf/gres.conf""",
    "cn02": """
        head -c 1024 /dev/urandom | base64 -w0 | head -c 1024 >/etc/munge/munge.key
        systemctl restart munge""",
    "login01": """
        dpkg --remove --force-depends lmod
        cp -p /usr/sbin/sackd /usr/sbin/sackd.new && mv /usr/sbin/sackd.new /usr/sbin/sackd""",
    "ctl": """
        chmod 0644 /etc/slurm/slurmdbd.conf; echo '# by-hand' >>/etc/slurm/slurmdbd.conf
        sed -i 's/^MessageTimeout=30/MessageTimeout=31/' /etc/slurm/slurm.conf
        usermod -s /bin/bash slurmrestd
        systemctl stop haproxy
        mv /etc/slurm/slurm.jwks /root/
        scontrol update NodeName=cn01 Weight=77
        scontrol update PartitionName=main MaxTime=5
        scontrol setdebugflags +Backfill
        sacctmgr -i modify qos high set Priority=5
        touch /etc/slurm/gres.conf""",
}
#: Node, kind, name → what is said of it.
NAMED = {
    ("cn01", "file", "/etc/default/slurmd"): "content",
    ("cn01", "file", "/etc/slurmstack/scripts/TaskProlog"): "missing",
    ("cn01", "directory", "/etc/slurmstack/stand-in"): "mode 0700, not 0755",
    ("cn01", "unit", "slurmd.service"): (
        "disabled, not enabled, is older than /etc/default/slurmd, its unit file"
    ),
    ("cn01", "hand-made", "/etc/slurm/slurm.conf.bak"): "is no role's and no package's",
    ("cn01", "hand-made", "/etc/systemd/system/slurmd.service.d/zz.conf"): (
        "is no role's and no package's"
    ),
    ("cn01", "served", "gres.conf"): "is not what the controller serves",
    ("cn02", "file", "/etc/munge/munge.key"): "content",
    ("login01", "package", "lmod"): "missing",
    ("login01", "unit", "sackd.service"): "is older than its program",
    ("ctl", "file", "/etc/slurm/slurmdbd.conf"): "content, mode 0644, not 0600",
    ("ctl", "unit", "slurmdbd.service"): "is older than /etc/slurm/slurmdbd.conf",
    ("ctl", "file", "/etc/slurm/slurm.conf"): "content",
    ("ctl", "user", "slurmrestd"): "shell /bin/bash, not /usr/sbin/nologin",
    ("ctl", "unit", "haproxy.service"): "inactive, not running",
    ("ctl", "node", "cn01"): "Weight 77, not 10",
    ("ctl", "partition", "main"): "MaxTime 00:05:00, not 1-00:00:00",
    ("ctl", "accounting", "qos high"): "is not as declared",
    ("ctl", "parameter", "slurm.conf"): "slurmctld runs with another version of it",
    ("ctl", "parameter", "gres.conf"): "changed after slurmctld read it",
    ("ctl", "parameter", "MessageTimeout"): "30 sec, not 31",
}


def test_every_kind_is_named_and_put_right_and_a_job_goes_on(restored: RunningLab) -> None:
    lab = restored
    with running(lab):
        for node, script in PLANTED.items():
            lab.ssh(node, f"set -e\n{script}")
        controller = invocation(lab, "ctl", "slurmctld")
        differs = found(lab)
        said = named(differs)
        assert NAMED.items() <= said.items()
        further = {key: text for key, text in said.items() if key not in NAMED}
        assert re.fullmatch("no longer so: .*", further.pop(("ctl", "command", "jwt-keys")))
        assert "decoded on ctl" in further.pop(("cn02", "munge", "credential"))
        assert "GLOB_SILENCE" in further.pop(("ctl", "parameter", "DebugFlags"))
        assert further == {}
        of_file = {one["name"]: one["diff"] for one in differs if one["kind"] == "file"}
        assert "+# by hand" in of_file["/etc/default/slurmd"]
        assert "-MessageTimeout=30" in of_file["/etc/slurm/slurm.conf"]
        assert of_file["/etc/munge/munge.key"] == of_file["/etc/slurm/slurmdbd.conf"] == []
        shown = drift(lab, code=2) + json.dumps(differs)
        secrets = [lab.ssh(node, "cat /etc/munge/munge.key").stdout for node in ("cn01", "cn02")]
        secrets.append(
            lab.ssh("ctl", "sed -n 's/^StoragePass=//p' /etc/slurm/slurmdbd.conf").stdout
        )
        assert all(len(secret) > 30 and secret.strip() not in shown for secret in secrets)

        # Only what was chosen, and only there.
        drift(lab, "--fix", "cn01", "--what", "directories", "--yes", code=2)
        left = named(found(lab))
        assert ("cn01", "directory", "/etc/slurmstack/stand-in") not in left
        assert ("ctl", "unit", "haproxy.service") in left
        assert ("cn02", "file", "/etc/munge/munge.key") in left

        drift(lab, "--fix", "--yes", code=2)
        left_over = found(lab)
        kinds = {one["kind"] for one in left_over}
        # What no bundle puts right is named with its command, which does it.
        assert kinds <= {
            "hand-made",
            "unit",
            "node",
            "partition",
            "accounting",
            "parameter",
            "served",
        }
        for one in left_over:
            assert one["command"] is not None, one
            lab.ssh(one["on"], one["command"])
        assert found(lab, code=0) == []
        assert lab.ssh("ctl", "systemctl is-active slurmctld").stdout == "active\n"
        assert invocation(lab, "ctl", "slurmctld") == controller  # reconfigured, not restarted
        lab.pulumi("preview", "--expect-no-changes")
