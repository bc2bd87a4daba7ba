"""Changes that would lose jobs, state or what people decided; on real nodes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.lab.conftest import RunningLab, await_that, lasting_states

pytestmark = pytest.mark.lab

Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def clean(restored: RunningLab) -> Iterator[RunningLab]:
    """The lab without jobs, also afterwards, so that its settings can come back."""
    cancel(restored)
    yield restored
    cancel(restored)


def cancel(lab: RunningLab) -> None:
    lab.ssh("ctl", "squeue -h -o %A | xargs -r scancel --full")
    await_that(lambda: lab.ssh("ctl", "squeue -h").stdout == "")


def submit(lab: RunningLab, options: str, state: str = "RUNNING") -> str:
    done = lab.ssh("ctl", f"cd / && sbatch --parsable -o /dev/null {options} --wrap 'sleep 900'")
    job = done.stdout.strip()
    await_that(lambda: state_of(lab, job) == state)
    return job


def state_of(lab: RunningLab, job: str) -> str:
    shown = lab.ssh("ctl", f"scontrol show job {job}").stdout
    match = re.search(r"JobState=(\S+)", shown)
    assert match
    return match[1]


def node(lab: RunningLab, name: str) -> str:
    """State, reason and who gave it."""
    return lab.shown(name, "%T|%E|%u")


def conf(lab: RunningLab) -> str:
    """The files, and the nodes' states once the Epilogs of jobs that have ended are over."""
    await_that(lambda: "completing" not in lab.ssh("ctl", "sinfo -h -N -o %T").stdout)
    words = "sha256sum /etc/slurm/*.conf; sinfo -h -N -o '%N %P %T %E' | sort"
    return lasting_states(lab.ssh("ctl", words).stdout)


def refused(lab: RunningLab, change: Change) -> str:
    """What `up` says against a change that waits for nobody; nothing is left behind of it."""
    settings, before = lab.settings.read_text(), conf(lab)
    lab.change(change)
    lab.set(rollout={"drain": "never"})
    said = lab.up(check=False)
    lab.settings.write_text(settings)
    assert "nothing was changed" in said
    assert conf(lab) == before
    return said


def without_gpu_partition(config: dict[str, Any]) -> None:
    del config["partitions"]["gpu"]


def fewer_gpus(config: dict[str, Any]) -> None:
    config["nodes"][0]["Gres"][0]["Count"] = 2


def no_gpus(config: dict[str, Any]) -> None:
    del config["nodes"][0]["Gres"]


def little_memory(config: dict[str, Any]) -> None:
    config["nodes"][0]["RealMemory"] = 500


def short_jobs(config: dict[str, Any]) -> None:
    config["partitions"]["gpu"]["MaxTime"] = 10


def other_node(config: dict[str, Any]) -> None:
    config["partitions"]["gpu"]["Nodes"] = "cn02"


def without_cn01(config: dict[str, Any]) -> None:
    del config["nodes"][0]
    config["partitions"]["gpu"]["Nodes"] = "cn02"
    config["topology"]["switches"] = {"leaf2": {"Nodes": "cn02"}}


def other_spool(config: dict[str, Any]) -> None:
    config["slurm"]["SlurmdSpoolDir"] = "/var/spool/slurmd-2"


def other_tmp(config: dict[str, Any]) -> None:
    config["jobContainer"]["BasePath"] = "/var/lib/slurm-tmp-2"


def other_cluster(config: dict[str, Any]) -> None:
    config["cluster"]["name"] = "other"


def other_state(config: dict[str, Any]) -> None:
    config["slurm"]["StateSaveLocation"] = "/var/spool/slurmctld-2"


def test_what_would_end_a_running_job_is_refused_by_its_name(clean: RunningLab) -> None:
    lab = clean
    job = submit(lab, "-p gpu -w cn01 --gres=gpu:h100:3 --mem=1000 -t 60")
    named = rf"job {job} \(root, gpu, running on cn01\)"
    for change, what in {
        without_gpu_partition: "partition gpu goes",
        fewer_gpus: "node cn01 has 2 gres/gpu, not 4",
        no_gpus: "node cn01 has no gres/gpu:h100",
        little_memory: "node cn01 offers 500 MiB, 1000 are held",
        short_jobs: "MaxTime of partition gpu is below their time limit",
        other_node: "node cn01 leaves partition gpu",
        without_cn01: "node cn01 leaves the cluster",
        other_spool: "SlurmdSpoolDir changes from /var/spool/slurmd to /var/spool/slurmd-2",
        other_tmp: "/etc/slurm/job_container.conf changes",
    }.items():
        said = refused(lab, change)
        assert "slurmstack: ctl: guard jobs-stay" in said, change
        assert re.search(rf"{what}[^;]*: {named}", said), said
        assert f"scancel {job}" in said
        assert "slurmstack:guards.allowJobLoss: true" in said
    assert state_of(lab, job) == "RUNNING"
    # What does not concern the job is done beside it.
    lab.change(lambda it: it["nodes"][1].update(RealMemory=2000))
    lab.up()
    assert state_of(lab, job) == "RUNNING"
    # No job could start on the node that changed meanwhile, and now they can.
    assert "slurmstack: slurm.conf is being changed" in log_of_slurmctld(lab)
    assert node(lab, "cn02").startswith("idle|none")
    # And with the setting, all is done.
    lab.change(lambda it: it.update(guards={"allowJobLoss": True}))
    lab.change(fewer_gpus)
    lab.up()
    assert lab.ssh("ctl", "sinfo -h -n cn01 -o %G").stdout.split()[0] == "gpu:h100:2"
    assert node(lab, "cn01").startswith("idle|none")


def log_of_slurmctld(lab: RunningLab) -> str:
    return lab.ssh("ctl", "grep 'update_node' /var/log/slurm/slurmctld.log", check=False).stdout


def test_a_job_that_starts_between_the_guard_and_the_change(clean: RunningLab) -> None:
    lab = clean
    job = submit(lab, "-w cn01 --mem=1000")
    run = "PYTHONPATH=/usr/local/lib/slurmstack python3 -m on_node.job_guard"
    lab.ssh("ctl", "sed 's/RealMemory=[0-9]*/RealMemory=500/' /etc/slurm/slurm.conf >/tmp/new.conf")
    held = lab.ssh("ctl", f"{run} hold /tmp/new.conf", check=False)
    assert held.returncode == 1
    assert "node cn01 offers 500 MiB, 1000 are held" in held.stderr
    assert node(lab, "cn02").startswith("drained|slurmstack: slurm.conf is being changed")
    # A person's word comes in between.
    lab.ssh("ctl", "scontrol update node=cn02 state=drain reason='of a person'")
    lab.ssh("ctl", f"{run} release")
    assert node(lab, "cn01").startswith("mixed|none")
    assert node(lab, "cn02") == "drained|of a person|root"
    assert state_of(lab, job) == "RUNNING"
    lab.ssh("ctl", "scontrol update node=cn02 state=resume")


def test_a_host_without_the_state_does_not_become_the_controller(clean: RunningLab) -> None:
    lab = clean
    job = submit(lab, "-w cn01 --mem=100")
    said = refused(lab, lambda it: it.update(roles={"controller": "login01"}))
    assert "slurmstack: login01: guard controller-stays" in said
    assert f"moves here from {lab.address('ctl')}" in said
    assert lab.ssh("login01", "command -v slurmctld", check=False).returncode != 0
    assert state_of(lab, job) == "RUNNING"


def test_what_would_leave_a_waiting_job_behind_is_refused(clean: RunningLab) -> None:
    lab = clean
    job = submit(lab, "-H -p gpu --gres=gpu:h100:4 -C dgx -t 60", "PENDING")
    named = rf"job {job} \(root, gpu, pending\)"
    nowhere = "no partition is left in which these can start"
    for change, what in {
        without_gpu_partition: "partition gpu goes",
        fewer_gpus: nowhere,
        short_jobs: nowhere,
        other_node: nowhere,
        lambda it: it["nodes"][0].update(Features=["other"]): nowhere,
        lambda it: it["partitions"]["gpu"].update(extra={"AllowAccounts": "physics"}): nowhere,
    }.items():
        assert re.search(rf"{what}: {named}", refused(lab, change)), what
    assert state_of(lab, job) == "PENDING"
    lab.ssh("ctl", f"scancel {job}")
    lab.ssh("ctl", "scontrol create reservation=kept user=root start=now duration=60 nodes=cn01")
    await_that(lambda: node(lab, "cn01").startswith("reserved"))
    assert "reservation kept has cn01" in refused(lab, without_cn01)
    lab.ssh("ctl", "scontrol delete reservation=kept")


def test_state_moves_only_with_what_it_holds(clean: RunningLab) -> None:
    lab = clean
    job = submit(lab, "-w cn01 --mem=100")
    said = refused(lab, other_state)
    assert "slurmstack: ctl: guard state-stays" in said
    assert "StateSaveLocation moves from /var/spool/slurmctld to /var/spool/slurmctld-2" in said
    way = re.search(r"systemctl stop slurmctld && .*? /var/spool/slurmctld-2(?=,)", said)
    assert way
    assert "cluster's name changes from lab to other" in refused(lab, other_cluster)
    lab.ssh("ctl", "touch /var/backups/slurmdbd/of-last-week")
    dump = {"directory": "/var/backups/moved"}
    said = refused(lab, lambda it: it["accounting"].update(dump=dump))
    assert "cp -a /var/backups/slurmdbd/. /var/backups/moved/" in said
    lab.ssh("ctl", "rm /var/backups/slurmdbd/of-last-week")
    # As it says: the job goes on.
    lab.ssh("ctl", way[0])
    lab.change(other_state)
    lab.up()
    shown = lab.ssh("ctl", "scontrol show config").stdout
    assert re.search(r"StateSaveLocation *= /var/spool/slurmctld-2", shown)
    assert state_of(lab, job) == "RUNNING"
    lab.ssh("ctl", f"scancel {job}")
    back = "cp -a /var/spool/slurmctld-2/. /var/spool/slurmctld/; rm -r /var/spool/slurmctld-2"
    lab.ssh("ctl", f"systemctl stop slurmctld; {back}")
    lab.change(lambda it: it["slurm"].pop("StateSaveLocation"))
    lab.up()


def test_people_decide_and_every_up_keeps_it(clean: RunningLab) -> None:
    lab = clean
    suspended = submit(lab, "-w cn01 --mem=100")
    lab.ssh("ctl", f"scontrol suspend {suspended}")
    held = submit(lab, "-H", "PENDING")
    lab.ssh("ctl", "scontrol create reservation=r user=root start=now duration=600 nodes=cn01 "
            "flags=ignore_jobs")  # fmt: skip
    lab.ssh("ctl", "scontrol update partition=gpu state=down")
    decisions = {"down": "down", "drain": "drained", "fail": "fail"}
    # For each kind of change, one value for each decision.
    ups: dict[str, Callable[[dict[str, Any], int], None]] = {
        "reconfigure": lambda it, n: it["slurm"].update(MessageTimeout=41 + n),
        "slurmctld and slurmd restart": lambda it, n: it["slurm"].update(AuthInfo=f"ttl={240 + n}"),
        "class": lambda it, n: it["nodes"][1].update(Weight=7 + n),
        "slurmd restart": lambda it, n: it["limits"].update(nofile=8192 + n),
        "munge": lambda it, n: it.update(mungeKey="ABCDEFGH"[n] * 100),
    }
    try:
        for name, change in ups.items():
            for number, (decision, shown) in enumerate(decisions.items()):
                lab.ssh("ctl", f"scontrol update node=cn02 state={decision} reason='of a person'")
                lab.change(bound(change, number))
                lab.up()
                assert node(lab, "cn02") == f"{shown}|of a person|root", name
                lab.ssh("ctl", "scontrol update node=cn02 state=resume")
            assert state_of(lab, suspended) == "SUSPENDED", name
            assert state_of(lab, held) == "PENDING", name
            assert "ReservationName=r " in lab.ssh("ctl", "scontrol show reservation").stdout
            assert lab.ssh("ctl", "sinfo -h -p gpu -o %a").stdout.strip() == "down", name
        # The settings speak again when they change.
        lab.change(lambda it: it["partitions"]["gpu"].update(State="DRAIN"))
        lab.up()
        assert lab.ssh("ctl", "sinfo -h -p gpu -o %a").stdout.strip() == "drain"
        lab.change(lambda it: it["partitions"]["gpu"].pop("State"))
        lab.up()
        assert lab.ssh("ctl", "sinfo -h -p gpu -o %a").stdout.strip() == "up"
    finally:
        lab.ssh("ctl", "scontrol delete reservation=r; scontrol update partition=gpu state=up; "
                "scontrol update node=cn02 state=resume", check=False)  # fmt: skip


def test_a_node_with_less_than_declared_is_named_and_returns(clean: RunningLab) -> None:
    lab = clean
    too_much = {"hardware": hardware(lab, "cn01")}
    right = {
        "hardware": {**too_much["hardware"], "RealMemory": too_much["hardware"]["RealMemory"] // 2}
    }
    lab.ssh("ctl", "scontrol update node=cn02 state=drain reason='of a person'")
    lab.change(lambda it: of_all_nodes(it, too_much))
    said = lab.up(check=False)
    assert re.search(r"slurmstack: ctl: command nodes-fit: .*cn01: Low RealMemory", said), said
    # It is tried again, as long as it is so.
    assert "cn01: Low RealMemory" in lab.up(check=False)
    lab.change(lambda it: of_all_nodes(it, right))
    lab.up()
    assert node(lab, "cn01").startswith("idle|none")
    assert node(lab, "cn02") == "drained|of a person|root"
    lab.ssh("ctl", "scontrol update node=cn02 state=resume")


def test_a_node_that_gres_conf_makes_invalid_is_named_and_returns(clean: RunningLab) -> None:
    """Of which slurm.conf has no word: here half a socket's cores for what stands on it."""
    lab = clean
    lab.change(lambda it: it["nodes"][0]["Gres"][0].update(Cores="0"))
    said = lab.up(check=False)
    assert re.search(r"command nodes-fit: .*cn01: gres/gpu GRES core specification 0", said), said
    assert node(lab, "cn01").startswith("inval|")
    lab.change(lambda it: it["nodes"][0]["Gres"][0].update(Cores="0-1"))
    lab.up()
    assert node(lab, "cn01").startswith("idle|none")


def of_all_nodes(config: dict[str, Any], values: dict[str, Any]) -> None:
    for node_class in config["nodes"]:
        node_class.update(values)


def bound(change: Callable[[dict[str, Any], int], None], number: int) -> Change:
    return lambda config: change(config, number)


def hardware(lab: RunningLab, name: str) -> dict[str, int]:
    """What a node has, but for twice its memory."""
    words = lab.ssh(name, "slurmd -C | head -n 1").stdout.split()
    found = dict(word.split("=", 1) for word in words if "=" in word)
    names = ("CPUs", "Boards", "SocketsPerBoard", "CoresPerSocket", "ThreadsPerCore")
    return {**{key: int(found[key]) for key in names}, "RealMemory": 2 * int(found["RealMemory"])}


def test_what_scontrol_does_not_tell_of_jobs(clean: RunningLab) -> None:
    lab = clean
    # slurmctld names the partition in which it runs, and would end it when the other one goes. It
    # has started it before one that waits for both nodes, and saved nothing of that yet.
    first = submit(lab, "-w cn01 --mem=0")
    second = submit(lab, "-N 2 --mem=0", "PENDING")
    several = submit(lab, "-p main,gpu -w cn02 --mem=100 -t 60")
    said = refused(lab, without_gpu_partition)
    assert f"partition gpu goes: job {several} (root, main,gpu, running on cn02)" in said
    lab.ssh("ctl", f"scancel {first} {second}")
    # It would forget what is above, and its nodes would end it as unknown.
    said = refused(lab, lambda it: it["slurm"].update(MaxJobCount=1))
    assert re.search(r"slurmctld keeps \d+ jobs.*MaxJobCount of 1", said), said
    # A waiting job of two nodes, which no switch is to join any more.
    across = submit(lab, "-H -N 2 --mem=100", "PENDING")
    said = refused(lab, lambda it: it["topology"]["switches"].pop("top"))
    assert f"no partition is left in which these can start: job {across} " in said
    lab.ssh("ctl", f"scancel {across}")

    lab.change(having_licenses("matlab:3"))
    lab.up()
    holds = submit(lab, "-L matlab:2 -w cn01 --mem=100")
    wants = submit(lab, "-H -L matlab:3 --mem=100", "PENDING")
    for value, what in {
        "fluent:3": rf"license matlab goes: jobs {holds} .*, {wants} ",
        "matlab:2": rf"there are 2 licenses matlab, 3 are wanted at once: job {wants} ",
        "matlab:1": rf"there are 1 licenses matlab, 2 are held: job {holds} ",
    }.items():
        assert re.search(what, refused(lab, having_licenses(value)))
    assert state_of(lab, several) == state_of(lab, holds) == "RUNNING"


def having_licenses(value: str) -> Change:
    def change(config: dict[str, Any]) -> None:
        config["slurm"]["extra"]["Licenses"] = value

    return change


def test_the_cluster_is_not_taken_back_while_jobs_are_there(clean: RunningLab) -> None:
    lab = clean
    running = submit(lab, "-w cn01 --mem=100")
    waiting = submit(lab, "-H", "PENDING")
    before = standing(lab)
    said = destroy(lab, check=False)
    assert "slurmstack: ctl: guard jobs-end: refused" in said
    assert rf"1 running ({running} (root, main, running on cn01))" in said
    assert rf"1 waiting ({waiting} (root, main, pending))" in said
    assert "nothing was changed" in said
    # On no node, be it in the controller's way or not.
    assert standing(lab) == before
    assert state_of(lab, running) == "RUNNING"
    # One that does not answer has not said that there are no jobs.
    lab.ssh("ctl", f"scancel {waiting}; systemctl stop slurmctld")
    said = destroy(lab, check=False)
    assert "slurmctld does not say which jobs there are" in said
    lab.ssh("ctl", "systemctl start slurmctld")
    await_that(lambda: "is UP" in lab.ssh("ctl", "scontrol ping", check=False).stdout)
    assert standing(lab) == before
    cancel(lab)
    destroy(lab)
    assert set(standing(lab).values()) == {""}
    lab.up()
    assert submit(lab, "-w cn01 --mem=100")


def destroy(lab: RunningLab, check: bool = True) -> str:
    done = lab.pulumi("destroy", "--yes", "--skip-preview", check=check)
    assert check or done.returncode != 0
    return done.stdout + done.stderr


def standing(lab: RunningLab) -> dict[str, str]:
    """Daemons that run and roles that are held, node by node."""
    ask = (
        "systemctl list-units --no-legend --plain --state=active 'slurm*' munge* sackd*"
        " | grep -o '^[^ ]*'; ls /var/lib/slurmstack 2>/dev/null"
    )
    return {
        name: lab.ssh(name, ask, check=False).stdout for name in ("ctl", "login01", "cn01", "cn02")
    }


def test_a_mount_does_not_go_from_under_jobs_and_state(clean: RunningLab) -> None:
    """No NFS here: a tmpfs stands for the share, its unit and the record of it are as they would
    be."""
    lab = clean
    unit = "/etc/systemd/system/{}.mount"
    mount = (
        "mkdir -p {0} && mount -t tmpfs none {0} && echo Where={0} >{1} && "
        "echo path {1} >>/var/lib/slurmstack/system/manifest"
    )
    state = "/var/spool/slurmctld"
    lab.ssh("cn01", mount.format("/scratch", unit.format("scratch")))
    lab.ssh(
        "ctl",
        f"systemctl stop slurmctld; rm -rf /tmp/state; cp -a {state} /tmp/state; "
        f"{mount.format(state, unit.format('state'))}; cp -a /tmp/state/. {state}; "
        f"chown slurm:slurm {state}; systemctl start slurmctld",
    )
    try:
        await_that(lambda: node(lab, "cn01").startswith("idle"))
        job = submit(lab, "-w cn01 --mem=100")
        # The roles' texts change, and have no share.
        said = refused(lab, lambda it: it.update(precheck={"freeDisk": 100}))
        assert (
            "cn01: guard mounts-stay: refused (exit 1): /scratch would be something "
            f"else, and jobs run here that may have files there: {job}." in said
        )
        assert f"{state} would be something else, and slurmctld has its state there" in said
        lab.ssh("cn01", "mountpoint -q /scratch")
        assert state_of(lab, job) == "RUNNING"
        cancel(lab)
    finally:
        lab.ssh("cn01", "umount /scratch")
        lab.ssh(
            "ctl",
            f"systemctl stop slurmctld; cp -a {state}/. /tmp/state; umount {state}; "
            f"cp -a /tmp/state/. {state}; systemctl start slurmctld",
        )
        for name in ("cn01", "ctl"):
            # The next role's text takes the rest back.
            lab.ssh(name, "sed -i '/scratch.mount/d; /state.mount/d' "
                    "/var/lib/slurmstack/system/manifest; rm -f /etc/systemd/system/scratch.mount "
                    "/etc/systemd/system/state.mount")  # fmt: skip
