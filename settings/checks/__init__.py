"""What no single setting can get wrong alone: mistakes between settings.

A check is a function from a :class:`~settings.checks.draft.Draft` to problems, and a line in
:data:`CHECKS`. What one value gets wrong by itself is refused by its model instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from settings.checks import (
    accounting,
    boot,
    directory,
    fabric,
    hosts,
    images,
    jobs,
    kubernetes,
    monitoring,
    nodes,
    nvidia,
    packages,
    registry,
    releases,
    scratch,
    scripts,
    software,
    storage,
    tokens,
)
from settings.checks.draft import Check, Draft
from settings.problems import Problem

CHECKS: tuple[Check, ...] = (
    hosts.names_and_addresses,
    hosts.controller,
    hosts.login,
    storage.hosts,
    storage.sources,
    storage.places,
    storage.package_files,
    scratch.disks,
    nodes.classes,
    nodes.resources,
    nodes.instances,
    nodes.partitions,
    nodes.canaries,
    jobs.topology,
    jobs.mpi_ports,
    jobs.job_container,
    jobs.given_twice,
    scripts.placed,
    releases.parameters,
    tokens.jwt,
    tokens.rest,
    accounting.objects,
    accounting.password,
    accounting.tres,
    directory.local,
    directory.accounts,
    directory.homes,
    directory.job_access,
    directory.password,
    directory.made_at_login,
    nvidia.nvidia,
    nvidia.nvidia_versions,
    nvidia.nvidia_modules,
    boot.boot,
    fabric.fabric,
    packages.sources,
    packages.pyxis_versions,
    packages.apptainer_starter,
    software.modules,
    software.packages,
    images.host,
    images.folder,
    images.runtimes,
    images.shares,
    registry.host,
    registry.ports,
    registry.secrets,
    monitoring.host,
    monitoring.references,
    kubernetes.pods,
)


def cross_check(parts: Mapping[str, Any], raw: Mapping[str, Any], project: str) -> list[Problem]:
    """All mistakes between those parts of the settings that could be read by themselves."""
    draft = Draft(parts, raw, project)
    return [problem for check in CHECKS for problem in check(draft)]
