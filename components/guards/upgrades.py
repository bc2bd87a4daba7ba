"""What is looked at, and kept, before a Slurm of another major release comes to the controller's
host. Each role that brings one of Slurm's packages there has these guards: what all packages stand
on comes with the first role, be it that of the tokens, and is no news to the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from components.accounting.database import DUMP, TABLES
from components.packages.slurm_packages import release
from remote.bundle import Guard
from settings import Settings
from templates.rendering import render

#: The guard that dumps slurmdbd's database before it is converted.
DUMPED = "database-dumped"
#: Major release → the oldest whose state and database it reads (upgrades.html of 25.11,
#: Compatibility Window).
_READS: Mapping[str, str] = {
    "23.02": "21.08",
    "23.11": "22.05",
    "24.05": "23.02",
    "24.11": "23.02",
    "25.05": "23.11",
    "25.11": "24.05",
}
#: Where slurmctld's state is kept, and how many copies.
_COPIES, _KEPT = "/var/backups/slurmctld", 3


def before_upgrade(settings: Settings) -> Iterator[Guard]:
    """Refuses a release that does not read what is there, since it could neither start nor give
    way to the old one; then keeps the state and the database that there is no way back to."""
    state, accounting = settings.slurm.StateSaveLocation, settings.accounting
    versions = release(settings)
    folders = [state, *([] if accounting is None else [TABLES])]
    yield Guard(
        "no-release-skipped",
        render("guards/no-release-skipped.sh", folders=folders, reads=_READS, **versions),
    )
    if settings.packages.copy_state_before_upgrade:
        copied = render(
            "guards/state-copied.sh", state=state, folder=_COPIES, keep=_KEPT, **versions
        )
        yield Guard("state-copied", copied, timeout=600)
    if accounting is not None and accounting.dump.before_upgrade:
        dumped = render("guards/database-dumped.sh", dump=DUMP, tables=TABLES, **versions)
        yield Guard(DUMPED, dumped, timeout=3600)
