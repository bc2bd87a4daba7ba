"""Spack on a share: a program of the site's own, built against the distribution's Open MPI, by the
modules that Spack writes.

Where ``SLURMSTACK_TEST_SPACK`` names the work tree of a Spack that brings its recipes (before 1.0):
it solves and builds for minutes. clingo comes from the package index that this machine's pip
reaches; nothing else is fetched.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.lab import shared_folder
from tests.lab.conftest import RunningLab

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(
        not os.environ.get("SLURMSTACK_TEST_SPACK"),
        reason="SLURMSTACK_TEST_SPACK names the work tree of a Spack; it builds for minutes",
    ),
]

NODES = ("login01", "cn01", "cn02")
SOURCE, SPACK = "/srv/share", "/opt/spack"
MPI = {"description": "What Spack's programs run with", "packages": ["openmpi-bin"]}
#: Written where a site writes them: etc/spack of its own tree.
CONFIGURATION = {
    "bootstrap.yaml": {"bootstrap": {"enable": False}},
    "mirrors.yaml": {"mirrors:": {}},
    "repos.yaml": {"repos": ["$spack/site"]},
    "packages.yaml": {
        "packages": {"all": {"target": ["x86_64"], "providers": {"mpi": ["openmpi"]}}}
    },
    "modules.yaml": {"modules": {"default": {"enable": ["lmod"], "lmod": {"hash_length": 0}}}},
}
PROGRAM = r"""
#include <mpi.h>
#include <stdio.h>
int main(int count, char **words) {
    int rank, size, sum;
    MPI_Init(&count, &words);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    printf("%d %d %d\n", rank, size, sum);
    return MPI_Finalize();
}
"""
RECIPE = """
from spack.package import *


class Ranks(Package):
    \"\"\"A program of the site.\"\"\"

    url = "file://{spack}/site/ranks-1.0.tar.gz"
    version("1.0", sha256="{sha256}")
    depends_on("mpi")

    def install(self, spec, prefix):
        mkdirp(prefix.bin)
        Executable(spec["mpi"].mpicc)("ranks.c", "-o", prefix.bin.ranks)
"""


def site_repository(spack: Path, folder: Path) -> None:
    """The site's own recipes, and the source of its program, in the tree."""
    site = spack / "site"
    recipe = site / "packages" / "ranks" / "package.py"
    recipe.parent.mkdir(parents=True)
    (site / "repo.yaml").write_text("repo:\n  namespace: site\n")
    (folder / "ranks.c").write_text(PROGRAM)
    archive = site / "ranks-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder / "ranks.c", "ranks-1.0/ranks.c")
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    recipe.write_text(RECIPE.format(spack=SPACK, sha256=sha256))


def clingo(folder: Path) -> None:
    """Wheels of the solver, for the nodes' Python."""
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "clingo"]
    words += ["--python-version", "3.13", "--dest", str(folder)]
    for glibc in ("2014", "_2_17", "_2_28"):
        words += ["--platform", f"manylinux{glibc}_x86_64"]
    subprocess.run(words, check=True, timeout=300)


@pytest.fixture(scope="module")
def spack(users: RunningLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    """The lab with a share, and on it Spack's tree as a site makes it; cn01 is where it builds."""
    folder = tmp_path_factory.mktemp("spack")
    tree = folder / "tree"
    given = Path(os.environ["SLURMSTACK_TEST_SPACK"])
    shutil.copytree(given, tree, symlinks=True, ignore=shutil.ignore_patterns(".git"))
    site_repository(tree, folder)
    clingo(tree / "site" / "wheels")
    for name, content in CONFIGURATION.items():
        (tree / "etc" / "spack" / name).write_text(yaml.safe_dump(content))
    before = users.settings.read_text()
    share = {"type": "bind", "source": SOURCE, "mount": SPACK, "clients": "login01,cn[01-02]"}
    core = f"{SPACK}/share/spack/lmod/linux-debian13-x86_64/Core"
    with shared_folder.shared(users, NODES, tree, SOURCE):
        try:
            users.change(lambda it: it["modules"].update(furtherPaths=[core]))
            users.set(storage={"spack": share}, software={"runtime/1": MPI})
            users.up()
            yield users
        finally:
            users.settings.write_text(before)
            users.up()


def test_a_program_of_spack_runs_by_its_module_over_two_nodes(spack: RunningLab) -> None:
    tools = "g++ gfortran libopenmpi-dev python3-venv make patch xz-utils unzip bzip2 git file"
    spack.ssh("cn01", f"apt-get install -y -q --no-install-recommends {tools}", timeout=900)
    made = "python3 -m venv /srv/solver && /srv/solver/bin/pip install -q --no-index"
    spack.ssh("cn01", f"{made} --find-links {SPACK}/site/wheels clingo", timeout=300)

    def call(words: str) -> str:
        begin = f"export SPACK_PYTHON=/srv/solver/bin/python SPACK_DISABLE_LOCAL_CONFIG=1; {SPACK}"
        return spack.ssh("cn01", f"{begin}/bin/spack {words}", timeout=1800).stdout

    call("compiler find --scope site")
    call("external find --scope site --not-buildable openmpi")
    assert "prefix: /usr" in call("config get packages")
    call("install ranks")
    call("module lmod refresh -y")
    listed = call("find --format '{name} {version} {prefix}'").splitlines()
    assert [it for it in listed if it.startswith("openmpi 5.") and it.endswith(" /usr")], listed
    words = "module load openmpi ranks && command -v ranks >&2 && ranks"
    run = f"cd /tmp && runuser -u alice -- srun --mpi=pmix -N2 -n2 bash -lc {shlex.quote(words)}"
    done = spack.ssh("login01", run)
    assert sorted(done.stdout.splitlines()) == ["0 2 1", "1 2 1"]
    assert f"{SPACK}/opt/spack/" in done.stderr
