"""What a job file may ask for, on a cluster as scontrol 24.11 tells of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from on_node.kubernetes.job_file import JobFile, read
from on_node.kubernetes.rules import Person, Rules, mistakes
from tests.unit.on_node.test_job_guard import old

RULES = Rules(("hub:5407", "other"), ("/mnt/nas", "/srv/data"))
ANNA = Person("anna", 5001, frozenset({"users"}))


def told(*lines: str, person: Person = ANNA) -> list[str]:
    job, found = read(("#!/bin/sh\n" + "".join(f"{line}\n" for line in lines)).encode())
    assert found == []
    return [str(it) for it in mistakes(job, RULES, old(), person)]


@pytest.mark.parametrize(
    "lines",
    [
        ["#SBATCH -p main"],
        [],  # main is the default
        ["#SBATCH -p gpu --gres=gpu:h100:4 --mem=7500M -c 4"],
        ["#SBATCH -p gpu --gpus-per-node=2 --mem=7G"],
        ["#SBATCH -p main -N 3 --mem-per-cpu=2000 -c 4 --time=1-0"],
        ["#SBATCH -p main,gpu --time=30"],
        ["#SBATCH -o /mnt/nas/results/%j.out -e /srv/data/x", "#K8S_SCRIPT=/mnt/nas/t.py"],
        ["#K8S_IMAGE=hub:5407/a:1", "#K8S_WORKDIR=/workspace"],
    ],
)
def test_what_the_cluster_has(lines: list[str]) -> None:
    assert told(*lines) == []


@pytest.mark.parametrize(
    ("line", "mistake"),
    [
        ("-p gpus", "--partition: there is no gpus; is gpu meant?"),
        ("-p zzz", "--partition: there is no zzz; there are gpu, main"),
        ("-p main --mem=900G", "--mem: no node of main has 921600 MiB; the largest has 8000 MiB"),
        ("-p gpu --mem=7501M", "--mem: no node of gpu has 7501 MiB; the largest has 7500 MiB"),
        ("-p main --mem=x", "--mem: expected a size such as 16G; found x"),
        ("-p main -c 5", "--cpus-per-task: no node of main has 5 CPUs; the largest has 4"),
        ("-p main -c 2 --ntasks-per-node=3",
         "--cpus-per-task: no node of main has 6 CPUs; the largest has 4"),
        ("-p gpu --gres=gpu:5", "--gres: no node of gpu has 5 gpu; the most is 4"),
        ("-p gpu --gres=gpu:a100:1", "--gres: no node of gpu has 1 gpu:a100; the most is 0"),
        ("-p gpu --gpus-per-node=5", "--gres: no node of gpu has 5 gpu; the most is 4"),
        ("-p main --mem=8000 --gres=gpu:1",
         "no node of main has the memory, CPUs and GRES together"),
        ("-p gpu -N 2", "--nodes: partition gpu has 1 nodes, 2 are wanted"),
        ("-p main --time=1-00:01", "--time: partition main allows less"),
        ("-p main --time=UNLIMITED", "--time: partition main allows less"),
        ("-p main --time=1h", "--time: expected D-HH:MM:SS or HH:MM:SS; found 1h"),
        ("-o out", "--output: expected a whole path in /mnt/nas, /srv/data; found out"),
        ("-o /mnt/nasty/x",
         "--output: expected a whole path in /mnt/nas, /srv/data; found /mnt/nasty/x"),
        ("-e /mnt/nas/../etc/x",
         "--error: expected a whole path in /mnt/nas, /srv/data; found /mnt/nas/../etc/x"),
        ("-D /etc", "--chdir: expected a whole path in /mnt/nas, /srv/data; found /etc"),
    ],
)  # fmt: skip
def test_what_it_has_not(line: str, mistake: str) -> None:
    assert told(f"#SBATCH {line}") == [f"line 2: {mistake}"]


def test_registries_and_scripts() -> None:
    assert told("#K8S_IMAGE=docker.io/a:1", "#K8S_SCRIPT=/etc/passwd") == [
        "line 2: K8S_IMAGE: registry docker.io is not allowed; expected hub:5407, other",
        "line 3: K8S_SCRIPT: expected a whole path in /mnt/nas, /srv/data; found /etc/passwd",
    ]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["nodes", "mem", "cpus-per-task", "time", "gres", "gpus-per-node", "partition",
                 "mem-per-cpu", "ntasks-per-node", "output"]
            ),
            st.one_of(st.text(max_size=12), st.from_regex("[0-9:/-]{1,12}"), st.just("9" * 5000)),
        ),
        max_size=5,
    )
)  # fmt: skip
def test_any_value_is_judged(headers: list[tuple[str, str]]) -> None:
    """A value that cannot be read is a mistake, or nothing: whoever watches the folder goes on."""
    job = JobFile("#!/bin/sh\n", {name: (value, 2) for name, value in headers})
    mistakes(job, RULES, old(), ANNA)
