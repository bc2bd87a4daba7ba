"""Whom Prometheus asks: the hosts of the settings, as file_sd_config reads them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from remote.host import at
from settings import Settings


def targets(settings: Settings) -> str:
    """Every host that is there. Lost and excluded ones have left."""
    assert settings.monitoring is not None
    port = settings.monitoring.exporter_port
    return _file(
        (at(host.address, port), _labels(name, settings))
        for name, host in settings.members.items()
        if not host.lost
    )


def gpu_targets(settings: Settings) -> str:
    """The dcgm-exporters of nodes with GPUs that are real ones, where the settings name a port."""
    assert settings.monitoring is not None
    port = settings.monitoring.gpu_exporter_port
    nodes = (
        []
        if port is None
        else [name for name in settings.compute if _may_have_gpus(name, settings)]
    )
    return _file(
        (at(settings.hosts[name].address, port or 0), _labels(name, settings)) for name in nodes
    )


def _may_have_gpus(node: str, settings: Settings) -> bool:
    declared = settings.compute[node].Gres
    # Left out, it is what the node is found to have.
    return declared is None or any(gres.Name == "gpu" and not gres.standIn for gres in declared)


def _labels(name: str, settings: Settings) -> dict[str, str]:
    roles = {
        "controller": name == settings.roles.controller,
        "login": name in settings.login,
        "compute": name in settings.compute,
        "storage": any(share.server == name for share in settings.storage.values()),
        "monitoring": name == settings.monitor,
    }
    labels = {
        "instance": name,
        "cluster": settings.cluster.name,
        "role": ",".join(role for role, has in roles.items() if has),
    }
    if name in settings.compute:
        node_class = settings.compute[name]
        labels["class"] = node_class.name or node_class.hosts
        if name in settings.rollout.turns(list(node_class.names))[0] and settings.rollout.canary:
            labels["canary"] = "true"
    return labels


def _file(entries: Iterable[tuple[str, Mapping[str, str]]]) -> str:
    """One line a target, so that a node that joins is one line of a diff."""
    lines = [
        json.dumps({"targets": [target], "labels": labels})
        for target, labels in sorted(entries, key=lambda entry: entry[1]["instance"])
    ]
    return "[\n" + ",\n".join(lines) + "\n]\n" if lines else "[]\n"
