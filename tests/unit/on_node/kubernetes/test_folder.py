"""The submit folder, on a disk of ours, with a Slurm that takes every job; the lab has the real one
(tests/lab/test_job_files.py). Here it dies at every step."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from on_node import slurm_state
from on_node.kubernetes import folder, submission
from on_node.kubernetes.folder import Site, Watcher
from on_node.kubernetes.job_file import JobFile
from on_node.kubernetes.registry import NotNow
from on_node.kubernetes.rules import Person, Rules
from on_node.kubernetes.submission import Refused
from on_node.slurm_state import Config
from tests.unit.on_node.test_job_guard import old

GOOD = "#!/bin/sh\n#SBATCH --partition=main\ntrue\n"


class Killed(BaseException):
    """The watcher, by a signal that nothing handles."""


class Slurm:
    """slurmctld, with jobs that nobody forgets before they are released."""

    def __init__(self) -> None:
        self.jobs: dict[str, str] = {}
        self.released: list[str] = []
        self.away = False
        #: Steps until the watcher is killed; None: never.
        self.steps: int | None = None
        # Files have the true time.
        self.now = time.time()

    def step(self) -> None:
        if self.steps is not None:
            self.steps -= 1
            if self.steps < 0:
                raise Killed

    def submit(self, job: JobFile, owner: Person, name: str, key: str) -> str:
        self.step()
        if self.away:
            raise NotNow("Unable to contact slurm controller")
        assert key not in self.jobs, "a job twice"
        self.jobs[key] = str(len(self.jobs) + 1)
        self.step()
        return self.jobs[key]

    def submitted(self, key: str) -> str | None:
        if self.away:
            raise NotNow("slurmctld does not answer")
        return self.jobs.get(key)

    def release(self, job: str, owner: Person) -> None:
        self.step()
        self.released.append(job)
        self.step()


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> Slurm:
    slurm = Slurm()
    monkeypatch.setattr(submission, "submit", slurm.submit)
    monkeypatch.setattr(submission, "submitted", slurm.submitted)
    monkeypatch.setattr(submission, "release", slurm.release)
    monkeypatch.setattr(submission, "person", lambda uid: Person("anna", uid, frozenset()))
    monkeypatch.setattr(submission, "content", lambda path, owner: path.read_bytes())
    monkeypatch.setattr(slurm_state, "running", old)
    clock = SimpleNamespace(monotonic=lambda: slurm.now, time=lambda: slurm.now)
    monkeypatch.setattr(folder, "time", clock)

    def stepping(call: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*words: Any, **more: Any) -> Any:
            slurm.step()
            done = call(*words, **more)
            slurm.step()
            return done

        return stepped

    monkeypatch.setattr(Path, "rename", stepping(Path.rename))
    monkeypatch.setattr(Path, "unlink", stepping(Path.unlink))
    return slurm


def site(tmp_path: Path, waiting: int = 10) -> Site:
    for name in ("submit", ".taken", "processed", "failed"):
        (tmp_path / name).mkdir(exist_ok=True)
    return Site(tmp_path, Rules(("hub",), ("/mnt/nas",)), {"hub": "http"}, 1, None, waiting, 2)


def put(tmp_path: Path, name: str, text: str = GOOD) -> None:
    (tmp_path / "submit").mkdir(exist_ok=True)
    (tmp_path / "submit" / name).write_text(text)


def rounds(watcher: Watcher, slurm: Slurm, number: int = 3, seconds: float = 2) -> None:
    for _ in range(number):
        watcher.round()
        slurm.now += seconds


def names(tmp_path: Path, *folders: str) -> list[str]:
    return sorted(it.name for name in folders for it in (tmp_path / name).iterdir())


def test_a_file_is_taken_when_it_has_stopped_growing(tmp_path: Path, slurm: Slurm) -> None:
    watcher = Watcher(site(tmp_path), lambda line: None)
    put(tmp_path, "a.sh", "#!/bin/sh\n")
    for _ in range(5):
        watcher.round()
        slurm.now += 1
        with (tmp_path / "submit/a.sh").open("a") as file:
            file.write("true\n")
    assert slurm.jobs == {}
    rounds(watcher, slurm)
    assert names(tmp_path, "processed") == ["a.sh", "a.sh.txt"]
    assert (tmp_path / "processed/a.sh.txt").read_text() == "job 1\n"


@pytest.mark.parametrize("later", [0.0, 1_000.0])
def test_one_job_of_each_though_it_is_killed_at_every_step(
    tmp_path: Path, slurm: Slurm, later: float
) -> None:
    """`later`: how long nobody watches then. A job that was sent when it died is there at once, or
    has never come: both are seen, since a step is counted before and behind each deed."""
    for steps in range(200):
        place = tmp_path / str(steps)
        place.mkdir()
        slurm.jobs.clear()
        slurm.released.clear()
        where = site(place)
        put(place, "a.sh")
        put(place, "wrong.sh", "#!/bin/sh\n#SBATCH --mem=1\n#SBATCH --mem=2\n")
        slurm.steps = steps
        died = False
        try:
            rounds(Watcher(where, lambda line: None), slurm)
        except Killed:
            died = True
        slurm.steps, slurm.now = None, slurm.now + later
        watcher = Watcher(where, lambda line: None)
        rounds(watcher, slurm, 5, 30)
        assert len(slurm.jobs) == 1, steps
        assert slurm.released, steps
        assert "a.sh" in names(place, "processed"), steps
        assert (place / "processed/a.sh.txt").read_text() == "job 1\n", steps
        assert "wrong.sh" in names(place, "failed"), steps
        assert names(place, "submit") == [], steps
        assert names(place, ".taken") == [], steps
        if not died:
            return
    raise AssertionError("it never came to its end")


def test_a_sent_job_is_waited_for_before_it_is_sent_again(tmp_path: Path, slurm: Slurm) -> None:
    where = site(tmp_path)
    put(tmp_path, "a.sh")
    slurm.away = True
    watcher = Watcher(where, lambda line: None)
    rounds(watcher, slurm)
    (sent,) = (tmp_path / ".taken").glob("*.sent")
    os.utime(sent, (slurm.now, slurm.now))
    slurm.away = False
    watcher.round()
    assert slurm.jobs == {}
    slurm.now += 61
    rounds(watcher, slurm, 1)
    assert len(slurm.jobs) == 1
    assert names(tmp_path, "processed") == ["a.sh", "a.sh.txt"]


def test_what_has_to_wait_is_said_once(tmp_path: Path, slurm: Slurm) -> None:
    said: list[str] = []
    put(tmp_path, "a.sh")
    slurm.away = True
    rounds(Watcher(site(tmp_path), said.append), slurm, 4)
    reasons = [line for line in said if line.startswith("a.sh: waits: ")]
    assert len(reasons) == len(set(reasons)) == 2  # when it was to be sent, and when asked for


def test_all_that_is_wrong_lies_beside_the_file(tmp_path: Path, slurm: Slurm) -> None:
    put(tmp_path, "a.sh", "#!/bin/sh\n#SBATCH --mem=1\n#SBATCH --mem=2 --tyme=1\n")
    rounds(Watcher(site(tmp_path), lambda line: None), slurm)
    assert (tmp_path / "failed/a.sh.txt").read_text() == (
        "line 3: --mem is in line 2 already\nline 3: --tyme is not known here; is --time meant?\n"
    )


def test_a_refusal_is_in_slurm_s_own_words(
    tmp_path: Path, slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> str:
        raise Refused("Batch job submission failed: Invalid qos specification")

    monkeypatch.setattr(submission, "submit", refuse)
    put(tmp_path, "a.sh")
    rounds(Watcher(site(tmp_path), lambda line: None), slurm)
    text = (tmp_path / "failed/a.sh.txt").read_text()
    assert text == "Batch job submission failed: Invalid qos specification\n"
    assert names(tmp_path, ".taken") == []


def test_nobody_fills_the_folder(tmp_path: Path, slurm: Slurm) -> None:
    for number in range(7):
        put(tmp_path, f"{number}.sh")
        os.utime(tmp_path / "submit" / f"{number}.sh", (number, number))
    watcher = Watcher(site(tmp_path, waiting=5), lambda line: None)
    rounds(watcher, slurm)
    assert names(tmp_path, "failed") == ["5.sh", "5.sh.txt", "6.sh", "6.sh.txt"]
    assert (tmp_path / "failed/5.sh.txt").read_text() == "more than 5 files of yours wait\n"
    assert len(slurm.jobs) == 5


def test_a_name_that_is_there_already_gets_a_number(tmp_path: Path, slurm: Slurm) -> None:
    watcher = Watcher(site(tmp_path), lambda line: None)
    for _ in range(3):
        put(tmp_path, "a.sh")
        rounds(watcher, slurm)
    assert names(tmp_path, "processed") == [
        "a.sh", "a.sh.2", "a.sh.2.txt", "a.sh.3", "a.sh.3.txt", "a.sh.txt",
    ]  # fmt: skip


def test_a_job_that_its_owner_holds_is_not_released(tmp_path: Path, slurm: Slurm) -> None:
    put(tmp_path, "a.sh", "#!/bin/sh\n#SBATCH -H\n")
    rounds(Watcher(site(tmp_path), lambda line: None), slurm)
    assert (len(slurm.jobs), slurm.released) == (1, [])


@pytest.mark.parametrize(
    "name", [b"\xff.sh", b"a\nb.sh", b"\x1b[2J.sh", "\u2028".encode(), b"x" * 240]
)
def test_no_name_stops_the_watcher(tmp_path: Path, slurm: Slurm, name: bytes) -> None:
    said: list[str] = []
    where = site(tmp_path)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/submit/" + name)).write_text(GOOD)
    put(tmp_path, "good.sh")
    rounds(Watcher(where, said.append), slurm)
    assert len(slurm.jobs) == 1
    assert len(names(tmp_path, "failed")) == 2
    assert all(line.isprintable() and line.encode() for line in said)


def test_what_a_copying_program_has_begun_is_left(tmp_path: Path, slurm: Slurm) -> None:
    put(tmp_path, ".train.sh.Xy12")
    rounds(Watcher(site(tmp_path), lambda line: None), slurm)
    assert names(tmp_path, "submit") == [".train.sh.Xy12"]


def test_a_file_that_cannot_be_judged_stops_no_other(
    tmp_path: Path, slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(content: bytes, *_: object) -> tuple[JobFile, list[str]]:
        if b"bad" in content:
            raise ValueError("Exceeds the limit")
        return JobFile(GOOD), []

    monkeypatch.setattr(folder, "wrong", wrong)
    put(tmp_path, "a.sh", "#!/bin/sh\nbad\n")
    put(tmp_path, "b.sh")
    rounds(Watcher(site(tmp_path), lambda line: None), slurm)
    assert (tmp_path / "failed/a.sh.txt").read_text().startswith("cannot be read: ValueError")
    assert names(tmp_path, "processed") == ["b.sh", "b.sh.txt"]


def test_slurmctld_is_asked_once_however_many_files_there_are(
    tmp_path: Path, slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def running() -> Config:
        asked.append("")
        return old()

    monkeypatch.setattr(slurm_state, "running", running)
    for number in range(9):
        put(tmp_path, f"{number}.sh")
    watcher = Watcher(site(tmp_path), lambda line: None)
    rounds(watcher, slurm)
    assert (len(slurm.jobs), len(asked)) == (9, 1)
    put(tmp_path, "later.sh")
    rounds(watcher, slurm)
    assert (len(slurm.jobs), len(asked)) == (10, 2)
