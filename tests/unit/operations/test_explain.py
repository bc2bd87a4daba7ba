"""`slurmstack explain`: Slurm's parameters by the table, ours by their page."""

from __future__ import annotations

from typing import Any

import pytest

from operations.explain import Explained, explain
from operations.refused import Refused
from settings import parse
from settings.parameters import default, files, find, table
from tests.unit.operations.test_hosts import RAW


def one(name: str, **more: Any) -> Explained:
    found = explain(name, parse({**RAW, **more}))
    assert isinstance(found, list)
    return found[0]


def test_a_parameter_with_a_setting_of_its_own() -> None:
    told = one("messagetimeout", slurm={"MessageTimeout": 60})
    assert (told.name, told.file) == ("MessageTimeout", "slurm.conf")
    assert told.set_by == "slurmstack:slurm.MessageTimeout"
    assert told.needs == "a reconfigure, running jobs go on"
    assert (told.slurm_default, told.now) == ("10 sec", "60")


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("slurm.conf:JobRequeue", "slurmstack:slurm.extra.JobRequeue"),
        ("slurm.conf PartitionName:MaxTime", "slurmstack:partitions.NAME.MaxTime"),
        ("slurm.conf PartitionName:PriorityTier", "slurmstack:partitions.NAME.extra.PriorityTier"),
        ("slurm.conf NodeName:Weight", "slurmstack:nodes[].Weight"),
        ("slurmdbd.conf:PurgeJobAfter", "slurmstack:accounting.slurmdbd.PurgeJobAfter"),
        ("cgroup.conf:ConstrainCores", "slurmstack:cgroup.ConstrainCores"),
        ("topology.conf:SwitchName", "none: it follows from other settings"),
    ],
)
def test_where_a_parameter_is_set(name: str, place: str) -> None:
    assert one(name).set_by == place


def test_what_a_change_needs_and_whom_it_restarts() -> None:
    assert (
        one("SlurmctldPort").needs.startswith("a restart")
        or "restarted" in one("SlurmctldPort").needs
    )
    assert "slurmctld" in one("SlurmctldPort").daemons
    assert "refused while jobs run" in one("ProctrackType").needs
    assert one("slurmdbd.conf:MessageTimeout").daemons == "slurmdbd"


def test_who_runs_by_it() -> None:
    assert one("SlurmctldPort").daemons == "slurmctld, slurmrestd"
    assert one("SlurmctldPort").needs.endswith("; restarted: slurmctld, slurmrestd")
    assert one("slurm.conf:JobRequeue").daemons == "slurmctld, slurmd"


def test_what_it_is_now_and_without_a_word() -> None:
    assert one("slurm.ReturnToService").now == one("ReturnToService").our_default == "1"
    assert one("ReturnToService", slurm={"ReturnToService": 0}).now == "0"
    extra = {"jobrequeue": "0"}
    assert one("slurm.conf:JobRequeue", slurm={"extra": extra}).now == "0"
    assert one("slurm.conf:JobRequeue").now == "not set: Slurm's own default"
    # Of other files the settings are no word for word.
    assert one("slurm.conf PartitionName:MaxTime").now == ""
    # What has no default must be said by the site.
    assert one("slurm.conf PartitionName:Nodes").our_default == ""
    assert one("slurm.conf PartitionName:MaxTime").our_default == "UNLIMITED"
    assert one("slurm.conf:AccountingStorageBackupHost").slurm_default == "none"


def test_kinds_examples_and_files_are_told() -> None:
    weight = one("slurm.conf NodeName:Weight")
    assert weight.file == "slurm.conf, on NodeName lines"
    assert (weight.kind, weight.example) == ("int32", "Weight: 1")
    proctrack = one("ProctrackType")
    assert (proctrack.file, proctrack.kind) == ("slurm.conf", "plugin of proctrack")


def test_since_when_and_until_when() -> None:
    assert one("BackupController").note == "it is a second SlurmctldHost; until 24.11"
    since = next(it for it in table("slurm.conf").values() if it.since and not it.until)
    assert "since 2" in one(f"slurm.conf:{since.name}").note


def test_of_several_files_each_is_told() -> None:
    found = explain("MessageTimeout")
    assert isinstance(found, list)
    assert [it.file for it in found] == ["slurm.conf", "slurmdbd.conf"]


@pytest.mark.parametrize("file", files())
def test_every_parameter_can_be_explained(file: str) -> None:
    for parameter in table(file).values():
        told = one(f"{file}:{parameter.name}")
        assert told.example
        assert told.needs


def test_a_setting_of_ours_is_told_by_its_page() -> None:
    assert "Compute node → why it is out" in str(explain("slurmstack:excluded"))
    assert "6820" in str(explain("rest.port"))
    # Of several tables that have one, each row.
    title, rows = str(explain("directory.home")).split("\n\n")
    assert title == "slurmstack:directory.home"
    assert [row.split(" ")[0] for row in rows.splitlines()] == [
        "`root`,",
        "Default:",
        "the",
        "Default:",
    ]


@pytest.mark.parametrize(
    ("name", "near"),
    [("MesageTimeout", "MessageTimeout"), ("slurmstack:exclude", "excluded"), ("rest.prt", "")],
)
def test_a_slip_is_told_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(Refused, match=f"{name}: no such setting.*{near}") as error:
        explain(name)
    assert ("did you mean" in str(error.value)) == bool(near)


def test_the_defaults_are_of_parameters_in_the_table() -> None:
    timeout = find("slurm.conf", "MessageTimeout")
    assert timeout is not None
    assert default(timeout) == "10 sec"
    backup = find("slurm.conf", "AccountingStorageBackupHost")
    assert backup is not None
    assert default(backup) == ""
