"""Values of Slurm's files: what people write, what is refused and why, what the file has."""

from __future__ import annotations

import re
from typing import Any

import pytest

from settings import parse
from settings.load import from_config
from settings.parameters import SLURM_CONF, find
from settings.problems import SettingsError
from settings.slurm_value import checked, file_text
from tests.unit.components.configuration.test_slurm_conf import rendered
from tests.unit.settings.test_settings import lab, mistakes

MAIN = {"Nodes": "ALL", "Default": True}


def of_slurm(name: str, value: Any) -> dict[str, Any]:
    return {"slurm": {name: value}}


def in_extra(name: str, value: Any) -> dict[str, Any]:
    return {"slurm": {"extra": {name: value}}}


def of_partition(name: str, value: Any) -> dict[str, Any]:
    return {"partitions": {"main": {**MAIN, "extra": {name: value}}}}


def of_nodes(name: str, value: Any) -> dict[str, Any]:
    return {"nodes": [{"hosts": "cn[01-02]", "extra": {name: value}}]}


#: Settings → the line, or its part, that slurm.conf has then.
TAKEN: list[tuple[dict[str, Any], str]] = [
    (of_slurm("SlurmctldDebug", 3), "SlurmctldDebug=3"),
    (of_slurm("SlurmctldDebug", "Debug2"), "SlurmctldDebug=Debug2"),
    (of_slurm("SlurmctldPort", "6820-6830"), "SlurmctldPort=6820-6830"),
    (of_slurm("EnforcePartLimits", "yes"), "EnforcePartLimits=YES"),
    (of_slurm("EnforcePartLimits", "no"), "EnforcePartLimits=NO"),
    (of_slurm("EnforcePartLimits", "all"), "EnforcePartLimits=ALL"),
    (of_slurm("EnforcePartLimits", "True"), "EnforcePartLimits=True"),
    (of_slurm("EnforcePartLimits", 0), "EnforcePartLimits=0"),
    (of_slurm("EnforcePartLimits", "Any"), "EnforcePartLimits=ANY"),
    # YAML takes these without quotes for truth values.
    (of_slurm("EnforcePartLimits", True), "EnforcePartLimits=YES"),
    (of_slurm("EnforcePartLimits", False), "EnforcePartLimits=NO"),
    (in_extra("PreemptMode", False), "PreemptMode=OFF"),
    (of_slurm("SwitchType", "switch/none"), "SwitchType=switch/none"),
    (of_slurm("InactiveLimit", "INFINITE"), "InactiveLimit=INFINITE"),
    (of_slurm("MaxStepCount", "unlimited"), "MaxStepCount=unlimited"),
    (of_slurm("SchedulerParameters", "defer, bf_continue"),
     "SchedulerParameters=defer,bf_continue"),
    (of_slurm("SchedulerParameters", ["defer", "bf_max_job_test=500"]),
     "SchedulerParameters=defer,bf_max_job_test=500"),
    (of_slurm("RebootProgram", "/sbin/shutdown -r now"), 'RebootProgram="/sbin/shutdown -r now"'),
    (of_slurm("RebootProgram", '"/sbin/shutdown -r now"'), 'RebootProgram="/sbin/shutdown -r now"'),
    (of_slurm("JobCompType", "jobcomp/none"), "JobCompType=jobcomp/none"),
    (in_extra("SrunProlog", "/opt/prolog"), "SrunProlog=/opt/prolog"),
    (of_slurm("DebugFlags", "backfill,+Gres,-steps"), "DebugFlags=Backfill,+Gres,-Steps"),
    (in_extra("jobrequeue", 0), "JobRequeue=0"),
    (in_extra("MailProg", "/opt/mail#1/send"), "MailProg=/opt/mail\\#1/send"),
    (in_extra("FooBar!", "a b"), 'FooBar="a b"'),
    (in_extra("JobRequeue!", "7 # odd"), 'JobRequeue="7 \\# odd"'),
    (in_extra("JobSubmitPlugins", ["lua", "require_timelimit"]),
     "JobSubmitPlugins=lua,require_timelimit"),
    (in_extra("PriorityUsageResetPeriod", "weekly"), "PriorityUsageResetPeriod=WEEKLY"),
    (of_partition("AllowAccounts", ["physics", "science"]), " AllowAccounts=physics,science"),
    (of_partition("AllowGroups", "staff, users"), " AllowGroups=staff,users"),
    (of_partition("OverSubscribe", "force:4"), " OverSubscribe=FORCE:4"),
    (of_partition("oversubscribe", False), " OverSubscribe=NO"),
    (of_partition("DefaultTime", "1:00:00"), " DefaultTime=1:00:00"),
    (of_partition("TRESBillingWeights", "CPU=1.0,Mem=0.25G"),
     " TRESBillingWeights=CPU=1.0,Mem=0.25G"),
    (of_nodes("Reason", "being built"), ' Reason="being built"'),
    (of_nodes("CoreSpecCount", 2), " CoreSpecCount=2"),
    ({"partitions": {"main": {**MAIN, "MaxTime": 90}}}, " MaxTime=90"),
    ({"partitions": {"main": {**MAIN, "MaxTime": "infinite"}}}, " MaxTime=infinite"),
    ({"nodes": [{"hosts": "cn[01-02]", "Features": "dgx, ib"}]}, " Features=dgx,ib"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "line"), TAKEN)
def test_what_people_write_is_taken(changes: dict[str, Any], line: str) -> None:
    settings = {key: value for key, value in changes.items() if key != "accounting"}
    text = rendered(**settings)
    assert line in text if line.startswith(" ") else f"\n{line}\n" in text


#: Settings → where the report says what.
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    # slurm.conf(5): of all choices, EnforcePartLimits alone takes truth values; a count goes
    # with FORCE and YES of OverSubscribe alone.
    (of_slurm("EnforcePartLimits", "some"), "slurm.EnforcePartLimits", "one of ALL, ANY, NO, YES"),
    (in_extra("PriorityUsageResetPeriod", "yes"), "slurm.extra.PriorityUsageResetPeriod", "one of"),
    (in_extra("PriorityUsageResetPeriod", "weekly:2"), "slurm.extra.PriorityUsageResetPeriod",
     "one of"),
    (of_partition("OverSubscribe", "sometimes:4"), "partitions.main.extra.OverSubscribe", "one of"),
    (of_partition("OverSubscribe", "force:four"), "partitions.main.extra.OverSubscribe", "one of"),
    (in_extra("SchedulerParameters!", None), "slurm.extra.SchedulerParameters!", "one level up"),
    (of_slurm("SchedulerParameters", "defer bf_continue"), "slurm.SchedulerParameters",
     "words with commas between, such as one,two,…"),
    (in_extra("MesageTimeot", 1), "slurm.extra.MesageTimeot", "MessageTimeout, the nearest"),
    (in_extra("FooBar", 1), "slurm.extra.FooBar", 'if your Slurm has it, write "FooBar!"'),
    (in_extra("FastSchedule", 1), "slurm.extra.FastSchedule", "SlurmdParameters=config_overrides"),
    (in_extra("cachegroups", 1), "slurm.extra.cachegroups", "no CacheGroups, which Slurm has no"),
    (in_extra("messagetimeout", 5), "slurm.extra.messagetimeout", "MessageTimeout one level up"),
    (in_extra("MessageTimeout!", 5), "slurm.extra.MessageTimeout!", "MessageTimeout one level up"),
    (in_extra("ClusterName!", "x"), "slurm.extra.ClusterName!", "slurmstack:cluster name"),
    ({"slurm": {"extra": {"JobRequeue": 1, "jobrequeue": 0}}}, "slurm.extra.jobrequeue",
     "JobRequeue once"),
    (in_extra("JobRequeue", "perhaps"), "slurm.extra.JobRequeue", "a whole number from 0 to 65535"),
    (in_extra("DisableRootJobs", "perhaps"), "slurm.extra.DisableRootJobs", "YES or NO"),
    (in_extra("MailProg", "/x\nNodeName=y"), "slurm.extra.MailProg", "on one line"),
    (in_extra("MailProg", "/x\rNodeName=y"), "slurm.extra.MailProg", "on one line"),
    (in_extra("FooBar!", "x\u2028y"), "slurm.extra.FooBar!", "on one line"),
    (in_extra("FooBar!", 'a "b" c'), "slurm.extra.FooBar!", 'without "'),
    (in_extra("FooBar!", ""), "slurm.extra.FooBar!", "leave the parameter out"),
    (in_extra("FooBar!", None), "slurm.extra.FooBar!", "one value"),
    (in_extra("GroupUpdateTime", [1, 2]), "slurm.extra.GroupUpdateTime", "one value, such as"),
    (of_slurm("SchedulerParameters", "defer bf_continue"), "slurm.SchedulerParameters",
     "words with commas between"),
    (of_slurm("SlurmctldDebug", "loud"), "slurm.SlurmctldDebug", "quiet, fatal, error"),
    (of_slurm("SlurmctldDebug", 11), "slurm.SlurmctldDebug", "its number from 0 to 9"),
    (of_slurm("SlurmctldPort", "6830-6820"), "slurm.SlurmctldPort", "6817 or 6820-6830"),
    (of_slurm("MaxArraySize", 4_000_002), "slurm.MaxArraySize", "from 0 to 4000001"),
    (of_slurm("DebugFlags", "Bakcfill"), "slurm.DebugFlags", "(Backfill?)"),
    (of_slurm("SelectType", "select/cons_res"), "slurm.SelectType", "(select/cons_tres?)"),
    (of_slurm("TaskPlugin", "affinity,task/nothing"), "slurm.TaskPlugin", "task/cgroup"),
    (in_extra("JobSubmitPlugins", "luaa"), "slurm.extra.JobSubmitPlugins", "(job_submit/lua?)"),
    (of_slurm("StateSaveLocation", "var/spool"), "slurm.StateSaveLocation", "the whole path"),
    ({"partitions": {"main": {**MAIN, "MaxTime": "2h"}}}, "partitions.main.MaxTime",
     "minutes, or a time such as 12:00:00"),
    ({"partitions": {"main": {**MAIN, "State": "UPP"}}}, "partitions.main.State", "UP, DOWN"),
    (of_partition("maxtime", 5), "partitions.main.extra.maxtime", "MaxTime one level up"),
    (of_partition("PartitionName", "x"), "partitions.main.extra.PartitionName",
     "the name that slurmstack:partitions gives it"),
    (of_partition("AllowAcounts", "x"), "partitions.main.extra.AllowAcounts", "AllowAccounts, the"),
    (of_partition("AllowGroups", "a\nNodeName=b"), "partitions.main.extra.AllowGroups", "one line"),
    (of_nodes("weight", 5), "nodes[0].extra.weight", "Weight one level up"),
    (of_nodes("NodeAddr", "x"), "nodes[0].extra.NodeAddr", "the address in slurmstack:hosts"),
    (of_nodes("cpus", 5), "nodes[0].extra.cpus", "hardware one level up"),
    (of_nodes("Feature", "a"), "nodes[0].extra.Feature", "Features one level up"),
    (of_nodes("State", "BROKEN"), "nodes[0].extra.State", "CLOUD, DOWN"),
    ({"nodes": [{"hosts": "cn01", "Features": ["a b"]}]}, "nodes[0].Features", "without blanks"),
    ({"nodes": [{"hosts": "cn01", "Features": ["a#b"]}]}, "nodes[0].Features", "without blanks"),
    ({"nodes": [{"hosts": "cn01", "Features": ["a\nNodeName=x"]}]}, "nodes[0].Features", "blanks"),
    ({"slurm": {"MesageTimeout": 5}}, "slurm.MesageTimeout", "MessageTimeout, the nearest key"),
    ({"slurm": {"JobRequeue": 0}}, "slurm.JobRequeue", "JobRequeue one level down, in extra"),
    ({"slurm": {"messagetimeout": 5}}, "slurm.messagetimeout", "MessageTimeout, as Slurm spells"),
    ({"cgroup": {"ConstrainCore": True}}, "cgroup.ConstrainCore", "ConstrainCores, the nearest"),
    ({"accounting": {"slurmdbd": {"extra": {"tcptimeout": "x"}}}},
     "accounting.slurmdbd.extra.tcptimeout", "a whole number"),
    ({"accounting": {"slurmdbd": {"extra": {"JobPurge": 1}}}},
     "accounting.slurmdbd.extra.JobPurge", "it is PurgeJobAfter"),
    ({"accounting": {"slurmdbd": {"DebugLevel": "loud"}}}, "accounting.slurmdbd.DebugLevel",
     "quiet, fatal"),
    ({"accounting": {"mariadb": {"extra": {"sql_mode": "a # b"}}}},
     "accounting.mariadb.extra.sql_mode", "without #"),
    ({"cgroup": {"AllowedRAMSpace": "95,5"}}, "cgroup.AllowedRAMSpace", "a number, such as"),
    ({"cgroup": {"AllowedRAMSpace": "-1"}}, "cgroup.AllowedRAMSpace", "a number, such as"),
    ({"mpi": {"conf": {"PMIxEnv": "A=1\nB=2"}}}, "mpi.conf.PMIxEnv", "on one line"),
    ({"topology": {"plugin": "tree", "switches": {"a\nSwitchName=b": {"Nodes": "cn[01-02]"}}}},
     "topology.switches.a\nSwitchName=b", "without blanks"),
    ({"topology": {"plugin": "block", "blocks": {"a#b": {"Nodes": "cn[01-02]"}}}},
     "topology.blocks.a#b", "without blanks"),
    ({"healthCheck": {"package": "nhc; reboot"}}, "healthCheck.package", "the name of a package"),
    ({"jobEnvironment": {"A": "x\ry"}}, "jobEnvironment.A", "without control characters"),
    ({"ssh": {"user": "a\nb"}}, "ssh.user", "the name of a user"),
    ({"jobContainer": {"BasePath": "/x", "InitScript": "/a\nb"}}, "jobContainer.InitScript",
     "on one line"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "path", "says"), REFUSED)
def test_what_slurm_would_misread_is_refused(changes: dict[str, Any], path: str, says: str) -> None:
    found = mistakes(changes)
    assert says in found[f"slurmstack:{path}"], found
    assert len(found) == 1, found


def test_all_mistakes_of_an_extra_at_once() -> None:
    found = mistakes({"slurm": {"extra": {"Foo": 1, "JobRequeue": "x", "NodeName": "y"}}})
    assert len(found) == 3


def test_a_password_in_the_wrong_place_is_not_shown() -> None:
    found = mistakes({"slurm": {"extra": {"JobCompPass": "hunter2\nx"}}})
    found |= mistakes({"accounting": {"slurmdbd": {"extra": {"StoragePas": "hunter2"}}}})
    assert "hunter2" not in str(found)


def test_a_value_is_written_so_that_slurm_reads_it_again() -> None:
    """The parser cuts off what follows a # without a backslash, drops backslashes, and takes what
    is in quotes as one word."""
    for value in ("plain", "two words", "#1", "back\\slash", 'say"so', "C:\\#x y"):
        line = re.sub(r"(?<!\\)((?:\\\\)*)#.*", r"\1", file_text(value))
        read = re.sub(r"\\(.)", r"\1", line)
        match = re.fullmatch(r'"([^"]*)"|(\S+)', read)
        assert match, value
        assert (match[1] or match[2]) == value


def test_a_value_of_each_kind_says_what_it_may_be() -> None:
    parameter = find(SLURM_CONF, "KillWait")
    assert parameter is not None
    with pytest.raises(ValueError, match="a whole number from 0 to 65535"):
        checked(parameter, True)


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("slurmstak:slurm", "slurmstack:slurm, the nearest key"),
        ("slurmstacks:foo", "slurmstack:foo, the nearest key"),
        ("slurm:nodes", "slurmstack:nodes, the nearest key"),
        ("Slurmstack:partition", "slurmstack:partitions, the nearest key"),
    ],
)
def test_a_misspelt_prefix_is_refused(key: str, says: str) -> None:
    values = {f"slurmstack:{name}": value for name, value in lab().items()}
    with pytest.raises(SettingsError) as caught:
        from_config(values | {key: {}}, "slurmstack", "lab")
    assert f"{key}: expected {says}" in str(caught.value)


def test_keys_of_other_programs_are_theirs() -> None:
    values = {f"slurmstack:{name}": value for name, value in lab().items()}
    from_config(
        values | {"pulumi:tags": {}, "command:x": "y", "site:owner": "me"}, "slurmstack", "x"
    )


def test_a_misspelt_key_has_the_nearest_proposed() -> None:
    assert "partitions, the nearest key" in mistakes({"partition": {}})["slurmstack:partition"]


def test_the_lab_has_no_need_to_insist() -> None:
    assert "!" not in "".join(parse(lab()).slurm.extra)
