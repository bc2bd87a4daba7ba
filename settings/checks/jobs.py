"""How jobs run: the fabric, MPI, job containers, and parameters that follow from other keys."""

from __future__ import annotations

from collections.abc import Iterator

from settings import topology as fabrics
from settings.checks.draft import Draft
from settings.jobs import JobContainer, Mpi, port_range
from settings.problems import Problem
from settings.topology import Topology

#: slurm.conf parameter → the key that it follows from, once that key is there.
_FOLLOWS = {
    "TopologyPlugin": "topology",
    "MpiDefault": "mpi",
    "MpiParams": "mpi",
    "JobContainerType": "jobContainer",
    "HealthCheckProgram": "healthCheck",
    "HealthCheckInterval": "healthCheck",
    "HealthCheckNodeState": "healthCheck",
    "TaskProlog": "jobEnvironment",
    "AccountingStorageHost": "accounting",
    "AccountingStoragePort": "accounting",
}


def topology(draft: Draft) -> Iterator[Problem]:
    """The fabric has every compute node, and no other; lost nodes may be left in it."""
    declared = draft.part("topology", Topology)
    if declared is None or not draft.nodes:
        return
    hosts = draft.hosts or {}
    lost = {name for node_class in draft.nodes for name in node_class.names if name in hosts} - {
        *draft.compute
    }
    yield from fabrics.problems(
        fabrics.without(declared, lost), draft.compute, draft.path("topology")
    )


def mpi_ports(draft: Draft) -> Iterator[Problem]:
    """MPI's ports are none of Slurm's."""
    mpi, slurm, path = draft.part("mpi", Mpi), draft.slurm, draft.path("mpi")
    if mpi is None or mpi.ports is None:
        return
    first, last = port_range(mpi.ports)
    for name in ("SlurmctldPort", "SlurmdPort", "SrunPortRange"):
        ports = getattr(slurm, name)
        if ports is not None:
            low, _, high = ports.partition("-")
            if int(low) <= last and first <= int(high or low):
                yield Problem(f"{path}.ports", f"a range without {name}, {ports}", mpi.ports)


def job_container(draft: Draft) -> Iterator[Problem]:
    """Jobs' own folders are not among slurmd's."""
    container = draft.part("job_container", JobContainer)
    if container is not None and container.BasePath == draft.slurm.SlurmdSpoolDir:
        path = draft.path("jobContainer.BasePath")
        yield Problem(path, "another folder than SlurmdSpoolDir", container.BasePath)


def given_twice(draft: Draft) -> Iterator[Problem]:
    """What follows from a key of its own is not given among Slurm's parameters, too."""
    slurm, raw, project = draft.slurm, draft.raw, draft.project
    for name, key in _FOLLOWS.items():
        if key in raw and getattr(slurm, name, None) is not None:
            yield Problem(f"{project}:slurm.{name}", f"it in {project}:{key} alone", "both")
        if key in raw and name in slurm.extra:
            yield Problem(
                f"{project}:slurm.extra.{name}", f"nothing: it follows from {project}:{key}", "both"
            )
