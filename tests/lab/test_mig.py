"""MIG instances of compute nodes: with jobs there, where they cannot be made, after a boot, and
when somebody cuts by hand. systemd and Slurm are real; nvidia-smi is a stand-in (stand_in/nvidia),
and so are the devices behind GRES (`standIn: true`), since the distribution's Slurm has no NVML.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from components.gpu.mig import OURS
from tests.lab.artifacts import STAND_IN
from tests.lab.conftest import Run, RunningLab, await_that
from tests.lab.test_guards import cancel, node, state_of, submit

pytestmark = pytest.mark.lab

NODES = ("cn01", "cn02")
IDLE = "idle|none|Unknown"
#: Instances that one GPU takes, beside one that is whole; both cut; the same the other way round.
FIRST = {"0": {"3g.40gb": 2}}
SECOND = {"0": {"3g.40gb": 1, "1g.10gb": 4}, "1": {"7g.80gb": 1}}
THIRD = {"1": SECOND["0"], "0": SECOND["1"]}
PROFILES = {"3g.40gb": "3g.40gb 3g.40gb", "7g.80gb": "7g.80gb"}
DRIVER = "/srv/stand-in/sys/module/nvidia"


class Site:
    """The lab with both nodes in one class of two GPUs each, cn01 being its canary."""

    def __init__(self, lab: RunningLab) -> None:
        self.lab = lab

    def cut(self, mig: dict[str, Any] | None, whole: int) -> None:
        """Settings by which GPUs are cut so, beside so many whole ones."""
        gres: list[dict[str, Any]] = []
        if whole:
            gres.append({"Type": "h100", "Count": whole, "standIn": True})
        counts: dict[str, int] = {}
        for instances in (mig or {}).values():
            for profile, count in instances.items():
                counts[profile] = counts.get(profile, 0) + count
        gres += [{"profile": it, "Count": count, "standIn": True} for it, count in counts.items()]
        one = {"name": "dgx", "hosts": "cn[01-02]", "Features": ["dgx"], "Gres": gres}
        self.lab.set(nodes=[one if mig is None else {**one, "mig": mig}])

    def gpus(self, name: str) -> list[str]:
        """What nvidia-smi tells of a node's GPUs, one after the other."""
        told = self.lab.ssh(name, "nvidia-smi -L").stdout
        return [
            " ".join(line.split()[1] for line in of_one.splitlines()[1:] if "MIG" in line)
            for of_one in told.split("GPU ")
            if "UUID" in of_one
        ]

    def gres(self, name: str) -> set[str]:
        """What slurmctld has of it."""
        shown = self.lab.ssh("ctl", f"scontrol show node {name}").stdout
        told = next(it.split("=", 1)[1] for it in shown.split() if it.startswith("Gres="))
        return {*re.sub(r"\([^)]*\)", "", told).split(",")}

    def slurmd(self) -> str:
        words = "systemctl show -p MainPID --value slurmd"
        return " ".join(self.lab.ssh(name, words).stdout.strip() for name in NODES)

    def works(self, name: str, gres: str) -> None:
        """A job gets it there."""
        words = f"cd / && srun -w {name} --gres={gres} --mem=50 hostname"
        assert self.lab.ssh("ctl", words).stdout.strip() == name


@pytest.fixture(scope="module")
def site(lab: RunningLab) -> Iterator[Site]:
    made, before = Site(lab), lab.settings.read_text()
    program = (STAND_IN / "nvidia/nvidia-smi.sh").read_text().replace("VERSION", "570.1.1")
    cancel(lab)
    for name in NODES:
        place = f"mkdir -p {DRIVER} && echo 570.1.1 >{DRIVER}/version"
        install = "cat >/usr/local/bin/nvidia-smi && chmod 755 /usr/local/bin/nvidia-smi"
        lab.send(name, f"{place} && {install}", program.encode())
    try:
        made.cut(None, 2)
        lab.up()
        yield made
    finally:
        cancel(lab)
        for name in NODES:
            lab.ssh(name, "rm -f /etc/stand-in-no-instances")
        if "mig: {}" not in lab.settings.read_text():  # a test has failed
            made.cut({}, 2)
            lab.up()
        lab.settings.write_text(before)
        lab.up()
        # Once they are whole, the key can go.
        assert lab.ssh("cn01", "ls /etc/slurmstack/mig", check=False).returncode != 0
        undone = "rm -rf /usr/local/bin/nvidia-smi /srv/stand-in /run/stand-in-mig"
        for name in NODES:
            lab.ssh(name, undone)


def test_gpus_are_cut_when_jobs_have_ended_and_before_slurm_conf_names_it(site: Site) -> None:
    lab = site.lab
    job = submit(lab, "-w cn02 --mem=100 --gres=gpu:h100:1")
    site.cut(FIRST, 1)
    told = " ".join(lab.run("slurmstack", "plan", check=False).stdout.split())
    assert "cn[01-02] drained first, given back afterwards (/etc/slurmstack/mig" in told, told
    run = Run(lab)
    run.start()
    # The canary is cut and closed, and the other one waits for its job, with nothing changed yet.
    run.comes_to(lambda: node(lab, "cn02").startswith(f"draining|{OURS}"))
    assert node(lab, "cn01").startswith(f"drained|{OURS}")
    assert (site.gpus("cn01"), site.gpus("cn02")) == ([PROFILES["3g.40gb"], ""], ["", ""])
    assert state_of(lab, job) == "RUNNING"
    assert "3g.40gb" not in lab.ssh("ctl", "cat /etc/slurm/slurm.conf /etc/slurm/gres.conf").stdout
    lab.ssh("ctl", f"scancel {job}")
    run.join()
    assert run.status == 0, run.said
    for name in NODES:
        assert site.gpus(name) == [PROFILES["3g.40gb"], ""]
        assert site.gres(name) == {"gpu:h100:1", "gpu:3g.40gb:2"}
        assert node(lab, name) == IDLE
        site.works(name, "gpu:3g.40gb:2,gpu:h100:1")
    lab.pulumi("preview", "--expect-no-changes")


def test_jobs_that_wait_for_what_goes_stop_it_before_anything(site: Site) -> None:
    lab = site.lab
    job = submit(lab, "--hold --gres=gpu:h100:1", "PENDING")
    site.cut(SECOND, 0)
    said = " ".join(lab.up(check=False).split())
    assert "slurmstack: cn01: guard jobs-wait: refused" in said, said
    assert f"jobs wait for gpu:h100, which no node will have: {job}." in said, said
    for name in NODES:
        assert node(lab, name) == IDLE
        assert site.gpus(name) == [PROFILES["3g.40gb"], ""]
    cancel(lab)


def test_a_node_that_cannot_be_cut_stays_closed_and_slurm_conf_as_it_is(site: Site) -> None:
    lab = site.lab
    lab.ssh("cn02", "touch /etc/stand-in-no-instances")
    said = " ".join(lab.up(check=False).split())
    expected = "expected MIG with 1 × 3g.40gb + 4 × 1g.10gb"
    assert f"GPU 0 is MIG with no instance, {expected}" in said, said
    assert "-cgi 3g.40gb,1g.10gb,1g.10gb,1g.10gb,1g.10gb -C" in said, said
    assert "Insufficient Resources" in said
    for name in NODES:
        assert node(lab, name).startswith(f"drained|{OURS}")
        assert "gpu:3g.40gb:2" in site.gres(name)
    lab.ssh("cn02", "rm /etc/stand-in-no-instances")
    lab.up()
    for name in NODES:
        assert site.gpus(name) == ["3g.40gb 1g.10gb 1g.10gb 1g.10gb 1g.10gb", "7g.80gb"]
        assert node(lab, name) == IDLE
        site.works(name, "gpu:3g.40gb:1,gpu:1g.10gb:4,gpu:7g.80gb:1")


def test_the_same_instances_on_other_gpus_have_slurmd_look_again(site: Site) -> None:
    """slurm.conf is the same then, and nothing else would start it anew. A person's drain stays."""
    lab, before = site.lab, site.slurmd()
    lab.ssh("ctl", "scontrol update node=cn02 state=drain reason='of a person'")
    try:
        site.cut(THIRD, 0)
        lab.up()
        assert node(lab, "cn02") == "drained|of a person|root"
    finally:
        lab.ssh("ctl", "scontrol update node=cn02 state=undrain")
    assert node(lab, "cn01") == IDLE
    for name in NODES:
        assert site.gpus(name) == ["7g.80gb", "3g.40gb 1g.10gb 1g.10gb 1g.10gb 1g.10gb"]
    assert not {*before.split()} & {*site.slurmd().split()}


def test_a_boot_makes_them_again_before_slurmd(site: Site) -> None:
    lab, before = site.lab, site.gpus("cn01")
    lab.kill("cn01")
    lab.boot("cn01")
    words = "systemctl show -p ActiveState -p ActiveEnterTimestampMonotonic slurmstack-mig slurmd"
    await_that(lambda: lab.ssh("cn01", words).stdout.count("=active") == 2)
    assert site.gpus("cn01") == before
    shown = lab.ssh("cn01", words).stdout
    made, slurmd = (
        int(line.split("=")[1]) for line in shown.splitlines() if line.startswith("ActiveEnter")
    )
    assert made < slurmd
    await_that(lambda: "*" not in lab.ssh("ctl", "sinfo -h -N -n cn01 -o %T").stdout)
    lab.ssh("ctl", "scontrol update node=cn01 state=resume", check=False)
    await_that(lambda: node(lab, "cn01") == IDLE)


def test_what_is_cut_by_hand_is_named_and_mended_where_nobody_works(site: Site) -> None:
    lab, before = site.lab, site.gpus("cn02")
    lab.ssh("cn02", "nvidia-smi mig -i 0 -dgi && nvidia-smi mig -i 0 -cgi 3g.40gb -C")
    job = submit(lab, "-w cn02 --mem=100")
    told = json.loads(lab.run("slurmstack", "drift", "--json", check=False).stdout)
    assert "GPU 0 is MIG with 1 × 3g.40gb, expected MIG with 1 × 7g.80gb" in str(told), told
    done = lab.run("slurmstack", "drift", "--fix", "--yes", check=False)
    assert done.returncode != 0
    assert "and cn02 is in use (MIXED, jobs: " in " ".join(done.stderr.split()), done.stderr
    assert state_of(lab, job) == "RUNNING"
    assert site.gpus("cn02") != before
    cancel(lab)
    lab.ssh("ctl", "scontrol update node=cn02 state=drain reason='of a person'")
    slurmd = site.slurmd().split()
    lab.run("slurmstack", "drift", "--fix", "--yes")
    assert site.gpus("cn02") == before
    assert [new == old for new, old in zip(site.slurmd().split(), slurmd, strict=True)] == [
        True, False,
    ]  # fmt: skip
    assert node(lab, "cn02") == "drained|of a person|root"
    lab.ssh("ctl", "scontrol update node=cn02 state=undrain")


def test_they_are_whole_again_the_same_way(site: Site) -> None:
    lab, before = site.lab, site.gpus("cn01")
    site.cut(None, 2)
    said = " ".join(lab.up(check=False).split())
    assert "the GPUs of cn[01-02] are cut into MIG instances, and mig is no longer there" in said
    assert [site.gpus(name) for name in NODES] == [before, before]
    assert "gpu:7g.80gb:1" in site.gres("cn01")
    site.cut({}, 2)
    lab.up()
    for name in NODES:
        assert site.gpus(name) == ["", ""]
        assert site.gres(name) == {"gpu:h100:2"}
        assert node(lab, name) == IDLE
    site.works("cn01", "gpu:h100:2")
