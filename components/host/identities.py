"""Service users with the ids of the settings, made before the packages that would choose others."""

from __future__ import annotations

from typing import Literal

from remote.bundle import Group, Part, User
from settings import Settings


def service_user(settings: Settings, name: Literal["slurm", "munge", "slurmrestd"]) -> list[Part]:
    """The user and its group, where the settings give it an id; nothing where they do not."""
    identity = getattr(settings.identities, name)
    if identity.uid is None and identity.gid is None:
        return []
    return [Group(name, identity.gid), User(name, identity.uid, name)]
