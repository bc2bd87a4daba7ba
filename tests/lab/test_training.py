"""docs/examples/training as it stands, by a user, on two nodes: PyTorch with Gloo on CPUs.

Where ``SLURMSTACK_TEST_PYTORCH`` is set: PyTorch is 119 MB to fetch for each machine, and a job
that Slurm starts again waits for two minutes.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import artifacts, shared_folder, test_images
from tests.lab.conftest import USERS, RunningLab, await_that

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(
        not os.environ.get("SLURMSTACK_TEST_PYTORCH"),
        reason="SLURMSTACK_TEST_PYTORCH: installs PyTorch and trains for minutes",
    ),
]

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "training"
SHARE = "/srv/share"
SHARERS = ("login01", "cn01", "cn02")
LAUNCHERS = ("srun", "torchrun")
STEPS = 150
#: As docs/training.md has it.
PYTORCH = {
    "description": "PyTorch of the distribution, for CPUs",
    "packages": ["python3-torch"],
    "programs": ["torchrun"],
    "setEnv": {"USE_LIBUV": "0"},
    "default": True,
}
#: In the place of train.py: it is that, and rank 1 fails.
FAILS = """\
import sys
import trained
whole = trained.batch
def batch(seed, step, place):
    if (step, place.rank) == (7, 1):
        raise ValueError("step 7 has no data")
    return whole(seed, step, place)
trained.batch = batch
trained.main(sys.argv[1:])
"""


class Site:
    """The lab, and a share on it on which alice has the example."""

    def __init__(self, lab: RunningLab, share: Path) -> None:
        self.lab, self.share = lab, share

    def mount(self, node: str) -> None:
        """It is not there any more when a machine starts."""
        self.lab.ssh(node, f"mkdir -p {SHARE}")
        shared_folder.bind(self.lab.lab, node, self.share, SHARE)

    def copied(self, name: str) -> Path:
        """Her copy of the example, as the machines' share has it."""
        folder = self.share / name
        shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
        for path in (folder, *folder.iterdir()):
            os.chown(path, USERS["alice"], USERS["alice"])
        return folder

    def submitted(self, launcher: str, words: str, options: str = "", folder: str = "train") -> str:
        """A job of hers: its number. Several of them share the nodes."""
        inner = (
            f"cd {SHARE}/{folder} && sbatch --parsable --mem=900 {options} "
            f"train-{launcher}.sbatch {words}"
        )
        return self.lab.ssh("login01", f"su alice -c {shlex.quote(inner)}").stdout.strip()

    def output(self, job: str, folder: str = "train") -> str:
        """What it has written; nothing yet where it has not begun."""
        path = self.share / folder / f"train-{job}.out"
        return path.read_text() if path.exists() else ""

    def checkpoint(self, job: str) -> int:
        """The steps in its newest one; 0 where there is none."""
        found = (self.share / "train" / "checkpoints" / job).glob("step-*.pt")
        return max((int(path.stem.removeprefix("step-")) for path in found), default=0)

    def known(self, job: str) -> dict[str, str]:
        """What slurmctld says of it."""
        shown = self.lab.ssh("ctl", f"scontrol -o show job {job}").stdout
        return dict(word.split("=", 1) for word in shown.split() if "=" in word)

    def ended(self, job: str, seconds: float = 600) -> dict[str, str]:
        """What slurmctld says of it when it neither waits nor runs any more."""
        over = ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL", "OUT_OF_MEMORY")
        await_that(lambda: self.known(job)["JobState"] in over, seconds)
        return self.known(job)


def numbers(output: str) -> list[tuple[str, str, str]]:
    """Rank, loss and weights, as each rank says them when all steps are done."""
    found = re.findall(rf"rank (\d): {STEPS} steps, loss ([\d.]+), weights (\w+)$", output, re.M)
    return sorted(found)


@pytest.fixture(scope="module")
def site(users: RunningLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    lab = users
    share = tmp_path_factory.mktemp("share")
    for path in (share, *share.parents[:3]):
        path.chmod(path.stat().st_mode | 0o055)
    made = Site(lab, share)
    before = lab.settings.read_text()

    def how(config: dict[str, Any]) -> None:
        config.update(software={"pytorch/2.6": PYTORCH}, diagnosis={})
        # A dead node is noticed within the time that a test has.
        config["slurm"]["SlurmdTimeout"] = 60

    try:
        for node in SHARERS:
            made.mount(node)
        made.copied("train")
        lab.change(how)
        began = time.monotonic()
        lab.up()
        print(f"PyTorch on {len(SHARERS)} machines: {time.monotonic() - began:.0f} s")
        yield made
    finally:
        lab.ssh("ctl", "squeue -h -o %A | xargs -r scancel")
        lab.settings.write_text(before)
        lab.up()
        for node in SHARERS:
            lab.ssh(node, f"umount {SHARE} && rmdir {SHARE}", check=False)


@pytest.fixture(scope="module")
def undisturbed(site: Site) -> list[tuple[str, str, str]]:
    """What both ranks say in the end, with both launchers."""
    began = time.monotonic()
    jobs = {launcher: site.submitted(launcher, f"--steps {STEPS}") for launcher in LAUNCHERS}
    for launcher, job in jobs.items():
        await_that(lambda job=job: "step 1 loss" in site.output(job))  # type: ignore[misc]
        print(f"{launcher}: first step {time.monotonic() - began:.0f} s after sbatch")
    told = {}
    for launcher, job in jobs.items():
        assert site.ended(job)["JobState"] == "COMPLETED", site.output(job)
        told[launcher] = numbers(site.output(job))
    assert told["srun"] == told["torchrun"], told
    return told["srun"]


def test_all_ranks_and_both_launchers_have_the_same_numbers(
    site: Site, undisturbed: list[tuple[str, str, str]]
) -> None:
    (first, *one), (second, *other) = undisturbed
    assert (first, second) == ("0", "1")
    assert one == other
    for path in (site.share / "train").glob("train-*.out"):
        said = path.read_text()
        assert "rank 0 of 2 on cn01: cpu" in said
        assert "rank 1 of 2 on cn02: cpu" in said
        losses = [float(it) for it in re.findall(r"step \d+ loss ([\d.]+)", said)]
        assert len(losses) == STEPS
        assert sum(losses[-10:]) < sum(losses[:10]) / 5


@pytest.mark.timeout(1800)
def test_one_whose_time_is_over_goes_on(
    site: Site, undisturbed: list[tuple[str, str, str]]
) -> None:
    """The signal comes 30 to 90 s after the start: up to a minute early (sbatch(1))."""
    words = f"--steps {STEPS} --pause 0.7"
    jobs = [site.submitted(launcher, words, "-t 2 --signal=USR1@30") for launcher in LAUNCHERS]
    for job in jobs:
        known = site.ended(job, 800)
        said = site.output(job)
        assert (known["JobState"], known["ExitCode"]) == ("COMPLETED", "0:0"), said
        assert int(known["Restarts"]) >= 1
        stopped = re.findall(r"stopped by (.+) after step (\d+), ", said)
        went_on = re.findall(rf"going on after step (\d+) of {STEPS}$", said, re.M)
        assert ["0", *(step for _, step in stopped)] == went_on
        assert {by for by, _ in stopped} <= {"SIGUSR1", "another rank"}
        assert numbers(said) == undisturbed


def test_nodes_are_measured_by_gloo(site: Site) -> None:
    """`slurmstack validate` takes PyTorch where it is: NCCL where that sees GPUs, else Gloo."""
    lab = site.lab
    words = ("validate", "cn[01-02]", "--level", "full", "--json", "--stack", lab.name)
    found = json.loads(lab.run("slurmstack", *words).stdout)["words"]
    means = "Gloo on CPUs, not NCCL"
    reduced = {it["node"]: it for it in found if it["test"].endswith(f"({means})")}
    assert {*reduced} == {"", "cn01", "cn02"}, found
    assert reduced[""]["test"] == f"all-reduce between nodes ({means})"
    assert {it["verdict"] for it in reduced.values()} == {"stand-in"}
    assert all(it["figure"] > 0 and it["unit"] == "GB/s" for it in reduced.values())


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_rank_that_fails_is_named(site: Site, launcher: str) -> None:
    folder = site.copied(f"fails-{launcher}")
    (folder / "train.py").rename(folder / "trained.py")
    (folder / "train.py").write_text(FAILS)
    job = site.submitted(launcher, "", folder=folder.name)
    known = site.ended(job)
    # It is nothing that another try would mend.
    assert (known["JobState"], known["Restarts"]) == ("FAILED", "0"), site.output(job, folder.name)
    done = site.lab.run("slurmstack", "diagnose", job, "--json", "--stack", site.lab.name)
    told = json.loads(done.stdout)
    assert told["cause"] == "python-exception", told
    assert "ValueError: step 7 has no data" in told["findings"][0]["evidence"][0]["line"]
    assert (told["first"]["rank"], told["first"]["node"]) == (1, "cn02")


def test_a_port_that_is_taken_is_named(site: Site) -> None:
    job = site.submitted("srun", "", "--hold")
    port = 20000 + int(job) % 10000
    listen = f"import socket, time; s = socket.create_server(('', {port})); time.sleep(600)"
    site.lab.ssh("cn01", f'systemd-run -q --unit=taken python3 -c "{listen}"')
    try:
        taken = f"ss -ltn | grep -q :{port}"
        await_that(lambda: site.lab.ssh("cn01", taken, check=False).returncode == 0)
        site.lab.ssh("ctl", f"scontrol release {job}")
        assert site.ended(job)["JobState"] == "FAILED"
    finally:
        site.lab.ssh("cn01", "systemctl stop taken")
    done = site.lab.run("slurmstack", "diagnose", job, "--json", "--stack", site.lab.name)
    told = json.loads(done.stdout)
    assert told["cause"] == "port-in-use", told


@pytest.mark.timeout(1800)
@pytest.mark.skipif(
    not os.environ.get("SLURMSTACK_TEST_ARTIFACTS"),
    reason="SLURMSTACK_TEST_ARTIFACTS names a folder with Enroot and Pyxis",
)
def test_in_an_image_the_numbers_are_the_same(
    site: Site, undisturbed: list[tuple[str, str, str]], tmp_path: Path
) -> None:
    """The batch script changed as the page says: the image is the product's own."""
    lab, kit = site.lab, artifacts.find(tmp_path)
    artifacts.bring(lab, *kit.files)
    image = {**test_images.PYTORCH, "environment": {"USE_LIBUV": "0"}}
    lab.set(enrootPyxis=kit.settings(), images={"images": {"pytorch": image}})
    lab.up()
    images = test_images.Site(lab)
    images.made("pytorch")
    images.told("pull", "pytorch", "--nodes", "cn[01-02]")
    script = site.copied("in-image") / "train-srun.sbatch"
    own = f"--container-image={test_images.ROOT}/pytorch.sqsh"
    text = script.read_text().replace("module load pytorch\n", "")
    mounts = '--container-mounts="$PWD" --container-workdir="$PWD"'
    script.write_text(text.replace("srun --label", f"srun {own} {mounts} --label"))
    began = time.monotonic()
    job = site.submitted("srun", f"--steps {STEPS}", folder="in-image")
    await_that(lambda: "step 1 loss" in site.output(job, "in-image"))
    print(f"in an image: first step {time.monotonic() - began:.0f} s after sbatch")
    said = site.output(job, "in-image")
    assert site.ended(job)["JobState"] == "COMPLETED", said
    assert numbers(site.output(job, "in-image")) == undisturbed


@pytest.mark.timeout(1800)
def test_one_whose_node_has_died_goes_on(
    site: Site, undisturbed: list[tuple[str, str, str]]
) -> None:
    """It waits for as many nodes as it had: here for the same one, which comes back. What PMIx and
    slurmd had left there when it died is nothing to a job of the same number."""
    lab = site.lab
    # A node of the lab has room for two.
    job = site.submitted("srun", f"--steps {STEPS} --pause 0.4")
    runs = "srun --mpi=pmix sleep $((900 * (1 - ${SLURM_RESTART_COUNT:-0})))"
    options = f"--parsable -N2 --mem=100 --requeue -o /dev/null --wrap {shlex.quote(runs)}"
    wrapped = f"cd /tmp && sbatch {options}"
    by_pmix = lab.ssh("login01", f"su alice -c {shlex.quote(wrapped)}").stdout.strip()
    left = f"ls -d /var/spool/slurmd/*pmix.{by_pmix}.0"
    await_that(lambda: lab.ssh("cn02", left, check=False).stdout.count("\n") == 2)
    await_that(lambda: site.checkpoint(job) >= 40)
    lab.kill("cn02")
    died = time.monotonic()
    try:
        for number in (job, by_pmix):
            await_that(lambda it=number: site.known(it)["Restarts"] == "1")  # type: ignore[misc]
        print(f"given back to the queue {time.monotonic() - died:.0f} s after the node's death")
        kept = site.checkpoint(job)
    finally:
        lab.boot("cn02")
        site.mount("cn02")
    await_that(lambda: f"going on after step {kept} of {STEPS}" in site.output(job), 400)
    print(f"goes on {time.monotonic() - died:.0f} s after the node's death")
    assert site.ended(job)["JobState"] == "COMPLETED", site.output(job)
    assert 40 <= kept < STEPS
    assert numbers(site.output(job)) == undisturbed
    assert site.ended(by_pmix)["JobState"] == "COMPLETED"
