"""Mistakes between the parts of ``slurmstack:accounting``, and between it and the rest."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from settings.accounting import (
    Account,
    Accounting,
    Limits,
    Slurmdbd,
    User,
)
from settings.checks.draft import Draft
from settings.model import Partition
from settings.problems import Problem
from settings.slurm_conf import SlurmConf

#: sacctmgr(1) stores these names in lower case.
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_USER = re.compile(r"[a-z0-9_][a-z0-9_.-]*")
#: slurmdbd.conf(5), Parameters=PreserveCaseUser.
_USER_WITH_CASE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
#: slurmdbd makes it with the database.
_GIVEN_QOS = "normal"


def objects(draft: Draft) -> Iterator[Problem]:
    """QOS, accounts and users that name each other are there, and limits go together."""
    accounting = draft.part("accounting", Accounting)
    if accounting is None:
        return
    partitions, slurm, project = draft.partitions, draft.slurm, draft.project
    path = f"{project}:accounting"
    qos = {_GIVEN_QOS, *accounting.qos}
    yield from _archives(accounting.slurmdbd, f"{path}.slurmdbd")
    yield from _limits(accounting.cluster, qos, f"{path}.cluster")
    for name, qos_setting in accounting.qos.items():
        where = f"{path}.qos.{name}"
        yield from _name(name, _NAME, where)
        yield from _known(qos_setting.Preempt or (), qos, f"{where}.Preempt", "QOS", f"{path}.qos")
    for name, account in accounting.accounts.items():
        where = f"{path}.accounts.{name}"
        yield from _name(name, _NAME, where)
        if name == "root":
            yield Problem(where, f"{path}.cluster for the limits of root", "root")
        yield from _limits(account, qos, where)
    yield from _parents(accounting.accounts, f"{path}.accounts")
    for name, user in accounting.users.items():
        yield from _user(name, user, accounting, qos, partitions, path)
    for title, partition in partitions.items():
        yield from _partition(title, partition, qos, project)
    if slurm.AccountingStorageType == "accounting_storage/none":
        yield Problem(
            f"{project}:slurm.AccountingStorageType",
            f"nothing: {path} gives it",
            "accounting_storage/none",
        )


def named_tres(
    accounting: Accounting | None, partitions: Mapping[str, Partition], slurm: SlurmConf
) -> dict[str, str]:
    """TRES with a name of their own (``gres/gpu:h100``, ``license/matlab``) that limits and weights
    name, and where: slurmctld knows them only by AccountingStorageTRES."""
    values: list[tuple[str, str]] = []
    if accounting is not None:
        objects = accounting.model_dump(
            include={"cluster", "qos", "accounts", "users"}, exclude_none=True
        )
        values += _tres_values(objects, "accounting")
    for title, partition in partitions.items():
        values += _tres_values(partition.extra, f"partitions.{title}.extra")
    values += _tres_values(slurm.extra, "slurm.extra")
    return {
        name: where
        for where, value in values
        for name in (entry.partition("=")[0].strip().lower() for entry in value.split(","))
        if "/" in name and name not in _ALWAYS_TRACKED
    }


#: slurm.conf(5), AccountingStorageTRES.
_ALWAYS_TRACKED = {"fs/disk"}


def _tres_values(part: Mapping[str, Any], where: str) -> Iterator[tuple[str, str]]:
    for name, value in part.items():
        if isinstance(value, Mapping):
            yield from _tres_values(value, f"{where}.{name}")
        elif "tres" in str(name).lower():
            items = value if isinstance(value, list | tuple) else [value]
            yield f"{where}.{name}", ",".join(str(item) for item in items)


def password(draft: Draft) -> Iterator[Problem]:
    """The database's password has a database."""
    if "accountingPassword" in draft.raw and "accounting" not in draft.raw:
        path = draft.path("accounting")
        yield Problem(draft.path("accountingPassword"), f"{path} with it", "none")


def tres(draft: Draft) -> Iterator[Problem]:
    """Limits and weights of a TRES that AccountingStorageTRES, where it is set, leaves out."""
    slurm, project = draft.slurm, draft.project
    if slurm.AccountingStorageTRES is None:
        return
    value = slurm.AccountingStorageTRES
    listed = value.split(",") if isinstance(value, str) else value
    tracked = {str(name).strip().lower() for name in listed}
    accounting = draft.part("accounting", Accounting)
    for name, where in named_tres(accounting, draft.partitions, slurm).items():
        if name not in tracked:
            yield Problem(
                f"{project}:slurm.AccountingStorageTRES",
                f"{name} among them, which {project}:{where} names (left out, it follows)",
                ",".join(sorted(tracked)),
            )


def _name(name: str, pattern: re.Pattern[str], where: str) -> Iterator[Problem]:
    if not pattern.fullmatch(name):
        yield Problem(where, "a name in lower case (letters, digits, _ . -)", repr(name))


def _known(
    names: Collection[str], known: Collection[str], where: str, what: str, place: str
) -> Iterator[Problem]:
    unknown = [name for name in names if name not in known]
    if unknown:
        yield Problem(where, f"{what} of {place}", ", ".join(unknown))


def _limits(limits: Limits, qos: Collection[str], where: str) -> Iterator[Problem]:
    place = "slurmstack:accounting.qos"
    yield from _known(limits.QOS or (), qos, f"{where}.QOS", "QOS", place)
    if limits.DefaultQOS is not None:
        yield from _known([limits.DefaultQOS], qos, f"{where}.DefaultQOS", "a QOS", place)
        if limits.QOS is not None and limits.DefaultQOS not in limits.QOS:
            yield Problem(
                f"{where}.DefaultQOS", f"one of its QOS: {','.join(limits.QOS)}", limits.DefaultQOS
            )


def _parents(accounts: Mapping[str, Account], path: str) -> Iterator[Problem]:
    for name, account in accounts.items():
        parent = account.Parent
        if parent is not None and parent not in ("root", *accounts):
            yield Problem(f"{path}.{name}.Parent", f"an account of {path}, or root", parent)
        line = [name]
        while parent is not None and parent in accounts and parent not in line:
            line.append(parent)
            parent = accounts[parent].Parent
        if parent == name and name != "root":
            yield Problem(
                f"{path}.{name}.Parent", "a tree of accounts", " in ".join([*line, parent])
            )


def _user(
    name: str,
    user: User,
    accounting: Accounting,
    qos: Collection[str],
    partitions: Mapping[str, Partition],
    path: str,
) -> Iterator[Problem]:
    where = f"{path}.users.{name}"
    yield from _name(name, _USER_WITH_CASE if accounting.slurmdbd.keeps_case else _USER, where)
    yield from _known(
        user.Accounts, accounting.accounts, f"{where}.Accounts", "accounts", f"{path}.accounts"
    )
    if user.DefaultAccount not in user.Accounts:
        yield Problem(
            f"{where}.DefaultAccount",
            f"one of its Accounts: {', '.join(user.Accounts)}",
            user.DefaultAccount,
        )
    for account, association in user.Accounts.items():
        inside = f"{where}.Accounts.{account}"
        yield from _limits(association, qos, inside)
        yield from _known(
            association.Partitions,
            partitions,
            f"{inside}.Partitions",
            "partitions",
            "slurmstack:partitions",
        )
        for title, limits in association.Partitions.items():
            yield from _limits(limits, qos, f"{inside}.Partitions.{title}")


def _archives(conf: Slurmdbd, path: str) -> Iterator[Problem]:
    """Only what is purged is archived: slurmdbd.conf(5)."""
    kinds = {"Events": "Event", "Jobs": "Job", "Resvs": "Resv", "Steps": "Step"}
    kinds |= {"Suspend": "Suspend", "TXN": "TXN", "Usage": "Usage"}
    for archive, purge in kinds.items():
        if getattr(conf, f"Archive{archive}") and getattr(conf, f"Purge{purge}After") is None:
            yield Problem(f"{path}.Archive{archive}", f"Purge{purge}After with it", "no purge")


def partition_qos(partition: Partition) -> list[str]:
    """The QOS that a partition names; slurmctld does not start without them."""
    names: list[str] = []
    for name, value in partition.extra.items():
        if name in {"QOS", "AllowQos", "DenyQos"} and value.lower() != "all":
            names += value.split(",")
    return sorted(set(names))


def _partition(
    title: str, partition: Partition, qos: Collection[str], project: str
) -> Iterator[Problem]:
    where = f"{project}:partitions.{title}.extra"
    yield from _known(partition_qos(partition), qos, where, "QOS", f"{project}:accounting.qos")
