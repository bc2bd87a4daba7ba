"""A node that validation powers off: what is noted, what is told, and that it is switched on."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from operations import node_power
from operations.cluster import Cluster
from operations.node_power import lost_and_back, switch_on, switched_off
from operations.refused import Refused
from operations.validations import Verdict, Word
from settings.acceptance import Power
from tests.unit.operations.slurmctld import Controller, cluster, controller

__all__ = ["controller"]

IDLE = "State=IDLE ThreadsPerCore=1"
LOST = "State=DOWN* ThreadsPerCore=1\n   Reason=Not responding [slurm@2026-11-25T18:00:27]"
BACK = "State=DOWN ThreadsPerCore=1\n   Reason=Not responding [slurm@2026-11-25T18:00:27]"
PERSON = "State=IDLE+DRAIN ThreadsPerCore=1\n   Reason=fan [root@2026-11-25T18:00:27]"


class Site:
    """cn02 by its power: slurmctld sees it go and come, and its job ends at its second start."""

    def __init__(self, folder: Path) -> None:
        self.switch = folder / "switch"
        self.switch.write_text("on\n")
        self.power = Power(off=f"echo off {{node}} >>{self.switch}",
                           on=f"echo on {{node}} >>{self.switch}")  # fmt: skip
        #: What slurmctld says of the node by the last word of the switch.
        self.states = {"on": IDLE, "off": LOST}
        self.jobs = {"on": "JobState=RUNNING", "off": "JobState=PENDING"}
        self.again = "JobState=COMPLETED"
        self.timeout = 1
        self.resumed = False

    @property
    def switched(self) -> list[str]:
        return self.switch.read_text().splitlines()

    def answer(self, script: str) -> str:
        now = self.switched[-1].split()[0]
        if "sbatch" in script:
            return "7\n"
        if "show config" in script:
            return f"SlurmdTimeout           = {self.timeout} sec\n"
        if "show job" in script:
            return self.again if len(self.switched) > 2 else self.jobs[now]
        if "show node" in script:
            return f"NodeName=cn02\n   {IDLE if self.resumed else self.states[now]}\n"
        if "State=RESUME" in script:
            self.resumed = True
        return ""


@pytest.fixture
def site(tmp_path: Path, controller: Controller, monkeypatch: pytest.MonkeyPatch) -> Site:
    made = Site(tmp_path)

    def answer(_: Cluster, script: str, what: str, seconds: float = 30) -> str:
        controller.asked.append(script)
        return made.answer(script)

    monkeypatch.setattr(controller, "answer", answer)
    for name in ("_SEEN", "_BOOT", "_JOB", "_PAUSE"):
        monkeypatch.setattr(node_power, name, 0.01)
    return made


def word(verdict: Verdict, words: str) -> Word:
    return Word("node powered off in the middle", "cn02", verdict, words)


def cut(folder: Path, power: Power) -> Word:
    return lost_and_back(cluster(folder), power, "cn02", "ours", "all")


def test_a_node_goes_and_comes_back_and_its_job_with_it(
    site: Site, tmp_path: Path, controller: Controller
) -> None:
    assert cut(tmp_path, site.power) == word("proven", "its job was requeued, and ended well "
                                                       "after it")  # fmt: skip
    assert site.switched == ["on", "off cn02", "on cn02"]
    assert switched_off(cluster(tmp_path).place) == []
    (job,) = [script for script in controller.asked if "sbatch" in script]
    assert all(it in job for it in (" --requeue ", " --reservation=ours ", " -p all ", " -w cn02 "))
    # It took itself back into use.
    assert not any("scontrol update" in script for script in controller.asked)


def test_a_node_that_slurmctld_holds_down_after_it_is_resumed(
    site: Site, tmp_path: Path, controller: Controller
) -> None:
    site.states["on"] = IDLE
    site.power = Power(off=site.power.off, on=f"{site.power.on}; echo back >>{site.switch}")
    site.states["back"] = BACK
    assert cut(tmp_path, site.power).verdict == "proven"
    assert (
        controller.changes[-1]
        == "scontrol update NodeName=cn02 State=RESUME Reason='given back by slurmstack'"
    )


def test_a_person_s_drain_of_it_stays(site: Site, tmp_path: Path, controller: Controller) -> None:
    site.power = Power(off=site.power.off, on=f"{site.power.on}; echo back >>{site.switch}")
    site.states["back"] = PERSON
    assert cut(tmp_path, site.power).verdict == "proven"
    assert not any("scontrol update" in script for script in controller.asked)


@pytest.mark.parametrize(
    ("jobs", "states", "words", "switches"),
    [
        ({"on": "JobState=PENDING"}, {}, "job 7 does not start", 0),
        ({}, {"off": IDLE}, "slurmctld does not see that it is gone", 2),
        ({"off": "JobState=RUNNING"}, {}, "job 7 is still said to run", 2),
    ],
)
def test_what_went_wrong_is_told_and_the_node_is_on(
    site: Site, tmp_path: Path, jobs: dict[str, str], states: dict[str, str], words: str,
    switches: int,
) -> None:  # fmt: skip
    site.jobs.update(jobs)
    site.states.update(states)
    assert cut(tmp_path, site.power) == word("failed", words)
    assert site.switched[1:] == ["off cn02", "on cn02"][:switches]
    assert switched_off(cluster(tmp_path).place) == []


def test_a_job_that_is_not_run_again_has_failed(site: Site, tmp_path: Path) -> None:
    site.again = "JobState=PENDING"
    assert cut(tmp_path, site.power) == word("failed", "job 7 was not run again")


def test_a_node_that_stays_away_is_remembered(site: Site, tmp_path: Path) -> None:
    site.power = Power(off=site.power.off, on="true")
    assert cut(tmp_path, site.power) == word("failed", "it has not come back")
    here = cluster(tmp_path)
    assert switched_off(here.place) == ["cn02"]
    # The next run switches it on, if it is told how.
    with pytest.raises(Refused, match=r"cn02 was powered off.*slurmstack:acceptance\.power"):
        switch_on(here, None)
    assert switch_on(here, Power(off="false", on=f"echo on {{node}} >>{site.switch}"))
    assert site.switched[-1] == "on cn02"
    assert switched_off(here.place) == []
    assert switch_on(here, None)


def test_a_command_that_fails_is_named_with_its_words(site: Site, tmp_path: Path) -> None:
    broken = Power(off="echo one; echo no BMC of {node} >&2; exit 3", on=site.power.on)
    with pytest.raises(Refused) as refused:
        cut(tmp_path, broken)
    said = "cn02: echo one; echo no BMC of {node} >&2; exit 3: exit 3: no BMC of cn02"
    assert str(refused.value) == said
    # It may have gone off all the same.
    assert site.switched == ["on", "on cn02"]
    with pytest.raises(Refused, match="exit 4: nothing"):
        cut(tmp_path, Power(off="exit 4", on="true"))


def test_a_command_that_does_not_end_holds_nobody_up(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_power, "_COMMAND", 0.2)
    with pytest.raises(Refused, match=r"cn02: sleep 600: it has not ended within 0\.2 s"):
        cut(tmp_path, Power(off="sleep 600", on=site.power.on))


def test_a_note_that_is_none_is_no_note(tmp_path: Path) -> None:
    assert switched_off(tmp_path / "nowhere") == []
    (tmp_path / "powered-off.json").write_text(json.dumps(["cn02"])[:-1])
    assert switched_off(tmp_path) == []


def test_slurmctld_has_its_own_time_to_give_a_node_up(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen with SlurmdTimeout 300: it was not DOWN after 420 s, and the node was said to fail."""
    clock = [0.0]
    answer = site.answer
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", lambda _: clock.append(clock.pop() + 10))

    def late(script: str) -> str:
        if "show config" in script:
            return "SlurmdTimeout           = 300 sec\n"
        if "show node" in script and site.switched[-1].startswith("off") and clock[0] < 490:
            return f"NodeName=cn02\n   {IDLE}\n"
        return answer(script)

    monkeypatch.setattr(site, "answer", late)
    for name in ("_BOOT", "_JOB"):
        monkeypatch.setattr(node_power, name, 60.0)
    assert cut(tmp_path, site.power).verdict == "proven"


def test_where_slurmctld_gives_up_no_node_none_is_switched_off(site: Site, tmp_path: Path) -> None:
    site.timeout = 0
    words = "SlurmdTimeout is 0: slurmctld gives up no node"
    assert cut(tmp_path, site.power) == word("not here", words)
    assert site.switched == ["on"]
