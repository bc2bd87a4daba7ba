"""SlurmDatabase: slurmdbd on the controller, with the MariaDB under it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import pulumi
import pulumi_random as random

from components.accounting.database import DATABASE, LIBRARY
from components.assembly import Assembly
from components.bundle_resource import deploy
from components.configuration.served_files import options
from components.configuration.slurm_conf import parameters
from components.guards import guards
from components.guards.upgrades import before_upgrade
from components.keys import jwt_key_pair, munge_key
from components.packages import package_repository
from components.packages.slurm_packages import slurm_packages, trigger
from remote.bundle import Bundle, Check, Directory, File, Package, Unit, Validate
from settings import Settings
from settings.accounting import Account, Accounting, Limits, Qos, User
from settings.slurm_value import file_text, plain
from templates.rendering import program, render

ROLE = "slurmdbd"
SLURMDBD_CONF = "/etc/slurm/slurmdbd.conf"
UNIT_CONF = "/etc/systemd/system/slurmdbd.service.d/slurmstack.conf"
#: Sorts behind the package's own files, and so has the last word.
MARIADB_CONF = "/etc/mysql/mariadb.conf.d/90-slurmstack.cnf"
CLIENT_CONF = f"{LIBRARY}/slurm.conf"
RECONCILE = f"{LIBRARY}/reconcile"
OBJECTS = f"{LIBRARY}/objects"
#: In the state folder of this role: goes with the database's daemon, not with the objects' role.
_MEMORY = f"/var/lib/slurmstack/{ROLE}/made-objects"
#: Seconds that one sacctmgr may take.
_PATIENCE = 60
#: Letters and digits, so that no file or language needs to quote it: about 190 bits.
_PASSWORD_LENGTH = 32


class SlurmDatabase(pulumi.ComponentResource):
    """slurmdbd and MariaDB, answering before slurmctld is started.

    The password is pulumi-random's RandomPassword, or the stack's secret
    ``slurmstack:accountingPassword``. It is in slurmdbd.conf (0600) and nowhere else: the
    database's user gets it from there, on a pipe, before each start of slurmdbd.
    """

    def __init__(
        self, name: str, assembly: Assembly, depends_on: Sequence[pulumi.Resource]
    ) -> None:
        super().__init__("slurmstack:components:SlurmDatabase", name, None, assembly.options)
        settings = assembly.settings
        if settings.accounting_password is not None:
            secret = settings.accounting_password.get_secret_value()
            password: pulumi.Output[str] = pulumi.Output.secret(secret)
        else:
            password = random.RandomPassword(
                "slurmdbd-password",
                length=_PASSWORD_LENGTH,
                special=False,
                opts=pulumi.ResourceOptions(parent=self),
            ).result
        bundle = password.apply(lambda value: database_bundle(name, settings, value))
        deploy(assembly, name, bundle, ROLE, self, depends_on, secret=True)
        self.register_outputs({})

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        if assembly.settings.accounting is not None:
            roles = (munge_key.ROLE, guards.ROLE, *package_repository.ROLES, jwt_key_pair.ROLE)
            cls(assembly.controller, assembly, assembly.on(assembly.controller, *roles))


def database_bundle(node: str, settings: Settings, password: str) -> Bundle:
    """What the controller's host gets for slurmdbd; it holds the password."""
    accounting = settings.accounting or Accounting()
    archive = Directory(
        accounting.slurmdbd.ArchiveDir, owner="slurm:slurm", mode="0700", parents=True
    )
    return Bundle(
        node,
        ROLE,
        [
            *guards.before_slurmdbd_changes(),
            Package("mariadb-server"),
            *slurm_packages(settings, "client", "slurmdbd", "slurmdbd-mysql"),
            *before_upgrade(settings),
            *([archive] if _archives(accounting) else []),
            Directory("/etc/slurm"),
            Directory("/var/log/slurm", owner="slurm:slurm"),
            Directory(LIBRARY),
            Directory(str(PurePosixPath(UNIT_CONF).parent)),
            Package("iproute2"),
            File(MARIADB_CONF, mariadb_conf(accounting)),
            Validate(
                "mariadb",
                render(
                    "accounting/mariadb-reads-it.sh", folder=str(PurePosixPath(MARIADB_CONF).parent)
                ),
                on=(MARIADB_CONF,),
            ),
            File(SLURMDBD_CONF, slurmdbd_conf(settings, password), "slurm:slurm", "0600"),
            Validate(
                "slurmdbd-conf",
                render("accounting/slurmdbd-conf-is-read.sh", conf=SLURMDBD_CONF, seconds=30),
                on=(SLURMDBD_CONF,),
            ),
            File(CLIENT_CONF, client_conf(settings)),
            File(UNIT_CONF, render("accounting/slurmdbd.service.conf", library=LIBRARY)),
            File(f"{LIBRARY}/database", render("accounting/database.sh"), mode="0755"),
            Package("python3"),
            File(RECONCILE, program("accounting/reconcile.py"), mode="0755"),
            File(f"{RECONCILE}.json", reconcile_conf(settings)),
            File(f"{LIBRARY}/cluster-id", cluster_id_script(settings), mode="0755"),
            Unit("mariadb.service", restart_on=(MARIADB_CONF,), timeout=300),
            Unit(
                "slurmdbd.service",
                restart_on=(SLURMDBD_CONF, UNIT_CONF, trigger(settings, "slurmdbd")),
                timeout=120,
            ),
            Check(
                "slurmdbd-answers",
                render("accounting/slurmdbd-answers.sh", client_conf=CLIENT_CONF),
                timeout=120,
            ),
        ],
    )


def mariadb_conf(accounting: Accounting) -> str:
    """MariaDB's options file."""
    options = accounting.mariadb.model_dump(exclude={"extra"}) | accounting.mariadb.extra
    return render("accounting/mariadb.cnf", options=dict(sorted(options.items())))


def slurmdbd_conf(settings: Settings, password: str) -> str:
    """slurmdbd.conf(5). What it has in common with slurm.conf is taken from there, as it must
    be the same in both: authentication, its alternatives, and the hash plugin."""
    accounting = settings.accounting or Accounting()
    controller = settings.roles.controller
    conf = {line.name: plain(line.value) for line in parameters(settings)}
    common = ("AuthType", "AuthInfo", "AuthAltTypes", "HashPlugin")
    values: dict[str, Any] = {
        **{name: conf[name] for name in common if name in conf},
        **_verifying(conf),
        **_chosen(accounting),
        "DbdHost": controller,
        "DbdAddr": settings.hosts[controller].address,
        # Where the unit lets slurm write.
        "PidFile": "/run/slurmdbd/slurmdbd.pid",
        "SlurmUser": "slurm",
        "StorageType": "accounting_storage/mysql",
        # By this name the client library takes the UNIX socket.
        "StorageHost": "localhost",
        "StorageLoc": DATABASE,
        "StorageUser": "slurm",
        "StoragePass": password,
    }
    return render(
        "accounting/slurmdbd.conf",
        cluster=settings.cluster.name,
        parameters={name: file_text(value) for name, value in sorted(values.items())},
    )


def _verifying(conf: Mapping[str, Any]) -> dict[str, list[str]]:
    """AuthAltParameters without those that only slurmctld knows: slurmdbd makes no tokens."""
    verifying = [
        option
        for option in options(conf.get("AuthAltParameters"))
        if option.partition("=")[0] not in {"disable_token_creation", "max_token_lifespan"}
    ]
    return {"AuthAltParameters": verifying} if verifying else {}


def client_conf(settings: Settings) -> str:
    """A slurm.conf with which sacctmgr reaches slurmdbd, whatever slurmctld's is like."""
    conf = {line.name: line.text for line in parameters(settings)}
    names = (
        "AccountingStorageHost", "AccountingStoragePort", "AccountingStorageType", "AuthInfo",
        "AuthType", "ClusterName", "SlurmUser", "SlurmctldHost",
    )  # fmt: skip
    return render(
        "accounting/client.conf", parameters={name: conf[name] for name in names if name in conf}
    )


def reconcile_conf(settings: Settings) -> str:
    """What `reconcile` reads: where things lie, and the options that objects have."""
    shared = set(Limits.model_fields)
    options = {
        "association": list(Limits.model_fields),
        "account": [name for name in Account.model_fields if name not in shared],
        "user": [name for name in User.model_fields if name != "Accounts"],
        "qos": list(Qos.model_fields),
    }
    place = {
        "cluster": settings.cluster.name,
        "client_conf": CLIENT_CONF,
        "objects": OBJECTS,
        "memory": _MEMORY,
        "patience": _PATIENCE,
        "options": options,
    }
    return json.dumps(place, indent=2) + "\n"


def cluster_id_script(settings: Settings) -> str:
    """The script that lets slurmctld and slurmdbd know the cluster by one id."""
    return render(
        "accounting/cluster-id.sh",
        cluster=settings.cluster.name,
        client_conf=CLIENT_CONF,
        database=DATABASE,
        library=LIBRARY,
        state=settings.slurm.StateSaveLocation,
    )


def _chosen(accounting: Accounting) -> dict[str, Any]:
    """What the settings say of slurmdbd.conf, unset ones left out."""
    conf = accounting.slurmdbd.model_dump(exclude={"extra"}, exclude_none=True)
    if not _archives(accounting):
        del conf["ArchiveDir"]
    return conf | accounting.slurmdbd.extra


def _archives(accounting: Accounting) -> bool:
    conf = accounting.slurmdbd.model_dump()
    return any(value is True for name, value in conf.items() if name.startswith("Archive"))
