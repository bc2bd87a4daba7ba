"""A look at each host now and then: ``slurmstack:driftCheck``."""

from __future__ import annotations

from settings.base import CalendarEvent, Model


class DriftCheck(Model):
    """``slurmstack:driftCheck``; present, each host compares itself with what was applied to it."""

    #: Ten minutes at random are added, so that not all hosts look at once.
    on_calendar: CalendarEvent = "hourly"
