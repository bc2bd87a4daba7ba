"""Why jobs failed: ``slurmstack:diagnosis``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from settings.base import Model, Path


class Diagnosis(Model):
    """``slurmstack:diagnosis``; present, each job leaves a line of figures, and a failed one its
    evidence; users ask for their own jobs. ``slurmstack diagnose`` works without."""

    #: Days that the evidence of a job is kept on its nodes, and its report on the controller.
    keep_days: Annotated[int, Field(ge=1, le=3650)] = 30
    #: MiB of all jobs together, on each host; the oldest go first.
    keep_megabytes: Annotated[int, Field(ge=16, le=1048576)] = 512
    #: Where users have the command ``diagnose_training_failure.py``.
    command_folder: Path = "/opt/slurm/bin"
