"""The cluster on real nodes: what stands there after `up`, and what a change touches."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.lab.conftest import RunningLab, await_that

pytestmark = pytest.mark.lab

Edit = Callable[[str, Any], None]

BEFORE = "# a tree of the site\n/srv/modules\n"
MODULES_PATH = "/etc/lmod/.modulespath"


def outputs(lab: RunningLab) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        lab.pulumi("stack", "output", "--json", "--show-secrets").stdout
    )
    return found


def invocation(lab: RunningLab, node: str, unit: str) -> str:
    """Changes when the unit is restarted, and stays when it is reconfigured."""
    shown = lab.ssh(node, f"systemctl show --property=InvocationID --value {unit}")
    return shown.stdout.strip()


def parameter(lab: RunningLab, node: str, name: str) -> str:
    """What a node's daemons run by; compute nodes ask their own copy."""
    shown = lab.ssh(node, "scontrol show config").stdout
    match = re.search(rf"^{name}\s*=\s*(.*?)\s*$", shown, re.MULTILINE)
    assert match, f"{node} knows no {name}"
    return match[1]


def logins(lab: RunningLab, node: str) -> int:
    """How often a node has let somebody in, this time included."""
    shown = lab.ssh(node, "journalctl --no-pager -t sshd -t sshd-session | grep -c Accepted")
    return int(shown.stdout)


def has(lab: RunningLab, node: str, name: str, value: str) -> bool:
    return parameter(lab, node, name) == value


def touched(text: str) -> dict[str, str]:
    """Resource → what was done to it, of the commands that `up` reports as done."""
    done = re.findall(
        r"^ *([-+~]+) +command:remote:Command (\S+) (created|updated|deleted|replaced)", text, re.M
    )
    return {name: verb for _, name, verb in done}


@pytest.fixture
def edit(lab: RunningLab) -> Iterator[Edit]:
    """Changes values of the settings; afterwards the lab is as it was, and `up` says so."""
    before = lab.settings.read_text()

    def change(path: str, value: Any) -> None:
        *parents, last = path.removeprefix("slurmstack:").split(".")

        def how(config: Any) -> None:
            at = config
            for key in parents:
                at = at[int(key)] if isinstance(at, list) else at[key]
            if value is None:
                at.pop(last)
            else:
                at[last] = value

        lab.change(how)

    yield change
    lab.settings.write_text(before)
    lab.pulumi("up", "--yes", "--skip-preview")


def add_cn03(lab: RunningLab, edit: Edit) -> None:
    edit("slurmstack:hosts.cn03", lab.address("cn03"))
    edit("slurmstack:nodes.1.hosts", "cn[02-03]")
    edit("slurmstack:topology.switches.leaf2.Nodes", "cn[02-03]")


def remove_cn03(edit: Edit) -> None:
    edit("slurmstack:hosts.cn03", None)
    edit("slurmstack:nodes.1.hosts", "cn02")
    edit("slurmstack:topology.switches.leaf2.Nodes", "cn02")


def submit(lab: RunningLab, script: str, *options: str) -> str:
    words = " ".join(options)
    return lab.ssh("ctl", f"sbatch --parsable {words} --wrap '{script}'").stdout.strip()


def state_of(lab: RunningLab, job: str) -> str:
    shown = lab.ssh("ctl", f"scontrol show job {job}").stdout
    match = re.search(r"JobState=(\S+)", shown)
    assert match
    return match[1]


def test_a_job_runs_on_both_nodes(lab: RunningLab) -> None:
    assert sorted(lab.ssh("ctl", "srun -N2 hostname").stdout.split()) == ["cn01", "cn02"]


def test_a_second_up_changes_nothing(lab: RunningLab) -> None:
    units = [("ctl", "slurmctld"), ("cn01", "slurmd"), ("cn02", "slurmd"), ("ctl", "munge")]
    before = [invocation(lab, *unit) for unit in units]
    assert "unchanged" in lab.pulumi("up", "--yes", "--expect-no-changes").stdout
    assert [invocation(lab, *unit) for unit in units] == before


def test_the_state_says_who_holds_what(lab: RunningLab) -> None:
    found = outputs(lab)
    for node, held in found["inventory"].items():
        for path, sha256 in held["files"].items():
            read = lab.ssh(node, f"sha256sum {path}").stdout.split()[0]
            assert read == sha256, f"{node}:{path}"
        for package, version in held["packages"].items():
            query = f"dpkg-query --show --showformat='${{Version}}' {package}"
            assert lab.ssh(node, query).stdout == version, f"{node}:{package}"
        assert set(held["units"].values()) == {"active"}
    roles = ["munge-key", "munge-staged", "node", "programs", "slurmd", "system"]
    assert found["inventory"]["cn01"]["roles"] == roles
    keys = {held["keys"]["munge"] for held in found["inventory"].values()}
    assert len(keys) == 1
    assert found["cluster"]["controller"] == "ctl"
    version = lab.ssh("ctl", "sinfo --version").stdout.split()[1]
    assert found["cluster"]["slurmVersion"].startswith(version)


def test_compute_nodes_hold_no_slurm_conf(lab: RunningLab) -> None:
    assert lab.ssh("cn01", "test -e /etc/slurm/slurm.conf", check=False).returncode != 0
    assert parameter(lab, "cn01", "HASH_VAL") == "Match"


def test_key_before_daemons_and_controller_before_nodes(lab: RunningLab) -> None:
    def first_start(node: str, unit: str) -> float:
        line = lab.ssh(
            node, f"journalctl -u {unit} -o short-unix --no-pager | grep -m1 Started"
        ).stdout
        return float(line.split()[0])

    for node in ("cn01", "cn02"):
        assert first_start(node, "munge") < first_start(node, "slurmd")
        assert first_start("ctl", "slurmctld") < first_start(node, "slurmd")


def test_one_value_is_one_line_and_no_job_notices(lab: RunningLab, edit: Edit) -> None:
    job = submit(lab, "sleep 300", "-N2")
    await_that(lambda: state_of(lab, job) == "RUNNING")
    daemons = [("ctl", "slurmctld"), ("cn01", "slurmd"), ("cn02", "slurmd")]
    before = [invocation(lab, *daemon) for daemon in daemons]
    old = parameter(lab, "ctl", "MessageTimeout").split()[0]
    edit("slurmstack:slurm.MessageTimeout", 47)

    preview = lab.pulumi("preview", "--diff").stdout
    changed = [line.strip() for line in preview.splitlines() if "MessageTimeout" in line]
    assert [re.sub(r"\s+", " ", line) for line in changed] == [
        f"- MessageTimeout={old}",
        "+ MessageTimeout=47",
    ]

    assert touched(lab.pulumi("up", "--yes", "--skip-preview").stdout) == {
        "ctl-slurmctld": "updated"
    }
    for node in ("ctl", "cn01", "cn02"):
        await_that(partial(has, lab, node, "MessageTimeout", "47 sec"))
    assert [invocation(lab, *daemon) for daemon in daemons] == before
    assert state_of(lab, job) == "RUNNING"
    lab.ssh("ctl", f"scancel {job}")


def test_a_controller_that_hangs_is_started_anew(lab: RunningLab, edit: Edit) -> None:
    job = submit(lab, "sleep 300", "-N2")
    await_that(lambda: state_of(lab, job) == "RUNNING")
    # slurmctld saves what has changed some seconds later, and it is going to be killed.
    lab.ssh("ctl", f"scontrol update JobId={job} Comment=is-running")
    state = parameter(lab, "ctl", "StateSaveLocation")
    saved = f"grep -aq is-running {state}/job_state"
    await_that(lambda: lab.ssh("ctl", saved, check=False).returncode == 0)
    before = invocation(lab, "ctl", "slurmctld")
    edit("slurmstack:slurm.MessageTimeout", 12)
    # Stopped again whenever systemd wakes it to heed a SIGTERM.
    hold = "pid=$(systemctl show -P MainPID slurmctld); while kill -STOP $pid; do sleep 0.002; done"
    lab.ssh("ctl", f"nohup timeout 300 bash -c '{hold}' >/dev/null 2>&1 &")
    lab.up()
    assert invocation(lab, "ctl", "slurmctld") != before
    ended = lab.ssh("ctl", f"journalctl --no-pager INVOCATION_ID={before}").stdout
    assert "status=9/KILL" in ended
    assert parameter(lab, "ctl", "MessageTimeout") == "12 sec"
    assert state_of(lab, job) == "RUNNING"
    lab.ssh("ctl", f"scancel {job}")


def test_what_reconfigure_cannot_change_restarts(lab: RunningLab, edit: Edit) -> None:
    job = submit(lab, "sleep 300", "-N2")
    await_that(lambda: state_of(lab, job) == "RUNNING")
    before = invocation(lab, "ctl", "slurmctld"), invocation(lab, "cn01", "slurmd")
    edit("slurmstack:slurm.AuthInfo", "ttl=240")
    done = touched(lab.pulumi("up", "--yes", "--skip-preview").stdout)
    # slurmdbd and slurmrestd authenticate as slurm.conf says, too.
    assert set(done) == {
        "ctl-slurmctld", "ctl-slurmdbd", "ctl-slurmrestd", "cn01-slurmd", "cn02-slurmd",
    }  # fmt: skip
    assert invocation(lab, "ctl", "slurmctld") != before[0]
    assert invocation(lab, "cn01", "slurmd") != before[1]
    assert state_of(lab, job) == "RUNNING"
    lab.ssh("ctl", f"scancel {job}")


def test_a_node_comes_and_goes(lab: RunningLab, edit: Edit) -> None:
    lab.boot("cn03")
    # Stands there before slurmstack comes, in the place of a file that it writes.
    lab.ssh("cn03", f"mkdir -p /etc/lmod; printf '%s' '{BEFORE}' >{MODULES_PATH}")
    installed = lab.ssh("cn03", "dpkg-query --show; find /etc -type f | sort").stdout
    before = [invocation(lab, node, "slurmd") for node in ("cn01", "cn02")]
    add_cn03(lab, edit)
    assert touched(lab.pulumi("up", "--yes", "--skip-preview").stdout) == {
        "ctl-guards": "updated",
        "ctl-slurmctld": "updated",
        "ctl-nodes-fit": "updated",
        "cn03-node": "created",
        "cn03-munge-staged": "created",
        "cn03-munge-key": "created",
        "cn03-system": "created",
        "cn03-programs": "created",
        "cn03-slurmd": "created",
    }
    assert lab.ssh("ctl", "srun -w cn03 hostname").stdout.strip() == "cn03"
    assert [invocation(lab, node, "slurmd") for node in ("cn01", "cn02")] == before

    # It is not taken from under a job: the job ends first.
    job = submit(lab, "sleep 300", "-w", "cn03")
    await_that(lambda: state_of(lab, job) == "RUNNING")
    remove_cn03(edit)
    refused = lab.pulumi("up", "--yes", "--skip-preview", check=False)
    assert refused.returncode != 0
    said = refused.stdout + refused.stderr
    assert f"node cn03 leaves the cluster: job {job} (root, main, running on cn03)" in said
    # Nothing is left behind of what was refused.
    assert "mixed" in lab.ssh("ctl", "sinfo -h -N -n cn03 -o %T").stdout
    assert state_of(lab, job) == "RUNNING"
    assert "cn03" in lab.ssh("ctl", "cat /etc/slurm/slurm.conf").stdout

    lab.ssh("ctl", f"scancel {job}")
    await_that(lambda: state_of(lab, job) == "CANCELLED")
    lab.pulumi("up", "--yes", "--skip-preview")
    assert "cn03" not in lab.ssh("ctl", "cat /etc/slurm/slurm.conf").stdout
    assert "cn03" not in lab.ssh("ctl", "sinfo --Node").stdout
    # What was put there is gone, and nothing else.
    now = lab.ssh("cn03", "dpkg-query --show; find /etc -type f | sort").stdout
    assert set(installed.splitlines()) - set(now.splitlines()) == set()
    left = set(now.splitlines()) - set(installed.splitlines())
    assert not [line for line in left if re.search("slurm|munge", line)], left
    assert lab.ssh("cn03", "pgrep -l 'slurmd|munged'", check=False).stdout == ""
    packages = lab.ssh("cn03", "dpkg-query -W -f '${Package} ' 'slurm*' munge lmod", check=False)
    assert packages.stdout.strip() == ""
    assert lab.ssh("cn03", f"cat {MODULES_PATH}").stdout == BEFORE


def test_a_node_that_dies_in_the_middle(lab: RunningLab, edit: Edit) -> None:
    lab.boot("cn03", fresh=True)
    add_cn03(lab, edit)
    edit("slurmstack:slurm.MessageTimeout", 53)
    with ThreadPoolExecutor(1) as pool:
        up = pool.submit(lab.pulumi, "up", "--yes", "--skip-preview", check=False)
        await_that(
            lambda: lab.ssh("cn03", "test -e /run/slurmstack/holder", check=False).returncode == 0
        )
        lab.kill("cn03")
        failed = up.result()
    assert failed.returncode != 0
    assert "cn03" in failed.stdout + failed.stderr
    # The others are changed all the same.
    assert parameter(lab, "ctl", "MessageTimeout") == "53 sec"
    assert sorted(lab.ssh("ctl", "srun -N2 -w cn01,cn02 hostname").stdout.split()) == [
        "cn01",
        "cn02",
    ]
    # The next run finishes the rest.
    lab.boot("cn03")
    lab.pulumi("up", "--yes", "--skip-preview")
    assert lab.ssh("ctl", "srun -w cn03 hostname").stdout.strip() == "cn03"

    # And one that never comes back can be taken out.
    lab.kill("cn03")
    edit("slurmstack:hosts.cn03", {"address": lab.address("cn03"), "lost": True})
    assert touched(lab.pulumi("up", "--yes", "--skip-preview").stdout) == {
        "ctl-slurmctld": "updated",
        "ctl-nodes-fit": "updated",
    }
    assert outputs(lab)["inventory"]["cn03"] == {"lost": True}
    assert "cn03" not in lab.ssh("ctl", "sinfo --Node").stdout
    remove_cn03(edit)
    lab.pulumi("up", "--yes", "--skip-preview")
    assert "cn03" not in outputs(lab)["inventory"]


def test_an_existing_munge_key_takes_the_place_of_the_made_one(lab: RunningLab, edit: Edit) -> None:
    job = submit(lab, "sleep 25", "-N2")
    await_that(lambda: state_of(lab, job) == "RUNNING")
    key = bytes(range(256)) * 4
    lab.pulumi("config", "set", "--secret", "slurmstack:mungeKey", base64.b64encode(key).decode())
    assert base64.b64encode(key).decode()[:40] not in lab.settings.read_text()
    said = lab.pulumi("up", "--yes", "--skip-preview").stdout
    assert "taken as base64: 1024 bytes" in said
    held = outputs(lab)["inventory"].values()
    assert {node["keys"]["munge"] for node in held} == {hashlib.sha256(key).hexdigest()}
    await_that(lambda: state_of(lab, job) == "COMPLETED")
    assert sorted(lab.ssh("ctl", "srun -N2 hostname").stdout.split()) == ["cn01", "cn02"]


def test_a_bad_parameter_leaves_the_running_configuration(lab: RunningLab, edit: Edit) -> None:
    before = lab.ssh("ctl", "sha256sum /etc/slurm/slurm.conf").stdout
    edit("slurmstack:slurm.extra", {"NoSuchParameter": 1})
    refused = lab.pulumi("up", "--yes", "--skip-preview", check=False)
    assert "slurm.extra.NoSuchParameter: expected a parameter of slurm.conf" in (
        refused.stdout + refused.stderr
    )
    # Insisted on, it is refused by what reads the file, on the node.
    edit("slurmstack:slurm.extra", {"NoSuchParameter!": 1})
    failed = lab.pulumi("up", "--yes", "--skip-preview", check=False)
    text = failed.stdout + failed.stderr
    assert failed.returncode != 0
    assert "unrecognized key: NoSuchParameter" in text
    # slurmctld goes on, and finds the last good file should it be restarted.
    assert lab.ssh("ctl", "srun -N2 hostname").stdout
    assert lab.ssh("ctl", "sha256sum /etc/slurm/slurm.conf").stdout == before
    lab.ssh("ctl", "systemctl restart slurmctld")
    await_that(lambda: "is UP" in lab.ssh("ctl", "scontrol ping", check=False).stdout)


def test_a_host_with_another_key_is_refused(lab: RunningLab, edit: Edit, tmp_path: Path) -> None:
    known = (lab.lab.checkout / f".lab/{lab.name}/known_hosts").read_text()
    other = next(line for line in known.splitlines() if lab.address("cn01") in line).split()[-2:]
    lines = [
        f"{lab.address('cn02')} {' '.join(other)}" if lab.address("cn02") in line else line
        for line in known.splitlines()
    ]
    (tmp_path / "known_hosts").write_text("\n".join(lines) + "\n")
    before = logins(lab, "cn02")
    edit("slurmstack:ssh.knownHosts", str(tmp_path / "known_hosts"))
    refused = lab.pulumi("up", "--yes", "--skip-preview", check=False)
    text = refused.stdout + refused.stderr
    assert refused.returncode != 0
    # Nobody was let in but we, to ask just this.
    assert logins(lab, "cn02") == before + 1
    seen = lab.ssh("cn02", "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub").stdout.split()[1]
    assert "cn02" in text
    assert seen in text


def test_a_host_without_a_key_is_refused(lab: RunningLab, edit: Edit, tmp_path: Path) -> None:
    known = (lab.lab.checkout / f".lab/{lab.name}/known_hosts").read_text()
    lines = [line for line in known.splitlines() if lab.address("cn02") not in line]
    (tmp_path / "known_hosts").write_text("\n".join(lines) + "\n")
    edit("slurmstack:ssh.knownHosts", str(tmp_path / "known_hosts"))
    refused = lab.pulumi("up", "--yes", "--skip-preview", check=False)
    text = refused.stdout + refused.stderr
    seen = lab.ssh("cn02", "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub").stdout.split()[1]
    assert refused.returncode != 0
    assert "cn02" in text
    assert seen in text
    assert "Traceback" not in text


def test_mistakes_in_the_settings_come_all_at_once(lab: RunningLab, edit: Edit) -> None:
    edit("slurmstack:slurm.MessageTimeout", "soon")
    edit("slurmstack:roles.controller", "sm02")
    refused = lab.pulumi("preview", check=False)
    text = refused.stdout + refused.stderr
    assert refused.returncode != 0
    assert "slurmstack:slurm.MessageTimeout" in text
    assert "slurmstack:roles.controller" in text
    assert "Traceback" not in text
