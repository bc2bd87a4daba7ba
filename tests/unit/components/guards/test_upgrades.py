"""What is refused and kept before a Slurm of another major release comes."""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from components.guards.upgrades import before_upgrade
from components.keys.jwt_key_pair import jwt_bundle
from remote.bundle import Guard, Package
from remote.reading import is_bundle, read
from settings import Settings, parse
from templates.rendering import render
from tests.unit.components.packages.test_packages import ran
from tests.unit.components.test_cluster import (
    bare,
    commands,
    deploy,
    everything,
    plain,
)

RELEASE = {"bases": ["a"], "base": "a"}
GUARDS = {"no-release-skipped", "state-copied", "database-dumped"}
#: What Slurm's packages are called by Debian and by SchedMD.
SLURM = ("slurm", "libpam-slurm", "sackd", "slurmctld", "slurmd", "slurmdbd", "slurmrestd")


def dpkg(have: str) -> dict[str, str]:
    """The release that is installed, as dpkg-query names it."""
    return {"dpkg-query": f"echo 'installed {have}'" if have else "exit 1"}


def with_packages(**packages: Any) -> Settings:
    """A cluster with accounting whose packages these are."""
    content = bare()
    content["accounting"] = {}
    content["packages"] = packages
    return parse(content)


def guard(name: str, settings: Settings) -> Guard:
    """A guard of the controller's first bundle."""
    return next(part for part in before_upgrade(settings) if part.name == name)


def test_every_role_that_brings_slurm_to_the_controller_has_them() -> None:
    """Tokens need a package of Slurm, too, and come before slurmdbd: what both stand on would be
    new already when slurmdbd's role looks for the release that is there."""
    made, _ = deploy(**everything())
    bring, without = set(), set()
    for name, inputs in commands(made).items():
        text = plain(inputs.get("stdin", ""))
        if not is_bundle(text) or not name.startswith("ctl-"):
            continue
        parts = read(text).parts
        names = [part.name for part in parts if isinstance(part, Package)]
        if any(name.startswith(SLURM) for name in names):
            bring.add(name)
            guards = {part.name for part in parts if isinstance(part, Guard)}
            if not guards >= GUARDS:
                without.add(name)
    assert {"ctl-jwt", "ctl-slurmdbd", "ctl-slurmctld", "ctl-slurmrestd"} <= bring
    assert not without


def test_they_stand_in_the_order_in_which_they_may_refuse() -> None:
    bundle = jwt_bundle(with_packages(version="25.05.1-1"))
    names = [part.name for part in bundle.parts if isinstance(part, Guard)]
    assert [name for name in names if name in GUARDS or name == "no-step-back"] == [
        "no-step-back", "no-release-skipped", "state-copied", "database-dumped"
    ]  # fmt: skip


def test_what_a_site_keeps_itself_is_not_kept_again() -> None:
    content = bare()
    content["accounting"] = {"dump": {"beforeUpgrade": False}}
    content["packages"] = {"copyStateBeforeUpgrade": False}
    names = [part.name for part in before_upgrade(parse(content))]
    assert names == ["no-release-skipped"]


@pytest.mark.parametrize(
    ("have", "want", "refused"),
    [
        # The table of upgrades.html, Compatibility Window: each release's own bounds.
        ("22.05.11-1", "23.11.4-1", ""),
        ("21.08.5-2ubuntu1", "23.11.4-1", "22.05 and newer only: set slurmstack:packages to 23.02"),
        ("23.02.7-1", "24.11.5-4", ""),
        ("22.05.11-1", "24.11.5-4", "23.02 and newer only: set slurmstack:packages to 23.11"),
        ("23.11.10-1", "25.05.1-1", ""),
        ("23.02.7-1", "25.05.1-1", "23.11 and newer only: set slurmstack:packages to 24.11"),
        ("24.05.3-1", "1:25.11.7-1+slurmstack.0", ""),
        ("23.11.10-1", "25.11.7-1", "24.05 and newer only: set slurmstack:packages to 25.05"),
        ("20.11.4-1", "25.11.7-1", "24.05 and newer only: set slurmstack:packages to a release"),
        # Nothing is known of it, and nothing is installed.
        ("23.11.10-1", "27.05.1-1", ""),
        ("", "25.11.7-1", ""),
    ],
)
def test_a_release_that_does_not_read_what_is_there_is_refused(
    have: str, want: str, refused: str, tmp_path: Path
) -> None:
    state = tmp_path / "slurmctld"
    state.mkdir()
    script = guard("no-release-skipped", with_packages(version=want)).script
    script = script.replace("/var/spool/slurmctld", str(state))
    programs = dpkg(have)
    nothing_there = ran(script, programs, tmp_path)
    assert (nothing_there.returncode, nothing_there.stderr) == (0, "")
    (state / "job_state").touch()
    done = ran(script, programs, tmp_path)
    assert (done.returncode == 1) == bool(refused), done.stderr
    assert refused in done.stderr
    if refused:
        assert f"Slurm {have} is installed and the settings ask for {want}" in done.stderr
        assert f"which reads {state} of" in done.stderr


def copied(
    folder: Path, have: str = "24.11.5-4", want: str = "25.05.1-1", clock: str = "1"
) -> subprocess.CompletedProcess[str]:
    """The guard, where its date is `clock`."""
    values = {"state": folder / "state", "folder": folder / "copies", "keep": 3}
    script = render("guards/state-copied.sh", **values, **RELEASE, release=want)
    programs: Mapping[str, str] = {**dpkg(have), "date": f"echo {clock}"}
    (folder / "programs").mkdir(exist_ok=True)
    return ran(script, programs, folder / "programs")


def test_the_state_is_copied_before_it_is_written_anew(tmp_path: Path) -> None:
    state, copies = tmp_path / "state", tmp_path / "copies"
    (state / "hash.1/job.1").mkdir(parents=True)
    (state / "job_state").write_bytes(b"\x27\x10jobs")
    (state / "hash.1/job.1/script").write_text("#!/bin/sh\n")
    done = copied(tmp_path)
    copy = copies / "1-before-25.05.tar.gz"
    assert (done.returncode, done.stdout) == (0, f"copied: {copy}\n")
    with tarfile.open(copy) as tar:
        tar.extractall(tmp_path / "back", filter="tar")
    assert (tmp_path / "back/job_state").read_bytes() == b"\x27\x10jobs"
    assert (tmp_path / "back/hash.1/job.1/script").read_text() == "#!/bin/sh\n"
    # Scripts and environments of people's jobs are in it.
    assert [oct(path.stat().st_mode & 0o777) for path in (copies, copy)] == ["0o700", "0o600"]


def test_three_copies_stay(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state/job_state").touch()
    for clock in ("1", "2", "3", "4"):
        assert copied(tmp_path, clock=clock).returncode == 0
    (tmp_path / "copies/notes.txt").touch()
    assert copied(tmp_path, clock="5").returncode == 0
    assert sorted(path.name for path in (tmp_path / "copies").iterdir()) == [
        *(f"{clock}-before-25.05.tar.gz" for clock in "345"), "notes.txt"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("have", "want", "job_state"),
    [
        ("24.11.5-4", "24.11.6-1", True),
        ("24.11.5-4", "25.05.1-1", False),
        ("", "25.05.1-1", True),
    ],
)
def test_nothing_is_copied_where_nothing_is_written_anew(
    have: str, want: str, job_state: bool, tmp_path: Path
) -> None:
    (tmp_path / "state").mkdir()
    if job_state:
        (tmp_path / "state/job_state").touch()
    done = copied(tmp_path, have, want)
    assert (done.returncode, done.stdout) == (0, "")
    assert not (tmp_path / "copies").exists()


def test_what_cannot_be_copied_is_not_upgraded(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state/job_state").touch()
    full = tmp_path / "programs/tar"
    full.parent.mkdir()
    full.write_text(
        '#!/bin/sh\nfor word; do case $word in --file=*) : >"${word#--file=}" ;; esac; done\n'
        "echo 'tar: copy: Cannot write: No space left on device' >&2\n"
        "echo 'tar: Error is not recoverable: exiting now' >&2\nexit 2\n"
    )
    full.chmod(0o755)
    done = copied(tmp_path)
    assert done.returncode == 1
    assert done.stdout == (
        "Slurm goes from 24.11.5-4 to 25.05.1-1, and slurmctld's state cannot be copied to "
        f"{tmp_path}/copies before: tar: copy: Cannot write: No space left on device. Mend it, or "
        "keep a copy of your own and set slurmstack:packages.copyStateBeforeUpgrade: false\n"
    )
    assert list((tmp_path / "copies").iterdir()) == []


@pytest.mark.parametrize(
    ("have", "want", "database", "dump", "ends", "said"),
    [
        ("24.11.5-4", "25.11.7-1", True, "echo /kept/$1.gz", 0, "dumped: /kept/before-25.11.gz"),
        ("24.11.5-4", "24.11.6-1", True, "echo never; exit 1", 0, ""),
        ("24.11.5-4", "25.11.7-1", False, "echo never; exit 1", 0, ""),
        ("", "25.11.7-1", True, "echo never; exit 1", 0, ""),
        ("24.11.5-4", "25.11.7-1", True, "echo the disk is full >&2; exit 1", 1,
         "Slurm goes from 24.11.5-4 to 25.11.7-1, and the database cannot be dumped before: the "
         "disk is full. Mend it, or keep a copy of your own and set "
         "slurmstack:accounting.dump.beforeUpgrade: false"),
    ],
)  # fmt: skip
def test_the_database_is_dumped_before_it_is_converted(
    have: str, want: str, database: bool, dump: str, ends: int, said: str, tmp_path: Path
) -> None:
    there = tmp_path if database else tmp_path / "nowhere"
    values = {"dump": tmp_path / "dump", "tables": there, **RELEASE, "release": want}
    script = render("guards/database-dumped.sh", **values)
    done = ran(script, {**dpkg(have), "dump": dump}, tmp_path)
    assert done.returncode == ends, done.stdout
    assert done.stdout.strip().splitlines()[-1:] == ([said] if said else [])
