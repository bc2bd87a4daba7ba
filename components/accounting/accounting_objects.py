"""Accounting: what slurmdbd holds for the cluster, and the dumps of its database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
from pydantic import BaseModel

from components.accounting.database import DATABASE, DUMP, LIBRARY
from components.accounting.slurmdbd import CLIENT_CONF, OBJECTS, RECONCILE
from components.assembly import Assembly
from components.bundle_resource import HostRole
from components.directory import local_people, sssd
from components.guards.guards import folder_stays
from remote.answer import Answer
from remote.bundle import Bundle, Check, Command, Directory, File, Part, Unit
from settings import Settings
from settings.accounting import Accounting as AccountingSettings
from settings.accounting import User
from settings.checks.accounting import partition_qos
from settings.slurm_value import plain
from templates.rendering import render

ROLE = "accounting"
#: Fact: declared users whose login is missing.
_NO_LOGIN = "users-without-login"
#: The controller's role, whose module needs this one.
_SLURMCTLD = "slurmctld"
_SERVICE = "/etc/systemd/system/slurmdbd-dump.service"
_TIMER = "/etc/systemd/system/slurmdbd-dump.timer"


class Accounting(HostRole):
    """Cluster, QOS, accounts, users and associations, as the settings declare them.

    They come after slurmctld, since slurmdbd learns from it which TRES there are (gres/gpu …).
    Only what is declared is touched, and only what was made here is removed.
    """

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        if assembly.settings.accounting is not None:
            name = assembly.controller
            bundle = accounting_bundle(name, assembly.settings)
            made = cls(
                name, assembly, bundle, assembly.on(name, _SLURMCTLD, local_people.ROLE, sssd.ROLE)
            )
            made.deployed.answer.apply(_warn_of_missing_logins)


def accounting_bundle(node: str, settings: Settings) -> Bundle:
    """The objects as readable lines, and the timer of the dumps. Nothing of it is secret."""
    accounting = settings.accounting or AccountingSettings()
    dump = accounting.dump
    place = {"directory": dump.directory, "database": DATABASE, "library": LIBRARY}
    return Bundle(
        node,
        ROLE,
        [
            *folder_stays(ROLE, dump.directory, "slurmstack:accounting.dump.directory"),
            Directory(dump.directory, mode="0700", parents=True),
            File(OBJECTS, objects_text(settings)),
            File(
                DUMP,
                render("accounting/dump.sh", keep=dump.keep, **place),
                mode="0755",
            ),
            File(
                f"{LIBRARY}/restore",
                render("accounting/restore.sh", client_conf=CLIENT_CONF, **place),
                mode="0755",
            ),
            File(_SERVICE, render("accounting/dump.service", **place)),
            File(_TIMER, render("accounting/dump.timer", on_calendar=dump.on_calendar)),
            Command("accounting-objects", f"exec {RECONCILE}\n", on=(OBJECTS,), timeout=1800),
            Unit("slurmdbd-dump.timer", restart_on=(_TIMER,)),
            *_logins(accounting),
        ],
    )


def _logins(accounting: AccountingSettings) -> list[Part]:
    """Which of the declared users have no login where slurmctld looks for it."""
    if not accounting.users:
        return []
    script = render("accounting/logins.sh", users=sorted(accounting.users), fact=_NO_LOGIN)
    return [Check("logins", script, timeout=120)]


def _warn_of_missing_logins(answer: Answer) -> None:
    names = answer.facts.get(_NO_LOGIN)
    if names:
        pulumi.log.warn(
            f"{answer.node}: declared users without a login there: {names} (at "
            f"{answer.time or 'the last change'}); Slurm refuses their jobs until they have one"
        )


def before_slurmctld(settings: Settings, slurm_conf: str) -> list[Part]:
    """What slurmctld's own bundle does before it takes up a slurm.conf (the file's path), so that
    slurmctld starts: the cluster's id, and QOS that its partitions name."""
    if settings.accounting is None:
        return []
    script = render(
        "accounting/before-slurmctld.sh",
        library=LIBRARY,
        names=sorted(
            {qos for partition in settings.partitions.values() for qos in partition_qos(partition)}
        ),
    )
    return [Command("accounting-first", script, on=(slurm_conf,), timeout=300)]


@dataclass(frozen=True)
class Declared:
    """One object of slurmdbd and the options that it is to have, as sacctmgr takes them."""

    kind: str
    key: str
    options: dict[str, str]


def objects_text(settings: Settings) -> str:
    """The declared objects, each after those that it needs."""
    return render(
        "accounting/objects",
        cluster=settings.cluster.name,
        library=LIBRARY,
        objects=list(declared(settings)),
    )


def declared(settings: Settings) -> Iterator[Declared]:
    """Cluster, QOS, accounts below their parents, users' associations, users."""
    accounting = settings.accounting or AccountingSettings()
    yield Declared("cluster", settings.cluster.name, _options(accounting.cluster))
    for name in _in_order({name: qos.Preempt or () for name, qos in accounting.qos.items()}):
        yield Declared("qos", name, _options(accounting.qos[name]))
    parents = {name: (account.Parent or "root",) for name, account in accounting.accounts.items()}
    for name in _in_order(parents):
        yield Declared("account", name, _options(accounting.accounts[name]))
    for name, user in sorted(accounting.users.items()):
        yield from _of_user(name, user)


def _of_user(name: str, user: User) -> Iterator[Declared]:
    # The first association makes the user, with that account as the default one.
    for account in sorted(
        user.Accounts, key=lambda account: (account != user.DefaultAccount, account)
    ):
        association = user.Accounts[account]
        yield Declared("association", f"{name} {account}", _options(association))
        for partition, limits in sorted(association.Partitions.items()):
            yield Declared("association", f"{name} {account} {partition}", _options(limits))
    yield Declared("user", name, _options(user))


def _options(model: BaseModel) -> dict[str, str]:
    options: dict[str, Any] = model.model_dump(exclude_none=True)
    for inner in ("Accounts", "Partitions"):
        options.pop(inner, None)
    return {name: plain(value) for name, value in sorted(options.items())}


def _in_order(needs: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Names sorted, but each after those it needs."""
    placed: list[str] = []

    def place(name: str, below: tuple[str, ...]) -> None:
        if name in placed or name not in needs or name in below:
            return
        for other in sorted(needs[name]):
            place(other, (*below, name))
        placed.append(name)

    for name in sorted(needs):
        place(name, ())
    return placed
