"""The applier on real nodes, given the bundle that the node has, altered on its way: the settings
refuse most of these mistakes before."""

from __future__ import annotations

import json
import subprocess

import pytest

from lab.names import Lab
from templates.rendering import render
from tests.lab.conftest import RunningLab, await_that

pytestmark = pytest.mark.lab

#: A file more than the lab's settings ask for, and its reader.
MPI_CONF = (
    "file /etc/slurm/mpi.conf root:root 0644\n  {}\nvalidate slurm-conf on=/etc/slurm/mpi.conf,"
)

#: What → role, a line of its bundle and what it becomes, the file, its daemon, the reader's words.
MISTAKES = {
    "a parameter that Slurm does not know": (
        "slurmctld",
        "  SlurmUser=slurm\n",
        "  SlurmUser=slurm\n  FooBar=1\n",
        "/etc/slurm/slurm.conf",
        "slurmctld.service",
        "Parsing error at unrecognized key: FooBar",
    ),
    "a value that Slurm cannot read": (
        "slurmctld",
        "  SlurmUser=slurm\n",
        "  SlurmUser=slurm\n  PartitionName=bad Nodes=ALL MaxTime=2h\n",
        "/etc/slurm/slurm.conf",
        "slurmctld.service",
        'Bad value "2h" for MaxTime',
    ),
    "what slurmctld alone sees": (
        "slurmctld",
        "  SlurmUser=slurm\n",
        "  SlurmUser=slurm\n  PartitionName=bad Nodes=nowhere\n",
        "/etc/slurm/slurm.conf",
        "slurmctld.service",
        "Invalid node names in partition bad",
    ),
    "a file beside slurm.conf": (
        "slurmctld",
        "  SwitchName=",
        "  SwitchNam=",
        "/etc/slurm/topology.conf",
        "slurmctld.service",
        "Parsing error at unrecognized key: SwitchNam",
    ),
    "a figure of gres.conf": (
        "slurmctld",
        " Name=gpu Type=h100 ",
        " Name=gpu Type=h100 Count=many ",
        "/etc/slurm/gres.conf",
        "slurmctld.service",
        "Invalid GRES record for gpu, invalid count many",
    ),
    "cores of gres.conf that the node has not": (
        "slurmctld",
        " Name=gpu Type=h100 ",
        " Name=gpu Type=h100 Cores=900 ",
        "/etc/slurm/gres.conf",
        "slurmctld.service",
        "Invalid GRES data for gpu, Cores=900",
    ),
    "a line of gres.conf that Slurm would pass over": (
        "slurmctld",
        " Name=gpu Type=h100 ",
        " Name=gpu Type=h100 Links=1,b ",
        "/etc/slurm/gres.conf",
        "slurmctld.service",
        "gres.conf: Ignoring invalid Links=1,b for Name=gpu",
    ),
    "a value of mpi.conf": (
        "slurmctld",
        "validate slurm-conf on=",
        MPI_CONF.format("PMIxTimeout=long"),
        "/etc/slurm/mpi.conf",
        "slurmctld.service",
        "PMIxTimeout value (long) is not a valid number",
    ),
    "a word of mpi.conf that no plugin knows": (
        "slurmctld",
        "validate slurm-conf on=",
        MPI_CONF.format("PMIxTimeOut2=5"),
        "/etc/slurm/mpi.conf",
        "slurmctld.service",
        'Parse error in file /etc/slurm/mpi.conf line 1: "PMIxTimeOut2=5"',
    ),
    "slurmdbd.conf": (
        "slurmdbd",
        "  StorageUser=slurm\n",
        "  StorageUser=slurm\n  FooBar=1\n",
        "/etc/slurm/slurmdbd.conf",
        "slurmdbd.service",
        "Parsing error at unrecognized key: FooBar",
    ),
    "an option of MariaDB": (
        "slurmdbd",
        "  innodb_buffer_pool_size",
        "  innodb_bufer_pool_size",
        "/etc/mysql/mariadb.conf.d/90-slurmstack.cnf",
        "mariadb.service",
        "unknown variable 'innodb_bufer_pool_size=",
    ),
    "a word of haproxy": (
        "slurmrestd",
        "  frontend rest\n",
        "  frontend rest\n    foo bar\n",
        "/etc/haproxy/haproxy.cfg",
        "haproxy.service",
        "unknown keyword 'foo' in 'frontend' section",
    ),
    "a unit": (
        "slurmrestd",
        "  [Service]\n",
        "  [Service]\n  Foo=bar\n",
        "/etc/systemd/system/slurmrestd.service.d/slurmstack.conf",
        "slurmrestd.service",
        "Unknown key 'Foo' in section [Service]",
    ),
}


def bundle(lab: RunningLab, role: str) -> str:
    """A bundle of the controller, as it was sent."""
    state = json.loads(lab.pulumi("stack", "export", "--show-secrets").stdout)
    for resource in state["deployment"]["resources"]:
        if resource["urn"].endswith(f"::ctl-{role}"):
            stdin = resource["inputs"]["stdin"]
            return str(json.loads(stdin["plaintext"]) if isinstance(stdin, dict) else stdin)
    raise AssertionError(f"no role {role}")


def apply(lab: Lab, text: str) -> subprocess.CompletedProcess[str]:
    """A bundle to the controller's applier, without Pulumi."""
    words = ["ssh", "-F", str(lab.ssh_config), "ctl", "/usr/local/lib/slurmstack/apply apply"]
    return subprocess.run(
        words, input=text, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_its_reader_refuses_is_not_put_in_place(lab: RunningLab, mistake: str) -> None:
    role, line, wrong, path, unit, words = MISTAKES[mistake]
    text = bundle(lab, role)
    assert line in text
    look = (
        f"sha256sum {path}; systemctl show --property=MainPID,NRestarts,ActiveEnterTimestamp {unit}"
    )
    before = lab.ssh("ctl", look).stdout
    assert "MainPID=0" not in before
    done = apply(lab.lab, text.replace(line, wrong, 1))
    assert done.returncode == 1
    assert done.stdout == ""
    error = done.stderr.splitlines()[-1]
    assert error.startswith("slurmstack: ctl: validate ")
    assert words in error
    assert "nothing was put in place" in error
    assert "StoragePass" not in done.stderr
    assert lab.ssh("ctl", look).stdout == before
    left = "find / -xdev -name '*.slurmstack-new'; ls -d /run/slurmstack-* 2>/dev/null; true"
    assert lab.ssh("ctl", left).stdout == ""
    assert apply(lab.lab, text).returncode == 0
    assert lab.ssh("ctl", look).stdout == before
    assert sorted(lab.ssh("ctl", "srun -N2 hostname").stdout.split()) == ["cn01", "cn02"]


def test_a_slurm_conf_that_clients_cannot_read_is_no_hang(lab: RunningLab) -> None:
    """It may have been broken by hand, and lie there when the daemons are to be told of a key."""
    pid = "systemctl show --property=MainPID --value slurmctld.service"
    before = lab.ssh("ctl", pid).stdout
    lab.ssh("ctl", "cp -p /etc/slurm/slurm.conf /run/kept; echo FooBar=1 >>/etc/slurm/slurm.conf")
    try:
        script = render("controller/reconfigure.sh").encode()
        told = lab.send("ctl", "sh -s 2>&1", script, ends=(1,)).decode()
        assert lab.ssh("ctl", pid).stdout == before
    finally:
        lab.ssh("ctl", "cp -p /run/kept /etc/slurm/slurm.conf")
    assert "FooBar" in told
    assert "restarting it" not in told
    assert lab.ssh("ctl", "scontrol ping").stdout.count("is UP") == 1


#: scontrol after whose first reconfiguration slurmctld crashes.
_CRASHES = """#!/bin/sh
/usr/bin/scontrol "$@" || exit
[ "$1" = reconfigure ] && [ ! -e /run/crashing/crashed ] || exit 0
touch /run/crashing/crashed
systemctl kill --kill-whom=main --signal=ABRT slurmctld.service
while systemctl is-active --quiet slurmctld.service; do sleep 0.1; done
"""


def test_a_slurmctld_that_crashes_when_it_has_answered_is_started_again(lab: RunningLab) -> None:
    job = lab.ssh("ctl", "sbatch --parsable -D / -o /dev/null --wrap 'sleep 300'").stdout.strip()
    running = f"squeue -h -j {job} -o '%T %S'"
    await_that(lambda: lab.ssh("ctl", running).stdout.startswith("RUNNING"))
    before = lab.ssh("ctl", running).stdout
    lab.send("ctl", "mkdir /run/crashing && cat >/run/crashing/scontrol", _CRASHES.encode())
    try:
        lab.ssh("ctl", "chmod 0755 /run/crashing/scontrol")
        script = render("controller/reconfigure.sh").encode()
        told = lab.send("ctl", "PATH=/run/crashing:$PATH sh -s 2>&1", script).decode()
        assert "slurmctld crashed" in told
        assert lab.ssh("ctl", running).stdout == before
    finally:
        lab.ssh("ctl", f"rm -r /run/crashing; scancel {job}")


@pytest.mark.parametrize(("node", "daemon"), [("ctl", "slurmctld"), ("cn01", "slurmd")])
def test_a_daemon_that_crashes_is_back_and_its_job_goes_on(
    lab: RunningLab, node: str, daemon: str
) -> None:
    """slurmctld 24.11.5 crashed once when it had taken a new slurm.conf, and stayed away."""
    submit = "sbatch --parsable --nodelist=cn01 -D / -o /dev/null --wrap 'sleep 300'"
    job = lab.ssh("ctl", submit).stdout.strip()
    running = f"squeue -h -j {job} -o '%T %S'"
    await_that(lambda: lab.ssh("ctl", running).stdout.startswith("RUNNING"))
    before = lab.ssh("ctl", running).stdout
    # What slurmctld knows is on disk within seconds; what is not is lost in a crash.
    lab.ssh("ctl", f"touch /run/noted; scontrol update job={job} comment=noted")
    saved = "test /var/spool/slurmctld/job_state -nt /run/noted"
    await_that(lambda: lab.ssh("ctl", saved, check=False).returncode == 0)
    restarts = f"systemctl show --property=NRestarts --value {daemon}.service"
    count = int(lab.ssh(node, restarts).stdout)
    kill = f"systemctl kill --kill-whom=main --signal=SEGV {daemon}.service"
    back = f"systemctl is-active --quiet {daemon}.service && {restarts}"
    try:
        lab.ssh(node, kill)
        await_that(lambda: lab.ssh(node, back, check=False).stdout.strip() == str(count + 1))
        await_that(lambda: lab.ssh("ctl", running, check=False).stdout == before)
        assert lab.ssh("cn01", f"pgrep -cf 'slurmstepd: \\[{job}[.]batch'").stdout.strip() == "1"
    finally:
        lab.ssh("ctl", f"scancel {job}")


#: No node can be reached while slurmctld takes a file up, and a second later it crashes.
_UNTOLD = """
pid() { systemctl show --property=MainPID --value slurmctld.service; }
restarts() { systemctl show --property=NRestarts --value slurmctld.service; }
before=$(pid)
trap 'for node in NODES; do ip route del blackhole $node; done' EXIT
trap exit TERM
for node in NODES; do ip route add blackhole $node; done
touch /run/unreachable
while [ "$(pid)" = "$before" ]; do sleep 0.1; done
sleep 1
count=$(restarts)
systemctl kill --kill-whom=main --signal=ABRT slurmctld.service
while [ "$(restarts)" = "$count" ]; do sleep 0.1; done
"""


def test_nodes_that_a_crashed_slurmctld_has_not_told_are_told_again(lab: RunningLab) -> None:
    """systemd starts it with the new slurm.conf, of which it then tells no node."""
    text, line = bundle(lab, "slurmctld"), "  SlurmUser=slurm\n"
    assert line in text
    addresses = " ".join(lab.lab.address(node) for node in ("cn01", "cn02"))
    crash = _UNTOLD.replace("NODES", addresses).encode()
    lab.ssh("ctl", "systemctl reset-failed slurmctld.service; rm -f /run/unreachable")
    begin = "cat >/run/untold; systemd-run --quiet --collect timeout 120 sh /run/untold"
    lab.send("ctl", begin, crash)
    lab.ssh("ctl", "timeout 60 sh -c 'until [ -e /run/unreachable ]; do sleep 0.1; done'")
    done = apply(lab.lab, text.replace(line, f"{line}  # noted\n", 1))
    assert done.returncode == 0, done.stderr
    for node in ("cn01", "cn02"):
        assert "# noted" in lab.ssh(node, "cat /run/slurm/conf/slurm.conf").stdout
    assert apply(lab.lab, text).returncode == 0
    assert "# noted" not in lab.ssh("cn01", "cat /run/slurm/conf/slurm.conf").stdout
    assert sorted(lab.ssh("ctl", "srun -N2 hostname").stdout.split()) == ["cn01", "cn02"]


def test_a_wanted_restart_meets_no_start_limit(lab: RunningLab) -> None:
    """systemd refuses a sixth start within ten seconds, which is for daemons that fall."""
    text = bundle(lab, "slurmrestd")
    line = "  [Service]\n  EnvironmentFile=\n"
    assert line in text
    lab.ssh("ctl", "for n in 1 2 3 4 5; do systemctl restart slurmrestd.service; done")
    again = lab.ssh("ctl", "systemctl restart slurmrestd.service", check=False)
    assert "attempted too often" in again.stderr
    done = apply(lab.lab, text.replace(line, f"{line}  # changed\n", 1))
    assert done.returncode == 0, done.stderr
    assert apply(lab.lab, text).returncode == 0


def test_lines_of_a_login_shell_get_into_no_value(lab: RunningLab) -> None:
    """root's .bashrc runs with every command that comes over SSH."""
    for node in ("ctl", "cn01"):
        lab.ssh(node, "cp -p /root/.bashrc /root/.kept 2>/dev/null; true")
        lab.ssh(node, "sed -i '1i echo MUNGE:noise:; printf \"RealMemory=1 no end\"' /root/.bashrc")
    try:
        shown = lab.ssh("ctl", "true").stdout
        assert "MUNGE:noise:" in shown
        # What is asked for anew: the hardware of the nodes, the credential, all answers.
        memory = lab.lab.checkout / ".slurmstack" / lab.name
        (memory / "facts.json").unlink(missing_ok=True)
        names = ["munge-credential", *(f"ctl-{role}" for role in ("node", "munge-key", "jwt"))]
        (memory / "asked-again.json").write_text(json.dumps(dict.fromkeys(names, 1)))
        said = lab.up()
        assert "munge-credential updated" in said
        lab.pulumi("up", "--yes", "--expect-no-changes")
        token = lab.run("slurmstack", "token", "root", "--privileged").stdout.strip()
        assert token.count(".") == 2
        assert "\n" not in token
    finally:
        for node in ("ctl", "cn01"):
            lab.ssh(node, "sed -i 1d /root/.bashrc")
    assert sorted(lab.ssh("ctl", "srun -N2 hostname").stdout.split()) == ["cn01", "cn02"]


def test_a_key_that_was_opened_is_closed_with_the_next_change(lab: RunningLab) -> None:
    """Before, its wrong mode stopped each later change, and nothing put it right."""
    units = "slurmctld.service slurmdbd.service"
    look = f"systemctl show --property=MainPID {units}"
    before = lab.ssh("ctl", look).stdout
    lab.ssh("ctl", "chmod 0644 /etc/slurm/jwt.key")
    done = apply(lab.lab, bundle(lab, "jwt"))
    assert done.returncode == 0, done.stderr
    assert lab.ssh("ctl", "stat -c '%a %U' /etc/slurm/jwt.key").stdout == "400 slurm\n"
    assert lab.ssh("ctl", look).stdout == before
