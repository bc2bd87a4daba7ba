"""slurm.conf as text, from settings and what the nodes have. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.configuration import served_files
from components.keys.jwt_key_pair import auth_alt
from settings import NodeClass, Settings
from settings.hostlist import expand, fold
from settings.model import Hardware, Partition
from settings.slurm_conf import sections, text
from templates.rendering import render

#: scontrol(1), reconfigure, 24.11: it can change neither the daemons' listening ports nor the
#: authentication mechanism; where daemons find their state and each other is read at start, too.
RESTART_SLURMCTLD = (
    "AuthInfo", "AuthType", "SlurmctldHost", "SlurmctldPort", "SlurmdPort", "StateSaveLocation",
)  # fmt: skip
RESTART_SLURMD = ("AuthInfo", "AuthType", "SlurmdPort", "SlurmdSpoolDir")


def slurm_conf(settings: Settings, hardware: Mapping[str, Hardware]) -> str:
    """The controller's slurm.conf; compute nodes fetch it from there (configless)."""
    return render(
        "configuration/slurm.conf",
        cluster=settings.cluster.name,
        sections=sections(
            settings.slurm,
            {
                **derived(settings),
                **served_files.parameters(settings, _gres_types(settings, hardware)),
            },
        ),
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


def _gres_types(settings: Settings, hardware: Mapping[str, Hardware]) -> set[str]:
    return {one.Name for found in served_files.gres(settings, hardware).values() for one in found}


def derived(settings: Settings) -> dict[str, tuple[str, Any]]:
    """Parameter → (section, value) that follow from other settings."""
    controller = settings.roles.controller
    host = f"{controller}({settings.hosts[controller].address})"
    options = settings.slurm.SlurmctldParameters or []
    options = options.split(",") if isinstance(options, str) else list(options)
    if "enable_configless" not in options:
        options.append("enable_configless")
    return {
        "ClusterName": ("Cluster", settings.cluster.name),
        "SlurmctldHost": ("Cluster", host),
        "SlurmUser": ("Cluster", "slurm"),
        "SlurmctldParameters": ("Communication", options),
        **_accounting(settings),
        **auth_alt(settings),
    }


def _accounting(settings: Settings) -> dict[str, tuple[str, Any]]:
    """What follows from slurmdbd being there, where the settings say nothing else of it.

    Enforcement begins with the first declared user: before that it would shut everyone out.
    """
    if settings.accounting is None:
        return {}
    conf, dbd = settings.slurm, settings.accounting.slurmdbd
    found: dict[str, Any] = {
        "AccountingStorageType": "accounting_storage/slurmdbd",
        "AccountingStorageHost": settings.hosts[settings.roles.controller].address,
    }
    if dbd.DbdPort != type(dbd).model_fields["DbdPort"].default:
        found["AccountingStoragePort"] = dbd.DbdPort
    if conf.AccountingStorageEnforce is None and settings.accounting.users:
        found["AccountingStorageEnforce"] = ["associations", "limits", "qos"]
    if conf.AccountingStorageTRES is None and conf.GresTypes:
        types = conf.GresTypes.split(",") if isinstance(conf.GresTypes, str) else conf.GresTypes
        found["AccountingStorageTRES"] = [f"gres/{name}" for name in types]
    if conf.JobAcctGatherType is None:
        # slurm.conf(5) recommends cgroup; it needs the cgroups that proctrack/cgroup makes.
        kind = "cgroup" if conf.ProctrackType == "proctrack/cgroup" else "linux"
        found["JobAcctGatherType"] = f"jobacct_gather/{kind}"
    return {name: ("Accounting", value) for name, value in found.items()}


def parameters(settings: Settings) -> dict[str, str]:
    """Cluster-wide parameter → text, as slurm.conf has them."""
    return {
        name: value
        for group in sections(settings.slurm, derived(settings)).values()
        for name, value in group.items()
    }


def restart_keys(settings: Settings, names: tuple[str, ...]) -> tuple[str, ...]:
    """``Parameter=value`` lines whose change needs a restart instead of a reconfigure."""
    values = parameters(settings)
    return tuple(f"{name}={values[name]}" for name in names if name in values)


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
        "Gres": [one.text for one in node_class.gres(hardware)] or None,
        **node_class.extra,
    }
    return {name: text(value) for name, value in parameters.items() if value is not None}


def _partition(partition: Partition, settings: Settings) -> dict[str, str]:
    parameters: dict[str, Any] = {
        "Nodes": _present(partition.Nodes, settings),
        "Default": partition.Default,
        "MaxTime": partition.MaxTime,
        # UP is the default: a partition that is up says nothing of it.
        "State": None if partition.State == "UP" else partition.State,
        **partition.extra,
    }
    return {name: text(value) for name, value in parameters.items() if value is not None}


def _present(nodes: str, settings: Settings) -> str:
    """A partition's nodes without lost ones, which slurm.conf has no more; else as written."""
    if nodes == "ALL":
        return nodes
    names = expand(nodes)
    present = [name for name in names if name in settings.compute]
    return nodes if len(present) == len(names) else fold(present)
