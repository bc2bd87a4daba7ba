"""docs/examples/training: what users copy, without PyTorch, a Slurm or a second machine."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

import pytest

DOCS = Path(__file__).resolve().parents[3] / "docs"
EXAMPLE = DOCS / "examples" / "training"
SCRIPTS = ("train-srun.sbatch", "train-torchrun.sbatch")


@pytest.fixture(scope="module")
def job() -> ModuleType:
    """The module of the example, imported from where it lies."""
    spec = importlib.util.spec_from_file_location("example_job", EXAMPLE / "job.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


SRUN = {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1"}
TORCHRUN = {"RANK": "3", "WORLD_SIZE": "16", "LOCAL_RANK": "2"}
MASTER = {"MASTER_ADDR": "cn01", "MASTER_PORT": "20042"}


def test_a_rank_s_place(job: ModuleType) -> None:
    assert job.place({**SRUN, **MASTER}) == job.Place(5, 8, 1)
    # srun started torchrun: its numbers are those of torchrun, not of the ranks.
    assert job.place({**SRUN, **TORCHRUN, **MASTER}) == job.Place(3, 16, 2)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "neither srun nor torchrun has started this"),
        (SRUN, "SLURM_PROCID is set, but not MASTER_ADDR, MASTER_PORT: "),
        ({"RANK": "0", "LOCAL_RANK": "0", **SRUN, **MASTER}, "RANK is set, but not WORLD_SIZE: "),
    ],
)
def test_no_place(job: ModuleType, environment: dict[str, str], words: str) -> None:
    with pytest.raises(job.NotAJob, match=re.escape(words)):
        job.place(environment)


def put(job: ModuleType, folder: Path, step: int, content: bytes = b"whole") -> None:
    job.save(folder, step, lambda file: file.write(content))


def test_the_newest_stay(job: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert job.newest(folder, Path.read_bytes) is None
    for step in (20, 9, 100):
        put(job, folder, step, str(step).encode())
    (folder / "finished").touch()
    assert sorted(it.name for it in folder.iterdir()) == [
        "finished", "step-0000000020.pt", "step-0000000100.pt",
    ]  # fmt: skip
    assert job.newest(folder, Path.read_bytes) == (folder / "step-0000000100.pt", b"100")


def test_a_checkpoint_that_cannot_be_written_changes_nothing(
    job: ModuleType, tmp_path: Path
) -> None:
    put(job, tmp_path, 1)

    def full(file: BinaryIO) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        job.save(tmp_path, 2, full)
    assert job.newest(tmp_path, Path.read_bytes) == (tmp_path / "step-0000000001.pt", b"whole")
    # What was left is gone with the next one.
    put(job, tmp_path, 3)
    assert [it.name for it in tmp_path.glob(".*")] == []


def test_killed_while_it_is_written(job: ModuleType, tmp_path: Path) -> None:
    put(job, tmp_path, 1)
    program = (
        "import job, os, pathlib, signal, sys\n"
        "def write(file):\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
        "job.save(pathlib.Path(sys.argv[1]), 2, write)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], cwd=EXAMPLE, check=False)
    assert done.returncode == -signal.SIGKILL
    assert job.newest(tmp_path, Path.read_bytes) == (tmp_path / "step-0000000001.pt", b"whole")


def test_it_is_on_the_disk_before_it_has_its_name(
    job: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, list[str]]] = []

    def fsync(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        seen.append((name, sorted(it.name for it in tmp_path.iterdir())))

    monkeypatch.setattr(os, "fsync", fsync)
    put(job, tmp_path, 7)
    part, whole = ".step-0000000007.pt.part", "step-0000000007.pt"
    assert seen == [(part, [part]), (tmp_path.name, [whole])]


def test_one_that_cannot_be_read_is_told_and_passed_over(job: ModuleType, tmp_path: Path) -> None:
    def read(path: Path) -> bytes:
        if content := path.read_bytes():
            return content
        raise EOFError("Ran out of input")

    put(job, tmp_path, 1)
    put(job, tmp_path, 2, b"")
    said: list[str] = []
    assert job.newest(tmp_path, read, said.append) == (tmp_path / "step-0000000001.pt", b"whole")
    path = tmp_path / "step-0000000002.pt"
    assert said == [f"{path} cannot be read, the one before is taken: Ran out of input"]
    # To begin anew is nobody's wish where there was something.
    (tmp_path / "step-0000000001.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"none of 2 checkpoints in .* can be read"):
        job.newest(tmp_path, read, said.append)


@pytest.fixture
def handlers() -> Iterator[None]:
    numbers = (signal.SIGUSR1, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_the_word_to_stop(job: ModuleType, handlers: None, number: signal.Signals) -> None:
    stop = job.Stop()
    assert stop.by is None
    os.kill(os.getpid(), number)
    assert stop.by is number
    os.kill(os.getpid(), signal.SIGUSR1)
    assert stop.by is number


#: What stands for Slurm and for the site's modules: it says how it was called.
STAND_INS = {
    "module": "",
    "scontrol": 'if [ "$1" = show ]; then printf "cn07\\ncn09\\n"; else echo "scontrol $*"; fi',
    "srun": """
        echo "master $MASTER_ADDR $MASTER_PORT, threads $OMP_NUM_THREADS, $SRUN_CPUS_PER_TASK CPUs"
        while [ "${1#--}" != "$1" ]; do shift; done
        SLURM_NODEID=1 "$@" """,
    "torchrun": """
        kill -USR1 $$
        echo "torchrun of node $PET_NODE_RANK: $*"
        exit "${STATUS:-0}" """,
    "python3": 'echo "python3 $*"; exit "${STATUS:-0}"',
}


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """An environment in which a batch script meets stand-ins; its folder is the job's."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in STAND_INS.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    return {
        "PATH": f"{programs}:/usr/bin:/bin", "SLURM_SUBMIT_DIR": str(tmp_path), "HOME": "/",
        "SLURM_JOB_ID": "1234567", "SLURM_JOB_NODELIST": "cn[07,09]", "SLURM_NNODES": "2",
    }  # fmt: skip


def batch(script: str, environment: dict[str, str], *words: str) -> tuple[int, list[str]]:
    """The exit code of a batch script, and what was said. Not as a login shell: its profile would
    set a PATH of its own."""
    done = subprocess.run(
        ["bash", str(EXAMPLE / script), *words],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, (done.stdout + done.stderr).splitlines()


def test_srun_starts_the_ranks(slurm: dict[str, str], tmp_path: Path) -> None:
    environment = {**slurm, "SLURM_CPUS_PER_TASK": "12"}
    status, said = batch("train-srun.sbatch", environment, "--steps", "9")
    folder = tmp_path / "checkpoints" / "1234567"
    assert (status, said) == (0, [
        "master cn07 24567, threads 12, 12 CPUs",
        f"python3 train.py --checkpoints {folder} --steps 9",
        "scontrol requeue 1234567",
    ])  # fmt: skip


def test_torchrun_starts_the_ranks(slurm: dict[str, str], tmp_path: Path) -> None:
    environment = {**slurm, "SLURM_CPUS_PER_TASK": "96", "SLURM_GPUS_ON_NODE": "8", "RUN": "mine"}
    status, said = batch("train-torchrun.sbatch", environment, "--steps", "9")
    options = (
        "--nnodes 2 --nproc-per-node 8 --rdzv-backend static --master-addr cn07 --master-port 24567"
    )
    program = f"train.py --checkpoints {tmp_path / 'checkpoints' / 'mine'} --steps 9"
    assert (status, said) == (0, [
        "master cn07 24567, threads 12, 96 CPUs",
        f"torchrun of node 1: {options} {program}",
        "scontrol requeue 1234567",
    ])  # fmt: skip
    _, said = batch("train-torchrun.sbatch", {**slurm, "USE_LIBUV": "0"})
    assert said[1].startswith("python3 without_libuv.py -m torch.distributed.run --nnodes 2 ")
    assert " without_libuv.py train.py --checkpoints " in said[1]


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_is_finished_or_has_failed_is_not_started_again(
    slurm: dict[str, str], tmp_path: Path, script: str
) -> None:
    status, said = batch(script, {**slurm, "STATUS": "3"})
    assert status == 3
    assert "requeue" not in " ".join(said)
    (tmp_path / "checkpoints" / "1234567").mkdir(parents=True)
    (tmp_path / "checkpoints" / "1234567" / "finished").touch()
    status, said = batch(script, slurm)
    assert status == 0
    assert "requeue" not in " ".join(said)


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_port_is_not_one_that_the_kernel_gives_out(slurm: dict[str, str], script: str) -> None:
    for number in ("1", "9999", "10000", "67108863"):
        _, said = batch(script, {**slurm, "SLURM_JOB_ID": number})
        match = re.match(r"master cn07 (\d+),", said[0])
        assert match
        assert 20000 <= int(match[1]) < 30000


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_page_shows_the_script(script: str) -> None:
    assert f"```bash\n{(EXAMPLE / script).read_text()}```\n" in (DOCS / "training.md").read_text()


def test_the_page_names_every_file() -> None:
    page = (DOCS / "training.md").read_text()
    for path in EXAMPLE.iterdir():
        if path.is_file():
            assert f"(examples/training/{path.name})" in page, path.name


class Ranks:
    """Two ranks of the example on this machine, as srun would start them."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port

    def start(self, *words: str) -> list[subprocess.Popen[str]]:
        command = [sys.executable, "train.py", "--checkpoints", str(self.folder), *words]
        environment = {
            **os.environ, "SLURM_NTASKS": "2", "MASTER_ADDR": "127.0.0.1", "USE_LIBUV": "0",
            "MASTER_PORT": str(self.port), "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        return [
            subprocess.Popen(
                command, cwd=EXAMPLE, text=True, stdout=subprocess.PIPE,
                env={**environment, "SLURM_PROCID": rank, "SLURM_LOCALID": rank},
            )
            for rank in ("0", "1")
        ]  # fmt: skip

    def ended(self, started: list[subprocess.Popen[str]]) -> list[str]:
        """What each says last of its numbers."""
        told = []
        for process in started:
            said, _ = process.communicate(timeout=300)
            assert process.returncode == 0, said
            told += re.findall(r"^rank \d: (.+)$", said, re.M)
        return told


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    whole = Ranks(tmp_path / "whole", 29411)
    first, second = whole.ended(whole.start("--steps", "30"))
    assert first == second
    assert first.startswith("30 steps, loss ")

    parts = Ranks(tmp_path / "parts", 29412)
    started = parts.start("--steps", "30", "--every", "5", "--pause", "0.3")
    end = time.monotonic() + 120
    while not list(parts.folder.glob("step-*5.pt")):
        assert time.monotonic() < end
        time.sleep(0.05)
    # One alone is told; both leave after the same step.
    started[1].send_signal(signal.SIGUSR1)
    stopped = parts.ended(started)
    assert stopped[0] == stopped[1]
    assert not (parts.folder / "finished").exists()
    assert parts.ended(parts.start("--steps", "30")) == [first, first]
    assert (parts.folder / "finished").exists()
