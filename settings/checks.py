"""What no single setting can get wrong alone: mistakes between settings."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

from pydantic import SecretStr

from settings import jwt, node_checks, release_checks, rest
from settings.accounting import Accounting
from settings.accounting_checks import accounting_problems, tres_problems
from settings.containers import apptainer_problems, enroot_pyxis_problems
from settings.gres import beyond_cores, contradictions
from settings.hostlist import expand
from settings.model import Hardware, Host, NodeClass, Partition, Roles
from settings.packages import package_problems
from settings.problems import Problem
from settings.slurm_conf import SlurmConf

_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


def cross_check(parts: Mapping[str, Any], raw: Mapping[str, Any], project: str) -> list[Problem]:
    """All mistakes between those parts of the settings that could be read by themselves."""
    hosts: dict[str, Host] | None = parts.get("hosts")
    roles: Roles | None = parts.get("roles")
    nodes: tuple[NodeClass, ...] | None = parts.get("nodes", () if "nodes" not in raw else None)
    partitions: dict[str, Partition] = parts.get("partitions", {})
    problems: list[Problem] = []
    if hosts is not None:
        problems += _names_and_addresses(hosts, f"{project}:hosts")
    if hosts is not None and roles is not None:
        problems += _controller(hosts, roles, f"{project}:roles.controller")
    placed = [(_index(raw, node_class), node_class) for node_class in nodes or ()]
    if nodes is not None:
        named = _named(raw.get("hosts"))
        problems += _node_classes(placed, named, roles, f"{project}:nodes")
        problems += _partitions(partitions, nodes, bool(raw.get("nodes")), f"{project}:partitions")
    problems += node_checks.problems(parts, raw, project)
    problems += release_checks.problems(parts, placed, project)
    problems += _tokens_and_rest(parts, raw, project)
    accounting: Accounting | None = parts.get("accounting")
    if accounting is not None:
        problems += accounting_problems(accounting, partitions, parts.get("slurm"), project)
    elif "accountingPassword" in raw and "accounting" not in raw:
        problems.append(
            Problem(f"{project}:accountingPassword", f"{project}:accounting with it", "none")
        )
    problems += tres_problems(accounting, partitions, parts.get("slurm", SlurmConf()), project)
    if "packages" in parts:
        problems += package_problems(parts["packages"], hosts, f"{project}:packages")
    if "enroot_pyxis" in parts:
        problems += enroot_pyxis_problems(parts["enroot_pyxis"], f"{project}:enrootPyxis")
    if "apptainer" in parts:
        problems += apptainer_problems(parts["apptainer"], f"{project}:apptainer")
    return problems


def _tokens_and_rest(
    parts: Mapping[str, Any], raw: Mapping[str, Any], project: str
) -> Iterator[Problem]:
    tokens: jwt.Jwt | None = parts.get("jwt")
    api: rest.Rest | None = parts.get("rest")
    key: SecretStr | None = parts.get("rest_tls_key")
    slurm: SlurmConf | None = parts.get("slurm")
    if tokens is not None:
        yield from jwt.problems(tokens, f"{project}:jwt")
        for name in ("AuthAltTypes", "AuthAltParameters"):
            if slurm is not None and getattr(slurm, name) is not None:
                yield Problem(
                    f"{project}:slurm.{name}", f"nothing, as {project}:jwt gives it", "a value"
                )
    if "rest" in raw and "jwt" not in raw:
        yield Problem(f"{project}:jwt", f"tokens, which {project}:rest needs", "nothing")
    if "restTlsKey" in raw and "rest" not in raw:
        yield Problem(f"{project}:rest", f"a certificate for {project}:restTlsKey", "nothing")
    hosts, roles = parts.get("hosts", {}), parts.get("roles")
    if api is not None and roles is not None and roles.controller in hosts:
        names = rest.names(api, roles.controller, hosts[roles.controller].address)
        # A key that cannot be read is reported already.
        if key is not None or "restTlsKey" not in raw:
            yield from rest.problems(api, key, names, f"{project}:rest", f"{project}:restTlsKey")


def _named(hosts: Any) -> set[str]:
    """Every host that is named, also where the rest of its entry is wrong."""
    names: set[str] = set()
    for text in hosts if isinstance(hosts, Mapping) else ():
        try:
            names.update(expand(str(text)))
        except ValueError:
            names.add(str(text))
    return names


def _index(raw: Mapping[str, Any], node_class: NodeClass) -> int:
    """Where a class stands in the list that the settings give, wrong entries counted."""
    entries = raw.get("nodes", ())
    wanted = [entry.get("hosts") if isinstance(entry, Mapping) else None for entry in entries]
    return wanted.index(node_class.hosts)


def _names_and_addresses(hosts: Mapping[str, Host], path: str) -> Iterator[Problem]:
    for name, host in hosts.items():
        if not _LABEL.fullmatch(name):
            expected = "a host name (letters, digits and hyphens)"
            if all(_LABEL.fullmatch(label) for label in name.split(".")):
                short = name.partition(".")[0]
                expected = (
                    f"the host's name without its domain, {short}, by which slurmd knows itself "
                    "(address takes the whole name)"
                )
            yield Problem(f"{path}.{name}", expected, repr(name))
        if not _is_address(host.address):
            yield Problem(f"{path}.{name}.address", "an IP address or a host name", host.address)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        # Digits and dots that are no address are a slip of the finger, not a host name.
        return not re.fullmatch(r"[0-9.]+", text) and all(
            _LABEL.fullmatch(label) for label in text.split(".")
        )
    return True


def _controller(hosts: Mapping[str, Host], roles: Roles, path: str) -> Iterator[Problem]:
    if roles.controller not in hosts:
        yield Problem(path, "a host of slurmstack:hosts", roles.controller)
    elif hosts[roles.controller].lost:
        yield Problem(path, "a host that is not lost", f"{roles.controller}, marked lost")


def _node_classes(
    placed: Sequence[tuple[int, NodeClass]],
    named: Set[str],
    roles: Roles | None,
    path: str,
) -> Iterator[Problem]:
    owner: dict[str, int] = {}
    for index, node_class in placed:
        where = f"{path}[{index}]"
        for name in node_class.names:
            if name not in named:
                yield Problem(f"{where}.hosts", "hosts of slurmstack:hosts", name)
            if name in owner:
                yield Problem(
                    f"{where}.hosts",
                    "each node in one class",
                    f"{name}, already in [{owner[name]}]",
                )
            owner.setdefault(name, index)
            if roles is not None and name == roles.controller:
                yield Problem(
                    f"{where}.hosts", "each node in one role", f"{name}, which is the controller"
                )
        if node_class.hardware is not None:
            yield from hardware_problems(node_class, node_class.hardware, where)


def hardware_problems(
    node_class: NodeClass, hardware: Hardware, where: str, node: str | None = None
) -> Iterator[Problem]:
    """Where a class asks for more than the hardware, declared or discovered, has."""
    of_node = f" of {node}" if node else ""
    if node_class.RealMemory is not None and node_class.RealMemory > hardware.RealMemory:
        yield Problem(
            f"{where}.RealMemory",
            f"at most the {hardware.RealMemory} MiB{of_node}",
            f"{node_class.RealMemory} MiB",
        )
    offered = node_class.RealMemory or hardware.RealMemory
    if node_class.MemSpecLimit is not None and node_class.MemSpecLimit >= offered:
        yield Problem(
            f"{where}.MemSpecLimit",
            f"less than the {offered} MiB offered{of_node}",
            f"{node_class.MemSpecLimit} MiB",
        )
    threads = (
        hardware.Boards
        * hardware.SocketsPerBoard
        * hardware.CoresPerSocket
        * hardware.ThreadsPerCore
    )
    cores = threads // hardware.ThreadsPerCore
    if hardware.CPUs not in (threads, cores):
        yield Problem(
            f"{where}.hardware.CPUs",
            "Boards × SocketsPerBoard × CoresPerSocket × ThreadsPerCore "
            f"= {threads}, or {cores} cores",
            f"{hardware.CPUs}{of_node}",
        )
    yield from beyond_cores(node_class.Gres or (), threads, where)
    yield from contradictions(node_class.Gres or (), hardware.gpus, where, node)


def _partitions(
    partitions: Mapping[str, Partition], nodes: tuple[NodeClass, ...], declared: bool, path: str
) -> Iterator[Problem]:
    known = {name for node_class in nodes for name in node_class.names}
    for title, partition in partitions.items():
        where = f"{path}.{title}"
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", title) or title.upper() == "DEFAULT":
            yield Problem(where, "a partition name (letters, digits, _ . -)", repr(title))
        if partition.Nodes == "ALL" and not declared:
            yield Problem(f"{where}.Nodes", "compute nodes", "none in slurmstack:nodes")
        if partition.Nodes != "ALL":
            unknown = [name for name in expand(partition.Nodes) if name not in known]
            if unknown:
                yield Problem(
                    f"{where}.Nodes", "compute nodes of slurmstack:nodes", ", ".join(unknown)
                )
    defaults = [title for title, partition in partitions.items() if partition.Default]
    if len(defaults) > 1:
        yield Problem(path, "at most one partition with Default: true", ", ".join(defaults))
