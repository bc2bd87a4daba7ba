"""The groups of users, as this host knows them."""

from __future__ import annotations

import grp
import os
import pwd


def groups_of(user: str) -> frozenset[str]:
    """The groups of a user by name; none where the host does not know the user."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return frozenset()
    names = set()
    for number in os.getgrouplist(user, entry.pw_gid):
        try:
            names.add(grp.getgrgid(number).gr_name)
        except KeyError:
            continue
    return frozenset(names)
