"""slurmutils' readers of Slurm's files, as they are but for one thing: before each line they hold
their own schema against JSON's schema of schemas, half a second of processor time a line."""

from __future__ import annotations

from typing import Any

from jsonschema import Draft202012Validator
from slurmutils import cgroupconfig, gresconfig, slurmconfig, slurmdbdconfig
from slurmutils.core import base

__all__ = ["cgroupconfig", "gresconfig", "slurmconfig", "slurmdbdconfig"]


def _validate(instance: Any, schema: dict[str, Any]) -> None:
    Draft202012Validator(schema).validate(instance)


base.validate = _validate  # type: ignore[attr-defined]
