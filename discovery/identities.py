"""Whether people are the same on all hosts: a job runs by the numbers of the host where it was
submitted, so where these are another's, it runs as somebody else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from remote.contact import ContactError, run_on_hosts, wait_for
from remote.host import Host
from settings import Settings
from templates.rendering import render

#: Seconds within which a host must have answered: names may come from a directory service.
_TIMEOUT = 40.0

#: User → numbers, as text: the uid, or uid and gid.
Numbers = Mapping[str, str]


class IdentityError(Exception):
    """Users whose numbers are others than on the controller, or in the settings, by host."""


def people(settings: Settings) -> list[str]:
    """The declared users of accounting, who are people of the site."""
    return sorted(settings.accounting.users) if settings.accounting is not None else []


def numbers(settings: Settings, folders: Sequence[tuple[str, int, str]] = ()) -> str:
    """A script that says, a line each, why people of the directory cannot be made on a host.

    Args:
        settings: the stack's; they declare people.
        folders: of users and their numbers, home folders that are made there.
    """
    directory = settings.directory
    assert directory is not None
    assert directory.local is not None
    local = directory.local
    return render(
        "directory/numbers.sh",
        groups=sorted(local.every_group()),
        users=[(name, it.uid, directory.home_of(name)) for name, it in sorted(local.users.items())],
        folders=folders,
    )


def differing(numbers: Mapping[str, Numbers], controller: str) -> Iterator[tuple[str, str]]:
    """Host and user, where the user has other numbers than on the controller. Who is known on one
    side only is no difference."""
    there = numbers.get(controller, {})
    for host, here in numbers.items():
        yield from ((host, user) for user in here if there.get(user, here[user]) != here[user])


def compare(settings: Settings, hosts: Mapping[str, Host]) -> None:
    """Ask all hosts at once for the numbers of people. A host that does not answer is passed over:
    what is wrong with it, its own bundles say.

    Raises:
        IdentityError: a user has other numbers on some host than on the controller, or people of
            the directory cannot be made somewhere.
    """
    users, controller = people(settings), settings.roles.controller
    present = [host for host in hosts.values() if not host.lost]
    taken(settings, present)
    if not users or len(present) < 2:
        return
    script = render("discovery/numbers.sh", users=users)
    replies = wait_for(run_on_hosts(present, script, seconds=_TIMEOUT))
    numbers = {
        name: dict(line.split(" ", 1) for line in reply.stdout.splitlines() if " " in line)
        for name, reply in replies.items()
        if not isinstance(reply, ContactError)
    }
    wrong = [
        f"{host}: identities: user {user} has the numbers {numbers[host][user]} "
        f"(uid, gid), and {numbers[controller][user]} on {controller}: jobs would run there as "
        "somebody else"
        for host, user in differing(numbers, controller)
    ]
    if wrong:
        raise IdentityError(
            "\n".join(wrong) + "\nnothing was changed; give each user one number on all hosts "
            "(usermod -u, groupmod -g, or the site's directory), and run again"
        )


def taken(settings: Settings, hosts: Sequence[Host]) -> None:
    """Ask these hosts whether people of the directory can be made there.

    Raises:
        IdentityError: they cannot.
    """
    if settings.directory is None or settings.directory.local is None or not hosts:
        return
    replies = wait_for(run_on_hosts(hosts, numbers(settings), seconds=_TIMEOUT))
    wrong = [
        f"{name}: people: {line}"
        for name, reply in replies.items()
        if not isinstance(reply, ContactError)
        for line in reply.stdout.splitlines()
    ]
    if wrong:
        raise IdentityError(
            "\n".join(wrong) + "\nnothing was changed; give each one number on all hosts (usermod "
            "-u, groupmod -g, and its files), or another in slurmstack:directory, and run again"
        )
