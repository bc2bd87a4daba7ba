"""Slurm's parameter table: what is looked up, and what settings make of it."""

from __future__ import annotations

from typing import Any

import pytest

from settings import SettingsError, parse
from settings.parameters import (
    NEWEST,
    OLDEST,
    SLURM_CONF,
    Needs,
    files,
    find,
    nearest,
    plugins,
    release_of,
    restarted_by,
    table,
)
from settings.slurm_value import plain
from tests.unit.settings.test_settings import lab, mistakes

KINDS = {
    "text", "options", "flags", "choice", "plugin", "plugins", "program", "path", "paths", "level",
    "ports", "range", "time", "bool", "int16", "int32", "int64", "float",
}  # fmt: skip


@pytest.mark.parametrize("file", files())
def test_each_line_of_the_table_is_whole(file: str) -> None:
    parameters = list(table(file).values())
    assert parameters
    for it in parameters:
        assert it.kind in KINDS, it
        assert bool(it.of) is (it.kind in {"flags", "choice", "plugin", "plugins"}), it
        assert bool(it.on) is (it.kind == "program"), it
        assert it.needs in Needs, it
        assert it.since is None or OLDEST < it.since <= NEWEST, it
        assert it.until is None or it.until < NEWEST, it
        assert {*it.restart} <= {"slurmctld", "slurmd", "sackd", "slurmdbd", "slurmrestd"}, it
        assert it.needs is not Needs.RESTART or it.restart, it


def test_a_name_is_found_in_any_case() -> None:
    parameter = find(SLURM_CONF, "messagetimeout")
    assert parameter is not None
    assert (parameter.name, parameter.kind, parameter.needs) == (
        "MessageTimeout", "int16", Needs.RECONFIGURE,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("version", "release"),
    [("24.11.5-4", (24, 11)), ("25.05.1-1", (25, 5)), ("2:23.11.4-1.2ubuntu5", (23, 11))],
)
def test_the_release_of_a_version(version: str, release: tuple[int, int]) -> None:
    assert release_of(version) == release


def test_what_a_change_needs() -> None:
    assert {it: find(SLURM_CONF, it).needs for it in ("AuthType", "SlurmctldPort", "KillWait")} == {  # type: ignore[union-attr]
        "AuthType": Needs.STOP, "SlurmctldPort": Needs.RESTART, "KillWait": Needs.RECONFIGURE,
    }  # fmt: skip
    assert "SlurmdSpoolDir" in restarted_by("slurmd")
    assert "SlurmdSpoolDir" not in restarted_by("slurmctld")


#: Release, setting, its path, and what the report says.
OF_A_RELEASE: list[tuple[str, dict[str, Any], str, str]] = [
    ("24.11.5-4", {"slurm": {"extra": {"MetricsType": "metrics/openmetrics"}}},
     "slurmstack:slurm.extra.MetricsType", "no MetricsType with Slurm 24.11: 25.11 is the first"),
    ("25.05.1-1", {"slurm": {"extra": {"GetEnvTimeout": 5}}},
     "slurmstack:slurm.extra.GetEnvTimeout", "with Slurm 25.05: 24.11 was the last"),
    ("24.11.5-4", {"slurm": {"TopologyPlugin": "topology/flat"}},
     "slurmstack:slurm.TopologyPlugin", "a plugin that Slurm 24.11 has: topology/"),
    ("23.11.4-1", {"partitions": {"main": {"Nodes": "ALL", "extra": {"ExclusiveTopo": True}}}},
     "slurmstack:partitions.main.extra.ExclusiveTopo", "24.05 is the first"),
    ("24.11.5-4", {"cgroup": {"EnableExtraControllers": "io"}},
     "slurmstack:cgroup.EnableExtraControllers", "25.05 is the first"),
    ("23.11.4-1", {"accounting": {"slurmdbd": {"extra": {"DisableCoordDBD": True}}}},
     "slurmstack:accounting.slurmdbd.extra.DisableCoordDBD", "24.05 is the first"),
    ("23.11.4-1", {"slurm": {"PrologFlags": "RunInJob"}},
     "slurmstack:slurm.PrologFlags", "no RunInJob with Slurm 23.11: 24.05 is the first with it"),
    ("24.11.5-4", {"nodes": [{"hosts": "cn[01-02]", "extra": {"Topology": "a:b"}}]},
     "slurmstack:nodes[0].extra.Topology", "25.05 is the first"),
]  # fmt: skip


@pytest.mark.parametrize(("version", "changes", "path", "says"), OF_A_RELEASE)
def test_what_the_release_has_not(
    version: str, changes: dict[str, Any], path: str, says: str
) -> None:
    found = mistakes({**changes, "packages": {"version": version}})
    assert says in found[path]
    # It shows what was set, or the name where that says more than a value.
    value = next(iter(changes.values()))
    while isinstance(value, dict | list):
        value = next(reversed(value.values())) if isinstance(value, dict) else value[-1]
    assert found[path].endswith(f"; found {plain(value)}")
    # Where any version may be deployed, the daemons say on the node whether theirs has it.
    parse({**lab(), **changes})


def test_a_known_release_takes_what_it_has() -> None:
    slurm = {"extra": {"MetricsType": "metrics/openmetrics"}}
    parse({**lab(), "slurm": slurm, "packages": {"version": "25.11.0-1"}})
    insisted = {"extra": {"MetricsType!": "metrics/openmetrics"}}
    parse({**lab(), "slurm": insisted, "packages": {"version": "24.11.5-4"}})


def test_words_and_plugins_that_a_release_is_the_first_to_have() -> None:
    def taken(version: str, **slurm: Any) -> None:
        parse({**lab(), "slurm": slurm, "packages": {"version": version}})

    taken("24.05.1-1", PrologFlags="Contain,RunInJob")
    taken("24.11.0-1", DebugFlags="+ConMgr,Gres")
    taken("25.05.0-1", TopologyPlugin="topology/flat")
    with pytest.raises(SettingsError, match=r"no RunInJob with Slurm 23\.11"):
        taken("23.11.4-1", PrologFlags="Contain,RunInJob")
    with pytest.raises(SettingsError, match=r"no \+ConMgr with Slurm 24\.05"):
        taken("24.05.1-1", DebugFlags="Gres,+ConMgr")
    with pytest.raises(SettingsError, match=r"a plugin that Slurm 24\.11 has: job_submit/"):
        taken("24.11.5-4", extra={"JobSubmitPlugins": ["cray_aries", "lua"]})


def test_plugins_that_are_in_some_releases() -> None:
    assert plugins("switch")["nvidia_imex"] == ((24, 5), None)
    assert plugins("select")["cray_aries"] == (None, (23, 11))


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("MesageTimeot", "MessageTimeout"),
        ("SlurmctldParams", "SlurmctldParameters"),
        ("schedulerparameter", "SchedulerParameters"),
        ("NoSuchParameter", None),
        ("FooBar", None),
    ],
)
def test_the_nearest_name_is_one_that_can_be_meant(slip: str, meant: str | None) -> None:
    assert nearest(slip, [it.name for it in table(SLURM_CONF).values()]) == meant


def test_letters_that_changed_places() -> None:
    assert nearest("nmae", ["name", "hosts"]) == "name"
    assert nearest("hsots", ["name", "hosts"]) == "hosts"
