"""Programs: what Slurm's files name is on the hosts before a slurm.conf names it.

slurm.conf reaches the nodes at once (configless), and a node whose Prolog is not there drains with
its first job. So this role stands before the controller's. A script that the settings no longer
have stays on the host until nothing is placed there any more: the nodes learn of its end later.
Prolog and Epilog that are placed go to the controller alone, which serves them with slurm.conf.
"""

from __future__ import annotations

from components.assembly import Assembly
from components.bundle_resource import HostRole
from components.configuration.job_programs import job_programs
from components.configuration.served_files import OWN_FILES, SCRIPTS, SERVED_SCRIPTS, task_prolog
from components.host import host_baseline
from components.host.lua import lua_is_read
from remote.bundle import Bundle, Check, Directory, File, Part
from settings import Settings
from settings.hostlist import expand
from settings.scripts import (
    BESIDE_SLURM_CONF,
    LUA,
    PLACES,
    Place,
    Program,
    ScriptName,
    interpreter,
    named_programs,
    script_text,
)
from templates.rendering import render

ROLE = "programs"


class Programs(HostRole):
    """The programs of one host: those of the settings, and a look at those that it is to have."""

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        for name in assembly.hosts:
            bundle = programs_bundle(name, assembly.settings)
            if bundle.parts:
                cls(name, assembly, bundle, assembly.on(name, host_baseline.ROLE))


def programs_bundle(node: str, settings: Settings) -> Bundle:
    """What a host gets; no parts where Slurm's files name no program that runs there."""
    placed: dict[str, str] = {
        name: script_text(path)
        for name, path in settings.scripts.items()
        if name in PLACES and name not in SERVED_SCRIPTS and _runs_on(node, settings, PLACES[name])
    }
    if _runs_on(node, settings, "compute"):
        environment = task_prolog(settings)
        if environment is not None:
            placed["TaskProlog"] = environment
        placed |= {program.file: program.text for program in job_programs(settings)}
    parts: list[Part] = []
    if placed:
        parts += [Directory(OWN_FILES), Directory(SCRIPTS)]
        parts += [
            File(f"{SCRIPTS}/{name}", text, mode="0755", lasting=True)
            for name, text in placed.items()
        ]
    named = [program for program in _named(settings) if _runs_on(node, settings, program.place)]
    interpreters = _interpreters(node, settings)
    if named or interpreters:
        script = render(
            "configuration/programs-are-there.sh", programs=named, interpreters=interpreters
        )
        # What is on a share is there at once, or not at all.
        parts.append(Check("programs-are-there", script, timeout=5))
    return Bundle(node, ROLE, parts)


def controller_parts(settings: Settings) -> list[Part]:
    """What slurmctld reads beside slurm.conf, and serves."""
    beside = _beside_slurm_conf(settings)
    lua = tuple(path for name, path in beside.items() if name in LUA)
    return [
        *(
            File(path, script_text(settings.scripts[name]), mode="0644" if name in LUA else "0755")
            for name, path in beside.items()
        ),
        *([lua_is_read(lua)] if lua else []),
    ]


def served(settings: Settings) -> tuple[str, ...]:
    """Those paths: slurmctld takes them up when it reads slurm.conf."""
    return tuple(_beside_slurm_conf(settings).values())


def _beside_slurm_conf(settings: Settings) -> dict[ScriptName, str]:
    return {
        name: f"{BESIDE_SLURM_CONF}/{SERVED_SCRIPTS.get(name, name)}"
        for name in settings.scripts
        if name in SERVED_SCRIPTS or name in LUA
    }


def _named(settings: Settings) -> tuple[Program, ...]:
    return named_programs(settings.slurm, settings.job_container, settings.health_check)


def _runs_on(node: str, settings: Settings, place: Place) -> bool:
    """Whether it does, or did before it was lost: what that host has is forgotten, not removed."""
    head = node == settings.roles.controller
    if place == "controller":
        return head
    compute = any(node in one.names for one in settings.nodes)
    login = settings.roles.login is not None and node in expand(settings.roles.login)
    return compute or (place == "everywhere" and (head or login))


def _interpreters(node: str, settings: Settings) -> dict[str, str]:
    """Script → what runs it, for the scripts that are placed and run on this host."""
    programs = {
        name: interpreter(script_text(path))
        for name, path in settings.scripts.items()
        if name in PLACES and _runs_on(node, settings, PLACES[name])
    }
    return {name: program for name, program in sorted(programs.items()) if program}
