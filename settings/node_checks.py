"""Mistakes between the settings of nodes, their roles, and how jobs run on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from settings import topology
from settings.gres import SHARED
from settings.hostlist import expand
from settings.jobs import JobContainer, Mpi, port_range
from settings.model import Host, NodeClass, Partition, Roles
from settings.problems import Problem
from settings.slurm_conf import SlurmConf
from settings.storage import Share

#: slurm.conf parameter → the key that it follows from, once that key is there.
_FOLLOWS = {
    "TopologyPlugin": "topology",
    "MpiDefault": "mpi",
    "MpiParams": "mpi",
    "JobContainerType": "jobContainer",
    "HealthCheckProgram": "healthCheck",
    "HealthCheckInterval": "healthCheck",
    "HealthCheckNodeState": "healthCheck",
}


def problems(parts: Mapping[str, Any], raw: Mapping[str, Any], project: str) -> Iterator[Problem]:
    """All of them, of the parts that could be read by themselves."""
    hosts: dict[str, Host] = parts.get("hosts", {})
    roles: Roles | None = parts.get("roles")
    nodes: tuple[NodeClass, ...] = parts.get("nodes", ())
    slurm: SlurmConf = parts.get("slurm", SlurmConf())
    compute = [
        name
        for node_class in nodes
        for name in node_class.names
        if name in hosts and not hosts[name].lost
    ]
    if roles is not None and hosts:
        yield from _roles(roles, hosts, compute, f"{project}:roles")
    yield from _gres(nodes, project)
    yield from _partitions(parts.get("partitions", {}), hosts, compute, f"{project}:partitions")
    if "topology" in parts and nodes:
        lost = {name for node_class in nodes for name in node_class.names} - {*compute}
        fabric = topology.without(parts["topology"], {name for name in lost if name in hosts})
        yield from topology.problems(fabric, compute, f"{project}:topology")
    if "mpi" in parts:
        yield from _mpi(parts["mpi"], slurm, f"{project}:mpi")
    if "job_container" in parts:
        yield from _job_container(parts["job_container"], slurm, f"{project}:jobContainer")
    yield from _said_twice(slurm, raw, project)
    if "job_environment" in parts and "TaskProlog" in slurm.extra:
        yield Problem(
            f"{project}:slurm.extra.TaskProlog", "no TaskProlog beside jobEnvironment", "both"
        )
    yield from _storage(parts.get("storage", {}), hosts, compute, f"{project}:storage")


def _roles(
    roles: Roles, hosts: Mapping[str, Host], compute: list[str], path: str
) -> Iterator[Problem]:
    for name in expand(roles.login) if roles.login else ():
        if name not in hosts:
            yield Problem(f"{path}.login", "hosts of slurmstack:hosts", name)
        elif name in compute:
            yield Problem(f"{path}.login", "hosts that are no compute nodes", name)
        elif name == roles.controller:
            yield Problem(f"{path}.login", "other hosts than the controller", name)


def _gres(nodes: tuple[NodeClass, ...], project: str) -> Iterator[Problem]:
    # gres.conf(5): a GRES with device files on one node has them on all.
    filed: dict[str, bool] = {}
    for index, node_class in enumerate(nodes):
        names = [gres.Name for gres in node_class.Gres or ()]
        for position, gres in enumerate(node_class.Gres or ()):
            where = f"{project}:nodes[{index}].Gres[{position}]"
            if gres.Name in SHARED and "gpu" not in names:
                yield Problem(where, f"a gpu beside {gres.Name}, which is a part of one", "none")
            if gres.text.rpartition(":")[0] in [
                other.text.rpartition(":")[0] for other in (node_class.Gres or ())[:position]
            ]:
                yield Problem(where, "each GRES once in a class", f"{gres.text} again")
            real = not gres.standIn
            if gres.Name == "gpu" and filed.setdefault(gres.Name, real) != real:
                yield Problem(
                    where,
                    "devices behind every gpu of the cluster, or stand-ins for all (gres.conf(5))",
                    "both",
                )


def _partitions(
    partitions: Mapping[str, Partition], hosts: Mapping[str, Host], compute: list[str], path: str
) -> Iterator[Problem]:
    for title, partition in partitions.items():
        if partition.Nodes == "ALL":
            continue
        names = expand(partition.Nodes)
        if names and all(name in hosts and hosts[name].lost for name in names):
            yield Problem(f"{path}.{title}.Nodes", "a node that is not lost", partition.Nodes)


def _mpi(mpi: Mpi, slurm: SlurmConf, path: str) -> Iterator[Problem]:
    if mpi.ports is None:
        return
    first, last = port_range(mpi.ports)
    for name, port in (("SlurmctldPort", slurm.SlurmctldPort), ("SlurmdPort", slurm.SlurmdPort)):
        if first <= port <= last:
            yield Problem(f"{path}.ports", f"a range without the {name} {port}", mpi.ports)
    if slurm.SrunPortRange is not None:
        try:
            low, high = port_range(slurm.SrunPortRange)
        except ValueError as error:
            yield Problem(
                path.replace(":mpi", ":slurm.SrunPortRange"), str(error), slurm.SrunPortRange
            )
            return
        if low <= last and first <= high:
            yield Problem(
                f"{path}.ports", f"none of SrunPortRange {slurm.SrunPortRange}", mpi.ports
            )


def _job_container(container: JobContainer, slurm: SlurmConf, path: str) -> Iterator[Problem]:
    if container.BasePath == slurm.SlurmdSpoolDir:
        yield Problem(f"{path}.BasePath", "another folder than SlurmdSpoolDir", container.BasePath)


def _said_twice(slurm: SlurmConf, raw: Mapping[str, Any], project: str) -> Iterator[Problem]:
    for name, key in _FOLLOWS.items():
        if key in raw and getattr(slurm, name) is not None:
            yield Problem(f"{project}:slurm.{name}", f"it in slurmstack:{key} alone", "both")


def _storage(
    shares: Mapping[str, Share], hosts: Mapping[str, Host], compute: list[str], path: str
) -> Iterator[Problem]:
    taken: dict[str, str] = {}
    for name, share in shares.items():
        for client in expand(share.clients) if share.clients != "ALL" else ():
            if client not in hosts:
                yield Problem(f"{path}.{name}.clients", "hosts of slurmstack:hosts", client)
        if share.server in compute:
            yield Problem(f"{path}.{name}.server", "a host that runs no jobs", share.server)
        if share.server in hosts and hosts[share.server].lost:
            yield Problem(f"{path}.{name}.server", "a host that is not lost", share.server)
        if share.mounted_at in taken:
            yield Problem(
                f"{path}.{name}.mount",
                "each place once",
                f"{share.mounted_at}, already of {taken[share.mounted_at]}",
            )
        taken.setdefault(share.mounted_at, name)
