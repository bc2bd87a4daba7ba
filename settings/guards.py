"""What a change may do to jobs."""

from __future__ import annotations

from settings.base import Model


class Guards(Model):
    """``slurmstack:guards``: refusals that can be lifted."""

    #: A change may end jobs, or leave waiting ones with no place to start.
    allow_job_loss: bool = False
