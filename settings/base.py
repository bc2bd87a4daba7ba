"""What all settings have in common: frozen once read, and unknown keys are refused."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from settings.hostlist import host_list


class Model(BaseModel):
    """Keys in camelCase, as Pulumi's configuration spells them."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True
    )


class SlurmObject(BaseModel):
    """Keys as the file or program that they are for spells them: Slurm's, or a neighbour's."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def matching(pattern: str, expected: str) -> AfterValidator:
    """Text of this form as a whole; a report says in words, with an example, what is expected."""

    def match(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(expected)
        return value

    return AfterValidator(match)


def certificates(text: str) -> str:
    """Certificates in PEM, and nothing else."""
    one = r"-----BEGIN CERTIFICATE-----[\sA-Za-z0-9+/=]+-----END CERTIFICATE-----"
    if not re.fullmatch(rf"(\s*{one})+\s*", text):
        raise ValueError("certificates in PEM, and nothing else")
    return text.strip() + "\n"


Path = Annotated[
    str,
    matching(
        r"/[A-Za-z0-9._/+-]*[A-Za-z0-9._+-]",
        "a whole path of letters, digits and . _ + -, such as /srv/data",
    ),
]
HostName = Annotated[
    str, matching(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}", "a host of slurmstack:hosts, such as ctl")
]
#: A host list in Slurm's notation.
HostList = Annotated[str, AfterValidator(host_list)]
Owner = Annotated[
    str, matching(r"[A-Za-z0-9_.-]+:[A-Za-z0-9_.-]+", "a user and a group, such as root:root")
]
Mode = Annotated[
    str, matching(r"[0-7]{4}", 'a mode of four octal digits in quotes, such as "0755"')
]
Word = Annotated[
    str, matching(r"[A-Za-z0-9._:=,/@-]+", "an option without blanks, such as noatime or vers=4.2")
]


#: systemd.time(7), "Calendar Events".
CalendarEvent = Annotated[
    str,
    matching(
        r"[A-Za-z0-9*:.,/~ -]+",
        "a time as systemd.time(7) writes calendar events, such as *-*-* 02:15:00",
    ),
]
