"""The numbers of the service users, which hosts of a cluster must agree on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from settings.base import Model

#: Debian's and Ubuntu's static id of the user and the group slurm (package
#: slurm-wlm-basic-plugins, postinst); SchedMD's packages make no user.
SLURM_ID = 64030

#: As adduser(8) and the kernel take them; 65534 is nobody.
Id = Annotated[int, Field(ge=1, le=4294967294)]


class Identity(Model):
    """The ids of one user and of the group of the same name; left out, the package chooses."""

    uid: Id | None = None
    gid: Id | None = None


class SlurmIdentity(Identity):
    """The user of slurmctld, slurmdbd and the controller's files. slurmd takes orders from the
    uid that it resolves this name to (slurm.conf(5), SlurmUser), so it is never left open."""

    uid: Id = SLURM_ID
    gid: Id = SLURM_ID


class Identities(Model):
    """``slurmstack:identities``.

    munged and slurmrestd never send their own uid to another host: their ids are compared only
    where they are given here.
    """

    slurm: SlurmIdentity = SlurmIdentity()
    munge: Identity = Identity()
    slurmrestd: Identity = Identity()

    def __iter__(self) -> Iterator[tuple[str, Identity]]:  # type: ignore[override]
        """Each service user with its ids."""
        for name in type(self).model_fields:
            yield name, getattr(self, name)
