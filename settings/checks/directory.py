"""People: numbers and names that are somebody else's, and what else names them."""

from __future__ import annotations

from collections.abc import Iterator

from settings.accounting import Accounting, User
from settings.checks.draft import Draft
from settings.directory import OF_PEOPLE, Directory, Local
from settings.identities import Identities
from settings.problems import Problem
from settings.storage import Share

#: Others of the system's are found on the hosts, with other numbers.
_SYSTEM = frozenset(("root", *Identities.model_fields))


def local(draft: Draft) -> Iterator[Problem]:
    """Each number and each name is one person's or one group's, and no service's."""
    directory = draft.part("directory", Directory)
    people = directory.local if directory else None
    if people is None:
        return
    path = draft.path("directory.local")
    yield from _names(people, path)
    yield from _numbers(people, draft, path)
    for name, user in people.users.items():
        where = f"{path}.users.{name}"
        if user.group is not None and user.gid is not None:
            yield Problem(f"{where}.gid", "group or gid, not both", "both")
        for key, names in (("group", [user.group] if user.group else []), ("groups", user.groups)):
            if unknown := sorted(set(names) - people.groups.keys()):
                yield Problem(f"{where}.{key}", f"groups of {path}.groups", ", ".join(unknown))


def _names(people: Local, path: str) -> Iterator[Problem]:
    for kind, names in (("users", people.users), ("groups", people.groups)):
        for name in names:
            if name in _SYSTEM:
                yield Problem(f"{path}.{kind}.{name}", "a name that is not the system's", name)
    for name, user in people.users.items():
        if user.group is None and name in people.groups:
            expected = f"another name, or group: {name}: {name} has a group of that name already"
            yield Problem(f"{path}.groups.{name}", expected, name)


def _numbers(people: Local, draft: Draft, path: str) -> Iterator[Problem]:
    """Each number once: also between people and the services of slurmstack:identities."""
    services = [*draft.parts.get("identities", Identities())]
    uids = {service.uid: f"service user {name}" for name, service in services}
    gids = {service.gid: f"service group {name}" for name, service in services}
    for name, user in people.users.items():
        yield from _of_people(user.uid, f"{path}.users.{name}.uid")
        if user.uid in uids:
            yield Problem(f"{path}.users.{name}.uid", _ONCE, f"{user.uid}, of {uids[user.uid]}")
        uids.setdefault(user.uid, f"user {name}")
    for name, gid in people.every_group():
        own = name in people.users and people.users[name].group is None
        where = f"{path}.users.{name}.gid" if own else f"{path}.groups.{name}.gid"
        if not own or people.users[name].gid is not None:
            yield from _of_people(gid, where)
        if gid in gids:
            yield Problem(where, _ONCE, f"{gid}, of {gids[gid]}")
        gids.setdefault(gid, f"group {name}")


def _of_people(number: int, where: str) -> Iterator[Problem]:
    if not any(number in numbers for numbers in OF_PEOPLE):
        expected = "a number from 1000 to 60000, or 65536 and above: others are the system's"
        yield Problem(where, expected, str(number))


_ONCE = "each number once"


def accounts(draft: Draft) -> Iterator[Problem]:
    """A person's account is one of accounting's, and is said in one place."""
    directory = draft.part("directory", Directory)
    people = directory.local if directory else None
    if people is None:
        return
    known, path = draft.path("accounting"), draft.path("directory.local.users")
    accounting = draft.part("accounting", Accounting)
    for name, user in people.users.items():
        where = f"{path}.{name}.account"
        if user.account is None:
            continue
        if accounting is None:
            if "accounting" not in draft.raw:
                yield Problem(where, f"{known}, which has accounts", user.account)
            continue
        if user.account not in accounting.accounts:
            yield Problem(where, f"an account of {known}.accounts", user.account)
        if name in accounting.users:
            yield Problem(where, f"it here or in {known}.users.{name}, not in both", "both")


def homes(draft: Draft) -> Iterator[Problem]:
    """Home folders on a share are on one that is mounted where they are."""
    directory = draft.part("directory", Directory)
    if directory is None or directory.home.share is None:
        return
    path, home = draft.path("directory.home"), directory.home
    shares: dict[str, Share] = draft.part("storage", dict) or {}
    share = shares.get(directory.home.share)
    if share is None:
        if directory.home.share not in (draft.raw.get("storage") or {}):
            yield Problem(
                f"{path}.share", f"a share of {draft.path('storage')}", directory.home.share
            )
    elif not f"{home.root}/".startswith(f"{share.mounted_at}/"):
        yield Problem(f"{path}.root", f"a folder in {share.mounted_at}, the share's", home.root)


def job_access(draft: Draft) -> Iterator[Problem]:
    """What pam_slurm_adopt needs of Slurm is not taken away by the settings."""
    directory = draft.part("directory", Directory)
    if directory is None or directory.job_access is None:
        return
    slurm, where = draft.slurm, draft.path("directory.jobAccess")
    value = str({key.lower(): it for key, it in slurm.extra.items()}.get("usepam", "0"))
    if value.lower() in ("1", "yes", "true"):
        # Jobs would go through PAM, too.
        yield Problem(draft.path("slurm.extra.UsePAM"), f"no UsePAM beside {where}", value)


def password(draft: Draft) -> Iterator[Problem]:
    """The directory's password has a name that binds with it, and the name a password."""
    path, secret = draft.path("directory.sssd.bindDn"), draft.path("directoryBindPassword")
    directory, given = draft.part("directory", Directory), "directoryBindPassword" in draft.raw
    if directory is None and "directory" in draft.raw:
        return
    sssd = directory.sssd if directory else None
    named = sssd is not None and sssd.bind_dn is not None
    if given and not named:
        yield Problem(secret, f"{path} with it", "none")
    if named and not given:
        yield Problem(secret, f"the password of {path}", "none")


def made_at_login(draft: Draft) -> Iterator[Problem]:
    """Homes that are made at a login are those of a directory's people."""
    directory = draft.part("directory", Directory)
    if directory is not None and directory.home.mkhomedir and directory.sssd is None:
        where = draft.path("directory.home.mkhomedir")
        yield Problem(where, f"{draft.path('directory.sssd')} with it", "none")


def with_accounts(parts: dict[str, object]) -> None:
    """Make an association of each person's account.

    Args:
        parts: attribute of ``Settings`` → its value, as read; changed in place.
    """
    directory, accounting = parts.get("directory"), parts.get("accounting")
    if not isinstance(directory, Directory) or not isinstance(accounting, Accounting):
        return
    people = directory.local.users if directory.local else {}
    made = {
        name: User.model_validate({"Accounts": [user.account]})
        for name, user in people.items()
        if user.account is not None and name not in accounting.users
    }
    if made:
        parts["accounting"] = accounting.model_copy(update={"users": {**accounting.users, **made}})
