"""What is not done, and why."""

from __future__ import annotations


class Refused(Exception):
    """It was not done: what was found, and the remedy; nothing was changed."""
