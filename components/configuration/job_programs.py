"""Programs of ours that run with jobs, beside the site's own: Prolog and Epilog of components.

slurm.conf takes several lines of each; slurmd runs them in the order of the lines, and none after
one that fails (slurm.conf(5) of 24.05 and later, plugins/prep/script/prep_script_slurmd.c). Of
23.11 it takes one line: there a second one is refused before it is in place
(controller/slurm-conf-is-read.sh).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from components.diagnosis import job_diagnosis
from components.health import with_jobs as health
from components.host import scratch
from components.kubernetes import with_jobs as pods
from settings import Settings
from settings.scripts import JobProgram

#: What components add, in the order in which it is run: what tells of a failure is kept before
#: anything tidies up.
SOURCES: tuple[Callable[[Settings], Iterable[JobProgram]], ...] = (
    job_diagnosis.with_jobs,
    pods.with_jobs,
    health.with_jobs,
    scratch.with_jobs,
)


def job_programs(settings: Settings) -> tuple[JobProgram, ...]:
    """Those of this cluster."""
    return tuple(program for source in SOURCES for program in source(settings))


def in_order(programs: Iterable[JobProgram], folder: str, site: str | None) -> Iterator[str]:
    """The values of one parameter, a line each.

    Args:
        programs: ours of that parameter.
        folder: where they are on the nodes.
        site: what the site has there, if anything.
    """
    programs = list(programs)
    yield from (f"{folder}/{it.file}" for it in programs if not it.after_site)
    if site is not None:
        yield site
    yield from (f"{folder}/{it.file}" for it in programs if it.after_site)
