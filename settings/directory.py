"""People of the cluster: ``slurmstack:directory``.

``local`` has users and groups made alike on every host, ``sssd`` those of a directory of the
site's. Who may enter a compute node is said by ``jobAccess``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from settings.base import Model, Path, matching
from settings.sssd import Sssd

#: As useradd(8) takes them, without what a shell or sshd_config(5) would read otherwise.
_NAME = r"[a-z_][a-z0-9_-]{0,31}"
#: 60001 to 65535 are systemd's, nobody's and none; below 1000 are the system's (adduser.conf(5)).
OF_PEOPLE = (range(1000, 60001), range(65536, 4294967295))

Name = Annotated[
    str, matching(_NAME, "a name in lower case (a-z, 0-9, _ and -, 32 at most), such as anna")
]
#: Of a directory of the site's, too: ``domain users`` cannot be said to PAM.
OtherName = Annotated[
    str,
    matching(r"[A-Za-z_][A-Za-z0-9_.@-]{0,63}", "the name of a user or a group, without blanks"),
]
Key = Annotated[
    str,
    matching(
        r"(ssh-(ed25519|rsa)|ecdsa-sha2-nistp(256|384|521)|sk-(ssh-ed25519|ecdsa-sha2-nistp256)"
        r"@openssh\.com) AAAA[A-Za-z0-9+/]+={0,3}( [^\x00-\x1f\x7f]*)?",
        "a public key on one line, such as ssh-ed25519 AAAA… anna@desk",
    ),
]
FullName = Annotated[
    str, matching(r"[^\x00-\x1f\x7f:,]{1,80}", "a name on one line, without colons and commas")
]


Id = Annotated[int, Field(ge=1000, le=4294967294)]


class Group(Model):
    """One entry of ``local.groups``."""

    gid: Id


class User(Model):
    """One entry of ``local.users``: a person who has a login on every host."""

    uid: Id
    #: Of the person's own group, which has the person's name; left out, the uid.
    gid: Id | None = None
    #: The primary group, one of ``local.groups``, in place of an own one.
    group: Name | None = None
    #: Further groups, of ``local.groups``.
    groups: tuple[Name, ...] = ()
    full_name: FullName | None = None
    shell: Path = "/bin/bash"
    #: Left out, a folder of this name in ``home.root``.
    home: Path | None = None
    ssh_keys: tuple[Key, ...] = ()
    #: An account of slurmstack:accounting, in which the person may run jobs.
    account: str | None = None


class Local(Model):
    """``local``: users and groups with the same numbers on every host."""

    groups: dict[Name, Group] = Field(default_factory=dict)
    users: dict[Name, User] = Field(default_factory=dict)

    def gid(self, name: str) -> int | None:
        """The number of a user's primary group; None where its group is not declared."""
        user = self.users[name]
        if user.group is None:
            return user.gid or user.uid
        group = self.groups.get(user.group)
        return group.gid if group else None

    def every_group(self) -> Iterator[tuple[str, int]]:
        """Each group with its number: the declared ones and the people's own."""
        for name, group in self.groups.items():
            yield name, group.gid
        for name, user in self.users.items():
            if user.group is None:
                yield name, user.gid or user.uid

    def members(self, group: str) -> list[str]:
        """Who is in a group beside those whose primary group it is."""
        return sorted(name for name, user in self.users.items() if group in user.groups)


class Home(Model):
    """``home``: where home folders are."""

    root: Path = "/home"
    #: A share of slurmstack:storage that has them; left out, each host has its own.
    share: str | None = None
    #: A home that is missing is made when somebody of ``sssd`` logs in (pam_mkhomedir).
    mkhomedir: bool = False


class JobAccess(Model):
    """``jobAccess``; present, a person enters a compute node while a job of theirs runs there, by
    pam_slurm_adopt, and no longer. root always gets in, and so does the user that ``ssh`` names."""

    #: Who gets in always, too.
    users: tuple[OtherName, ...] = ()
    groups: tuple[OtherName, ...] = ()


class Directory(Model):
    """``slurmstack:directory``."""

    local: Local | None = None
    sssd: Sssd | None = None
    home: Home = Home()
    job_access: JobAccess | None = None

    def home_of(self, name: str) -> str:
        """A local user's home folder."""
        user = self.local.users[name] if self.local else None
        return (user.home if user else None) or f"{self.home.root}/{name}"
