"""The everyday verbs on real machines, with jobs running, and killed in the middle."""

from __future__ import annotations

import difflib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from lab import deploy, machine
from lab.system import is_alive
from settings.parameters import default, table
from tests.lab.conftest import RunningLab, await_that

pytestmark = pytest.mark.lab

OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"


def slurmstack(lab: RunningLab, *words: str) -> subprocess.CompletedProcess[str]:
    return lab.run("slurmstack", *words, "--stack", lab.name, check=False)


def node(lab: RunningLab, *words: str, ends: int = 0) -> subprocess.CompletedProcess[str]:
    """`slurmstack node …`, which must end with this code."""
    done = slurmstack(lab, "node", *words)
    assert done.returncode == ends, f"{done.stdout}\n{done.stderr}"
    return done


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1, f"{done.stdout}\n{done.stderr}"
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("slurmstack: ")
    return line


@contextmanager
def begun(lab: RunningLab, *words: str, user: str = "root") -> Iterator[subprocess.Popen[str]]:
    """A verb at work, with all that it starts in a group of its own, which is killed in the end."""
    verb = [str(lab.lab.checkout / ".venv/bin/slurmstack"), *words, "--stack", lab.name]
    process = subprocess.Popen(
        # What a shell starts in the background ignores Ctrl-C, and so do its children.
        ["env", "--default-signal=INT", *verb],
        cwd=lab.lab.checkout,
        env={**deploy.program_environment(lab.lab), "SUDO_USER": user},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        kill(process)


def kill(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # Its children end after the signal was sent, not with it.
    await_that(lambda: not any(is_alive(pid) for pid in members(process.pid)))


def members(group: int) -> list[int]:
    """The processes of a process group (pgrep(1))."""
    words = ["pgrep", "--pgroup", str(group)]
    return [int(pid) for pid in subprocess.run(words, capture_output=True).stdout.split()]


def place(lab: RunningLab) -> Path:
    return lab.lab.checkout / ".slurmstack" / lab.name


def stands(lab: RunningLab) -> list[str]:
    """What an operation says that it has done."""
    try:
        said: dict[str, Any] = json.loads((place(lab) / "operation.json").read_text())
    except FileNotFoundError:
        return []
    return list(said["stands"])


def locks(lab: RunningLab) -> Path:
    return lab.lab.state / ".pulumi/locks/organization/slurmstack" / lab.name


def state(lab: RunningLab, name: str) -> str:
    return lab.shown(name, "%T")


def submitted(lab: RunningLab, name: str, seconds: int = 1800) -> str:
    """A job that runs on a node."""
    wrap = f"sbatch --parsable -o /dev/null -w {name} --wrap 'sleep {seconds}'"
    job = lab.ssh("ctl", f"cd / && {wrap}").stdout.strip()
    await_that(lambda: job_state(lab, job) == "RUNNING")
    return job


def job_state(lab: RunningLab, job: str) -> str:
    return lab.ssh("ctl", f"squeue -h -j {job} -o %T", check=False).stdout.strip()


@pytest.fixture(autouse=True)
def quiet(lab: RunningLab) -> Iterator[None]:
    """No jobs and no drains before and after each test."""
    _settle(lab)
    yield
    _settle(lab)
    (place(lab) / "operation.json").unlink(missing_ok=True)


def _settle(lab: RunningLab) -> None:
    if not state(lab, "cn02"):  # a test that failed has left it excluded
        lab.pulumi("cancel", "--yes", check=False)
        (place(lab) / "operation.json").unlink(missing_ok=True)
        node(lab, "return", "cn02", "--yes")
    lab.ssh("ctl", "squeue -h -o %A | xargs -r scancel --full")
    await_that(lambda: lab.ssh("ctl", "squeue -h").stdout == "")
    for name in ("cn01", "cn02"):
        if "drain" in state(lab, name):
            lab.ssh("ctl", f"scontrol update NodeName={name} State=RESUME")


@pytest.fixture
def job(lab: RunningLab) -> Iterator[str]:
    """A job on cn01 that nothing here may end."""
    number = submitted(lab, "cn01")
    start = lab.ssh("ctl", f"squeue -h -j {number} -o %S").stdout
    yield number
    assert job_state(lab, number) == "RUNNING"
    assert lab.ssh("ctl", f"squeue -h -j {number} -o %S").stdout == start, "it was requeued"


@pytest.fixture
def cn03(lab: RunningLab) -> Iterator[RunningLab]:
    """The lab with a bare machine that nothing knows of yet."""
    before = lab.settings.read_text()
    lab.boot("cn03", fresh=True)
    known = lab.lab.known_hosts.read_text().splitlines(keepends=True)
    lab.lab.known_hosts.write_text("".join(line for line in known if "cn03" not in line))
    try:
        yield lab
    finally:
        (place(lab) / "operation.json").unlink(missing_ok=True)
        lab.pulumi("cancel", "--yes", check=False)
        lab.settings.write_text(before)
        lab.up()
        lab.kill("cn03")


def changed_lines(before: str, after: str) -> list[str]:
    compared = difflib.ndiff(before.splitlines(), after.splitlines())
    return [line for line in compared if line[0] in "+-"]


@pytest.mark.parametrize(
    ("hosts", "said"),
    [
        ("nosuch", "nosuch: no host with a role in the settings"),
        ("cn[01-", "a missing bracket"),
        ("", "an empty host list"),
        ("cn01,,cn02", "an empty host list"),
        ("@nosuch", "@nosuch: no such partition in the settings; there are: @"),
        ("ctl", "ctl: not for this verb"),
    ],
)
def test_a_host_list_that_is_none_touches_nothing(lab: RunningLab, hosts: str, said: str) -> None:
    before = lab.ssh("ctl", "scontrol show node | grep -E 'State=|Reason='").stdout
    for verb in (["drain", "--reason", "x"], ["exclude", "--reason", "x", "--yes"]):
        assert said in one_line(slurmstack(lab, "node", verb[0], hosts, *verb[1:]))
    assert lab.ssh("ctl", "scontrol show node | grep -E 'State=|Reason='").stdout == before


def test_a_class_and_a_partition_are_host_lists(lab: RunningLab) -> None:
    for hosts, names in (("plain", ["cn02"]), ("@gpu,plain", ["cn01", "cn02"]), ("@main", 2)):
        told = json.loads(node(lab, "drain", hosts, "--reason", "look", "--json").stdout)
        assert told["hosts"] == names or len(told["hosts"]) == names
        assert all("DRAIN" in it["state"] for it in told["nodes"].values())
        assert all(it["by"].endswith(f"@{socket.gethostname()}") for it in told["nodes"].values())
        node(lab, "resume", hosts)
    await_that(lambda: state(lab, "cn01") == state(lab, "cn02") == "idle")


def test_somebody_elses_drain_is_theirs(lab: RunningLab, job: str) -> None:
    done = node(lab, "drain", "cn01", "--reason", "fan is noisy")
    assert re.search(r"cn01 +draining +root fan is noisy \(by \S+@\S+\)", done.stdout)
    assert f"still runs: job {job} (root, main, running on cn01)" in done.stdout
    lab.ssh("ctl", "scontrol update NodeName=cn02 State=DRAIN Reason='anna is at it'")
    refused = one_line(slurmstack(lab, "node", "resume", "cn[01-02]"))
    assert "cn02" in refused
    assert "anna is at it" in refused
    # Ours was in the list, too, and is not resumed for that.
    assert state(lab, "cn01") == "draining"
    node(lab, "drain", "cn02", "--reason", "mine")
    assert "anna is at it" in lab.ssh("ctl", "scontrol show node cn02").stdout
    assert "anna is at it" in one_line(slurmstack(lab, "node", "reboot", "cn02", "--reason", "x"))
    node(lab, "resume", "cn01")
    done = node(lab, "resume", "cn02", "--force")
    assert "anna is at it" in done.stdout
    assert (state(lab, "cn01"), state(lab, "cn02")) == ("mixed", "idle")


def test_exclude_ends_no_job_and_return_takes_it_back(lab: RunningLab, job: str) -> None:
    before = lab.settings.read_text()
    short = submitted(lab, "cn02")
    done = node(lab, "exclude", "cn02", "--reason", "memory: 3 GB", "--yes", ends=3)
    assert f"jobs still run there: {short} (root, main, running on cn02)" in done.stderr
    assert state(lab, "cn02") == "draining"
    assert job_state(lab, short) == "RUNNING"
    assert lab.settings.read_text() == before
    lab.ssh("ctl", f"scancel {short}")

    done = node(lab, "exclude", "cn02", "--reason", "memory: 3 GB", "--yes", "--wait", "2m")
    assert changed_lines(before, lab.settings.read_text()) == [
        "+   slurmstack:excluded:", '+     cn02: "memory: 3 GB"',
    ]  # fmt: skip
    assert state(lab, "cn02") == ""
    there = (
        "systemctl is-active slurmd munge; dpkg-query -W 'slurm*' 2>/dev/null | grep -c '[0-9]$'"
    )
    assert lab.ssh("cn02", there, check=False).stdout.split() == ["inactive", "inactive", "0"]
    assert "excluded  cn02: memory: 3 GB" in slurmstack(lab, "status").stdout
    assert "excluded" in one_line(slurmstack(lab, "node", "drain", "cn02", "--reason", "x"))

    node(lab, "return", "cn02", "--yes")
    assert lab.settings.read_text() == before
    assert state(lab, "cn02") == "idle"
    assert lab.ssh("ctl", "srun -w cn02 hostname").stdout == "cn02\n"
    assert "unchanged" in lab.pulumi("up", "--yes", "--expect-no-changes").stdout
    told = slurmstack(lab, "history").stdout
    assert re.search(r"pulumi up +by root@\S+: done\n.*cn02: started munge, slurmd", told)
    assert re.search(r"node exclude cn02 +by root@\S+: done\n +new jobs are kept from cn02", told)


def test_exclude_killed_in_each_phase_is_finished_or_taken_back(lab: RunningLab, job: str) -> None:
    before = lab.settings.read_text()
    words = ("exclude", "cn02", "--reason", "bad memory", "--yes")
    short = submitted(lab, "cn02")
    with begun(lab, "node", *words, "--wait", "10m", user="anna") as process:
        await_that(lambda: state(lab, "cn02") == "draining")
        # Two at once: the second hears of the first.
        second = one_line(slurmstack(lab, "node", "exclude", "cn01", "--reason", "x", "--yes"))
        assert re.search(
            r"node exclude cn02 \(by anna@\S+, pid \d+, since \d{4}-\S+Z\) is being done", second
        )
        assert lab.settings.read_text() == before
        kill(process)
    other = one_line(slurmstack(lab, "node", "replace", "cn01", "--yes"))
    assert "unfinished: node exclude cn02 (by anna@" in other
    assert "so far: new jobs are kept from cn02" in other
    assert "`slurmstack node exclude cn02 --reason 'bad memory'" in other
    assert "`slurmstack node return cn02" in other
    assert "unfinished: node exclude cn02" in slurmstack(lab, "status").stdout
    lab.ssh("ctl", f"scancel {short}")

    # In the middle of `pulumi up`, with all that it started: its lock stays, and is named.
    with begun(lab, "node", *words, "--wait", "5m") as process:
        await_that(lambda: any(locks(lab).glob("*.json")))
        kill(process)
    assert "settings: slurmstack:excluded" in stands(lab)
    stale = one_line(slurmstack(lab, "node", *words))
    assert re.search(r"locked by root@\S+ \(pid \d+\) since \S+, a process that is gone", stale)
    assert f"`pulumi cancel --stack {lab.name}`" in stale
    lab.pulumi("cancel", "--yes")
    node(lab, *words)
    assert state(lab, "cn02") == ""
    assert stands(lab) == []

    # And back again, killed as well.
    with begun(lab, "node", "return", "cn02", "--yes") as process:
        await_that(lambda: any(locks(lab).glob("*.json")))
        kill(process)
    lab.pulumi("cancel", "--yes")
    node(lab, "return", "cn02", "--yes")
    assert state(lab, "cn02") == "idle"
    assert lab.settings.read_text() == before


def test_add_replace_and_remove_killed_in_the_middle(cn03: RunningLab, job: str) -> None:
    lab, before = cn03, cn03.settings.read_text()
    address = lab.address("cn03")
    words = ("add", "cn03", "--address", address, "--like", "cn02")
    # Nobody compares the key: nothing is written.
    done = node(lab, *words, ends=1)
    assert re.search(r"cn03 \(\S+\) shows the host key SHA256:\S+; pinned is none", done.stderr)
    assert lab.settings.read_text() == before
    assert "cn03" not in lab.lab.known_hosts.read_text()
    assert (
        "each address once"
        in slurmstack(
            lab, "node", "add", "cn03", "--address", lab.address("cn01"), "--like", "cn02"
        ).stderr
    )

    with begun(lab, "node", *words, "--accept-new-host-key", "--yes") as process:
        await_that(lambda: any(locks(lab).glob("*.json")))
        kill(process)
    assert changed_lines(before, lab.settings.read_text()) == [
        f"+     cn03: {address}",
        "-       hosts: cn02", "+       hosts: cn[02-03]",
        "-       leaf2: { Nodes: cn02 }", '+       leaf2: { Nodes: "cn[02-03]" }',
    ]  # fmt: skip
    lab.pulumi("cancel", "--yes")
    assert "unfinished: node add cn03" in one_line(slurmstack(lab, "node", "remove", "cn02"))
    node(lab, *words, "--yes")
    assert lab.ssh("ctl", "srun -w cn03 hostname").stdout == "cn03\n"

    # Swapped for another machine, with another key.
    lab.kill("cn03")
    lab.boot("cn03", fresh=True)
    known = lab.lab.known_hosts
    lines = (
        re.sub(r"^(\S*) .*", rf"\1 {OTHER_KEY}", line) if "cn03" in line else line
        for line in known.read_text().splitlines()
    )
    known.write_text("".join(f"{line}\n" for line in lines))
    done = node(lab, "replace", "cn03", "--yes", ends=1)
    assert "pinned is SHA256:" in done.stderr
    assert OTHER_KEY in known.read_text()
    with begun(lab, "node", "replace", "cn03", "--yes", "--accept-new-host-key") as process:
        await_that(lambda: any(locks(lab).glob("*.json")))
        kill(process)
    assert OTHER_KEY not in known.read_text()
    assert state(lab, "cn03").startswith(("drain", "down"))
    lab.pulumi("cancel", "--yes")
    node(lab, "replace", "cn03", "--yes")
    assert state(lab, "cn03") == "idle"
    assert lab.ssh("ctl", "srun -w cn03 hostname").stdout == "cn03\n"

    node(lab, "remove", "cn03", "--yes")
    left = [
        line for line in changed_lines(before, lab.settings.read_text()) if "reapply" not in line
    ]
    assert left == ["-       leaf2: { Nodes: cn02 }", '+       leaf2: { Nodes: "cn02" }']
    assert state(lab, "cn03") == ""


#: Stops a node's applier as soon as it changes something, until the power goes.
STOPS = (
    "cd /run; until [ -s slurmstack/holder ]; do :; done;"
    " kill -STOP $(sed -n 's/^process \\([0-9]*\\).*/\\1/p' slurmstack/holder); touch stopped"
)


def power_goes(lab: RunningLab, name: str, *words: str, ends: int = 1) -> None:
    """A verb, and a node that is cut off while the applier works there."""
    lab.ssh(name, f"systemd-run --quiet --unit=stopper sh -c {shlex.quote(STOPS)}")
    with begun(lab, *words) as process:
        await_that(lambda: lab.ssh(name, "test -e /run/stopped", check=False).returncode == 0)
        lab.kill(name)
        said, _ = process.communicate(timeout=600)
    told = re.search(rf"{name}-\S+: connection to \S+ lost", said)
    if "exited without exit status or exit signal" in said:  # as Pulumi's own engine has it
        told = re.search(rf": {name} failed|{name}-\S+ \*\*\w+ failed\*\*", said)
    if process.returncode != ends or not told:
        lab.boot(name)  # the tests that follow need it
        raise AssertionError(said)


def test_the_power_of_a_node_goes_while_its_drift_is_fixed(lab: RunningLab, job: str) -> None:
    lab.ssh("cn02", "echo '# by hand' >>/etc/default/slurmd")
    fix = ("drift", "cn02", "--fix", "--yes")
    power_goes(lab, "cn02", *fix)
    # Nothing is begun of a node that cannot be asked.
    refused = slurmstack(lab, *fix)
    assert refused.returncode == 1
    assert "cn02: connect" in refused.stdout + refused.stderr
    lab.boot("cn02")
    done = slurmstack(lab, *fix)
    assert done.returncode == 0, done.stdout + done.stderr
    await_that(lambda: state(lab, "cn02") == "idle")
    assert "by hand" not in lab.ssh("cn02", "cat /etc/default/slurmd").stdout
    assert "1 hosts compared, nothing differs" in slurmstack(lab, "drift", "cn02").stdout


def test_the_power_of_a_node_goes_while_a_plan_is_applied(
    restored: RunningLab, job: str, tmp_path: Path
) -> None:
    lab = restored
    lab.set(limits={"nofile": 8192})
    plan = tmp_path / "plan"
    assert slurmstack(lab, "plan", "--save", str(plan)).returncode == 2
    power_goes(lab, "cn02", "apply", str(plan), "--yes")
    # The plan is no longer that of the cluster, and says so.
    stale = slurmstack(lab, "apply", str(plan), "--yes")
    lab.boot("cn02")
    assert "since the plan was made" in one_line(stale)
    done = slurmstack(lab, "apply", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("cn01", "cn02"):
        assert "LimitNOFILE=8192" in lab.ssh(name, "systemctl show -p LimitNOFILE slurmd").stdout
    await_that(lambda: state(lab, "cn02") == "idle")
    assert "nothing differs" in slurmstack(lab, "drift").stdout


def test_the_power_of_a_node_goes_while_it_is_removed(cn03: RunningLab, job: str) -> None:
    lab, before = cn03, cn03.settings.read_text()
    words = ("add", "cn03", "--address", lab.address("cn03"), "--like", "cn02", "--yes")
    node(lab, *words, "--accept-new-host-key")
    power_goes(lab, "cn03", "node", "remove", "cn03", "--yes", ends=4)
    # Jobs are kept from it, whatever became of the rest.
    assert state(lab, "cn03") in ("", "down", "drained", "draining")
    assert "unfinished: node remove cn03" in slurmstack(lab, "status").stdout
    lab.boot("cn03")
    node(lab, "remove", "cn03", "--yes")
    assert state(lab, "cn03") == ""
    left = "dpkg-query -W 'slurm*' 2>/dev/null | grep -c '[0-9]$'; ls /var/lib/slurmstack"
    assert lab.ssh("cn03", left, check=False).stdout == "0\n"
    assert changed_lines(before, lab.settings.read_text()) == [
        "-       leaf2: { Nodes: cn02 }", '+       leaf2: { Nodes: "cn02" }',
    ]  # fmt: skip
    assert "unfinished" not in slurmstack(lab, "status").stdout


def test_a_foreign_lock_and_a_full_disk_refuse_before_anything(lab: RunningLab) -> None:
    before, shown = (
        lab.settings.read_text(),
        lab.ssh("ctl", "scontrol show node | grep State").stdout,
    )
    folder = locks(lab)
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / "1f0e0b0e-0000-4000-8000-000000000000.json"
    lock.write_text(
        json.dumps(
            {
                "pid": 1,
                "username": "anna",
                "hostname": "admin02",
                "timestamp": "2026-11-25T03:00:00Z",
            }
        )
    )
    words = ("exclude", "cn02", "--reason", "x", "--yes")
    try:
        said = one_line(slurmstack(lab, "node", *words))
        assert "locked by anna@admin02 (pid 1) since 2026-11-25T03:00:00Z: wait" in said
        assert f"`pulumi cancel --stack {lab.name}`" in said
        assert "locked by anna@admin02" in slurmstack(lab, "status").stdout
    finally:
        lock.unlink()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", place(lab)], check=True)
    try:
        filled = subprocess.run(
            ["dd", "if=/dev/zero", f"of={place(lab)}/full", "bs=64k", "count=1"]
        )
        assert filled.returncode != 0
        assert "No space left on device" in one_line(slurmstack(lab, "node", *words))
    finally:
        subprocess.run(["umount", place(lab)], check=True)
    assert lab.settings.read_text() == before
    assert lab.ssh("ctl", "scontrol show node | grep State").stdout == shown


def test_status_is_one_screen_and_a_page(lab: RunningLab, job: str, tmp_path: Path) -> None:
    node(lab, "drain", "cn02", "--reason", "fan is noisy")
    try:
        done = slurmstack(lab, "report", str(tmp_path / "page.html"))
        assert done.returncode == 0, done.stderr
        screen = slurmstack(lab, "status").stdout
        told = json.loads(slurmstack(lab, "status", "--json").stdout)
    finally:
        node(lab, "resume", "cn02")
    page = (tmp_path / "page.html").read_text()
    for shown in ("cn01: mixed", "cn02: drain+idle: fan is noisy", f"<td>{job}</td>", "leaf1",
                  "key munge", "pulumi up"):  # fmt: skip
        assert shown in page
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    lines = screen.splitlines()
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 80
    host = socket.gethostname()
    slurm = lab.ssh("ctl", "sinfo -V").stdout.split()[-1]
    assert f"Slurm {slurm} on ctl, slurmd {slurm} on 2 nodes" in screen
    assert re.search(rf"1 drain\+idle +cn02: fan is noisy \(\S+@{host}\)", screen)
    assert re.search(r"^jobs +1 running", screen, re.MULTILINE)
    assert re.search(
        rf"^last +node drain cn02 by \S+@{host}, \d+ s ago: done", screen, re.MULTILINE
    )
    keys = {thing["name"]: thing for thing in told["keys"]}
    when = lab.ssh("ctl", "stat -c %Y /etc/munge/munge.key").stdout
    assert keys["munge"]["since"] == float(when)
    end = lab.ssh("ctl", "openssl x509 -in /etc/slurm/tls/cluster.pem -noout -enddate").stdout
    at = time.strptime(end.strip(), "notAfter=%b %d %H:%M:%S %Y GMT")
    assert time.gmtime(keys["REST"]["until"])[:6] == at[:6]
    lab.ssh("ctl", "systemctl start slurmdbd-dump.service")
    kept = lab.ssh("ctl", "ls /var/backups/slurmdbd | wc -l").stdout.strip()
    dumps = re.compile(rf"^dumps +{kept} of the database", re.MULTILINE)
    assert dumps.search(slurmstack(lab, "status").stdout)
    lab.ssh("ctl", "systemctl stop slurmrestd")
    try:
        assert "SLURMRESTD INACTIVE" in slurmstack(lab, "status").stdout
    finally:
        lab.ssh("ctl", "systemctl start slurmrestd")


def test_a_reboot_waits_for_the_job_and_gives_the_node_back(lab: RunningLab) -> None:
    short = submitted(lab, "cn02")
    done = node(lab, "reboot", "cn02", "--reason", "new kernel")
    assert "cn02: rebooted by Slurm after its jobs" in done.stdout
    assert job_state(lab, short) == "RUNNING"
    assert machine.is_running(lab.lab, "cn02")
    lab.ssh("ctl", f"scancel {short}")
    await_that(lambda: not machine.is_running(lab.lab, "cn02"))
    lab.boot("cn02")  # a machine inside a container has no firmware that would
    ready = "systemctl is-active slurmd"
    await_that(lambda: lab.ssh("cn02", ready, check=False).stdout == "active\n")
    # It shows the boot time of the kernel that it shares (tests/lab/test_scripts.py): resumed here.
    await_that(lambda: "idle" in slurmstack(lab, "node", "resume", "cn02").stdout)


def test_logs_are_in_order_and_follow_leaves_nothing_behind(lab: RunningLab) -> None:
    lab.ssh("cn01", "logger -t slurmd-test x; systemctl restart slurmd")
    lines = slurmstack(lab, "logs", "cn01", "--since", "10m").stdout.splitlines()
    times = [line.split()[0] for line in lines]
    assert times == sorted(times)
    assert any("slurmd.log: slurmd started" in line for line in lines)
    assert any("systemd" in line and "Slurm node daemon" in line for line in lines)
    several = slurmstack(lab, "logs", "slurmd", "--since", "10m").stdout
    assert {line.split()[0] for line in several.splitlines()} == {"cn01", "cn02"}
    assert "roles are slurmctld" in one_line(slurmstack(lab, "logs", "nosuch"))
    follower = "pgrep -f '[j]ournalctl --no-pager|[t]ail -q -n 0 -F' | wc -l"
    with begun(lab, "logs", "slurmctld", "--follow") as process:
        await_that(lambda: lab.ssh("ctl", follower).stdout != "0\n")
        lab.ssh("ctl", "scontrol reconfigure")
        assert process.stdout is not None
        for line in process.stdout:
            if "Relinquishing control" in line or "econfigur" in line:
                break
        os.killpg(process.pid, signal.SIGINT)
        process.wait(30)
    await_that(lambda: lab.ssh("ctl", follower).stdout == "0\n")


_DEFAULTS = """
set -e
folder=$(mktemp -d); mkdir "$folder/state"; chown -R slurm "$folder"; chmod 755 "$folder"
cat > "$folder/slurm.conf" <<EOF
ClusterName=x
SlurmctldHost=$(hostname)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=slurm
StateSaveLocation=$folder/state
SlurmctldPidFile=$folder/pid
SlurmctldLogFile=$folder/log
NodeName=$(hostname)
PartitionName=p Nodes=$(hostname)
EOF
export SLURM_CONF="$folder/slurm.conf"
slurmctld -D -c >/dev/null 2>&1 & daemon=$!
trap 'kill $daemon; wait $daemon || :; rm -rf "$folder"' EXIT
timeout 240 sh -c 'until scontrol ping 2>/dev/null | grep -q UP; do sleep 0.2; done'
scontrol show config
"""


def test_slurms_defaults_are_those_that_a_slurmctld_shows(lab: RunningLab) -> None:
    shown = lab.ssh("ctl", _DEFAULTS).stdout
    main = shown.split("Cgroup Support")[0]
    found_there = re.findall(r"^(\w+) += ?(.*?) *$", main, re.MULTILINE)
    # It spells some of them otherwise than its manual.
    of_daemon = {name.lower(): value for name, value in found_there}
    compared = 0
    for parameter in table("slurm.conf").values():
        ours = default(parameter)
        if ours is not None:
            found = of_daemon[parameter.name.lower()]
            assert ours == ("" if found.startswith("(null") else found), parameter.name
            compared += 1
    assert compared > 150
    told = slurmstack(lab, "explain", "MessageTimeout").stdout
    assert re.search(r"Slurm's default +10 sec", told)
    assert re.search(r"this stack +30$", told, re.MULTILINE)
