"""LocalPeople: the users and groups of ``slurmstack:directory.local``, alike on every host.

A job runs by the numbers of the host where it was submitted. Whoever is not declared any more is
locked on every host; nobody is removed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

import pulumi

from components.assembly import Assembly
from components.bundle_resource import HostRole
from components.directory.login import keys_read
from components.host import host_baseline
from discovery.identities import numbers
from remote.bundle import Bundle, Command, Directory, File, Guard, Part, Unit
from settings import Settings
from settings.directory import Directory as DirectorySettings
from settings.directory import Local
from templates.rendering import render

ROLE = "people"
DECLARED = "/etc/slurmstack/people"
PROGRAM = "/usr/local/lib/slurmstack-people/people"
#: Whom this role has made here, or found and taken on.
MADE = "/var/lib/slurmstack-people/made"
KEYS = "/etc/ssh/slurmstack-keys"
SSHD_CONF = "/etc/ssh/sshd_config.d/slurmstack-people.conf"


class LocalPeople(HostRole):
    """People on one host. The controller is first: it knows whether one who leaves has jobs."""

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        settings, head = assembly.settings, assembly.controller
        if settings.directory is None or settings.directory.local is None:
            return
        for text in mismatches(settings):
            pulumi.log.warn(text)
        for name in sorted(assembly.hosts, key=lambda name: name != head):
            needs = assembly.on(name, host_baseline.ROLE)
            if name != head:
                needs += assembly.on(head, ROLE)
            cls(name, assembly, people_bundle(name, settings), needs)


def mismatches(settings: Settings) -> list[str]:
    """What people of the directory and users of accounting do not have of each other."""
    directory, accounting = settings.directory, settings.accounting
    if directory is None or directory.local is None or accounting is None:
        return []
    people, users = directory.local.users, accounting.users
    told = []
    strangers = sorted(users.keys() - people.keys()) if directory.sssd is None else []
    if strangers:
        told.append(
            f"users of slurmstack:accounting that slurmstack:directory.local does not have: "
            f"{', '.join(strangers)}; their logins must come from elsewhere"
        )
    if users and (idle := sorted(people.keys() - users.keys())):
        told.append(
            f"people of slurmstack:directory.local without an account: {', '.join(idle)}; "
            "Slurm refuses their jobs"
        )
    return told


def people_bundle(node: str, settings: Settings) -> Bundle:
    """What a host gets."""
    directory = settings.directory
    assert directory is not None
    local = directory.local
    assert local is not None
    script = numbers(settings, [(it.name, it.uid, it.folder) for it in homes(node, settings)])
    return Bundle(
        node,
        ROLE,
        [
            *_leavers(node, settings, local),
            Guard("numbers-are-free", render("directory/numbers-are-free.sh", numbers=script)),
            Directory("/etc/slurmstack"),
            Directory(str(PurePosixPath(PROGRAM).parent)),
            File(DECLARED, declared(node, settings)),
            File(
                PROGRAM,
                render("directory/people.sh", declared=DECLARED, made=MADE),
                mode="0755",
            ),
            *_keys(node, local, settings),
            Command(
                "people", f"exec {PROGRAM} apply\n", on=(DECLARED,), probe=f"exec {PROGRAM} check\n"
            ),
            Command("forget-people", f"rm -f {MADE} {MADE}.new\n", when="remove"),
            *_sshd(local),
        ],
    )


def _leavers(node: str, settings: Settings, local: Local) -> list[Part]:
    if node != settings.roles.controller or settings.guards.allow_job_loss:
        return []
    script = render("directory/leavers.sh", made=MADE, users=sorted(local.users))
    return [Guard("leavers-have-no-jobs", script, timeout=90)]


@dataclass(frozen=True)
class HomeFolder:
    """A folder that a host makes for a person."""

    name: str
    folder: str
    uid: int
    gid: int


def declared(node: str, settings: Settings) -> str:
    """The file of users and groups, each after those that it needs."""
    directory = settings.directory
    assert directory is not None
    local = directory.local
    assert local is not None
    users = [
        {
            "name": name,
            "uid": user.uid,
            "gid": local.gid(name),
            "home": directory.home_of(name),
            "shell": user.shell,
            "full_name": user.full_name or "",
        }
        for name, user in sorted(local.users.items())
    ]
    return render(
        "directory/people",
        groups=sorted(local.every_group()),
        users=users,
        filled=[(name, local.members(name)) for name in sorted(local.groups)],
        homes=homes(node, settings),
    )


def homes(node: str, settings: Settings) -> list[HomeFolder]:
    """The home folders that this host makes where they are missing: each host its own, those of a
    share the share's server, or the controller where that is none of ours."""
    directory = settings.directory
    if directory is None or directory.local is None:
        return []
    local, at = directory.local, directory.home
    share = settings.storage[at.share] if at.share else None
    if share is not None and node != (
        share.server if share.server in settings.hosts else settings.roles.controller
    ):
        return []
    return [
        HomeFolder(name, folder, user.uid, local.gid(name) or user.uid)
        for name, user in sorted(local.users.items())
        if (folder := _here(name, node, directory, settings)) is not None
    ]


def _here(name: str, node: str, directory: DirectorySettings, settings: Settings) -> str | None:
    """Where a home folder lies on the host that makes it; None for one beside the share."""
    home = directory.home_of(name)
    if directory.home.share is None:
        return home
    share = settings.storage[directory.home.share]
    if not home.startswith(f"{share.mounted_at}/"):
        return None
    if share.path is None or node != share.server:
        return home
    return share.path + home.removeprefix(share.mounted_at)


def _keys(node: str, local: Local, settings: Settings) -> list[Part]:
    """Keys lie in a folder of root's: people's own files stay theirs, and a share need not be
    there for a login."""
    keyed = {name: user.ssh_keys for name, user in local.users.items() if user.ssh_keys}
    if not keyed:
        return []
    before = ".ssh/authorized_keys .ssh/authorized_keys2"
    ours = f"{before} {KEYS}/%u"
    return [
        *keys_read(node, settings, "authorizedkeysfile", before, ours, SSHD_CONF),
        Directory(KEYS),
        *(File(f"{KEYS}/{name}", "\n".join((*keys, ""))) for name, keys in keyed.items()),
        Directory(str(PurePosixPath(SSHD_CONF).parent)),
        File(SSHD_CONF, render("directory/sshd-people.conf", files=ours)),
    ]


def _sshd(local: Local) -> list[Part]:
    if not any(user.ssh_keys for user in local.users.values()):
        return []
    return [Unit("ssh.service", enabled=None, running=None, reload_on=(SSHD_CONF,))]
