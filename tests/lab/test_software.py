"""Software that users load: packages, Python environments, and what becomes of jobs with them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import artifacts, package_index
from tests.lab.conftest import RunningLab, await_that
from tests.unit.components.software.wheel import wheel

pytestmark = pytest.mark.lab

NODES = ("login01", "cn01", "cn02")
WHEELS = "/srv/wheels"
MPI = {
    "description": "Open MPI of the distribution", "packages": ["openmpi-bin", "python3-mpi4py"],
    "programs": ["mpirun"], "default": True,
}  # fmt: skip
RANKS = "from mpi4py import MPI as m; w = m.COMM_WORLD; print(w.rank, w.size, w.allreduce(w.rank))"


class Site:
    """The lab, and its lock file."""

    def __init__(self, lab: RunningLab, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        self.lock = folder / "lock.txt"

    def pin(self, version: str) -> None:
        """Nodes have a wheel of this version, and the lock file says so."""
        self.lock.write_text(wheel(self.folder, version))
        name = f"stand_in_package-{version}-py3-none-any.whl"
        content = (self.folder / name).read_bytes()
        for node in NODES:
            self.lab.send(node, f"mkdir -p {WHEELS} && cat >{WHEELS}/{name}", content)

    def loaded(self, command: str, node: str = "cn01") -> str:
        """What a command says to alice with the environment loaded, in a job on a node."""
        words = f"module load stand-in && {command}"
        done = self.lab.ssh(
            "login01", f"cd /tmp && runuser -u alice -- srun --mem=100 -w {node} bash -lc '{words}'"
        )
        return done.stdout.strip()


@pytest.fixture(scope="module")
def site(users: RunningLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(users, tmp_path_factory.mktemp("software"))
    made.pin("1.0")
    environment = {"lock": str(made.lock), "index": WHEELS}
    software = {
        "openmpi/5.0": MPI,
        "stand-in/2026": {"description": "A stand-in", "environment": environment},
    }
    try:
        with users.having(software=software):
            yield made
        for node in NODES:
            users.ssh(node, "! test -e /opt/slurmstack && ! test -e /opt/modulefiles/openmpi")
            users.ssh(node, "! command -v site-tool")
    finally:
        for node in NODES:
            users.ssh(node, f"rm -rf {WHEELS}")


def test_an_mpi_program_runs_over_two_nodes_by_its_module(site: Site) -> None:
    words = f'module load openmpi && python3 -c "{RANKS}"'
    done = site.lab.ssh(
        "login01", f"cd /tmp && runuser -u alice -- srun --mpi=pmix -N2 -n2 bash -lc '{words}'"
    )
    assert sorted(done.stdout.splitlines()) == ["0 2 1", "1 2 1"]


def test_a_job_keeps_the_environment_that_it_began_with(site: Site) -> None:
    lab = site.lab
    assert site.loaded("stand-in; echo $VIRTUAL_ENV").startswith("1.0\n/opt/slurmstack/software/")
    script = (
        "#!/bin/bash -l\nmodule load stand-in\ntouch /home/alice/began\n"
        "until test -e /home/alice/go-on; do sleep 0.2; done\nstand-in >/home/alice/said\n"
    )
    lab.ssh("cn01", "rm -f /home/alice/began /home/alice/go-on /home/alice/said")
    words = "cd /tmp && runuser -u alice -- sbatch --parsable --mem=100 -w cn01 -o /dev/null"
    job = lab.send("login01", words, script.encode()).decode().strip()
    await_that(lambda: lab.ssh("cn01", "test -e /home/alice/began", check=False).returncode == 0)
    site.pin("1.1")
    lab.up()
    assert site.loaded("stand-in") == "1.1"
    lab.ssh("cn01", "touch /home/alice/go-on")
    await_that(lambda: not lab.ssh("ctl", f"squeue -h -j {job}", check=False).stdout)
    assert (
        lab.ssh(
            "cn01",
            "cat /home/alice/said; rm -f /home/alice/began /home/alice/go-on /home/alice/said",
        ).stdout
        == "1.0\n"
    )
    # Twice is once.
    lab.pulumi("preview", "--expect-no-changes")


def test_an_index_is_asked_by_its_address(site: Site) -> None:
    """And no other, whatever a node's pip is set to."""
    lab = site.lab
    for node in NODES:
        lab.ssh(
            node, "printf '[global]\\nextra-index-url = http://10.255.255.1/\\n' >/etc/pip.conf"
        )
    before = lab.settings.read_text()
    try:
        with package_index.served(lab, NODES) as index:
            for version, url in (("1.2", package_index.TLS), ("1.3", package_index.PLAIN)):
                site.lock.write_text(wheel(site.folder, version))
                index.add(site.folder / f"stand_in_package-{version}-py3-none-any.whl")
                environment = {"lock": str(site.lock), "index": url}
                stand_in = {"description": "A stand-in", "environment": environment}
                lab.change(lambda it, of=stand_in: it["software"].update({"stand-in/2026": of}))  # type: ignore[misc]
                lab.up()
                told = [site.loaded("stand-in", node) for node in ("cn01", "cn02")]
                assert told == [version] * 2
    finally:
        for node in NODES:
            lab.ssh(node, "rm /etc/pip.conf")
        site.pin("1.1")
        lab.settings.write_text(before)
        lab.up()
    assert site.loaded("stand-in", "cn02") == "1.1"


#: A program that says its version in the end, whatever was installed since it began.
TOOL = """#!/bin/sh
if [ "$1" = waits ]; then
    touch /home/alice/began
    until test -e /home/alice/go-on; do sleep 0.2; done
fi
echo VERSION
exit
"""


def test_a_package_file_of_the_site_changes_under_a_job(site: Site, tmp_path: Path) -> None:
    """Under a job that runs the program, which ends as it began."""
    lab, before = site.lab, site.lab.settings.read_text()

    def wants(version: str) -> dict[str, object]:
        file = artifacts.package(tmp_path, "site-tool", version, TOOL.replace("VERSION", version))
        artifacts.bring(lab, file)
        files = [artifacts.entry(file)]
        return {"description": "Of the site", "packageFiles": files, "programs": ["site-tool"]}

    def installed() -> list[str]:
        asks = "dpkg-query -W -f '${db:Status-Abbrev}${Version}\\n' site-tool 2>/dev/null; true"
        return [lab.ssh(node, asks).stdout.strip() for node in NODES]

    files = "/home/alice/began /home/alice/go-on /home/alice/said"
    try:
        lab.change(lambda it: it["software"].update({"site-tool/1": wants("1.0-1")}))
        lab.up()
        assert installed() == ["ii 1.0-1"] * 3
        lab.ssh("cn01", f"rm -f {files}")
        script = (
            "#!/bin/bash -l\nmodule load site-tool\nsite-tool waits >/home/alice/said || exit\n"
            "site-tool >>/home/alice/said\n"
        )
        words = "cd /tmp && runuser -u alice -- sbatch --parsable --mem=100 -w cn01 -o /dev/null"
        job = lab.send("login01", words, script.encode()).decode().strip()
        began = "test -e /home/alice/began"
        await_that(lambda: lab.ssh("cn01", began, check=False).returncode == 0)
        lab.change(lambda it: it["software"].update({"site-tool/1": wants("1.1-1")}))
        lab.up()
        assert installed() == ["ii 1.1-1"] * 3
        lab.ssh("cn01", "touch /home/alice/go-on")
        await_that(lambda: not lab.ssh("ctl", f"squeue -h -j {job}", check=False).stdout)
        assert lab.ssh("cn01", "cat /home/alice/said").stdout.split() == ["1.0-1", "1.1-1"]
        lab.pulumi("preview", "--expect-no-changes")
    finally:
        lab.ssh("cn01", f"rm -f {files}")
        lab.settings.write_text(before)
        lab.up()
    # With its entry go its module and what served it; the package goes with the last one (`site`).
    assert installed() == ["ii 1.1-1"] * 3
    for node in NODES:
        lab.ssh(node, "! test -e /opt/modulefiles/site-tool")
        lab.ssh(node, "! grep -rl slurmstack /etc/apt/sources.list.d")
    lab.ssh("ctl", "! systemctl is-active slurmstack-packages")
    lab.pulumi("preview", "--expect-no-changes")


def test_modules_of_a_share_are_seen(site: Site) -> None:
    """As Spack and EESSI bring them: a tree of Lua files that is nobody's here."""
    lab, tree = site.lab, "/srv/tree/Core"
    text = 'whatis("from a share")\nsetenv("FROM", "a share")\n'
    for node in NODES:
        lab.send(node, f"mkdir -p {tree}/shared && cat >{tree}/shared/1.0.lua", text.encode())
    storage = {"tree": {"type": "bind", "source": "/srv/tree", "mount": "/opt/tree",
                        "clients": "login01,cn[01-02]"}}  # fmt: skip
    before = lab.settings.read_text()
    try:
        lab.change(lambda it: it["modules"].update(furtherPaths=["/opt/tree/Core"]))
        lab.set(storage=storage)
        lab.up()
        words = "module load shared stand-in && echo $FROM && stand-in"
        run = f"cd /tmp && runuser -u alice -- srun --mem=100 -w cn02 bash -lc '{words}'"
        assert lab.ssh("login01", run).stdout.splitlines() == ["a share", "1.1"]
    finally:
        lab.settings.write_text(before)
        lab.up()
        for node in NODES:
            lab.ssh(node, "rm -r /srv/tree")


def test_a_wheel_with_other_bytes_is_not_taken(site: Site) -> None:
    pinned = hashlib.sha256((site.folder / "stand_in_package-1.1-py3-none-any.whl").read_bytes())
    good = site.lock.read_text()
    site.lock.write_text(good.replace(pinned.hexdigest(), "0" * 64))
    said = " ".join(site.lab.up(check=False).split())
    assert "stand-in/2026 was not made: ERROR: THESE PACKAGES DO NOT MATCH THE HASHES" in said
    # What was there goes on.
    assert site.loaded("stand-in", "cn02") == "1.1"
    site.lock.write_text(good)
    site.lab.up()
    # An environment that was lost is made again.
    site.lab.ssh("cn02", "rm -rf /opt/slurmstack/software/stand-in")
    site.lab.set(reapply={"software@cn02": "once"})
    site.lab.up()
    site.lab.set(reapply=None)
    assert site.loaded("stand-in", "cn02") == "1.1"
