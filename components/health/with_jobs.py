"""What our own health checks run before and after jobs."""

from __future__ import annotations

from collections.abc import Iterator

from settings import Settings
from settings.health import PROGRAM, HealthCheck
from settings.scripts import JobProgram
from templates.rendering import render

ROLE = "health"


def own(settings: Settings) -> HealthCheck | None:
    """The settings of our own checks; None where NHC or nobody looks."""
    check = settings.health_check
    return check if check is not None and check.by == "slurmstack" else None


def with_jobs(settings: Settings) -> Iterator[JobProgram]:
    """What runs before and after jobs; the epilog when others have seen what is left."""
    check = own(settings)
    if check is None or not (check.prolog or check.epilog):
        return
    # The epilog must know whose jobs are here, which the prolog notes.
    yield JobProgram("Prolog", ROLE, render("health/prolog.sh", program=PROGRAM))
    if check.epilog:
        text = render("health/epilog.sh", program=PROGRAM)
        yield JobProgram("Epilog", ROLE, text, after_site=True)
