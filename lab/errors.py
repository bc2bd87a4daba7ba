"""The one exception of the lab."""

from __future__ import annotations


class LabError(Exception):
    """Something the lab needs is missing or failed; the text ends in what to do about it."""
