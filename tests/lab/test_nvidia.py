"""The GPU driver of compute nodes: with jobs there, in turns, and where it cannot be built. The
driver's packages are stand-ins (artifacts.py); dpkg, apt, systemd and Slurm are real."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.gpu.nvidia import OURS
from tests.lab import artifacts
from tests.lab.artifacts import PLACE, entry
from tests.lab.conftest import Run, RunningLab, await_that
from tests.lab.test_guards import cancel, node, state_of, submit

pytestmark = pytest.mark.lab

NODES = ("cn01", "cn02")
FIRST, SECOND, THIRD, FOURTH = "570.1.1", "570.2.2", "570.3.3", "570.4.4"
FIFTH = "570.5.5"
#: A machine of the lab has no modules of its own, nor a place where the kernel tells of them:
#: whoever logs in there finds it elsewhere (pam_env(8)).
PREPARED = (
    "mkdir -p /srv/stand-in/sys/module /lib/modules/$(uname -r)/build; "
    "echo SLURMSTACK_SYS=/srv/stand-in/sys >>/etc/environment"
)
UNDONE = (
    "sed -i /^SLURMSTACK_SYS/d /etc/environment; rm -rf /lib/modules/$(uname -r)/build "
    "/srv/stand-in /var/lib/stand-in /var/lib/dkms /etc/stand-in-build-fails"
)


class Site:
    """The lab with both nodes in one class, cn01 being its canary, and a driver for them."""

    def __init__(self, lab: RunningLab, folder: Path) -> None:
        self.lab, self.folder = lab, folder

    def bring(self, version: str, **changes: Any) -> None:
        """Packages of this version onto the package host, and into the settings."""
        self.lab.set(nvidia=driver(self.lab, self.folder, version))

    @property
    def stack(self) -> dict[str, Any]:
        config = yaml.safe_load(self.lab.settings.read_text())["config"]
        return copy.deepcopy(config["slurmstack:nvidia"])

    def patience(self, seconds: int) -> None:
        self.lab.set(rollout={"drainTimeout": seconds})

    def loaded(self, name: str) -> str:
        return loaded(self.lab, name)

    def daemons(self, name: str) -> str:
        words = "systemctl show -p InvocationID --value nvidia-persistenced nvidia-fabricmanager"
        return self.lab.ssh(name, words).stdout

    def in_background(self) -> Run:
        run = Run(self.lab)
        run.start()
        return run


def driver(lab: RunningLab, folder: Path, version: str) -> dict[str, Any]:
    """Settings of a driver for both nodes, whose packages the package host has then."""
    files, package = artifacts.driver_stand_ins(folder, version), f"{version}-0standin1"
    artifacts.bring(lab, *files)
    return {
        "hosts": "cn[01-02]", "driver": {"version": package},
        "fabricManager": {"version": package}, "packageFiles": [entry(file) for file in files],
    }  # fmt: skip


def loaded(lab: RunningLab, name: str) -> str:
    """What the kernel and the packages of a node have."""
    words = (
        "cat /srv/stand-in/sys/module/nvidia/version 2>/dev/null || echo none; "
        "dpkg-query -W -f '${Version}\n' 'nvidia-*' 'libnvidia-*' 2>/dev/null | sort -u"
    )
    return " ".join(lab.ssh(name, words).stdout.split())


def whole(version: str) -> str:
    return f"{version} {version}-0standin1"


@pytest.fixture(scope="module")
def site(lab: RunningLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made, before = Site(lab, tmp_path_factory.mktemp("driver")), lab.settings.read_text()
    cancel(lab)
    for name in NODES:
        lab.ssh(name, PREPARED)
    try:
        lab.set(nodes=[{"name": "dgx", "hosts": "cn[01-02]", "Features": ["dgx"]}])
        lab.up()
        yield made
    finally:
        cancel(lab)
        lab.ssh("ctl", "scontrol update node=cn[01-02] state=drain reason='the test ends'")
        lab.settings.write_text(before)
        for name in NODES:
            lab.ssh(name, "rm -f /etc/stand-in-build-fails")
        lab.up()
        for name in NODES:
            lab.ssh(name, UNDONE)
        lab.ssh("ctl", f"rm -rf {PLACE}; scontrol update node=cn[01-02] state=undrain")


def test_the_first_driver_waits_for_jobs_and_goes_no_further_than_the_canary(site: Site) -> None:
    lab = site.lab
    job = submit(lab, "-w cn01 --mem=100")
    other = submit(lab, "-w cn02 --mem=100")
    site.patience(1)
    site.bring(FIRST)
    said = " ".join(lab.up(check=False).split())
    assert "slurmstack: cn01: withdraw node-drained: refused" in said, said
    assert f"(slurmstack:rollout.drainTimeout): {job} (root)" in said, said
    assert "nothing was changed" in said
    assert "rollout stopped: " in said
    for name in NODES:
        assert site.loaded(name) == "none"
        assert node(lab, name) == "mixed|none|Unknown"
    assert (state_of(lab, job), state_of(lab, other)) == ("RUNNING", "RUNNING")
    cancel(lab)
    lab.up()
    for name in NODES:
        assert site.loaded(name) == whole(FIRST)
        assert node(lab, name) == "idle|none|Unknown"
        shown = lab.ssh(name, "systemctl is-active nvidia-persistenced nvidia-fabricmanager")
        assert shown.stdout.split() == ["active", "active"]
    lab.pulumi("preview", "--expect-no-changes")


def test_a_newer_driver_goes_to_the_canary_and_then_to_the_rest(site: Site) -> None:
    lab = site.lab
    site.patience(300)
    site.bring(SECOND)
    told = " ".join(lab.run("slurmstack", "plan", check=False).stdout.split())
    assert "cn[01-02] drained first, given back afterwards (package:" in told, told
    before = site.daemons("cn01")
    long = submit(lab, "-w cn01 --mem=100")
    waiting = submit(lab, "-w cn01 --exclusive", "PENDING")
    elsewhere = submit(lab, "-w cn02 --mem=100")
    run = site.in_background()
    run.comes_to(lambda: OURS in node(lab, "cn01"))
    assert node(lab, "cn02") == "mixed|none|Unknown"
    assert (site.loaded("cn01"), site.loaded("cn02")) == (whole(FIRST), whole(FIRST))
    lab.ssh("ctl", f"scancel {long}")
    # The canary is done and takes its waiting job, while the other still has its own.
    run.comes_to(lambda: OURS in node(lab, "cn02"))
    assert site.loaded("cn01") == whole(SECOND)
    await_that(lambda: state_of(lab, waiting) == "RUNNING")
    assert site.loaded("cn02") == whole(FIRST)
    assert state_of(lab, elsewhere) == "RUNNING"
    lab.ssh("ctl", f"scancel {elsewhere}")
    run.join()
    assert run.status == 0, run.said
    assert site.loaded("cn02") == whole(SECOND)
    assert site.daemons("cn01") != before
    assert (state_of(lab, waiting), node(lab, "cn02")) == ("RUNNING", "idle|none|Unknown")
    cancel(lab)
    # The versions are held, whatever a source offers.
    held = lab.ssh("cn01", "apt-cache policy nvidia-utils-570-server; apt-config dump").stdout
    assert re.search(rf"\*\*\* {SECOND}-0standin1 1001", held), held
    assert 'Unattended-Upgrade::Package-Blacklist:: "nvidia-"' in held


def test_versions_that_do_not_fit_reach_no_node(site: Site) -> None:
    lab, stack = site.lab, site.stack
    stack["fabricManager"]["version"] = "570.9.9-1"
    stack["cuda"] = ["13.0"]
    before = lab.settings.read_text()
    lab.set(nvidia=stack)
    said = " ".join(lab.up(check=False).split())
    lab.settings.write_text(before)
    assert "slurmstack:nvidia.fabricManager.version: expected 570.2.2, the driver's" in said
    assert "slurmstack:nvidia.driver.version: expected 580 or newer, which CUDA 13.0 needs" in said
    assert "nothing was contacted" in said


def test_a_node_that_a_person_drained_stays_so_and_gets_the_driver(site: Site) -> None:
    lab = site.lab
    lab.ssh("ctl", "scontrol update node=cn02 state=drain reason='of a person'")
    try:
        site.bring(THIRD)
        lab.up()
        assert [site.loaded(name) for name in NODES] == [whole(THIRD), whole(THIRD)]
        assert node(lab, "cn02") == "drained|of a person|root"
        assert node(lab, "cn01") == "idle|none|Unknown"
    finally:
        lab.ssh("ctl", "scontrol update node=cn02 state=undrain")


def test_a_node_that_has_the_version_already_is_not_drained(site: Site) -> None:
    """Also where the role is new there: a site's own driver is taken over."""
    lab = site.lab
    before = site.daemons("cn01")
    job = submit(lab, "-w cn01 --mem=100")
    own, kept = "/var/lib/slurmstack/nvidia", "/var/lib/slurmstack-nvidia-kept"
    lab.ssh("cn01", f"mv {own} {kept}")
    try:
        lab.set(reapply={"nvidia@cn01": "taken-over"})
        lab.up()
    finally:
        # With it goes what the packages came by, which the end of the test takes back.
        lab.ssh("cn01", f"rm -rf {own} && mv {kept} {own}")
    assert state_of(lab, job) == "RUNNING"
    assert node(lab, "cn01") == "mixed|none|Unknown"
    assert site.daemons("cn01") == before
    assert site.loaded("cn01") == whole(THIRD)
    lab.set(reapply=None)
    lab.up()
    assert state_of(lab, job) == "RUNNING"
    cancel(lab)


def test_a_driver_that_cannot_be_built_stops_at_the_canary_and_goes_back(site: Site) -> None:
    lab, before = site.lab, site.stack
    job = submit(lab, "-w cn02 --mem=100")
    lab.ssh("cn01", "touch /etc/stand-in-build-fails")
    site.bring(FOURTH)
    said = " ".join(lab.up(check=False).split())
    assert "slurmstack: cn01: packages: Error! Bad return status for module build" in said, said
    assert "make.log: nvidia/nv-dma.c:66:13: error: too few arguments" in said, said
    assert node(lab, "cn01").startswith(f"drained|{OURS}")
    assert site.loaded("cn02") == whole(THIRD)
    assert (state_of(lab, job), node(lab, "cn02")) == ("RUNNING", "mixed|none|Unknown")
    # As it is, it fails again, and nothing else does.
    lab.up(check=False)
    assert node(lab, "cn01").startswith(f"drained|{OURS}")
    assert state_of(lab, job) == "RUNNING"
    lab.ssh("cn01", "rm /etc/stand-in-build-fails")
    lab.set(nvidia=before)
    lab.up()
    assert [site.loaded(name) for name in NODES] == [whole(THIRD), whole(THIRD)]
    assert node(lab, "cn01") == "idle|none|Unknown"
    assert (state_of(lab, job), node(lab, "cn02")) == ("RUNNING", "mixed|none|Unknown")
    cancel(lab)


def test_no_driver_is_taken_from_a_node_in_use(site: Site) -> None:
    lab, before = site.lab, site.lab.settings.read_text()
    job = submit(lab, "-w cn01 --mem=100")
    lab.set(nvidia=None)
    said = " ".join(lab.up(check=False).split())
    lab.settings.write_text(before)
    assert "slurmstack: cn01: guard driver-stays: refused" in said, said
    assert "slurmstack node drain cn01" in said
    assert site.loaded("cn01") == whole(THIRD)
    assert (state_of(lab, job), node(lab, "cn01")) == ("RUNNING", "mixed|none|Unknown")
    cancel(lab)
    lab.up()


def test_a_newer_driver_has_the_gpus_cut_as_they_were(site: Site) -> None:
    """Instances go with the module. (Both in one run cannot be shown here: the files that stand for
    devices come with slurmd's own role, later.)"""
    lab, before = site.lab, site.lab.settings.read_text()
    dgx = {"name": "dgx", "hosts": "cn[01-02]", "Features": ["dgx"]}
    instances = {"profile": "3g.40gb", "Count": 4, "standIn": True}
    cut = "nvidia-smi -L | grep -c 'MIG 3g.40gb'"
    site.patience(300)
    lab.set(nodes=[{**dgx, "Gres": [instances], "mig": {"0-1": {"3g.40gb": 2}}}])
    try:
        lab.up()
        site.bring(FIFTH)
        lab.up()
        for name in NODES:
            assert site.loaded(name) == whole(FIFTH)
            assert lab.ssh(name, cut).stdout == "4\n"
            assert node(lab, name) == "idle|none|Unknown"
        took = "cd / && srun -w cn02 --gres=gpu:3g.40gb:2 --mem=50 hostname"
        assert lab.ssh("ctl", took).stdout == "cn02\n"
    finally:
        lab.set(nodes=[{**dgx, "mig": {}}])
        lab.up()
        assert [lab.ssh(name, cut, check=False).stdout for name in NODES] == ["0\n", "0\n"]
        lab.settings.write_text(before)
    lab.up()
