"""What of slurm.conf and its sister files follows from the nodes: GRES, cgroups, fabric, MPI.

All of these files lie on the controller, which serves them to the nodes (configless).
Pure functions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from components.configuration.job_programs import in_order, job_programs
from settings import Settings
from settings.gres import SHARED, Gres
from settings.hostlist import fold
from settings.model import Hardware
from settings.parameters import Daemon, files_that_restart, restarted_by
from settings.scripts import LUA, SERVED
from settings.slurm_conf import Line, Section
from settings.slurm_value import file_text
from settings.topology import without
from templates.rendering import render

OWN_FILES = "/etc/slurmstack"
#: Scripts of the settings, by the names of the parameters that name them.
SCRIPTS = f"{OWN_FILES}/scripts"
TASK_PROLOG = f"{SCRIPTS}/TaskProlog"
#: Those that slurmctld serves, as slurm.conf names them: beside it.
SERVED_SCRIPTS = {"Prolog": "slurmstack-prolog", "Epilog": "slurmstack-epilog"}
#: Part of every system that systemd runs.
REBOOT = "/usr/sbin/reboot"
#: Plain files that stand for GPUs: slurmd drops a gpu without File from a node's list.
STAND_INS = f"{OWN_FILES}/stand-in"


def gres_types(settings: Settings, hardware: Mapping[str, Hardware]) -> list[str]:
    """GresTypes: the names of all GRES that nodes have, and those that the settings add."""
    of_nodes = {
        resource.Name for resources in gres(settings, hardware).values() for resource in resources
    }
    return sorted({*of_nodes, *options(settings.slurm.GresTypes)})


def parameters(settings: Settings, gres_types: Sequence[str]) -> Iterator[Line]:
    """The lines of slurm.conf that belong to these files and to the nodes.

    Args:
        settings: the stack's.
        gres_types: GresTypes as slurm.conf has them.
    """
    if gres_types:
        yield Line(Section.SCHEDULING, "GresTypes", list(gres_types))
    if settings.topology is not None:
        plugin = f"topology/{settings.topology.plugin}"
        yield Line(Section.COMMUNICATION, "TopologyPlugin", plugin)
    if settings.mpi is not None:
        yield Line(Section.TASKS, "MpiDefault", settings.mpi.default)
        if settings.mpi.ports is not None:
            yield Line(Section.TASKS, "MpiParams", f"ports={settings.mpi.ports}")
    if settings.job_container is not None:
        yield Line(Section.TASKS, "JobContainerType", "job_container/tmpfs")
    people = settings.directory
    if settings.job_container is not None or (people is not None and people.job_access is not None):
        # Each job has a step that holds its /tmp, and into which pam_slurm_adopt puts sessions.
        flags = options(settings.slurm.PrologFlags)
        if "contain" not in [flag.lower() for flag in flags]:
            flags.append("Contain")
        yield Line(Section.TASKS, "PrologFlags", flags)
    if settings.limits is not None and not (
        settings.slurm.PropagateResourceLimits or settings.slurm.PropagateResourceLimitsExcept
    ):
        # What a user may lock at login must not follow the job to the node (RDMA).
        yield Line(Section.LIMITS, "PropagateResourceLimitsExcept", "MEMLOCK,NOFILE")
    if task_prolog(settings) is not None:
        yield Line(Section.TASKS, "TaskProlog", TASK_PROLOG)
    yield from _scripts(settings)
    if settings.health_check is not None:
        check = settings.health_check
        yield Line(Section.NODES, "HealthCheckProgram", check.command)
        yield Line(Section.NODES, "HealthCheckInterval", check.interval)
        yield Line(Section.NODES, "HealthCheckNodeState", list(check.node_state))


def _scripts(settings: Settings) -> Iterator[Line]:
    """What names the scripts of the settings, and what `scontrol reboot` runs."""
    if settings.slurm.RebootProgram is None and "RebootProgram" not in settings.scripts:
        yield Line(Section.NODES, "RebootProgram", REBOOT)
    extra = {name.lower() for name in settings.slurm.extra}
    several = {program.parameter for program in job_programs(settings)}
    for name in SERVED:
        if name in several:
            yield from (Line(Section.TASKS, name, value) for value in _job_programs(name, settings))
    for name in settings.scripts:
        if name in several:
            continue
        if name not in LUA:
            tasks = name in SERVED_SCRIPTS or name.startswith("Task")
            section = Section.TASKS if tasks else Section.NODES
            yield Line(section, name, SERVED_SCRIPTS.get(name, f"{SCRIPTS}/{name}"))
        elif LUA[name].lower() not in extra:
            yield Line(Section.TASKS, LUA[name], "lua")


def _job_programs(parameter: str, settings: Settings) -> Iterator[str]:
    """Prolog or Epilog: ours and the site's, in their order."""
    ours = [program for program in job_programs(settings) if program.parameter == parameter]
    placed = SERVED_SCRIPTS[parameter] if parameter in settings.scripts else None
    return in_order(ours, SCRIPTS, placed or getattr(settings.slurm, parameter))


def options(value: str | None) -> list[str]:
    """The words of a list of options."""
    return value.split(",") if value else []


def gres(settings: Settings, hardware: Mapping[str, Hardware]) -> dict[str, tuple[Gres, ...]]:
    """Compute node → its GRES, for those that have any."""
    return {
        name: resources
        for name, node_class in settings.compute.items()
        if (resources := node_class.gres(hardware[name]))
    }


def served_files(settings: Settings, hardware: Mapping[str, Hardware]) -> dict[str, str]:
    """File beside slurm.conf → its text."""
    texts = _without_hardware(settings)
    of_gres = gres_conf(gres(settings, hardware))
    if of_gres:
        texts["gres.conf"] = of_gres
    return {f"/etc/slurm/{name}": content for name, content in sorted(texts.items())}


def _without_hardware(settings: Settings) -> dict[str, str]:
    """Name → text of those files that the settings alone make."""
    texts = {"cgroup.conf": cgroup_conf(settings)}
    if settings.topology is not None:
        fabric = without(settings.topology, settings.lost)
        texts["topology.conf"] = render("configuration/topology.conf", topology=fabric)
    if settings.mpi is not None and settings.mpi.conf.parameters():
        texts["mpi.conf"] = _parameters(settings.mpi.conf.parameters())
    texts["job_container.conf"] = job_container_conf(settings)
    return {name: content for name, content in texts.items() if content}


def cgroup_conf(settings: Settings) -> str | None:
    """cgroup.conf, where there is one."""
    cgroup = settings.confinement
    return None if cgroup is None else _parameters(cgroup.parameters())


def gres_conf(nodes: Mapping[str, tuple[Gres, ...]]) -> str | None:
    """gres.conf: alike nodes on one line."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for name, resources in nodes.items():
        alike.setdefault(tuple(_gres_lines(resources)), []).append(name)
    groups = [{"nodes": fold(names), "lines": lines} for lines, names in alike.items() if lines]
    return render("configuration/gres.conf", groups=groups) if groups else None


def _gres_lines(resources: tuple[Gres, ...]) -> list[str]:
    lines: list[str] = []
    # One for the node (settings.gres.class_problems): nothing detects what is no GPU, so that
    # `off` at another resource says nothing.
    automatic = [
        resource.AutoDetect
        for resource in resources
        if resource.AutoDetect is not None and (resource.Name == "gpu" or resource.automatic)
    ]
    if automatic:
        lines.append(f"AutoDetect={automatic[0]}")
    for resource, stand_ins in zip(resources, _stand_ins(resources), strict=True):
        device = _device(resource, stand_ins)
        if resource.automatic and not device and resource.Name == "gpu":
            continue  # found by slurmd, and compared with slurm.conf's Type and number
        values: dict[str, Any] = {
            "Name": resource.Name,
            "Type": resource.type,
            "Count": _count(resource, bool(stand_ins)),
            **device,
            "Cores": resource.Cores,
            "Links": resource.Links,
            "Flags": list(resource.Flags)
            or (["CountOnly"] if resource.standIn and resource.Name != "gpu" else None),
        }
        line = " ".join(
            f"{key}={file_text(value)}" for key, value in values.items() if value is not None
        )
        lines.append(line + ("  # a stand-in: no device" if resource.standIn else ""))
    return lines


def _count(resource: Gres, stand_in_files: bool) -> int | str | None:
    """Count of gres.conf: left out where the files of a line say it."""
    if resource.Name in SHARED or resource.MultipleFiles:
        return resource.Count
    return None if resource.devices or stand_in_files else resource.Count or resource.count


def _stand_ins(resources: tuple[Gres, ...]) -> list[tuple[str, ...]]:
    """The files that stand for the GPUs of each entry, numbered through a node."""
    files, number = [], 0
    for resource in resources:
        count = (resource.count or 0) if resource.standIn and resource.Name == "gpu" else 0
        files.append(tuple(f"{STAND_INS}/gpu{number + index}" for index in range(count)))
        number += count
    return files


def stand_ins(resources: tuple[Gres, ...]) -> tuple[str, ...]:
    """All of a node's files that stand for GPUs."""
    return tuple(path for files in _stand_ins(resources) for path in files)


def _range(paths: tuple[str, ...]) -> str:
    """``…/gpu[0-7]``, as gres.conf(5) takes numbered files."""
    stem = paths[0].rstrip("0123456789")
    numbers = [path.removeprefix(stem) for path in paths]
    return paths[0] if len(paths) == 1 else f"{stem}[{numbers[0]}-{numbers[-1]}]"


def _device(resource: Gres, stand_ins: tuple[str, ...]) -> dict[str, str]:
    if stand_ins:
        return {"File": _range(stand_ins)}
    if resource.MultipleFiles:
        return {"MultipleFiles": resource.MultipleFiles}
    if resource.File:
        return {"File": resource.File}
    if resource.pci:
        return {"File": _range(resource.devices)}
    return {}


def _parameters(values: Mapping[str, Any]) -> str:
    return render(
        "configuration/parameters.conf",
        parameters={name: _lower(value) for name, value in values.items()},
    )


def _lower(value: Any) -> str:
    """As Slurm's smaller files write values: yes and no, true and false where said so."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return file_text(value)


def job_container_conf(settings: Settings) -> str | None:
    """job_container.conf, where jobs have a /tmp of their own."""
    container = settings.job_container
    if container is None:
        return None
    values = {name: _lower(value) for name, value in container.parameters().items()}
    if "InitScript" in values:
        # Known to the parser behind a BasePath only (read_jcconf.c).
        values["BasePath"] += f" InitScript={values.pop('InitScript')}"
    return render("configuration/parameters.conf", parameters=values)


def restart_lines(settings: Settings, daemon: Daemon) -> tuple[str, ...]:
    """A line for each file that this daemon reads when it starts and at no other time, and for each
    parameter of gres.conf of which that is true."""
    files = _without_hardware(settings)
    lines = {name: files[name] for name in files_that_restart(daemon) if name in files}
    for name in restarted_by(daemon, "gres.conf"):
        # By class: a node that comes to one brings slurmctld its own when it registers.
        of_classes = [
            (node_class.names[0], resource.Name, resource.type, value)
            for node_class in settings.nodes
            for resource in node_class.Gres or ()
            if (value := getattr(resource, name, None)) is not None
        ]
        if of_classes:
            lines[f"gres.conf {name}"] = repr(of_classes)
    return tuple(
        f"{name}={hashlib.sha256(text.encode()).hexdigest()[:16]}" for name, text in lines.items()
    )


def task_prolog(settings: Settings) -> str | None:
    """The script that gives jobs their environment; None where a plugin does it, since Slurm
    would run the script inside the task's container."""
    if not settings.job_environment or settings.enroot_pyxis is not None:
        return None
    return render(
        "compute/task-prolog.sh", environment=dict(sorted(settings.job_environment.items()))
    )
