"""The machines themselves: booted, reached, side by side, and gone without a trace."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Iterator
from pathlib import Path

import pytest

from engine.providers.ssh import Outcome, Pool, SshError
from lab import lifecycle, machine
from lab.names import Lab, choose_subnet
from lab.system import run, wait_for
from tests.lab.conftest import CHECKOUT, RunningLab, lab_command, own_name, why_not
from tests.lab.snapshot import leftovers, snapshot

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]


def test_nodes_are_machines_with_a_systemd_of_their_own(machines: RunningLab) -> None:
    for node in ("ctl", "cn01", "cn02"):
        script = "cat /proc/1/comm; hostname; cat /etc/machine-id; systemctl is-system-running"
        comm, name, _machine_id, state = machines.ssh(node, script).stdout.split()
        assert (comm, name, state) == ("systemd", node, "running")
    ids = {machines.ssh(node, "cat /etc/machine-id").stdout for node in ("ctl", "cn01", "cn02")}
    assert len(ids) == 3


def test_a_node_holds_nothing_of_the_product(machines: RunningLab) -> None:
    found = machines.ssh("cn01", "dpkg-query -W 'slurm*' 'munge*' python3 2>/dev/null", check=False)
    assert [line for line in found.stdout.splitlines() if line.split()[1:]] == []


def test_nodes_reach_each_other_and_have_no_route_out(machines: RunningLab) -> None:
    machines.ssh("cn01", f"ping -c1 -W5 {machines.address('cn02')}")
    routes = machines.ssh("cn01", "ip route").stdout.splitlines()
    assert len(routes) == 1
    assert routes[0].startswith(f"10.73.{machines.lab.subnet}.0/24 dev host0")


#: Holds a new mount namespace by a file, on each CPU, as job_container/tmpfs does for a job.
HOLD = """
set -e
mkdir -p /srv/held
mount --bind /srv/held /srv/held
mount --make-private /srv/held
touch /srv/held/ns
for cpu in $(seq 0 $(($(nproc) - 1))); do
  taskset --cpu-list $cpu unshare --mount=/srv/held/ns true
  umount /srv/held/ns
done
umount /srv/held
"""


def test_a_mount_namespace_can_be_held_on_every_cpu(machines: RunningLab) -> None:
    for node in ("ctl", "cn01", "cn02"):
        machines.ssh(node, HOLD)


def test_nodes_know_each_others_names(machines: RunningLab) -> None:
    shown = machines.ssh("ctl", "getent ahostsv4 login01 cn01 cn09 | awk '{ print $1 }' | uniq")
    names = ("login01", "cn01", "cn09")
    assert shown.stdout.split() == [machines.address(node) for node in names]


def test_a_package_comes_through_the_mirror_once_for_two_nodes(machines: RunningLab) -> None:
    log = machines.lab.folder / "mirror" / "access.log"
    for node in ("cn01", "cn02"):
        install = "apt-get -q update && apt-get -qy install --no-install-recommends munge"
        machines.ssh(node, f"DEBIAN_FRONTEND=noninteractive sh -c '{install}'", timeout=300)
        assert machines.ssh(node, "dpkg-query -W -f '${Status}' munge").stdout.endswith("installed")
    fetched = [line for line in log.read_text().splitlines() if "/munge_" in line]
    assert len(fetched) == 2
    assert all('" 200 ' in line for line in fetched)


def test_a_wrong_host_key_is_refused(machines: RunningLab, tmp_path: Path) -> None:
    hosts = machines.lab.known_hosts.read_text().replace("ssh-ed25519 AAAAC3", "ssh-ed25519 AAAAC4")
    other = tmp_path / "known_hosts"
    other.write_text(hosts)
    command = [
        "ssh",
        "-F",
        str(machines.lab.ssh_config),
        "-o",
        f"UserKnownHostsFile={other}",
        "cn01",
    ]
    done = run([*command, "true"], check=False)
    assert done.returncode == 255


@pytest.fixture
def busy(machines: RunningLab) -> Iterator[None]:
    """A machine with more to do than it has processors for."""
    loop = "while :; do :; done"
    with contextlib.ExitStack() as ending:
        for _ in range(2 * (os.cpu_count() or 1)):
            ending.callback(subprocess.Popen(["sh", "-c", loop]).kill)
        yield


#: What a command does, its stdin, and the status that it ends with.
COMMANDS = {
    "once": ("echo x >>/srv/once", "", 0),
    "at-once": ("echo x >>/srv/at-once; exit 3", "x" * 1_000_000, 3),
    "closed": ("exec <&-; echo x >>/srv/closed", "x" * 1_000_000, 0),
    "read": ("wc -c >>/srv/read", "x" * 1_000_000, 0),
}


@pytest.mark.usefixtures("busy")
async def test_commands_on_stock_openssh_run_once_and_end_as_it_reports(
    machines: RunningLab,
) -> None:
    """The embedded engine's, on one connection and on eight."""
    machines.ssh("cn01", "usermod --shell /bin/sh root")
    key = machines.lab.key.read_text()
    connection = {"host": machines.address("cn01"), "port": 22, "user": "root", "privateKey": key}
    pool = Pool()

    def run(command: str, stdin: str, number: int = 0) -> Awaitable[Outcome]:
        one_of_eight = connection | {"perDialTimeout": 60 + number}
        return pool.run(one_of_eight, command, stdin, {}, lambda *_: None, lambda _: None)

    try:
        command, stdin, _ = COMMANDS["once"]
        first = await asyncio.gather(*(run(command, stdin) for _ in range(128)))
        assert [ran.status for ran in first] == [0] * 128
        for command, stdin, status in COMMANDS.values():
            ended = await asyncio.gather(*(run(command, stdin, n % 8) for n in range(32)))
            assert [ran.status for ran in ended] == [status] * 32
        with pytest.raises(SshError, match="lost"):  # a server that dies
            await run("kill -KILL $PPID; sleep 60", "x" * 1_000_000)
        assert (await run("echo back", "")).stdout == b"back\n"
    finally:
        await pool.close()
    counts = machines.ssh("cn01", f"cd /srv; wc -l {' '.join(COMMANDS)}").stdout.split()
    assert counts[0:8:2] == ["160", "32", "32", "32"]


def test_up_again_changes_nothing_and_says_so(machines: RunningLab) -> None:
    before = {node: machines.ssh(node, "uptime -s").stdout for node in machines.lab.nodes()}
    files = {
        path: path.stat().st_mtime_ns
        for path in machines.lab.folder.glob("*")
        if path.is_file() and path.name not in {"known_hosts", "ssh_config"}
    }
    done = lab_command(machines.name, "up", "--machines-only")
    assert "machines run already: ctl" in done.stdout
    assert "unchanged" in done.stdout
    assert {node: machines.ssh(node, "uptime -s").stdout for node in before} == before
    assert {path: path.stat().st_mtime_ns for path in files} == files


def test_a_node_that_lost_power_comes_back_with_its_disk(machines: RunningLab) -> None:
    machines.ssh("cn02", "echo kept > /root/kept; sync")
    machines.kill("cn02")
    assert not machine.is_running(machines.lab, "cn02")
    assert lab_command(machines.name, "status", check=False).returncode == 3
    machines.boot("cn02")
    assert machines.ssh("cn02", "cat /root/kept").stdout == "kept\n"
    machines.boot("cn02", fresh=True)
    assert machines.ssh("cn02", "cat /root/kept", check=False).returncode != 0
    assert lab_command(machines.name, "status").returncode == 0


def test_a_further_node_joins_a_running_lab(machines: RunningLab) -> None:
    machines.boot("cn03")
    assert machines.ssh("cn03", "hostname").stdout == "cn03\n"
    assert f"{machines.address('cn03')},cn03 " in machines.lab.known_hosts.read_text()


def test_ssh_gives_back_the_commands_exit_code(machines: RunningLab) -> None:
    done = lab_command(machines.name, "ssh", "ctl", "--", "echo out; exit 7", check=False)
    assert (done.returncode, done.stdout) == (7, "out\n")


def test_two_labs_stand_side_by_side_and_one_goes_without_a_trace(machines: RunningLab) -> None:
    name = own_name("s")
    before = snapshot(CHECKOUT, name)
    try:
        lab_command(name, "up", "--machines-only", "--nodes", "cn01")
        second = RunningLab(lifecycle.require(name))
        assert second.lab.subnet != machines.lab.subnet
        assert second.lab.bridge != machines.lab.bridge
        ids = [each.ssh("cn01", "cat /etc/machine-id").stdout for each in (machines, second)]
        assert ids[0] != ids[1]
        # One lab's nodes are not in the other's network.
        ping = f"ping -c1 -W1 {second.address('cn01')}"
        assert machines.ssh("cn01", ping, check=False).returncode != 0
        during = leftovers(before, snapshot(CHECKOUT, name))
        for kind in ("processes", "mounts", "links", "addresses", "cgroups", "checkout"):
            assert during.get(kind), f"the comparison does not see {kind}"
    finally:
        lab_command(name, "down")
    assert leftovers(before, snapshot(CHECKOUT, name)) == {}
    assert machines.ssh("cn01", "hostname").stdout == "cn01\n"
    # Nothing to take down is no error.
    assert "nothing to take down" in lab_command(name, "down").stdout


@pytest.mark.parametrize("begun", ["nginx.conf", "agent.sock", "console.log"])
def test_a_lab_cut_off_half_way_goes_without_a_trace(machines: RunningLab, begun: str) -> None:
    """`machines` has installed packages and made the image, which stay."""
    name = own_name("c")
    before = snapshot(CHECKOUT, name)
    folder = CHECKOUT / ".lab" / name
    command = [sys.executable, "-m", "lab", "--lab", name, "up", "--machines-only"]
    child = subprocess.Popen(
        command, cwd=CHECKOUT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: any(folder.rglob(begun)), seconds=60, what="it came not far", every=0.005)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    finally:
        lab_command(name, "down")
    assert leftovers(before, snapshot(CHECKOUT, name)) == {}


def test_after_a_restart_of_this_machine_the_lab_goes_on(machines: RunningLab) -> None:
    """A restart leaves the folder alone: no process, mount or bridge."""
    name = own_name("r")
    try:
        lab_command(name, "up", "--machines-only", "--nodes", "cn01")
        lab = lifecycle.require(name)
        machine.ssh(lab, "cn01", "echo kept > /root/kept; sync")
        address = lab.address("cn01")
        machine.power_off(lab, "cn01", hard=True)
        machine.unmount(lab, "cn01")
        run(["ip", "link", "delete", "dev", lab.bridge])
        lab_command(name, "up", "--machines-only", "--nodes", "cn01")
        again = lifecycle.require(name)
        assert again.address("cn01") == address
        assert machine.ssh(again, "cn01", "cat /root/kept").stdout == "kept\n"
    finally:
        lab_command(name, "down")


def test_a_subnet_that_was_taken_meanwhile_is_refused(machines: RunningLab) -> None:
    name = own_name("t")
    lab_command(name, "up", "--machines-only", "--nodes", "cn01")
    lab = lifecycle.require(name)
    try:
        machine.power_off(lab, "cn01", hard=True)
        run(["ip", "link", "delete", "dev", lab.bridge])
        run(["ip", "route", "add", f"10.73.{lab.subnet}.0/24", "dev", machines.lab.bridge])
        done = lab_command(name, "up", "--machines-only", "--nodes", "cn01", check=False)
        assert done.returncode == 1
        assert f"10.73.{lab.subnet}.0/24, the subnet of the lab {name}, is in use" in done.stderr
    finally:
        run(["ip", "route", "delete", f"10.73.{lab.subnet}.0/24"], check=False)
        lab_command(name, "down")


def test_a_bridge_of_somebody_else_is_left_alone(machines: RunningLab) -> None:
    name = own_name("b")
    bridge = Lab(name, CHECKOUT, choose_subnet(name, [])).bridge
    run(["ip", "link", "add", "name", bridge, "type", "bridge"])
    try:
        done = lab_command(name, "up", "--machines-only", check=False)
        assert done.returncode == 1
        assert f"the bridge {bridge} belongs to something else" in done.stderr
        lab_command(name, "down")
        assert run(["ip", "link", "show", "dev", bridge], check=False).returncode == 0
    finally:
        run(["ip", "link", "delete", "dev", bridge])
