"""Programs that Slurm's files name, and ``slurmstack:scripts``: the site's own that are placed.

Where each runs is from slurm.conf(5) and job_container.conf(5) of 24.11.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator

if TYPE_CHECKING:
    from settings.health import HealthCheck
    from settings.jobs import JobContainer
    from settings.slurm_conf import SlurmConf

#: Where slurm.conf is, and what slurmctld reads and serves with it.
BESIDE_SLURM_CONF = "/etc/slurm"

#: Local files are named from here.
PROJECT = Path(__file__).parents[1]

Place = Literal["controller", "compute", "everywhere"]

#: Parameter → the hosts on which its program runs. `everywhere` is where srun does.
PLACES: dict[str, Place] = {
    "Prolog": "compute",
    "Epilog": "compute",
    "TaskProlog": "compute",
    "TaskEpilog": "compute",
    "HealthCheckProgram": "compute",
    "RebootProgram": "compute",
    "UnkillableStepProgram": "compute",
    "InitScript": "compute",
    "CloneNSScript": "compute",
    "CloneNSEpilog": "compute",
    "PrologSlurmctld": "controller",
    "EpilogSlurmctld": "controller",
    "ResvProlog": "controller",
    "ResvEpilog": "controller",
    "SuspendProgram": "controller",
    "ResumeProgram": "controller",
    "ResumeFailProgram": "controller",
    "MailProg": "controller",
    "SlurmctldPrimaryOnProg": "controller",
    "SlurmctldPrimaryOffProg": "controller",
    "SrunProlog": "everywhere",
    "SrunEpilog": "everywhere",
}
#: slurmctld hands these out with slurm.conf where they are named without a folder, so that every
#: node changes over with it (configless; slurm.conf(5), Prolog).
SERVED = ("Prolog", "Epilog")
#: Lua files: always beside slurm.conf; parameter that loads each.
LUA = {"job_submit.lua": "JobSubmitPlugins", "cli_filter.lua": "CliFilterPlugins"}
#: Of job_container.conf, so no parameters of slurm.conf.
JOB_CONTAINER = ("InitScript", "CloneNSScript", "CloneNSEpilog")

ScriptName = Literal[
    "Prolog", "Epilog", "TaskProlog", "TaskEpilog", "HealthCheckProgram", "RebootProgram",
    "UnkillableStepProgram", "PrologSlurmctld", "EpilogSlurmctld", "ResvProlog", "ResvEpilog",
    "SuspendProgram", "ResumeProgram", "ResumeFailProgram", "MailProg", "SlurmctldPrimaryOnProg",
    "SlurmctldPrimaryOffProg", "SrunProlog", "SrunEpilog", "job_submit.lua", "cli_filter.lua",
]  # fmt: skip

_INTERPRETER = re.compile(r"#! *(/\S+)(?: +(\S.*))?")


def _readable(value: str) -> str:
    try:
        text = script_text(value)
    except FileNotFoundError:
        raise ValueError(f"a file, from {PROJECT} on") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"a text file that can be read ({error})") from None
    if not text.strip():
        raise ValueError("a file that is not empty")
    if "\r" in text:
        raise ValueError("a file whose lines end in \\n alone, as Linux reads them (dos2unix)")
    return value


def script_text(value: str) -> str:
    """The local file, with a newline at its end.

    Raises:
        OSError, UnicodeDecodeError: it cannot be read.
    """
    text = (PROJECT / value).read_bytes().decode()
    return text if text.endswith("\n") else text + "\n"


#: A local file's path, from the project folder on.
ScriptFile = Annotated[str, AfterValidator(_readable)]
Scripts = dict[ScriptName, ScriptFile]


def interpreter(text: str) -> str | None:
    """The program that a script's first line names; of `/usr/bin/env NAME` it is NAME."""
    first_line = _INTERPRETER.match(text)
    if first_line is None:
        return None
    words = [word for word in (first_line[2] or "").split() if not word.startswith("-")]
    return words[0] if first_line[1].endswith("/env") and words else first_line[1]


@dataclass(frozen=True)
class JobProgram:
    """A program of this product's own that runs with jobs, beside what the site has there."""

    parameter: Literal["Prolog", "Epilog"]
    #: Whose it is; part of the file's name.
    name: str
    #: The same on every node; what differs from node to node it reads there.
    text: str
    #: Where it stands to the site's own: slurmd runs no further one after one that fails.
    after_site: bool = False

    @property
    def file(self) -> str:
        """Its file's name."""
        return f"{self.parameter}-{self.name}"


@dataclass(frozen=True)
class Program:
    """A file that one of Slurm's names and that must be on its hosts before."""

    parameter: str
    #: As the file names it.
    value: str
    place: Place
    executable: bool = True

    @property
    def words(self) -> str:
        """Its path as the shell takes it, without arguments; of Prolog and Epilog it may be a
        pattern that several match (slurm.conf(5))."""
        path = self.value.split()[0]
        if self.parameter not in SERVED:
            return shlex.quote(path)
        pieces = re.split(r"([*?\[\]]+)", path)
        return "".join(
            piece if index % 2 or not piece else shlex.quote(piece)
            for index, piece in enumerate(pieces)
        )


def named_programs(
    slurm: SlurmConf, container: JobContainer | None, health: HealthCheck | None
) -> tuple[Program, ...]:
    """What these settings name and the hosts are to have already."""
    programs: list[Program] = []
    for parameter, place in PLACES.items():
        value = given(slurm, parameter)
        if parameter in JOB_CONTAINER:
            value = getattr(container, parameter, None)
        if parameter == "HealthCheckProgram" and health is not None:
            value = health.program if health.by == "nhc" and not health.package else None
        if value:
            programs.append(Program(parameter, value, place))
    for name, parameter in LUA.items():
        if "lua" in (given(slurm, parameter) or "").split(","):
            file = f"{BESIDE_SLURM_CONF}/{name}"
            programs.append(Program(parameter, file, "controller", executable=False))
    plugstack = given(slurm, "PlugStackConfig")
    if plugstack:
        programs.append(Program("PlugStackConfig", plugstack, "everywhere", executable=False))
    return tuple(programs)


def given(slurm: SlurmConf, parameter: str) -> str | None:
    """A parameter of slurm.conf as the settings have it, typed or not."""
    extra = {name.lower(): value for name, value in slurm.extra.items()}
    value = getattr(slurm, parameter, None)
    value = extra.get(parameter.lower()) if value is None else value
    if isinstance(value, list | tuple):
        value = ",".join(str(item) for item in value)
    return None if value is None else str(value)
