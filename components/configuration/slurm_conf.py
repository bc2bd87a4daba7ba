"""slurm.conf as text, from settings and what the nodes have. Pure functions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from components.configuration import served_files
from components.keys.jwt_key_pair import auth_alt
from settings import NodeClass, Settings
from settings.checks.accounting import named_tres
from settings.gres import node_gres
from settings.hostlist import expand, left_of
from settings.model import Hardware, Partition
from settings.parameters import NODE, Daemon, restarted_by
from settings.slurm_conf import Line, Section, lines
from settings.slurm_value import file_text
from templates.rendering import render


def slurm_conf(settings: Settings, hardware: Mapping[str, Hardware]) -> str:
    """The controller's slurm.conf; compute nodes fetch it from there (configless)."""
    every = every_line(settings, hardware)
    return render(
        "configuration/slurm.conf",
        cluster=settings.cluster.name,
        sections=[
            (title, list(group)) for title, group in groupby(every, lambda line: line.section)
        ],
        nodes=[
            {
                "name": name,
                "parameters": _node(settings.hosts[name].address, node_class, hardware[name]),
            }
            for name, node_class in settings.compute.items()
        ],
        partitions=[
            {"name": name, "parameters": _partition(partition, settings)}
            for name, partition in sorted(settings.partitions.items())
        ],
    )


def every_line(settings: Settings, hardware: Mapping[str, Hardware]) -> list[Line]:
    """The cluster-wide lines of slurm.conf."""
    return lines(settings.slurm, derived(settings, served_files.gres_types(settings, hardware)))


def derived(settings: Settings, gres_types: Sequence[str]) -> Iterator[Line]:
    """The lines that follow from other settings.

    Args:
        settings: the stack's.
        gres_types: GresTypes as slurm.conf has them.
    """
    controller = settings.roles.controller
    host = f"{controller}({settings.hosts[controller].address})"
    options = served_files.options(settings.slurm.SlurmctldParameters)
    if "enable_configless" not in options:
        options.append("enable_configless")
    yield Line(Section.CLUSTER, "ClusterName", settings.cluster.name)
    yield Line(Section.CLUSTER, "SlurmctldHost", host)
    yield Line(Section.CLUSTER, "SlurmUser", "slurm")
    yield Line(Section.COMMUNICATION, "SlurmctldParameters", options)
    # A partition that a person set DOWN stays so when slurmctld reads slurm.conf again; a State
    # that the settings change is set by the controller's bundle (on_node/node_states.py).
    flags = served_files.options(settings.slurm.ReconfigFlags)
    if not {"KeepPartInfo", "KeepPartState"} & {*flags}:
        flags.append("KeepPartState")
    yield Line(Section.NODES, "ReconfigFlags", flags)
    for name, value in _accounting(settings, gres_types).items():
        yield Line(Section.ACCOUNTING, name, value)
    for name, value in auth_alt(settings).items():
        yield Line(Section.AUTHENTICATION, name, value)
    yield from served_files.parameters(settings, gres_types)


def _accounting(settings: Settings, gres_types: Sequence[str]) -> dict[str, Any]:
    """What follows from slurmdbd being there, where the settings say nothing else of it.

    Enforcement begins with the first declared user: before that it would shut everyone out.
    """
    if settings.accounting is None:
        # slurmctld ends with a fatal error at weights of a TRES that it does not track.
        named = named_tres(None, settings.partitions, settings.slurm)
        if settings.slurm.AccountingStorageTRES is not None or not named:
            return {}
        return {"AccountingStorageTRES": sorted(named)}
    conf, dbd = settings.slurm, settings.accounting.slurmdbd
    values: dict[str, Any] = {
        "AccountingStorageType": "accounting_storage/slurmdbd",
        "AccountingStorageHost": settings.hosts[settings.roles.controller].address,
    }
    if dbd.DbdPort != type(dbd).model_fields["DbdPort"].default:
        values["AccountingStoragePort"] = dbd.DbdPort
    if conf.AccountingStorageEnforce is None and settings.accounting.users:
        values["AccountingStorageEnforce"] = ["associations", "limits", "qos"]
    tracked = {f"gres/{name}" for name in gres_types}
    tracked |= {*named_tres(settings.accounting, settings.partitions, settings.slurm)}
    if conf.AccountingStorageTRES is None and tracked:
        values["AccountingStorageTRES"] = sorted(tracked)
    if conf.JobAcctGatherType is None:
        # slurm.conf(5) recommends cgroup; it needs the cgroups that proctrack/cgroup makes.
        kind = "cgroup" if conf.ProctrackType == "proctrack/cgroup" else "linux"
        values["JobAcctGatherType"] = f"jobacct_gather/{kind}"
    return values


def parameters(settings: Settings) -> list[Line]:
    """The cluster-wide lines of slurm.conf, but for GRES of the nodes."""
    return lines(settings.slurm, derived(settings, ()))


def restart_keys(settings: Settings, daemon: Daemon, node: str | None = None) -> tuple[str, ...]:
    """``Parameter=value`` lines whose change needs a restart of a daemon, since a reconfigure does
    not bring it there.

    Args:
        settings: the stack's.
        daemon: whose restart.
        node: the compute node that it runs on, whose own line counts, too.
    """
    names = restarted_by(daemon)
    keys = [f"{line.name}={line.text}" for line in parameters(settings) if line.name in names]
    if node in settings.compute:
        names = restarted_by(daemon, NODE)
        extra = settings.compute[node].extra
        keys += [f"{name}={extra[name]}" for name in names if name in extra]
    return tuple(keys)


def together(settings: Settings) -> str:
    """Tells one set of values from another that slurmctld and slurmd must be started with alike:
    ports and authentication. Between one start and the other they do not hear each other."""
    both = {*restart_keys(settings, "slurmctld")} & {*restart_keys(settings, "slurmd")}
    for name in settings.compute:
        # slurmctld knows a node's own port at once.
        own = {*restart_keys(settings, "slurmd", name)} - {*restart_keys(settings, "slurmd")}
        both |= {f"{name} {key}" for key in own}
    return hashlib.sha256("\n".join(sorted(both)).encode()).hexdigest()[:12]


def _node(address: str, node_class: NodeClass, hardware: Hardware) -> dict[str, str]:
    parameters: dict[str, Any] = {
        "NodeAddr": address,
        "CPUs": hardware.CPUs,
        "Boards": hardware.Boards,
        "SocketsPerBoard": hardware.SocketsPerBoard,
        "CoresPerSocket": hardware.CoresPerSocket,
        "ThreadsPerCore": hardware.ThreadsPerCore,
        "RealMemory": node_class.RealMemory or hardware.RealMemory,
        "MemSpecLimit": node_class.MemSpecLimit,
        "Features": list(node_class.Features) or None,
        "Weight": node_class.Weight,
        "Gres": node_gres(node_class.gres(hardware)) or None,
        **node_class.extra,
    }
    return {name: file_text(value) for name, value in parameters.items() if value is not None}


def _partition(partition: Partition, settings: Settings) -> dict[str, str]:
    parameters: dict[str, Any] = {
        "Nodes": _present(partition.Nodes, settings),
        "Default": partition.Default,
        "MaxTime": partition.MaxTime,
        # UP is the default: a partition that is up says nothing of it.
        "State": None if partition.State == "UP" else partition.State,
        **partition.extra,
    }
    return {name: file_text(value) for name, value in parameters.items() if value is not None}


def _present(nodes: str, settings: Settings) -> str:
    """A partition's nodes without lost ones, which slurm.conf has no more; else as written."""
    if nodes == "ALL":
        return nodes
    return left_of(nodes, set(expand(nodes)) - settings.compute.keys())
