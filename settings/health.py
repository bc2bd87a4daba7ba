"""Node health checks: ``slurmstack:healthCheck``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from settings.base import Model, Path, matching


class HealthCheck(Model):
    """``slurmstack:healthCheck``: LBNL Node Health Check, run by slurmd."""

    #: The package that has it; left out, it is on the nodes already.
    package: (
        Annotated[str, matching(r"[a-z0-9][a-z0-9+.-]+", "the name of a package, such as lbnl-nhc")]
        | None
    ) = None
    program: Path = "/usr/sbin/nhc"
    #: Seconds.
    interval: Annotated[int, Field(ge=60, le=65533)] = 300
    node_state: tuple[Literal["ALLOC", "ANY", "CYCLE", "IDLE", "NONDRAINED_IDLE", "MIXED"], ...] = (
        "ANY",
        "CYCLE",
    )
    #: Further lines of nhc.conf, after those that follow from the settings.
    rules: tuple[
        Annotated[
            str,
            matching(
                r"[^\n]*\|\|[^\n]*",
                "a line of nhc.conf, such as * || check_fs_mount_rw -f /scratch",
            ),
        ],
        ...,
    ] = ()
