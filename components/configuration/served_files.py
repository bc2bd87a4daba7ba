"""What of slurm.conf and its sister files follows from the nodes: GRES, cgroups, fabric, MPI.

All of these files lie on the controller, which serves them to the nodes (configless).
Pure functions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from settings import Settings
from settings.gres import Gres
from settings.hostlist import fold
from settings.jobs import Cgroup
from settings.model import Hardware
from settings.slurm_conf import text
from settings.topology import without
from templates.rendering import render

OWN_FILES = "/etc/slurmstack"
TASK_PROLOG = f"{OWN_FILES}/task-prolog"
#: Plain files that stand for GPUs: slurmd drops a gpu without File from a node's list.
STAND_INS = f"{OWN_FILES}/stand-in"
_TASKS = "Processes and tasks"
_NODES = "Nodes and power"


def parameters(settings: Settings, gres_types: set[str]) -> dict[str, tuple[str, Any]]:
    """slurm.conf parameter → (section, value).

    Args:
        settings: the stack's.
        gres_types: the names of all GRES that nodes have.
    """
    found: dict[str, tuple[str, Any]] = {}
    if gres_types:
        found["GresTypes"] = (
            "Scheduling and selection",
            sorted({*gres_types, *options(settings.slurm.GresTypes)}),
        )
    if settings.topology is not None:
        found["TopologyPlugin"] = ("Communication", f"topology/{settings.topology.plugin}")
    if settings.mpi is not None:
        found["MpiDefault"] = (_TASKS, settings.mpi.default)
        if settings.mpi.ports is not None:
            found["MpiParams"] = (_TASKS, f"ports={settings.mpi.ports}")
    if settings.job_container is not None:
        flags = options(settings.slurm.PrologFlags)
        if "contain" not in [flag.lower() for flag in flags]:
            flags.append("Contain")
        found["JobContainerType"] = (_TASKS, "job_container/tmpfs")
        found["PrologFlags"] = (_TASKS, flags)
    if settings.limits is not None and not (
        settings.slurm.PropagateResourceLimits or settings.slurm.PropagateResourceLimitsExcept
    ):
        # What a user may lock at login must not follow the job to the node (RDMA).
        found["PropagateResourceLimitsExcept"] = ("Limits", "MEMLOCK,NOFILE")
    if task_prolog(settings) is not None:
        found["TaskProlog"] = (_TASKS, TASK_PROLOG)
    if settings.health_check is not None:
        found["HealthCheckProgram"] = (_NODES, settings.health_check.program)
        found["HealthCheckInterval"] = (_NODES, settings.health_check.interval)
        found["HealthCheckNodeState"] = (_NODES, list(settings.health_check.node_state))
    return found


def options(value: str | list[str] | None) -> list[str]:
    """A list of options, however it was written."""
    return value.split(",") if isinstance(value, str) else list(value or [])


def gres(settings: Settings, hardware: Mapping[str, Hardware]) -> dict[str, tuple[Gres, ...]]:
    """Compute node → its GRES, for those that have any."""
    return {
        name: found
        for name, node_class in settings.compute.items()
        if (found := node_class.gres(hardware[name]))
    }


def served_files(settings: Settings, hardware: Mapping[str, Hardware]) -> dict[str, str]:
    """File beside slurm.conf → its text."""
    found: dict[str, str | None] = {
        "cgroup.conf": cgroup_conf(settings),
        "gres.conf": gres_conf(gres(settings, hardware)),
    }
    if settings.topology is not None:
        fabric = without(settings.topology, settings.lost)
        found["topology.conf"] = render("configuration/topology.conf", topology=fabric)
    if settings.mpi is not None and settings.mpi.conf.parameters():
        found["mpi.conf"] = _parameters(settings.mpi.conf.parameters())
    found["job_container.conf"] = job_container_conf(settings)
    return {f"/etc/slurm/{name}": content for name, content in sorted(found.items()) if content}


def cgroup_conf(settings: Settings) -> str | None:
    """cgroup.conf; none where nothing was said and nothing in slurm.conf asks for cgroups."""
    said = settings.cgroup
    slurm = settings.slurm
    uses = slurm.ProctrackType == "proctrack/cgroup" or "task/cgroup" in options(slurm.TaskPlugin)
    if said is None and not uses:
        return None
    return _parameters((said or Cgroup()).parameters())


def gres_conf(nodes: Mapping[str, tuple[Gres, ...]]) -> str | None:
    """gres.conf: alike nodes on one line."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for name, found in nodes.items():
        alike.setdefault(tuple(_gres_lines(found)), []).append(name)
    groups = [{"nodes": fold(names), "lines": lines} for lines, names in alike.items() if lines]
    return render("configuration/gres.conf", groups=groups) if groups else None


def _gres_lines(found: tuple[Gres, ...]) -> list[str]:
    lines: list[str] = []
    automatic = [one.AutoDetect for one in found if one.AutoDetect is not None]
    if automatic:
        lines.append(f"AutoDetect={automatic[0]}")
    for one, stand_ins in zip(found, _stand_ins(found), strict=True):
        device = _device(one, stand_ins)
        if one.AutoDetect not in (None, "off") and not device and one.Name == "gpu":
            continue  # found by slurmd, and compared with slurm.conf's Type and number
        values: dict[str, Any] = {
            "Name": one.Name,
            "Type": one.type,
            "Count": None if one.devices or stand_ins else one.count,
            **device,
            "Cores": one.Cores,
            "Links": one.Links,
            "Flags": list(one.Flags)
            or (["CountOnly"] if one.standIn and one.Name != "gpu" else None),
        }
        line = " ".join(
            f"{key}={text(value)}" for key, value in values.items() if value is not None
        )
        lines.append(line + ("  # a stand-in: no device" if one.standIn else ""))
    return lines


def _stand_ins(found: tuple[Gres, ...]) -> list[tuple[str, ...]]:
    """The files that stand for the GPUs of each entry, numbered through a node."""
    files, number = [], 0
    for one in found:
        count = (one.count or 0) if one.standIn and one.Name == "gpu" else 0
        files.append(tuple(f"{STAND_INS}/gpu{number + index}" for index in range(count)))
        number += count
    return files


def stand_ins(found: tuple[Gres, ...]) -> tuple[str, ...]:
    """All of a node's files that stand for GPUs."""
    return tuple(path for files in _stand_ins(found) for path in files)


def _range(paths: tuple[str, ...]) -> str:
    """``…/gpu[0-7]``, as gres.conf(5) takes numbered files."""
    stem = paths[0].rstrip("0123456789")
    numbers = [path.removeprefix(stem) for path in paths]
    return paths[0] if len(paths) == 1 else f"{stem}[{numbers[0]}-{numbers[-1]}]"


def _device(one: Gres, stand_ins: tuple[str, ...]) -> dict[str, str]:
    if stand_ins:
        return {"File": _range(stand_ins)}
    if one.MultipleFiles:
        return {"MultipleFiles": one.MultipleFiles}
    if one.File:
        return {"File": one.File}
    if one.pci:
        return {"File": _range(one.devices)}
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
    return text(value)


def job_container_conf(settings: Settings) -> str | None:
    """job_container.conf, where jobs have a /tmp of their own."""
    container = settings.job_container
    return None if container is None else _parameters(container.parameters())


def slurmd_restart_lines(settings: Settings) -> tuple[str, ...]:
    """What slurmd reads when it starts and at no other time (job_container.conf(5))."""
    content = job_container_conf(settings)
    if content is None:
        return ()
    return (f"job_container.conf={hashlib.sha256(content.encode()).hexdigest()[:16]}",)


def task_prolog(settings: Settings) -> str | None:
    """The script that gives jobs their environment; None where a plugin does it, since Slurm
    would run the script inside the task's container."""
    if not settings.job_environment or settings.enroot_pyxis is not None:
        return None
    return render(
        "compute/task-prolog.sh", environment=dict(sorted(settings.job_environment.items()))
    )
