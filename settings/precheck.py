"""What is asked of a node before it is changed: ``slurmstack:precheck``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from settings.base import Model


class Precheck(Model):
    """``slurmstack:precheck``: what a node must have before it is changed."""

    #: MiB that must be free on / and /var.
    free_disk: Annotated[int, Field(ge=0)] = 2048
    #: Seconds by which `slurmstack check` lets a clock be off.
    clock_skew: Annotated[int, Field(ge=1)] = 60
    #: What is reported and compared in `slurmstack check`, where it is given.
    infiniband_ports: Annotated[int, Field(ge=1)] | None = None
    #: Gb/s.
    infiniband_rate: Annotated[int, Field(ge=1)] | None = None
