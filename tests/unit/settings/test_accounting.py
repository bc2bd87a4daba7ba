"""``slurmstack:accounting``: what is read, and mistakes with their paths."""

from __future__ import annotations

from typing import Any

import pytest

from settings import SettingsError, parse
from settings.accounting import Accounting
from tests.unit.settings.test_settings import lab, mistakes

ROOT = "slurmstack:accounting"


def read(accounting: dict[str, Any], **changes: Any) -> Accounting:
    found = parse({**lab(), **changes, "accounting": accounting}).accounting
    assert found is not None
    return found


def test_short_forms() -> None:
    found = read(
        {
            "qos": {"high": {"GrpTRES": {"gres/gpu": 8, "cpu": 100}, "Flags": ["NoReserve"]}},
            "accounts": {"science": {}, "physics": {"Parent": "science", "QOS": "high"}},
            "users": {
                "alice": {"Accounts": ["physics"]},
                "bob": {"DefaultAccount": "science", "Accounts": {"physics": None, "science": {}}},
            },
            "slurmdbd": {"PurgeJobAfter": 24, "PurgeStepAfter": "90days"},
        }
    )
    assert found.qos["high"].GrpTRES == "cpu=100,gres/gpu=8"
    assert found.accounts["physics"].QOS == ("high",)
    assert found.users["alice"].DefaultAccount == "physics"
    assert set(found.users["bob"].Accounts) == {"physics", "science"}
    assert found.slurmdbd.PurgeJobAfter == "24months"
    assert found.slurmdbd.PurgeStepAfter == "90days"


@pytest.mark.parametrize(
    ("accounting", "path", "says"),
    [
        ({"user": {}}, "user", "unknown key"),
        ({"qos": {"high": {"MaxJobs": 1}}}, "qos.high.MaxJobs", "unknown key"),
        ({"qos": {"High": {}}}, "qos.High", "lower case"),
        ({"qos": {"high": {"Preempt": "low"}}}, "qos.high.Preempt", "found low"),
        ({"qos": {"high": {"GrpTRES": "8 GPUs"}}}, "qos.high.GrpTRES", "cpu=100,gres/gpu=8"),
        (
            {"qos": {"high": {"MaxWallDurationPerJob": "one day"}}},
            "qos.high.MaxWallDurationPerJob",
            "days-hours:minutes:seconds",
        ),
        ({"qos": {"high": {"Description": "a|b"}}}, "qos.high.Description", "one line"),
        ({"accounts": {"root": {}}}, "accounts.root", f"{ROOT}.cluster"),
        ({"accounts": {"a": {"Parent": "b"}}}, "accounts.a.Parent", "found b"),
        (
            {"accounts": {"a": {"Parent": "a"}}},
            "accounts.a.Parent",
            "expected a tree of accounts; found a in a",
        ),
        (
            {"accounts": {"a": {}}, "users": {"al": {"Accounts": ["a"], "QOS": ["x"]}}},
            "users.al.QOS",
            "unknown key",
        ),
        (
            {"accounts": {"a": {"Parent": "b"}, "b": {"Parent": "a"}}},
            "accounts.b.Parent",
            "found b in a in b",
        ),
        ({"accounts": {"a": {"QOS": ["gone"]}}}, "accounts.a.QOS", "found gone"),
        (
            {"accounts": {"a": {"QOS": "normal", "DefaultQOS": "high"}}, "qos": {"high": {}}},
            "accounts.a.DefaultQOS",
            "one of its QOS: normal; found high",
        ),
        ({"cluster": {"DefaultQOS": "gone"}}, "cluster.DefaultQOS", "found gone"),
        ({"users": {"al": {"Accounts": ["a"]}}}, "users.al.Accounts", "found a"),
        ({"users": {"al": {"Accounts": []}}}, "users.al.Accounts", "at least 1 entries"),
        (
            {"users": {"al": {"Accounts": ["a", "b"]}}, "accounts": {"a": {}, "b": {}}},
            "users.al.DefaultAccount",
            "found nothing",
        ),
        (
            {"users": {"al": {"Accounts": ["a"], "DefaultAccount": "b"}}, "accounts": {"a": {}}},
            "users.al.DefaultAccount",
            "one of its Accounts: a; found b",
        ),
        ({"users": {"Al": {"Accounts": ["a"]}}, "accounts": {"a": {}}}, "users.Al", "lower case"),
        (
            {
                "users": {"al": {"Accounts": {"a": {"Partitions": {"gpu": {}}}}}},
                "accounts": {"a": {}},
            },
            "users.al.Accounts.a.Partitions",
            "found gpu",
        ),
        ({"slurmdbd": {"PurgeJobAfter": "2 years"}}, "slurmdbd.PurgeJobAfter", "90days"),
        ({"slurmdbd": {"ArchiveJobs": True}}, "slurmdbd.ArchiveJobs", "PurgeJobAfter"),
        ({"slurmdbd": {"extra": {"DbdPort": 1}}}, "slurmdbd.extra.DbdPort", "one level up"),
        (
            {"slurmdbd": {"extra": {"Tcp=1": 1}}},
            "slurmdbd.extra.Tcp=1",
            "parameter of slurmdbd.conf",
        ),
        (
            {"slurmdbd": {"extra": {"TCPTimeout": "5\nStorageHost=elsewhere"}}},
            "slurmdbd.extra.TCPTimeout",
            "one line",
        ),
        (
            {"slurmdbd": {"extra": {"StoragePass": "hunter2"}}},
            "slurmdbd.extra.StoragePass",
            "slurmstack:accountingPassword instead",
        ),
        (
            {"mariadb": {"innodb_buffer_pool_size": "4 GB"}},
            "mariadb.innodb_buffer_pool_size",
            "'4 GB'",
        ),
        (
            {"mariadb": {"extra": {"bind-address": "*"}}},
            "mariadb.extra.bind-address",
            "without bind-address",
        ),
        (
            {"mariadb": {"extra": {"max allowed": 1}}},
            "mariadb.extra.max allowed",
            "such as max_connections",
        ),
        (
            {"mariadb": {"extra": {"innodb-log-file-size": "9M"}}},
            "mariadb.extra.innodb-log-file-size",
            "innodb_log_file_size one level up",
        ),
        (
            {"mariadb": {"extra": {"sql_mode": "x\nbind-address=0.0.0.0"}}},
            "mariadb.extra.sql_mode",
            "a value on one line",
        ),
        # MariaDB listens on loopback, where slurmdbd looks for it, and keeps its data.
        *(
            (
                {"mariadb": {"extra": {name: 1}}},
                f"mariadb.extra.{name}",
                f"without {name}",
            )
            for name in ("port", "socket", "datadir", "skip-networking", "skip_networking")
        ),
        ({"dump": {"keep": 0}}, "dump.keep", "at least 1"),
        ({"dump": {"directory": "backups"}}, "dump.directory", "'backups'"),
    ],
)
def test_one_mistake(accounting: dict[str, Any], path: str, says: str) -> None:
    found = mistakes({"accounting": accounting})
    assert says in found[f"{ROOT}.{path}"]
    assert "hunter2" not in str(found)


@pytest.mark.parametrize("flags", ["NoReserve,DenyOnLimit", ["NoReserve", "DenyOnLimit"]])
def test_flags_are_written_in_one_order(flags: Any) -> None:
    """sacctmgr shows them in its own; another order is no change."""
    assert read({"qos": {"high": {"Flags": flags}}}).qos["high"].Flags == "DenyOnLimit,NoReserve"


@pytest.mark.parametrize("flags", [["NoReserve", 1], "No Reserve", {"NoReserve": True}, 7, "a,,b"])
def test_flags_that_are_none(flags: Any) -> None:
    found = mistakes({"accounting": {"qos": {"high": {"Flags": flags}}}})
    assert "flags such as" in found[f"{ROOT}.qos.high.Flags"]


def test_what_is_no_mistake() -> None:
    """sacctmgr(1): root is the account above all; the QOS normal is always there."""
    found = read(
        {
            "accounts": {"a": {"Parent": "root", "QOS": ["normal"]}, "b": {"Parent": "a"}},
            "users": {"_al.b-c": {"Accounts": ["b"]}},
            "mariadb": {
                "extra": {"event_scheduler": False, "log-bin": True, "long_query_time": 2.5}
            },
        }
    )
    assert found.mariadb.extra == {
        "event_scheduler": "OFF",
        "log-bin": "ON",
        "long_query_time": "2.5",
    }


def test_users_with_capitals_where_slurmdbd_keeps_them() -> None:
    settings = {
        "accounts": {"a": {}},
        "users": {"Al": {"Accounts": ["a"]}},
        "slurmdbd": {"Parameters": "PreserveCaseUser"},
    }
    assert list(read(settings).users) == ["Al"]


@pytest.mark.parametrize("extra", [{"QOS": "gone"}, {"AllowQos": "normal,gone"}])
def test_a_partition_with_an_unknown_qos(extra: dict[str, str]) -> None:
    found = mistakes({"partitions": {"main": {"Nodes": "ALL", "extra": extra}}})
    assert "found gone" in found["slurmstack:partitions.main.extra"]


def test_the_host_of_slurmdbd_is_said_once() -> None:
    found = mistakes({"slurm": {"extra": {"AccountingStorageHost": "sm02"}}})
    assert ROOT in found["slurmstack:slurm.extra.AccountingStorageHost"]


@pytest.mark.parametrize(
    "password", ["hunter2", "hunter2" * 10, "hunter2'; DROP DATABASE", "hunter2 " * 3]
)
def test_a_password_is_never_quoted(password: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse({**lab(), "accountingPassword": password})
    assert "slurmstack:accountingPassword: expected 16 to 64 letters" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("password", "found"),
    [
        ("a" * 15, "15 characters"),
        ("a" * 16, None),
        ("a" * 64, None),
        ("a" * 65, "65 characters"),
        ("hunter2 " * 3, "characters that are none of these"),
    ],
)
def test_how_long_a_password_may_be(password: str, found: str | None) -> None:
    if found is None:
        parse({**lab(), "accountingPassword": password})
    else:
        text = mistakes({"accountingPassword": password})["slurmstack:accountingPassword"]
        assert text.endswith(f"found {found}")


def test_a_password_without_accounting() -> None:
    found = mistakes({"accountingPassword": "hunter2-hunter2-hunter2", "accounting": None})
    assert "slurmstack:accounting with it" in found["slurmstack:accountingPassword"]
    assert "hunter2" not in str(found)
