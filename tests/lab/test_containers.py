"""Container runtimes and package sources on real nodes: with stand-ins, or with the real Enroot and
Pyxis where ``SLURMSTACK_TEST_ARTIFACTS`` names a folder with them (see artifacts.py)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from templates.rendering import render
from tests.lab import artifacts
from tests.lab.artifacts import Artifacts, bring
from tests.lab.conftest import RunningLab
from tests.lab.rest_client import Client, token

pytestmark = pytest.mark.lab

Settings = dict[str, Any]
Change = Callable[..., None]

#: Makes a squashfs image from a handful of the node's own programs.
IMAGE = r"""
set -e
command -v mksquashfs >/dev/null || apt-get install -y -q squashfs-tools >/dev/null 2>&1
root=$(mktemp -d)
mkdir -p $root/bin $root/dev $root/etc $root/proc $root/root $root/sys $root/tmp $root/usr $root/var
for program in /bin/sh /bin/bash /bin/cat /usr/bin/env; do
  cp -L $program $root/bin/
  for library in $(ldd $program | grep -o '/[^ ]*'); do
    mkdir -p $root$(dirname $library)
    cp -L $library $root$library
  done
done
echo 'made on the spot' >$root/etc/marker
echo 'root:x:0:0:root:/root:/bin/sh' >$root/etc/passwd
echo 'root:x:0:' >$root/etc/group
rm -f /srv/tiny.sqsh
mksquashfs $root /srv/tiny.sqsh -no-progress >/dev/null
rm -rf $root
"""


def daemons(lab: RunningLab) -> list[str]:
    """Changes when slurmctld or a slurmd is restarted."""
    ask = "systemctl show --property=InvocationID --value {}"
    return [
        lab.ssh(node, ask.format(f"{unit}.service")).stdout.strip()
        for node, unit in (("ctl", "slurmctld"), ("cn01", "slurmd"), ("cn02", "slurmd"))
    ]


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    return artifacts.find(tmp_path_factory.mktemp("artifacts"))


@pytest.fixture(scope="module")
def containers(lab: RunningLab, kit: Artifacts) -> Iterator[RunningLab]:
    """The lab with container runtimes; afterwards without them again."""
    before = lab.settings.read_text()
    bring(lab, *kit.files)
    lab.set(
        diagnosis={},
        enrootPyxis=kit.settings(),
        apptainer={
            "packages": [artifacts.entry(kit.apptainer)],
            "conf": {"bind path": ["/etc/hosts", "/srv"]},
        },
    )
    lab.up()
    yield lab
    lab.settings.write_text(before)
    lab.up()
    for node in ("ctl", "login01"):
        assert "--container-image" not in lab.ssh(node, "srun --help").stdout
    assert lab.ssh("ctl", "srun -N2 hostname").stdout.split()
    assert lab.ssh("cn01", "test -e /etc/slurm/plugstack.conf.d/pyxis.conf", check=False).returncode
    assert lab.ssh("cn01", "dpkg -s apptainer", check=False).returncode


@pytest.fixture
def changed(containers: RunningLab) -> Iterator[Change]:
    """Changes settings; afterwards the lab is as it was."""
    before = containers.settings.read_text()
    yield containers.set
    containers.settings.write_text(before)
    containers.up()


def test_srun_runs_in_a_container(containers: RunningLab, kit: Artifacts) -> None:
    assert "--container-image" in containers.ssh("cn02", "srun --help").stdout
    if not kit.real:
        for node in ("cn01", "cn02"):
            containers.ssh(node, "touch /srv/tiny.sqsh")
        run = "srun -N2 --container-image=/srv/tiny.sqsh printenv STAND_IN_IMAGE"
        for node in ("ctl", "login01"):
            assert containers.ssh(node, run).stdout.split() == ["/srv/tiny.sqsh"] * 2
        return
    for node in ("cn01", "cn02"):
        containers.ssh(node, IMAGE)
    run = "srun -N2 --container-image=/srv/tiny.sqsh cat /etc/marker"
    for node in ("ctl", "login01"):
        assert containers.ssh(node, run).stdout.splitlines() == ["made on the spot"] * 2
    assert containers.ssh("ctl", "srun cat /etc/marker", check=False).returncode != 0


def test_an_image_that_is_not_there_is_named(containers: RunningLab) -> None:
    """With Pyxis itself where its files are given, else in its words by the stand-in."""
    wrap = "srun --container-image=/srv/nosuch.sqsh true"
    submit = f"cd / && sbatch --parsable --wait -w cn01 -o /srv/job.out --wrap '{wrap}' || true"
    job = containers.ssh("ctl", submit).stdout.strip()
    said = containers.run("slurmstack", "diagnose", job, "--json", "--stack", containers.name)
    (first, *_) = json.loads(said.stdout)["findings"]
    assert first["rule"] == "image-bad", said.stdout
    assert {it["source"] for it in first["evidence"]} == {"output", "slurmd"}
    assert any("nosuch.sqsh" in it["line"] for it in first["evidence"])


def test_validate_looks_for_the_image(containers: RunningLab, kit: Artifacts) -> None:
    """What only says that it ran in a container, as the stand-in does, has not."""
    before = containers.settings.read_text()
    try:
        containers.set(acceptance={"image": "/srv/tiny.sqsh"})
        words = ("slurmstack", "validate", "cn01", "--stack", containers.name, "--json")
        found = json.loads(containers.run(*words, check=False).stdout)
    finally:
        containers.settings.write_text(before)
    (word,) = [it for it in found["words"] if it["test"] == "container"]
    if kit.real:
        assert word["verdict"] == "proven", word
    else:
        assert (word["verdict"], word["words"]) == ("failed", "it ran, but saw the node's own root")


def test_jobs_have_their_environment(containers: RunningLab, kit: Artifacts) -> None:
    """In a container and outside, in steps and batch scripts; what a user has set stays."""
    value = "rc,ud,self,sm"  # Pulumi.lab.yaml
    for option in ("", "--container-image=/srv/tiny.sqsh") if kit.real else ("",):
        ask = f"srun {option} bash -c 'echo $UCX_TLS'"
        assert containers.ssh("ctl", ask).stdout.split() == [value]
        assert containers.ssh("ctl", f"UCX_TLS=mine {ask}").stdout.split() == ["mine"]
        script = r"printf '#!/bin/bash\necho $UCX_TLS\n'"
        batch = f"{script} | sbatch --wait -w cn01 -o /var/tmp/batch.out {option}"
        containers.ssh("ctl", batch)
        assert containers.ssh("cn01", "cat /var/tmp/batch.out").stdout.split() == [value]


def test_nothing_is_left_to_do(containers: RunningLab) -> None:
    containers.pulumi("preview", "--expect-no-changes")


#: As `publish` signs, with the key of somebody else.
SIGNED_BY_ANOTHER = """
set -e
gpg="gpg --homedir /root/another --batch --quiet --pinentry-mode loopback --passphrase ''"
mkdir -m 0700 /root/another
eval "$gpg --quick-generate-key another rsa3072 sign never"
rm InRelease
apt-ftparchive release . >/root/another/Release
eval "$gpg --clearsign --output InRelease /root/another/Release"
"""


def test_only_signed_packages_are_taken(containers: RunningLab) -> None:
    """A package slipped into the repository after it was signed is refused by the nodes, also with
    sums that are right again and another's signature."""
    www = "/var/lib/slurmstack-packages/www/current"
    ours = "/etc/apt/sources.list.d/slurmstack.sources"
    refresh = render("packages/refresh.sh", sources=[ours], index="")
    containers.ssh("ctl", f"cp -a {www}/. /root/signed; sed -i s/enroot/rootkit/ {www}/Packages")
    try:
        containers.ssh("cn01", "rm -f /var/lib/apt/lists/*_current_*")
        assert containers.ssh("cn01", refresh, check=False).returncode != 0
        containers.ssh("ctl", f"cd {www}; {SIGNED_BY_ANOTHER}")
        refused = containers.ssh("cn01", refresh, check=False)
        assert refused.returncode != 0
        assert "NO_PUBKEY" in refused.stderr or "not signed" in refused.stderr
    finally:
        containers.ssh("ctl", f"cp -a /root/signed/. {www}; rm -r /root/signed /root/another")
    containers.ssh("cn01", refresh)


def test_another_checksum_is_refused(
    containers: RunningLab, changed: Change, kit: Artifacts
) -> None:
    settings = kit.settings()
    right = settings["pyxis"]["archive"]["sha256"]
    wrong = right[::-1]
    settings["pyxis"]["archive"] = {**settings["pyxis"]["archive"], "sha256": wrong}
    running = daemons(containers)
    changed(enrootPyxis=settings)
    said = containers.up(check=False)
    assert settings["pyxis"]["archive"]["url"] in said
    assert f"expected sha256 {wrong}, found {right}" in said
    kept = containers.ssh("ctl", "ls /var/lib/slurmstack-packages/artifacts").stdout
    assert wrong not in kept
    assert daemons(containers) == running
    assert "--container-image" in containers.ssh("ctl", "srun --help").stdout


def test_a_plugin_that_does_not_build_changes_nothing(
    containers: RunningLab, changed: Change, kit: Artifacts, tmp_path: Path
) -> None:
    archive = artifacts.pyxis_stand_in(tmp_path, spoilt=True)
    spoilt = archive.rename(tmp_path / "pyxis-0.20.1.tar.gz")
    bring(containers, spoilt)
    settings = kit.settings()
    settings["pyxis"] = {"version": "0.20.1", "archive": artifacts.entry(spoilt)}
    running = daemons(containers)
    changed(enrootPyxis=settings)
    said = containers.up(check=False)
    assert "it does not build against Slurm" in said
    assert daemons(containers) == running
    assert containers.ssh("ctl", "srun -N2 hostname").stdout.split()


def test_another_slurm_gets_another_plugin_in_the_same_step(
    containers: RunningLab, changed: Change
) -> None:
    shown = "apt-cache madison slurmd | cut -d'|' -f2 | tr -d ' '"
    offered = containers.ssh("cn01", shown).stdout.split()
    now = containers.ssh("cn01", "dpkg-query -W -f '${Version}' slurmd").stdout
    others = [version for version in offered if version != now]
    if not others:
        pytest.skip("the mirror offers one version of Slurm only")
    changed(packages={"version": others[0]})
    containers.up()
    for node, package in (
        ("ctl", "slurmctld"), ("ctl", "slurmdbd"), ("login01", "sackd"),
        ("cn01", "slurmd"), ("cn02", "slurmd"),
    ):  # fmt: skip
        ask = f"dpkg-query -W -f '${{Version}}\\n${{Depends}}\\n' {package} slurmstack-pyxis"
        lines = containers.ssh(node, ask).stdout.splitlines()
        assert lines[0] == others[0]
        assert lines[-1] == f"slurm-wlm-basic-plugins (= {others[0]})"
        # The older version is kept although a newer one is offered.
        assert "slurmd" not in containers.ssh(node, "apt-get -s -q upgrade").stdout
    assert "--container-image" in containers.ssh("cn01", "srun --help").stdout
    assert containers.ssh("ctl", "srun -N2 hostname").stdout.split()


def test_apptainer_has_its_policy(containers: RunningLab) -> None:
    conf = containers.ssh("cn01", "cat /etc/apptainer/apptainer.conf").stdout
    assert "allow setuid = no\n" in conf
    assert "bind path = /etc/hosts\nbind path = /srv\n" in conf
    assert containers.ssh("cn02", "apptainer --version").returncode == 0


#: The image of IMAGE unpacked, which needs no /dev/fuse, with a setuid file of root's in it.
UNPACKED = r"""
set -e
id builder >/dev/null 2>&1 || useradd --create-home builder
rm -rf /srv/tiny
unsquashfs -q -d /srv/tiny /srv/tiny.sqsh >/dev/null
chmod 0755 /srv/tiny
cp /srv/tiny/bin/cat /srv/tiny/bin/rootcat
chmod 4755 /srv/tiny/bin/rootcat
echo 'for root alone' >/srv/tiny/etc/secret
chmod 0600 /srv/tiny/etc/secret
"""


def test_a_container_of_apptainer_gains_nothing(containers: RunningLab, kit: Artifacts) -> None:
    """Run by the real one, the policy holds: no rights beyond the user's, no setuid, no hostfs."""
    if not kit.real_apptainer:
        pytest.skip("SLURMSTACK_TEST_ARTIFACTS has no apptainer_*.deb")
    containers.ssh("cn01", IMAGE + UNPACKED)

    def run(command: str) -> str:
        words = f"cd /tmp && runuser -u builder -- apptainer -q exec /srv/tiny {command} 2>&1"
        return containers.ssh("cn01", words, check=False).stdout

    assert run("cat /etc/marker").endswith("made on the spot\n")
    uid = containers.ssh("cn01", "id -u builder").stdout.strip()
    assert run("cat /proc/self/uid_map").split()[-3:] == [uid, uid, "1"]
    status = run("cat /proc/self/status")
    assert "NoNewPrivs:\t1" in status
    assert "CapEff:\t0000000000000000" in status
    assert "Permission denied" in run("rootcat /etc/secret")
    assert "slurmd" not in run("sh -c 'echo /var/log/slurm/*'")
    known = {
        "allow setuid": "no",
        "mount hostfs": "no",
        "sessiondir max size": "16",
        "bind path": "/etc/hosts,/srv",
    }
    for directive, value in known.items():
        ask = f"apptainer config global --get '{directive}'"
        assert containers.ssh("cn01", ask).stdout.strip() == value
    assert not containers.ssh("cn01", "find / -xdev -perm -4000 -path '*apptainer*'").stdout


def source(archive: Path, **values: Any) -> Settings:
    return {
        "slurm": "source",
        "version": "99.1-1",
        "archive": artifacts.entry(archive),
        "features": ["http", "hwloc", "jwt"],
        **values,
    }


def test_a_failed_build_of_slurm_leaves_the_cluster_alone(
    containers: RunningLab, changed: Change, tmp_path: Path
) -> None:
    broken = artifacts.slurm_source(tmp_path / "a", rules="@echo no compiler here; false")
    poor = artifacts.slurm_source(tmp_path / "b", name="slurm-poor")
    bring(containers, broken, poor)
    running = daemons(containers)
    published = "readlink /var/lib/slurmstack-packages/www/current"
    before = containers.ssh("ctl", published).stdout

    changed(packages=source(broken))
    said = containers.up(check=False)
    assert "no compiler here" in said
    assert "the build failed; the packages published before are unchanged" in said

    changed(packages=source(broken, version="99.2-1"))
    said = containers.up(check=False)
    assert "its packaging makes version 99.1-1, the settings say 99.2-1" in said

    changed(packages=source(poor, features=["http", "hwloc", "jwt", "nvml", "pmix"]))
    said = containers.up(check=False)
    assert "the packages lack: http hwloc jwt nvml pmix;" in said

    assert daemons(containers) == running
    assert containers.ssh("ctl", published).stdout == before
    assert containers.ssh("ctl", "srun -N2 hostname").stdout.split()


HOSTS = ("ctl", "login01", "cn01", "cn02")
INSTALLED = "dpkg-query -W -f '${db:Status-Status} ${Package}\\n' 'slurm*' | grep ^installed"


FROM_SOURCE = pytest.mark.skipif(
    not os.environ.get("SLURMSTACK_TEST_SLURM_SOURCE"),
    reason="SLURMSTACK_TEST_SLURM_SOURCE: moves the whole cluster, and builds Slurm for minutes",
)


def the_cluster_moves(lab: RunningLab, there: Settings) -> None:
    """From the distribution's packages to others, and back; jobs, tokens, accounting go along."""
    version = there["version"]
    before = lab.ssh("ctl", "sbatch --parsable --wait --wrap hostname").stdout.strip()
    # With memory named, so that the node has room for others.
    job = "sbatch --parsable --mem=100 -w cn02 --wrap 'sleep 3600'"
    running = lab.ssh("ctl", job).stdout.strip()
    later = lab.ssh("ctl", "sbatch --parsable --begin=now+2hours --wrap hostname").stdout.strip()
    wait = f"timeout 240 sh -c 'until squeue -h -t R -j {running} | grep -q .; do sleep 1; done'"
    lab.ssh("ctl", wait)

    def jobs_are_there() -> None:
        states = lab.ssh("ctl", "squeue --noheader --format '%i %T' --sort i").stdout.splitlines()
        assert {f"{running} RUNNING", f"{later} PENDING"} <= set(states)
        ended = f"sacct --noheader --parsable2 -X -j {before} -o State"
        assert lab.ssh("ctl", ended).stdout.split() == ["COMPLETED"]
        assert lab.ssh("ctl", "srun -N2 --mem=100 hostname").stdout.split()
        assert "--container-image" in lab.ssh("cn01", "srun --help").stdout
        status, body = Client.of(lab).ask(f"/job/{later}", token=token(lab, "root", "--privileged"))
        assert status == 200
        assert json.loads(body)["jobs"][0]["job_state"] == ["PENDING"]

    settings = lab.settings.read_text()
    try:
        lab.set(packages=there)
        lab.pulumi("up", "--yes", "--skip-preview", timeout=3400)
        for host in HOSTS:
            found = lab.ssh(host, "dpkg-query -W -f '${Version}' slurm-smd").stdout
            assert found.startswith(f"{version}+slurmstack.")
            assert "slurm-wlm" not in lab.ssh(host, INSTALLED).stdout
        assert "pmix" in lab.ssh("cn01", "srun --mpi=list 2>&1").stdout
        jobs_are_there()
        lab.pulumi("preview", "--expect-no-changes")
    finally:
        lab.settings.write_text(settings)
        lab.up()
    for host in HOSTS:
        assert "slurm-smd" not in lab.ssh(host, INSTALLED).stdout
    jobs_are_there()
    lab.ssh("ctl", f"scancel {running} {later}")


def test_slurm_from_a_repository_of_the_site(containers: RunningLab, changed: Change) -> None:
    """With a key of its own, over the network; its packages are the distribution's, renamed."""
    own = containers.ssh("cn01", "dpkg-query -W -f '${Version}' slurmd").stdout
    make = (artifacts.STAND_IN / "site_repository.sh").read_text()
    key = containers.ssh("ctl", f"set -- '{own}'\n{make}").stdout
    address = containers.address("ctl")
    served = f"http://{address}:8460/site"
    # The lab's machines have a proxy before all but their mirror.
    direct = f'Acquire::http::Proxy::{address} "DIRECT";'
    for host in HOSTS:
        containers.ssh(host, f"echo '{direct}' >/etc/apt/apt.conf.d/61site")
    there: Settings = {
        "slurm": "repository",
        "names": "distribution",
        "version": f"{own}+site1",
        "repository": {"sources": f"Types: deb\nURIs: {served}\nSuites: ./"},
    }
    running = daemons(containers)
    changed(packages=there)
    said = containers.up(check=False)
    assert f"The repository '{served} ./ InRelease' is not signed" in said
    assert daemons(containers) == running
    changed(packages={**there, "repository": {**there["repository"], "key": key}})
    containers.up()
    for host, package in zip(HOSTS, ("slurmctld", "sackd", "slurmd", "slurmd"), strict=True):
        ask = f"dpkg-query -W -f '${{Version}} ' {package} slurm-client slurmstack-pyxis"
        found = containers.ssh(host, ask).stdout.split()
        assert found[:2] == [f"{own}+site1"] * 2
        assert "--container-image" in containers.ssh(host, "srun --help").stdout
    assert containers.ssh("ctl", "srun -N2 hostname").stdout.split()
    containers.pulumi("preview", "--expect-no-changes")
    # Back: without a version, what is installed would do, and no source offers it any more.
    changed(packages=None)
    assert "set slurmstack:packages version to one that is offered" in containers.up(check=False)
    changed(packages={"version": own})
    containers.up()
    assert containers.ssh("cn01", "dpkg-query -W -f '${Version}' slurmd").stdout == own
    assert containers.ssh("ctl", "srun -N2 hostname").stdout.split()


@FROM_SOURCE
def test_slurm_from_an_archive(containers: RunningLab, tmp_path: Path) -> None:
    """The whole route, with an archive that packs what the distribution has compiled."""
    ask = "dpkg-query -W -f '${source:Upstream-Version}-1' slurmctld"
    version = containers.ssh("ctl", ask).stdout
    archive = artifacts.slurm_of_the_distribution(tmp_path, version)
    bring(containers, archive)
    features = ["http", "hwloc", "jwt", "pmix"]
    the_cluster_moves(containers, source(archive, version=version, features=features))


def test_an_older_major_release_is_refused(
    containers: RunningLab, changed: Change, tmp_path: Path
) -> None:
    """The build is no matter: what is asked for is known before, and no role gets anywhere."""
    old = artifacts.slurm_of_the_distribution(tmp_path, "23.11.10-1")
    bring(containers, old)
    running = daemons(containers)
    # Without what 23.11 does not know: the settings would be refused for that.
    changed(
        packages=source(old, version="23.11.10-1"),
        jobContainer={"BasePath": "/var/lib/slurm-tmp"},
    )
    said = containers.up(check=False)
    assert "there is no way back to an older major release" in said
    assert daemons(containers) == running
    assert "slurm-smd" not in containers.ssh("ctl", INSTALLED).stdout


@FROM_SOURCE
@pytest.mark.timeout(3600)
def test_slurm_from_source(containers: RunningLab) -> None:
    """The distribution's own source of Slurm, built with the packaging that ships in it."""
    lists = "deb-src http://mirror.lab/debian trixie main"
    ask = (
        f"echo '{lists}' >/tmp/src.list; mkdir -p /tmp/lists/partial; "
        "o='-o Dir::Etc::sourcelist=/tmp/src.list -o Dir::Etc::sourceparts=- "
        "-o Dir::State::lists=/tmp/lists'; apt-get -q $o update >/dev/null && "
        "apt-cache $o showsrc slurm-wlm"
    )
    shown = containers.ssh("ctl", ask).stdout.splitlines()
    start = shown.index("Checksums-Sha256:")
    sha256, _, name = next(line for line in shown[start:] if ".orig.tar" in line).split()
    version = name.split("_")[1].split(".orig")[0]
    url = f"http://mirror.lab/debian/pool/main/s/slurm-wlm/{name}"
    the_cluster_moves(
        containers,
        {
            "slurm": "source",
            "version": f"{version}-1",
            "archive": {"url": url, "sha256": sha256},
            "features": ["http", "hwloc", "jwt", "pmix"],
        },
    )
