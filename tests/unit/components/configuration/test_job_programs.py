"""What slurmd runs before and after jobs."""

from __future__ import annotations

from components.configuration.job_programs import SOURCES
from settings import parse
from tests.unit.components.test_bundles import settings
from tests.unit.components.test_cluster import bare

FURTHER = {
    "healthCheck": {"by": "slurmstack"},
    "scratch": {"raid": {"path": "/raid", "devices": ["/dev/nvme*n1"], "count": 8}},
}


def test_each_says_where_programs_are() -> None:
    """slurmd gives them no PATH (24.11): a shell then finds what is in /usr/sbin, and `timeout`, as
    whatever else it runs, does not."""
    cluster = parse({**bare(), **settings(), **FURTHER})
    for source in SOURCES:
        programs = list(source(cluster))
        assert programs, source.__module__
        for program in programs:
            assert "\nexport PATH=/usr/sbin:/usr/bin:/sbin:/bin" in program.text, program.file
