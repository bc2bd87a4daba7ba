"""What accounting puts on the controller: files read back, the password in its place alone."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pulumi
import pytest

from components.accounting.accounting_objects import (
    _warn_of_missing_logins as warn_of_missing_logins,
)
from components.accounting.accounting_objects import accounting_bundle, objects_text
from components.accounting.slurmdbd import (
    CLIENT_CONF,
    MARIADB_CONF,
    client_conf,
    database_bundle,
    mariadb_conf,
    slurmdbd_conf,
)
from components.configuration.slurm_conf import slurm_conf
from components.controller.slurm_controller import controller_bundle
from remote.answer import Answer
from remote.bundle import Check, File, Unit
from settings import Settings, parse
from settings.gres import Gpus
from tests.unit.components.configuration.test_slurm_conf import DGX, read_back, rendered
from tests.unit.components.test_cluster import (
    HARDWARE,
    MADE_PASSWORD,
    bare,
    commands,
    deploy,
    deployed,
    is_secret,
    plain,
)
from tests.unit.settings.test_settings import lab, mistakes
from tests.unit.slurm_readers import slurmdbdconfig

PASSWORD = "k7KW2tX4pR8WLVIOd8Jx"


def settings(accounting: dict[str, Any] | None = None, **changes: Any) -> Settings:
    return parse({**bare(), "accounting": accounting or {}, **changes})


def read_dbd(conf: str) -> dict[str, Any]:
    found: dict[str, Any] = slurmdbdconfig.loads(conf).dict()
    return {name.lower(): value for name, value in found.items()}


def test_slurmutils_reads_slurmdbd_conf() -> None:
    slurmdbd = {
        "PurgeJobAfter": 24, "PurgeStepAfter": "90days", "ArchiveJobs": True,
        "PrivateData": ["jobs", "usage"], "DbdPort": 7000, "extra": {"TCPTimeout": 5},
    }  # fmt: skip
    conf = read_dbd(slurmdbd_conf(settings({"slurmdbd": slurmdbd}), PASSWORD))
    assert conf == {
        "archivedir": "/var/lib/slurm-archive",
        "archivejobs": True,
        "authtype": "auth/munge",
        "dbdaddr": "10.73.0.10",
        "dbdhost": "ctl",
        "dbdport": 7000,
        "logfile": "/var/log/slurm/slurmdbd.log",
        "pidfile": "/run/slurmdbd/slurmdbd.pid",
        "privatedata": ["jobs", "usage"],
        "purgejobafter": "24months",
        "purgestepafter": "90days",
        "slurmuser": "slurm",
        "storagehost": "localhost",
        "storageloc": "slurm_acct_db",
        "storagepass": PASSWORD,
        "storagetype": "accounting_storage/mysql",
        "storageuser": "slurm",
        "tcptimeout": 5,
    }


def test_slurmdbd_authenticates_as_slurm_conf_says() -> None:
    slurm = {
        "AuthInfo": "ttl=60",
        "AuthAltTypes": "auth/jwt",
        "AuthAltParameters": ["jwks=/etc/slurm/slurm.jwks", "jwt_key=/etc/slurm/jwt.key"],
    }
    conf = slurmdbd_conf(settings(slurm=slurm), PASSWORD).splitlines()
    assert "AuthInfo=ttl=60" in conf
    assert "AuthAltTypes=auth/jwt" in conf
    assert "AuthAltParameters=jwks=/etc/slurm/slurm.jwks,jwt_key=/etc/slurm/jwt.key" in conf


def test_what_both_files_must_have_alike_is_said_once() -> None:
    slurm = {"extra": {"HashPlugin": "hash/sha3"}}
    assert "HashPlugin=hash/sha3\n" in rendered(slurm=slurm)
    assert "HashPlugin=hash/sha3\n" in slurmdbd_conf(settings(slurm=slurm), PASSWORD)
    assert "HashPlugin" not in slurmdbd_conf(settings(slurm={}), PASSWORD)


def test_slurmdbd_verifies_tokens_and_makes_none() -> None:
    conf = slurmdbd_conf(settings(jwt={"userTokens": False}), PASSWORD).splitlines()
    assert "AuthAltParameters=jwks=/etc/slurm/slurm.jwks,jwt_key=/etc/slurm/jwt.key" in conf


def test_mariadb_as_slurm_asks_and_on_loopback() -> None:
    conf = parse({**lab(), "accounting": {"mariadb": {"extra": {"max_connections": 50}}}})
    assert conf.accounting is not None
    assert mariadb_conf(conf.accounting).splitlines()[2:] == [
        "[mariadbd]",
        "bind-address=127.0.0.1",
        "innodb_buffer_pool_size=4096M",
        "innodb_lock_wait_timeout=900",
        "innodb_log_file_size=1024M",
        "max_allowed_packet=16M",
        "max_connections=50",
    ]


def test_sacctmgr_can_read_its_own_slurm_conf() -> None:
    conf = read_back(client_conf(settings({"slurmdbd": {"DbdPort": 7000}})))
    assert conf["accountingstoragehost"] == "10.73.0.10"
    assert conf["accountingstorageport"] == 7000
    assert conf["clustername"] == "lab"


def test_slurm_conf_follows() -> None:
    conf = read_back(rendered(accounting={}, slurm={"GresTypes": ["gpu", "nic"]}))
    assert conf["accountingstoragetype"] == "accounting_storage/slurmdbd"
    assert conf["accountingstoragehost"] == "10.73.0.10"
    assert conf["accountingstoragetres"] == ["gres/gpu", "gres/nic"]
    assert conf["jobacctgathertype"] == "jobacct_gather/cgroup"
    # Nobody is declared: enforcement would shut everyone out.
    assert "accountingstorageenforce" not in conf
    assert "accountingstorageport" not in conf
    with_users = rendered(accounting={"accounts": {"a": {}}, "users": {"al": {"Accounts": ["a"]}}})
    assert "AccountingStorageEnforce=associations,limits,qos\n" in with_users
    # ProctrackType=proctrack/linuxproc makes no cgroups.
    assert "JobAcctGatherType=jobacct_gather/linux\n" in with_users


GPU_NODES = [{"hosts": "cn01", "Gres": [{"Count": 2, "standIn": True}]}, {"hosts": "cn02"}]


def test_generic_resources_of_nodes_are_accounted() -> None:
    conf = rendered(accounting={}, nodes=GPU_NODES, slurm={"GresTypes": "nic"})
    assert "AccountingStorageTRES=gres/gpu,gres/nic\n" in conf
    # As the nodes were found to have them, too.
    found = settings({}, nodes=[{"hosts": "cn[01-02]"}])
    has = DGX.model_copy(update={"gpus": Gpus(files=("/dev/nvidia0",))})
    assert "AccountingStorageTRES=gres/gpu\n" in slurm_conf(found, {"cn01": has, "cn02": DGX})


def test_what_limits_and_weights_name_is_accounted() -> None:
    weights = {"Nodes": "ALL", "extra": {"TRESBillingWeights": "CPU=1,GRES/gpu:h100=8"}}
    limits = {"qos": {"q": {"MaxTRESPerUser": "cpu=4,license/matlab=2"}}}
    named = ["gres/gpu", "gres/gpu:h100", "license/matlab"]
    conf = rendered(accounting=limits, nodes=GPU_NODES, partitions={"main": weights})
    assert f"AccountingStorageTRES={','.join(named)}\n" in conf
    # slurmctld knows no weight of what it does not track, slurmdbd or not.
    alone = rendered(accounting=None, nodes=GPU_NODES, partitions={"main": weights})
    assert "AccountingStorageTRES=gres/gpu:h100\n" in alone
    slurm = {"AccountingStorageTRES": "gres/gpu,gres/gpu:h100"}
    found = mistakes({"accounting": limits, "slurm": slurm, "partitions": {"main": weights}})
    assert list(found) == ["slurmstack:slurm.AccountingStorageTRES"]
    assert "expected license/matlab among them, which slurmstack:accounting.qos.q" in str(found)


def test_what_slurm_conf_says_itself_stays() -> None:
    slurm = {
        "AccountingStorageEnforce": "associations", "AccountingStorageTRES": "gres/gpu:h100",
        "GresTypes": "gpu", "JobAcctGatherType": "jobacct_gather/linux",
    }  # fmt: skip
    users = {"accounts": {"a": {}}, "users": {"al": {"Accounts": ["a"]}}}
    conf = rendered(accounting=users, slurm=slurm)
    for name, value in slurm.items():
        assert f"{name}={value}\n" in conf


def test_without_accounting_slurm_conf_says_nothing_of_it() -> None:
    assert "Acct" not in rendered(accounting=None, slurm={})
    assert "Accounting" not in rendered(accounting=None, slurm={})


def test_objects_come_after_those_they_need() -> None:
    text = objects_text(
        settings(
            {
                "cluster": {"GrpJobs": 100},
                "qos": {"above": {"Preempt": "zero"}, "zero": {"Priority": 1}},
                "accounts": {"a": {"Parent": "z"}, "z": {"Description": "All of it"}},
                "users": {
                    "al": {
                        "AdminLevel": "Operator",
                        "DefaultAccount": "z",
                        "Accounts": {"a": {"Partitions": {"main": {"MaxJobs": 2}}}, "z": None},
                    }
                },
            }
        )
    )
    assert [line for line in text.splitlines() if not line.startswith("#")] == [
        "cluster lab",
        "  GrpJobs=100",
        "qos zero",
        "  Priority=1",
        "qos above",
        "  Preempt=zero",
        "account z",
        "  Description=All of it",
        "account a",
        "  Parent=z",
        "association al z",
        "association al a",
        "association al a main",
        "  MaxJobs=2",
        "user al",
        "  AdminLevel=Operator",
        "  DefaultAccount=z",
    ]


def test_dumps_are_made_when_the_settings_say() -> None:
    bundle = accounting_bundle("ctl", settings({"dump": {"onCalendar": "*-*-* 03:00"}}))
    assert "\nunit slurmdbd-dump.timer enabled running " in bundle.render()
    (timer,) = [
        str(part.content)
        for part in bundle.parts
        if isinstance(part, File) and part.path.endswith("/slurmdbd-dump.timer")
    ]
    assert "\nOnCalendar=*-*-* 03:00\n" in timer
    assert "\nWantedBy=timers.target\n" in timer


def test_a_change_restarts_what_reads_it() -> None:
    units = {
        part.name: part.restart_on
        for part in database_bundle("ctl", settings(), PASSWORD).parts
        if isinstance(part, Unit)
    }
    assert MARIADB_CONF in units["mariadb.service"]
    assert "/etc/slurm/slurmdbd.conf" in units["slurmdbd.service"]


def test_a_partition_with_a_qos_makes_it_first() -> None:
    partitions = {"main": {"Nodes": "ALL", "extra": {"QOS": "high"}}}
    with_qos = settings({"qos": {"high": {}}}, partitions=partitions)
    hardware = dict.fromkeys(with_qos.compute, HARDWARE)
    assert "/reconcile --qos high\n" in controller_bundle("ctl", with_qos, hardware).render()
    without = controller_bundle("ctl", settings(), hardware).render()
    assert "/cluster-id " in without
    assert "/reconcile" not in without
    none = parse({**lab(), "accounting": None})
    assert "accounting-first" not in controller_bundle("ctl", none, hardware).render()


def test_the_password_is_in_slurmdbd_conf_alone() -> None:
    held = settings({"users": {}})
    files = [
        part for part in database_bundle("ctl", held, PASSWORD).parts if isinstance(part, File)
    ]
    with_it = [file for file in files if PASSWORD in str(file.content)]
    assert [(file.path, file.owner, file.mode) for file in with_it] == [
        ("/etc/slurm/slurmdbd.conf", "slurm:slurm", "0600")
    ]
    assert {CLIENT_CONF, MARIADB_CONF} <= {file.path for file in files}
    assert PASSWORD not in accounting_bundle("ctl", held).render()


def test_users_without_a_login_are_named(tmp_path: Path) -> None:
    """The names of this machine stand for those of the controller's."""
    users = {name: {"Accounts": ["a"]} for name in ("root", "no-such-b", "no-such-a")}
    held = settings({"accounts": {"a": {}}, "users": users})
    (check,) = [part for part in accounting_bundle("ctl", held).parts if isinstance(part, Check)]

    def facts(script: str) -> str:
        place = tmp_path / "facts"
        place.write_text("")
        environment = {"PATH": "/usr/bin:/bin", "SLURMSTACK_FACTS": str(place)}
        subprocess.run(["sh"], input=script, env=environment, text=True, check=True)
        return place.read_text()

    assert facts(check.script) == "users-without-login no-such-a no-such-b\n"
    # Each name has 20 s where a directory service does not answer.
    assert check.timeout >= 60
    only = settings({"accounts": {"a": {}}, "users": {"root": {"Accounts": ["a"]}}})
    (check,) = [part for part in accounting_bundle("ctl", only).parts if isinstance(part, Check)]
    assert facts(check.script) == ""
    nobody = accounting_bundle("ctl", settings({"accounts": {"a": {}}}))
    assert not [part for part in nobody.parts if isinstance(part, Check)]


@pytest.mark.parametrize("time", ["2026-01-02T03:04:05Z", None])
def test_users_without_a_login_are_a_warning_that_says_when_it_was_looked(
    time: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", warnings.append)
    warn_of_missing_logins(Answer(node="ctl", role="accounting", time=time))
    assert warnings == []
    facts = {"users-without-login": "al dora"}
    warn_of_missing_logins(Answer(node="ctl", role="accounting", time=time, facts=facts))
    assert warnings == [
        f"ctl: declared users without a login there: al dora (at {time or 'the last change'}); "
        "Slurm refuses their jobs until they have one"
    ]


@pytest.mark.parametrize("existing", [None, PASSWORD])
def test_the_password_is_in_a_secret_stdin_alone(existing: str | None) -> None:
    changes: dict[str, Any] = {"accountingPassword": existing} if existing else {}
    node, outputs = deploy(accounting={"accounts": {"a": {}}}, **changes)
    password = existing or MADE_PASSWORD
    found = commands(node)
    assert ("slurmdbd-password" in node.made) is (existing is None)
    assert is_secret(found["ctl-slurmdbd"]["stdin"])
    assert not is_secret(found["ctl-accounting"]["stdin"])
    assert "account a" in found["ctl-accounting"]["stdin"]
    for name, inputs in found.items():
        stdin = plain(inputs.pop("stdin", ""))
        assert (password in stdin) == (name == "ctl-slurmdbd"), name
        assert password not in json.dumps(inputs), name
    assert password not in json.dumps(outputs)


def test_two_more_commands_on_the_controller() -> None:
    with_it, without = commands(deploy(accounting={})[0]), commands(deployed()[0])
    assert set(with_it) - set(without) == {"ctl-slurmdbd", "ctl-accounting"}
