"""What all settings have in common: frozen once read, and unknown keys are refused."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class Model(BaseModel):
    """Keys in camelCase, as Pulumi's configuration spells them."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True
    )


class SlurmObject(BaseModel):
    """Keys as the file or program that they are for spells them: Slurm's, or a neighbour's."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Path = Annotated[str, Field(pattern=r"^/[A-Za-z0-9._/+-]*[A-Za-z0-9._+-]$")]
Owner = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+:[A-Za-z0-9_.-]+$")]
Mode = Annotated[str, Field(pattern=r"^[0-7]{4}$")]
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:=,/@-]+$")]
